"""The only place that imports from `kernels`, so that a rename stays one line."""

from kernels import gather_rows, masked_attention, scatter_rows, select_tokens

__all__ = ["gather_rows", "masked_attention", "scatter_rows", "select_tokens"]
