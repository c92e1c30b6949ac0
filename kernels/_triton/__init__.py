"""Triton kernels: jit code only, imported when a kernel is launched."""
