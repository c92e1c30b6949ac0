"""Attention and token-compaction operators: exact, differentiable, on GPU and CPU.

Tensors in, tensors out: nothing here knows about models, images or data sets. Importing the package
needs neither triton nor a GPU.
"""

import warnings
from importlib import metadata

from kernels.gather import gather_layer_norm, gather_rows, scatter_rows
from kernels.masked_attention import masked_attention
from kernels.ragged_attention import ragged_attention
from kernels.token_select import TokenSelection, select_tokens

__version__ = "0.1.0"

__all__ = [
    "TokenSelection",
    "gather_layer_norm",
    "gather_rows",
    "masked_attention",
    "ragged_attention",
    "scatter_rows",
    "select_tokens",
]


def _warn_about_namesake() -> None:
    """Warn when a distribution that is itself called `kernels` is installed beside this one."""
    try:
        other = metadata.version("kernels")
    except metadata.PackageNotFoundError:
        return
    warnings.warn(
        f"the distribution `kernels` {other} is installed and claims the same import name as the "
        f"`kernels` package of `sparse-vit` {__version__}; libraries that look for the former will "
        f"find {__file__} instead. Remedy: `pip uninstall kernels`, then reinstall `sparse-vit`, "
        "or give each its own environment.",
        RuntimeWarning,
        stacklevel=3,
    )


_warn_about_namesake()
