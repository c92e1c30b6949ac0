"""Turns modules of a model into layers of an engine and notes every choice."""

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.norm import LayerNorm as TimmLayerNorm
from torch import Tensor, nn

from sparse_vit._kernels import gather_layer_norm, gather_rows
from sparse_vit.engine.describe import Description
from sparse_vit.engine.linear import Linear, OneDnnLinear, TorchLinear, onednn_reasons
from sparse_vit.engine.probe import Probe
from sparse_vit.engine.quantized import Int8Linear

__all__ = ["Builder", "Norm"]

PROBE_TOKENS = 64
ONEDNN, INT8, TORCH = "oneDNN, packed weights", "oneDNN, 8-bit integers", "torch"


class Norm:
    """A normalisation over channels, alone or on the way of gathered rows.

    Args:
        module: LayerNorm or any other module that treats rows alone.
        dtype: of the rows; the affine parameters of a LayerNorm stay in float32.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.is_layer_norm = type(module) in (nn.LayerNorm, TimmLayerNorm)
        if not self.is_layer_norm:
            self.module.to(dtype)
            return
        self.module.float()
        self.weight: Tensor | None = self.module.weight  # type: ignore[assignment]
        self.bias: Tensor | None = self.module.bias  # type: ignore[assignment]
        self.eps = float(self.module.eps)  # type: ignore[arg-type]

    def __call__(self, x: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        if not self.is_layer_norm:
            return self.module(x)
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)

    def gathered(self, x: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Rows `indices` of x (R, C), and the same normalised."""
        if self.is_layer_norm:
            return gather_layer_norm(x, indices, self.weight, self.bias, self.eps)
        rows = gather_rows(x, indices)
        return rows, self(rows)


class Builder:
    """Makes the layers of one engine.

    Args:
        dtype: of activations and weights.
        int8: whether the layers of the blocks multiply 8-bit integers where that is faster.
        device: of both.
        images: batch size that the engine is built for.
        notes: where choices are recorded.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        int8: bool,
        device: torch.device,
        images: int,
        notes: Description,
    ) -> None:
        self.dtype, self.int8, self.device = dtype, int8, device
        self.images, self.notes = images, notes
        self.probe = Probe()
        self._reasons: list[str] | None = None

    def linear(
        self,
        name: str,
        weight: Tensor,
        bias: Tensor | None,
        tokens: int,
        *,
        scale: Tensor | None = None,
        gelu: str | None = None,
        residual: bool = False,
        exact: bool = False,
    ) -> Linear:
        """A linear layer by the fastest library.

        Args:
            name: of the layer, for the description.
            weight: (N, K).
            bias: (N,) or None.
            tokens: tokens of an image in this layer.
            scale: (N,) factor of the result, as of a LayerScale, which goes into weight and bias.
            gelu: as of `TorchLinear`.
            residual: whether the layer will be called with a residual, which it may overwrite.
            exact: whether 8-bit integers are out of the question.
        """
        weight, bias = weight.detach().double(), None if bias is None else bias.detach().double()
        if scale is not None:
            weight = weight * scale.detach().double()[:, None]
            bias = None if bias is None else bias * scale.detach().double()
        weight = weight.to(self.dtype).contiguous()
        bias = None if bias is None else bias.to(self.dtype)
        rows = max(1, self.images * tokens)
        plain = TorchLinear(weight, bias, gelu)
        if self._reasons is None:
            self._reasons = onednn_reasons(weight)
        if self._reasons:
            self.notes.add(name, TORCH, "; ".join(self._reasons))
            return plain
        layers: dict[str, Linear] = {ONEDNN: OneDnnLinear(weight, bias, gelu, rows), TORCH: plain}
        if self.int8 and not exact:
            layers[INT8] = Int8Linear(weight, bias, gelu, rows)
        x = torch.randn(rows, weight.shape[1]).to(self.dtype)
        other = torch.zeros(rows, weight.shape[0], dtype=self.dtype) if residual else None
        key = (rows, *weight.shape, bias is None, gelu, residual, INT8 in layers)
        found = self.probe.seconds(
            key, {path: partial(layer, x, other) for path, layer in layers.items()}
        )
        best = min(layers, key=lambda path: found[path])
        why = ", ".join(f"{seconds * 1e3:.2f} ms by {path}" for path, seconds in found.items())
        self.notes.add(name, best, f"{why} for {rows} rows of {weight.shape[1]}")
        return layers[best]

    def of(self, name: str, module: nn.Linear, tokens: int, **options: object) -> Linear:
        """The same for a module of torch; options as of `linear`."""
        return self.linear(name, module.weight, module.bias, tokens, **options)  # type: ignore[arg-type]

    def norm(self, module: nn.Module) -> Norm:
        """A normalisation over channels."""
        return Norm(module, self.dtype)

    def compare_precisions(self, mlp: Any) -> None:
        """Says so if bfloat16 is slower than float32 here, as it is without instructions for it."""
        if self.dtype != torch.bfloat16 or self.device.type != "cpu" or self._reasons:
            return
        shape = max(1, self.images * PROBE_TOKENS), mlp.fc2.in_features
        weight = mlp.fc2.weight.detach()
        calls = {}
        for dtype in (torch.float32, torch.bfloat16):
            layer = OneDnnLinear(weight.to(dtype), None, None, shape[0])
            calls[str(dtype)] = partial(layer, torch.randn(shape).to(dtype))
        whole, half = self.probe.seconds(("precisions", *shape), calls).values()
        if half > whole:
            why = f"a product of {shape[0]} rows takes {half * 1e3:.2f} ms, {whole * 1e3:.2f} ms"
            why = f"{why} in float32"
            self.notes.add("bfloat16", "slower than float32 on this processor", why)
            warnings.warn(
                f"bfloat16 is slower than float32 on this processor: {why}; use torch.float32",
                RuntimeWarning,
                stacklevel=4,
            )

    def tokenwise(self, module: nn.Module) -> Callable[[Tensor], Tensor]:
        """A copy of any other module, in the dtype of the engine."""
        return copy.deepcopy(module).requires_grad_(False).to(self.dtype)
