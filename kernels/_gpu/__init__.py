"""Launchers of the Triton kernels: one file per operator; serve `impl="triton"`."""
