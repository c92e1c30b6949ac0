"""Whether an exported model computes what the model computes.

The judge is the model itself in float64. Rounding may decide between two tokens whose scores agree
to the last digits, and then two correct programs keep different tokens: such images are near a tie,
told apart and not compared. They must not count for the model's own error either, which would
become that of another token, and the tolerance with it.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparse_vit.decisions import Decision
from sparse_vit.model import SparseVisionTransformer

__all__ = ["Parity", "ParityError", "check_parity"]

BATCHES = (1, 3)
"""Other sizes than that of the example that the model is traced with."""
ROUNDINGS = 8
"""Of the largest output that a block may add, and of the scores that a gap must exceed."""
NUDGE = 64
"""Roundings by which the input is changed to find images that are near a tie."""
DRAWS = 4
SEEDS = 4
LOWEST_COSINE = 0.99
"""In 16 bits, where tokens near the cut differ; less where the model itself is no nearer."""


class ParityError(RuntimeError):
    """The exported model computes something else."""


@dataclass(frozen=True)
class Parity:
    """Distance of an exported model from the model in float64, on random images.

    Attributes:
        error: largest difference of an output, relative to the largest output of the image.
        own_error: the same of the model itself, in the dtype of the export.
        tolerance: largest error that passes.
        cosine: smallest cosine between an output and that of the model.
        batches: batch sizes that were run.
        images: images compared.
        near_ties: images left out, as rounding alone decides which tokens they keep.
    """

    error: float
    own_error: float
    tolerance: float
    cosine: float
    batches: tuple[int, ...]
    images: int
    near_ties: int

    def __str__(self) -> str:
        left_out = f", {self.near_ties} near a tie left out" if self.near_ties else ""
        return (
            f"relative error {self.error:.1e} (the model's own {self.own_error:.1e}, allowed "
            f"{self.tolerance:.1e}), cosine {self.cosine:.7f}, {self.images} images in batches of "
            f"{' and '.join(map(str, self.batches))}{left_out}"
        )


def check_parity(
    model: nn.Module,
    run: Callable[[Tensor], Tensor],
    image_size: tuple[int, int],
    dtype: torch.dtype,
) -> Parity:
    """Compares an exported model with the model.

    Args:
        model: the model, in evaluation mode, in the dtype of its weights.
        run: the exported model: float32 images (B, 3, H, W) to outputs (B, D).
        image_size: H and W.
        dtype: of the weights of the exported model.

    Returns:
        The distances.

    Raises:
        ParityError: with the numbers, if they are too large, or not a single image is clear of a
            tie.
    """
    device = next(model.parameters()).device
    judge = copy.deepcopy(model).double()
    errors: list[float] = []
    own_errors: list[float] = []
    cosines: list[float] = []
    own_cosines: list[float] = []
    left_out = 0
    for seed in range(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        for batch in BATCHES:
            images = torch.rand(batch, 3, *image_size, generator=generator)
            with torch.inference_mode():
                expected = judge(images.to(device).double()).cpu()
                own = model(images.to(device)).double().cpu()
            found = run(images).double().cpu()
            if found.shape != expected.shape:
                raise ParityError(
                    f"the exported model returns {tuple(found.shape)} for a batch of {batch}, the "
                    f"model {tuple(expected.shape)}"
                )
            clear = _clear_of_ties(model, judge, images.to(device), dtype)
            left_out += int((~clear).sum())
            scale = expected.abs().amax(dim=1)
            errors += ((found - expected).abs().amax(dim=1) / scale)[clear].tolist()
            own_errors += ((own - expected).abs().amax(dim=1) / scale)[clear].tolist()
            cosines += torch.cosine_similarity(found, expected)[clear].tolist()
            own_cosines += torch.cosine_similarity(own, expected)[clear].tolist()
        if errors:
            break
    if not errors:
        raise ParityError(
            f"every one of {left_out} random images is near a tie between tokens, so nothing can "
            "be compared; train the selectors first"
        )
    depth = sum(isinstance(module, nn.LayerNorm) for module in model.modules()) / 2
    floor = ROUNDINGS * torch.finfo(dtype).eps * (depth + 1)
    parity = Parity(
        error=_largest(errors),
        own_error=_largest(own_errors),
        tolerance=max(floor, ROUNDINGS * _largest(own_errors)),
        cosine=min(cosines),
        batches=BATCHES,
        images=len(errors),
        near_ties=left_out,
    )
    least = min(LOWEST_COSINE, 1.0 - ROUNDINGS * (1.0 - min(own_cosines)))
    low = dtype != torch.float32 and not parity.cosine >= least
    if low or not parity.error <= parity.tolerance:
        raise ParityError(f"the exported model differs from the model: {parity}")
    return parity


def _largest(errors: list[float]) -> float:
    """The maximum, and NaN if there is one."""
    return float(torch.tensor(errors, dtype=torch.float64).max())


def _clear_of_ties(
    model: nn.Module, judge: nn.Module, images: Tensor, dtype: torch.dtype
) -> Tensor:
    """(B,) bool: images whose kept tokens do not hang on the last digits."""
    clear = torch.ones(len(images), dtype=torch.bool)
    if dtype != torch.float32 or not _sparse(judge) or not _sparse(judge)[0].schedule.stages:
        return clear
    backbone, x = _sparse(judge)[0], _entering(judge, images.double())
    decisions = _decisions(backbone, x)
    own = _decisions(_sparse(model)[0], _entering(model, images))
    kept = _kept(decisions)
    clear &= (_kept(own) == kept).flatten(1).all(dim=1) & _wide_gaps(decisions, own)
    generator = torch.Generator().manual_seed(0)
    for _ in range(DRAWS):
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device)
        nudged = _kept(_decisions(backbone, x * (1.0 + NUDGE * torch.finfo(dtype).eps * noise)))
        clear &= (nudged == kept).flatten(1).all(dim=1)
    return clear


def _wide_gaps(decisions: list[Decision], own: list[Decision]) -> Tensor:
    """(B,) bool: images where rounding cannot swap the last kept and the first dropped token.

    Scores that are equal and came without any rounding leave the choice to the index, and that is
    no tie.

    Args:
        decisions: of the judge.
        own: of the model, which keeps the same tokens.
    """
    wide = torch.ones(len(decisions[0].mask), dtype=torch.bool)
    before: Tensor | None = None
    for judged, found in zip(decisions, own, strict=True):
        if judged.groups is not None:
            continue
        kept = judged.mask > 0.5
        dropped = ~kept if before is None else before & ~kept
        scores = judged.scores.double()
        low = scores.masked_fill(~kept, torch.inf).amin(dim=1)
        high = scores.masked_fill(~dropped, -torch.inf).amax(dim=1)
        error = (found.scores.double() - scores).abs().amax(dim=1)
        least = torch.finfo(torch.float32).eps * scores.abs().amax(dim=1)
        apart = low - high > ROUNDINGS * torch.maximum(error, least)
        wide &= (apart | ((low == high) & (error == 0))).cpu()
        before = kept
    return wide


def _sparse(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, SparseVisionTransformer)]


def _entering(model: nn.Module, images: Tensor) -> Tensor:
    """What the sparse model within a module is given."""
    inputs: list[Tensor] = []
    hook = _sparse(model)[0].register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.inference_mode():
        model(images)
    hook.remove()
    return inputs[0]


@torch.inference_mode()
def _decisions(backbone: Any, x: Tensor) -> list[Decision]:
    found: list[Decision] = backbone.forward_with_decisions(x)[1]
    return found


def _kept(decisions: list[Decision]) -> Tensor:
    """(B, S, N): what became of every patch at every stage."""
    found = [d.mask.double() if d.groups is None else d.groups.double() for d in decisions]
    return torch.stack(found, dim=1).cpu()
