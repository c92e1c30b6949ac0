"""Plain torch on any device: one file per operator; serves `impl="reference"`."""
