"""The version of the distribution; `kernels` and `reid` report the same one."""

__version__ = "0.1.0"
