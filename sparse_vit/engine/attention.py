"""Attention within the images of a packed token matrix."""

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention  # type: ignore[attr-defined]
from torch import Tensor, nn

from sparse_vit._kernels import native_attention, ragged_attention
from sparse_vit.engine.biased import Biased, biased_attention, masked
from sparse_vit.engine.build import Builder
from sparse_vit.engine.lengths import Lengths

__all__ = ["EngineAttention"]


class EngineAttention:
    """Timm's Attention on packed rows, its projection and residual included.

    Args:
        name: of the module, for the description.
        attn: the module.
        scale: (C,) factor of the result, of a LayerScale, or None.
        tokens: tokens of an image in this block.
        prefix: None, or the number P of leading tokens that anybody reads the result of.
        build: maker of layers.
        weighted: whether calls give a bias.
    """

    def __init__(
        self,
        name: str,
        attn: Attention,
        scale: Tensor | None,
        tokens: int,
        prefix: int | None,
        build: Builder,
        weighted: bool = False,
    ) -> None:
        self.heads, self.scale = attn.num_heads, float(attn.scale)
        self.prefix = prefix
        weight, bias = attn.qkv.weight, attn.qkv.bias
        if prefix is None:
            self.qkv = build.linear(f"{name}.qkv", weight, bias, tokens)
        else:
            width = weight.shape[0] // 3
            first, rest = (None, None) if bias is None else (bias[:width], bias[width:])
            self.q = build.linear(f"{name}.qkv (q)", weight[:width], first, prefix)
            self.kv = build.linear(f"{name}.qkv (k, v)", weight[width:], rest, tokens)
        self.q_norm, self.k_norm = (
            None if isinstance(norm, nn.Identity) else build.norm(norm)
            for norm in (attn.q_norm, attn.k_norm)
        )
        norm = getattr(attn, "norm", None)
        self.norm = None if norm is None or isinstance(norm, nn.Identity) else build.norm(norm)
        gate = getattr(attn, "gate", None)
        few = tokens if prefix is None else prefix
        self.gate = None if gate is None else build.of(f"{name}.gate", gate, few)
        self.project = build.of(f"{name}.proj", attn.proj, few, scale=scale, residual=True)
        path, why = self._path(build, weight)
        self.biased: Biased | None = None
        if weighted and prefix is None:
            dim = weight.shape[0] // 3 // self.heads
            self.biased = biased_attention(name, self.heads, dim, tokens, self.scale, build)
            return
        build.notes.add(f"{name} attention", path, why)

    def _path(self, build: Builder, weight: Tensor) -> tuple[str, str]:
        dim = weight.shape[0] // 3 // self.heads
        sample = torch.empty(1, self.heads, dim, dtype=build.dtype, device=build.device)
        self.native, reasons = native_attention(sample, sample, sample)
        if self.prefix is not None:
            return "torch, fused attention", f"queries of {self.prefix} tokens alone are read"
        if self.native:
            return f"kernels.ragged_attention, {self.native}", "reads the packed qkv in place"
        return "torch, fused attention", reasons

    def __call__(
        self, x: Tensor, normed: Tensor, lengths: Lengths, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attends.

        Args:
            x: (T, C) residual stream.
            normed: (T, C), normalised.
            lengths: of the images.
            bias: (B, T / B) float32 to be added to the logits of every key, or None; for uniform
                lengths.

        Returns:
            x plus the projected attention, (T, C), or (B * P, C) with `prefix`; and the packed
            (T, 3, H, D) queries, keys and values, or (T, 2, H, D) keys and values.
        """
        if self.prefix is not None:
            return self._of_prefix(x, normed, lengths, self.prefix, bias)
        qkv = self.qkv(normed).view(normed.shape[0], 3, self.heads, -1)
        q, k = self._normed(qkv[:, 0], qkv[:, 1])
        y = self._attend(q, k, qkv[:, 2], lengths, bias)
        return self.project(self._gated(y.flatten(1), normed), x), qkv

    def keys(self, qkv: Tensor) -> Tensor:
        """(T, H, D) keys, from what a call returned."""
        k = qkv[:, -2]
        return k if self.k_norm is None else self.k_norm(k)

    def class_logits(self, qkv: Tensor, lengths: Lengths) -> Tensor:
        """(T, H) float32 logits of the first token of an image looking at every row of it."""
        q, k = self._normed(qkv[:, 0], qkv[:, 1])
        first = q[lengths.cu_seqlens[:-1].long()]
        if lengths.uniform:
            paired = k.view(lengths.images, lengths.longest, *k.shape[1:]) * first[:, None]
            paired = paired.flatten(0, 1)
        else:
            paired = k * first[lengths.image_of_row()]
        return paired.sum(dim=-1, dtype=torch.float32) * self.scale

    def _normed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return (
            q if self.q_norm is None else self.q_norm(q),
            k if self.k_norm is None else self.k_norm(k),
        )

    def _gated(self, y: Tensor, normed: Tensor) -> Tensor:
        if self.norm is not None:
            y = self.norm(y)
        return y if self.gate is None else y * self.gate(normed).sigmoid_()

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Lengths, bias: Tensor | None
    ) -> Tensor:
        """(T, H, D) each to (T, H, D)."""
        if bias is not None:
            return (self.biased or masked)(q, k, v, bias, lengths, self.scale)
        if self.native or not lengths.uniform:
            return ragged_attention(q, k, v, lengths.cu_seqlens, lengths.longest, scale=self.scale)
        q, k, v = (lengths.pad(t, 0.0).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return y.transpose(1, 2).flatten(0, 1)

    def _of_prefix(
        self, x: Tensor, normed: Tensor, lengths: Lengths, prefix: int, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        first = prefix_rows(lengths, prefix)
        x, few = x[first], normed[first]
        kv = self.kv(normed).view(normed.shape[0], 2, self.heads, -1)
        q, k = self._normed(self.q(few).view(few.shape[0], self.heads, -1), kv[:, 0])
        q = q.view(lengths.images, prefix, *q.shape[1:]).transpose(1, 2)
        k, v = (lengths.pad(t, 0.0).transpose(1, 2) for t in (k, kv[:, 1]))
        mask = None if lengths.uniform else lengths.present()[:, None, None]
        if bias is not None:
            mask = bias.to(q.dtype)[:, None, None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        y = y.transpose(1, 2).reshape(few.shape[0], -1)
        return self.project(self._gated(y, few), x), kv


def prefix_rows(lengths: Lengths, prefix: int) -> Tensor:
    """(B * P,) int64 rows of the leading tokens of every image."""
    places = torch.arange(prefix, device=lengths.cu_seqlens.device)
    return (lengths.cu_seqlens[:-1, None] + places).flatten().long()
