"""C++ on the processor: sources, their build, and one file per operator; serves `impl="cpu"`."""
