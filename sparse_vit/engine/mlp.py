"""Timm's MLPs on packed rows, residual included."""

from typing import Any

from timm.layers.mlp import GluMlp, SwiGLU
from torch import Tensor, nn

from sparse_vit.engine.build import Builder

__all__ = ["build_mlp", "gelu_of"]


def gelu_of(act: nn.Module) -> str | None:
    """The approximation of torch's GELU, or None for another activation."""
    return act.approximate if type(act) is nn.GELU else None


class _Mlp:
    """fc2(norm(act(fc1(x)))), with a GELU inside the first product."""

    def __init__(
        self, name: str, mlp: Any, scale: Tensor | None, tokens: int, build: Builder
    ) -> None:
        gelu = gelu_of(mlp.act)
        self.act = None if gelu is not None else build.tokenwise(mlp.act)
        self.norm = None if isinstance(mlp.norm, nn.Identity) else build.norm(mlp.norm)
        self.first = build.of(f"{name}.fc1", mlp.fc1, tokens, gelu=gelu)
        self.second = build.of(f"{name}.fc2", mlp.fc2, tokens, scale=scale, residual=True)

    def __call__(self, x: Tensor, normed: Tensor) -> Tensor:
        """x + MLP(normed), (T, C)."""
        y = self.first(normed)
        if self.act is not None:
            y = self.act(y)
        return self.second(y if self.norm is None else self.norm(y), x)


class _GatedMlp:
    """fc2(norm(act(gate) * value)), from one product or from two."""

    def __init__(
        self, name: str, mlp: Any, scale: Tensor | None, tokens: int, build: Builder
    ) -> None:
        self.act = build.tokenwise(mlp.act)
        self.norm = None if isinstance(mlp.norm, nn.Identity) else build.norm(mlp.norm)
        if isinstance(mlp, SwiGLU):
            halves = {"fc1_g": mlp.fc1_g, "fc1_x": mlp.fc1_x}
            parts: dict[str, Any] = {key: (fc.weight, fc.bias) for key, fc in halves.items()}
        else:
            weights = mlp.fc1.weight.chunk(2)
            biases = (None, None) if mlp.fc1.bias is None else mlp.fc1.bias.chunk(2)
            order = (1, 0) if mlp.gate_last else (0, 1)
            parts = {f"fc1 (half {i + 1})": (weights[i], biases[i]) for i in order}
        self.gate, self.value = (
            build.linear(f"{name}.{key}", weight, bias, tokens)
            for key, (weight, bias) in parts.items()
        )
        self.second = build.of(f"{name}.fc2", mlp.fc2, tokens, scale=scale, residual=True)

    def __call__(self, x: Tensor, normed: Tensor) -> Tensor:
        """x + MLP(normed), (T, C)."""
        y = self.act(self.gate(normed)) * self.value(normed)
        return self.second(y if self.norm is None else self.norm(y), x)


def build_mlp(
    name: str, mlp: Any, scale: Tensor | None, tokens: int, build: Builder
) -> "_Mlp | _GatedMlp":
    """An MLP whose result is scaled by a LayerScale (C,), or None, and added to the residual."""
    kind = _GatedMlp if isinstance(mlp, (GluMlp, SwiGLU)) else _Mlp
    return kind(name, mlp, scale, tokens, build)
