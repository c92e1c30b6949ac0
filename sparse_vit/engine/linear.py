"""Linear layers whose bias, GELU and residual are part of the product.

`y = gelu(x W^T + b)` or `y = x W^T + b + residual` for x (T, K), in one call where the library
offers it. Weights are packed for the library once.
"""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Linear", "OneDnnLinear", "TorchLinear", "onednn_reasons"]


class Linear(Protocol):
    """A layer ready to run."""

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(T, K) contiguous, and (T, N) to be added or None, to (T, N) contiguous."""


class TorchLinear:
    """Torch's own product, then GELU or residual in the memory of its result.

    Args:
        weight: (N, K).
        bias: (N,) or None.
        gelu: "none" or "tanh", the approximation of a GELU that follows; None for no GELU.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: str | None) -> None:
        self.weight, self.bias, self.gelu = weight, bias, gelu

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """See `Linear`."""
        y = F.linear(x, self.weight, self.bias)
        if self.gelu is not None:
            y = torch.ops.aten.gelu_(y, approximate=self.gelu)
        return y if residual is None else y.add_(residual)


class OneDnnLinear:
    """OneDNN's product of packed weights, with everything behind it fused.

    Args:
        weight: (N, K) float32 or bfloat16 on the processor.
        bias: (N,) or None.
        gelu: as of `TorchLinear`; excludes a residual.
        rows: T that the packing is made for; others work.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, gelu: str | None, rows: int | None = None
    ) -> None:
        self.packed = _pack(weight, rows)
        self.bias = bias
        self.attribute = "none" if gelu is None else "gelu"
        self.algorithm = gelu or ""
        self._plain = torch.ops.mkldnn._linear_pointwise.default
        self._binary = torch.ops.mkldnn._linear_pointwise.binary

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """See `Linear`."""
        if residual is not None:
            return self._binary(x, residual, self.packed, self.bias, "add")
        return self._plain(x, self.packed, self.bias, self.attribute, [], self.algorithm)


def onednn_reasons(weight: Tensor) -> list[str]:
    """Lists why oneDNN cannot serve a layer with this weight; empty when it can."""
    if weight.device.type != "cpu":
        return [f"the weights are on {weight.device}"]
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return ["this torch is built without oneDNN"]
    if weight.dtype not in (torch.float32, torch.bfloat16):
        return [f"the dtype is {weight.dtype}"]
    try:
        layer = OneDnnLinear(weight[:8, :8].contiguous(), None, "none")
        layer(torch.zeros(1, _width(weight), dtype=weight.dtype))
        layer(
            torch.zeros(1, _width(weight), dtype=weight.dtype),
            torch.zeros(1, min(8, weight.shape[0]), dtype=weight.dtype),
        )
    except (RuntimeError, AttributeError) as error:
        first = str(error).partition("\n")[0]
        return [f"oneDNN's linear operator fails: {first[:120]}"]
    return []


def _width(weight: Tensor) -> int:
    return min(8, weight.shape[1])


def _pack(weight: Tensor, rows: int | None) -> Any:
    reorder = torch.ops.mkldnn._reorder_linear_weight
    try:
        return reorder(weight, rows)
    except NotImplementedError:
        # Before torch 2.8 the operator took tensors of oneDNN's own layout.
        return reorder(weight.to_mkldnn(), rows)
