"""A mask through any flash kernel: one more channel that adds `ln D` to the logits of a key.

`q' = [q, 1 / s]`, `k' = [k, ln D']` with `D' = tau + (1 - tau) keep` give `s q'.k' = S + ln D'`.
A dropped token then loses itself as well, so its own output is not the masked one. The kernel's
gradient of `ln D'` counts the diagonal, which is a constant of the mask; `P_jj (dO_j . v_j -
dO_j . O_j)` takes it out again.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_FLOOR = -14.0
"""ln tau, a number that bfloat16 holds exactly."""
WIDTH = 8
"""Flash kernels want the head dimension in multiples of it."""


class _WithoutDiagonal(torch.autograd.Function):
    """Identity of o whose backward takes the diagonal out of the gradient of the log mask."""

    @staticmethod
    def forward(
        ctx: Any, o: Tensor, log_mask: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor
    ) -> Tensor:
        ctx.save_for_backward(o, log_mask, q, k, v, lse)
        return o.view_as(o)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        o, log_mask, q, k, v, lse = ctx.saved_tensors
        own = (q * k).sum(-1).float() * q.shape[-1] ** -0.5
        weight = (own + log_mask[:, None] - lse).exp()
        diagonal = weight * (grad * (v - o)).sum(-1).float()
        return grad, -diagonal.sum(1), None, None, None, None


def attend(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    """Masked attention of (B, H, N, D) with gradient to keep (B, N), exact for kept rows."""
    batch, heads, tokens, dim = q.shape
    scale = dim**-0.5
    floor = math.exp(LOG_FLOOR)
    log_mask = (floor + (1.0 - floor) * keep).log()
    extra = -(dim + 1) % WIDTH
    channel = log_mask.to(q.dtype)[:, None, :, None].expand(batch, heads, tokens, 1)
    queries = F.pad(F.pad(q, (0, 1), value=1.0 / scale), (0, extra))
    keys = F.pad(torch.cat([k, channel], -1), (0, extra))
    values = F.pad(v, (0, 1 + extra))
    aten = torch.ops.aten
    if q.device.type == "cpu":
        o, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            queries, keys, values, scale=scale
        )
    else:
        found = aten._scaled_dot_product_flash_attention(queries, keys, values, scale=scale)
        o, lse = found[0], found[1][..., :tokens]
    return _WithoutDiagonal.apply(
        o[..., :dim], log_mask, q.detach(), k.detach(), v.detach(), lse.detach()
    )
