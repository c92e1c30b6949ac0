"""Sparse vision transformers (see the modules of this package)."""
