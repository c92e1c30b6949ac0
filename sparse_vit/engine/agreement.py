"""How far an engine is from its model: what a lower precision costs."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse_vit.decisions import Decision
from sparse_vit.engine.engine import Engine
from sparse_vit.model import SparseVisionTransformer

__all__ = ["Agreement", "agreement"]


class Agreement(NamedTuple):
    """An engine against its model on a batch.

    Attributes:
        cosine: smallest cosine of an image's output with that of the model.
        overlap: per stage, the share of the tokens kept by the model that the engine keeps too.
    """

    cosine: float
    overlap: tuple[float, ...]

    def __str__(self) -> str:
        shares = ", ".join(f"{100 * share:.1f} %" for share in self.overlap)
        same = f"; {shares} of the kept tokens are the same" if shares else ""
        return f"cosine of the outputs at least {self.cosine:.6f}{same}"


def agreement(run: Engine, model: Any, images: Tensor) -> Agreement:
    """Compares an engine with the model that it was made of.

    Args:
        run: the engine.
        model: the model, in evaluation mode.
        images: (B, 3, H, W), B of 1 or more.

    Returns:
        The comparison.
    """
    output, kept = run.with_kept(images)
    decisions: list[Decision] = []
    with torch.no_grad():
        if isinstance(model, SparseVisionTransformer):
            expected, decisions = model.forward_with_decisions(images)
        else:
            expected = model(images)
    cosine = F.cosine_similarity(output.flatten(1), expected.flatten(1).float()).min()
    overlap = (
        float((mask & decision.mask.bool()).sum() / decision.mask.sum())
        for mask, decision in zip(kept, decisions, strict=True)
    )
    return Agreement(float(cosine), tuple(overlap))
