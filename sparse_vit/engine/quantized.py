"""Linear layers of 8-bit integers: weights per output channel, activations per call.

A weight row is `scale * integer` with the integer in -127 .. 127, symmetric. The range of the
activations is that of each call, so there is nothing to calibrate (dynamic quantisation, as in
Jacob et al., arXiv 1712.05877, Sec. 2.1). Products are exact in int32; bias, GELU and residual are
float32.
"""

import warnings

import torch
from torch import Tensor

__all__ = ["Int8Linear", "int8_reasons"]


class Int8Linear:
    """OneDNN's product of 8-bit integers, with everything behind it fused.

    Args:
        weight: (N, K) float32 on the processor.
        bias: (N,) or None.
        gelu: "none" or "tanh", the approximation of a GELU that follows; None for no GELU.
        rows: T that the packing is made for; others work.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, gelu: str | None, rows: int | None = None
    ) -> None:
        # Of a row of zeros any scale will do.
        self.scales = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        integers = (weight / self.scales[:, None]).round_().clamp_(-127, 127).to(torch.int8)
        shape = None if rows is None else [rows, weight.shape[1]]
        self.packed = torch.ops.onednn.qlinear_prepack(integers, shape)
        self.zeros = torch.zeros(weight.shape[0], dtype=torch.int32)
        self.bias = bias
        self.attribute = "none" if gelu is None else "gelu"
        self.algorithm = gelu or ""
        self._plain = torch.ops.onednn.qlinear_pointwise.default
        self._binary = torch.ops.onednn.qlinear_pointwise.binary

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """See `Linear`; the residual is overwritten with the result."""
        integers, scale, zero = _quantised(x)
        weight = integers, scale, zero, self.packed, self.scales, self.zeros
        if residual is not None:
            return self._binary(
                *weight, residual, self.bias, 1.0, 0, torch.float32, 1.0, 0, "sum", 1.0, "none", [],
                "",
            )  # fmt: skip
        return self._plain(
            *weight, self.bias, 1.0, 0, torch.float32, self.attribute, [], self.algorithm
        )


def _quantised(x: Tensor) -> tuple[Tensor, float, int]:
    """Float32 rows as uint8 with the scale and the zero point of their range."""
    q = torch.quantize_per_tensor_dynamic(x, torch.quint8, reduce_range=False)
    # The integers where they lie: copying them out takes as long as the quantisation.
    bits = torch.empty(0, dtype=torch.uint8).set_(q.untyped_storage(), 0, x.shape, x.stride())
    return bits, q.q_scale(), q.q_zero_point()


def int8_reasons() -> list[str]:
    """Lists why there are no products of 8-bit integers on the processor; empty when there are."""
    if "onednn" not in torch.backends.quantized.supported_engines:
        return ["this torch is built without oneDNN's quantised operators"]
    try:
        # The quantiser warns once that its tensor type will go.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = Int8Linear(torch.eye(8), None, None)
            layer(torch.ones(2, 8))
            layer(torch.ones(2, 8), torch.zeros(2, 8))
    except (RuntimeError, AttributeError) as error:
        first = str(error).partition("\n")[0]
        return [f"oneDNN's 8-bit linear operator fails: {first[:120]}"]
    return []
