"""Thresholds that keep a given number of tokens on average, and as many per image as it deserves.

The lowest kept score of a stage is a quantile of the scores of all tokens that reach it, over all
images together. Stages are calibrated one after the other, since what reaches one depends on the
thresholds before it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from sparse_vit.engine import optimize
from sparse_vit.model import SparseVisionTransformer
from sparse_vit.schedule import AdaptiveSchedule, PruningSchedule

__all__ = ["calibrate"]


def calibrate(
    model: Any,
    loader: Iterable[Any],
    mean_keep: float | Sequence[float] | None = None,
    *,
    min_keep: int | Sequence[int] = 1,
    max_keep: int | Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
) -> AdaptiveSchedule:
    """Finds a threshold per stage such that images keep a given number of patch tokens on average.

    The number is that of the fixed schedule, rounded down to a whole one, so that both can be
    compared; it is met exactly on the images of the calibration but for tokens of equal score. One
    pass over the loader per stage.

    Args:
        model: a sparse model with reduction "prune", in evaluation mode.
        loader: batches, each (B, 3, H, W) normalised images or a tuple or list that begins with
            them; anything that can be iterated more than once with the same images in it, such as
            a list or a DataLoader.
        mean_keep: the budget: p leaves p, p^2, p^3, ... of the original patches on average, a
            sequence sets the mean fraction for every stage; None takes the model's own schedule.
        min_keep: fewest patch tokens of an image after each stage, one number or one per stage.
        max_keep: most of them, likewise; None for no bound.
        dtype: precision of the engine that will use the thresholds; None for float32.

    Returns:
        The schedule for `optimize(model, adaptive=...)`, with the fractions that it met.

    Raises:
        TypeError: for a model that is not sparse, or a loader that ends after one pass.
        ValueError: for a model in training mode, without stages or with another reduction; a
            budget that the bounds exclude; a loader without images; images of a wrong shape or
            that are not finite.
    """
    budget = _budget(model, mean_keep)
    total = int(model.patch_embed.num_patches or 0)
    wanted = budget.counts(total)
    fewest = _bounds("min_keep", min_keep, len(wanted))
    most = _bounds("max_keep", total if max_keep is None else max_keep, len(wanted))
    for low, mean, high in zip(fewest, wanted, most, strict=True):
        if not 1 <= low <= mean <= high:
            raise ValueError(
                f"mean_keep asks for {mean} of {total} patch tokens on average, which min_keep="
                f"{low} and max_keep={high} exclude; expected 1 <= min_keep <= {mean} <= max_keep"
            )
    if isinstance(loader, Iterator):
        raise TypeError(
            f"the loader is a {type(loader).__name__} that ends after one pass; calibrate makes "
            f"{len(wanted)}: pass a list of batches or a DataLoader"
        )
    thresholds: list[float] = []
    means: list[float] = []
    most_given = None if max_keep is None else tuple(most)
    for s, mean in enumerate(wanted):
        # Stages from here on keep everything they get; this one is only asked for its scores.
        open_end = [-math.inf] * (len(wanted) - s)
        trial = AdaptiveSchedule((*thresholds, *open_end), tuple(fewest), most_given)
        scores = _scores(model, loader, trial, s, dtype)
        threshold, kept = _threshold(scores, mean, fewest[s], most[s])
        thresholds.append(threshold)
        means.append(kept / total)
    return AdaptiveSchedule(tuple(thresholds), tuple(fewest), most_given, tuple(means))


def _budget(model: Any, mean_keep: float | Sequence[float] | None) -> PruningSchedule:
    if not isinstance(model, SparseVisionTransformer):
        raise TypeError(
            f"cannot calibrate a {type(model).__name__}; pass a model that sparsify() made"
        )
    if model.reduction != "prune":
        raise ValueError(
            f"calibrate finds thresholds for reduction='prune', the model has {model.reduction!r}"
        )
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() before calibrate")
    if not model.schedule.stages:
        raise ValueError("the model has no pruning stages, there is nothing to calibrate")
    if model.patch_embed.img_size is None or not model.patch_embed.num_patches:
        raise ValueError("the model has no image size of its own; call model.set_input_size first")
    given = model.schedule.ratios if mean_keep is None else mean_keep
    return PruningSchedule.build(model.schedule.stages, given, len(model.blocks))


def _bounds(name: str, value: int | Sequence[int], stages: int) -> list[int]:
    found = [value] * stages if isinstance(value, int) else list(value)
    if len(found) != stages:
        raise ValueError(f"{name} has {len(found)} values for {stages} stages; give one per stage")
    # No stage can keep more than the one before it.
    return list(accumulate(found, min))


def _scores(
    model: SparseVisionTransformer,
    loader: Iterable[Any],
    trial: AdaptiveSchedule,
    ordinal: int,
    dtype: torch.dtype | None,
) -> list[Tensor]:
    """Scores of what reaches a stage, per image."""
    run: Any = None
    found: list[Tensor] = []
    for number, batch in enumerate(loader):
        images = _images(batch, number).to(next(model.parameters()).device)
        if not len(images):
            continue
        run = run or optimize(model, dtype=dtype, batch=len(images), adaptive=trial)
        found.extend(scores.cpu() for scores in run.scores_at(images, ordinal))
    if not found:
        raise ValueError("the loader has no images; pass some that look like those to come")
    return found


def _images(batch: Any, number: int) -> Tensor:
    images = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not isinstance(images, Tensor):
        raise ValueError(
            f"batch {number} holds a {type(images).__name__} where images are expected; give "
            "(B, 3, H, W) tensors, or tuples that begin with one"
        )
    bad = ~images.flatten(1).sum(dim=1, dtype=torch.float64).isfinite() if images.ndim > 1 else None
    if bad is not None and bad.any():
        first = int(bad.nonzero()[0, 0])
        raise ValueError(
            f"image {first} of batch {number} has a NaN or an infinity; leave it out, one image "
            "must not move the thresholds of all"
        )
    return images


def _threshold(
    scores: Sequence[Tensor], wanted: int, fewest: int, most: int
) -> tuple[float, float]:
    """The threshold whose mean number of kept tokens is nearest, and that number.

    Args:
        scores: per image, (n,) of its tokens.
        wanted: tokens per image.
        fewest: tokens that an image keeps in any case, as far as it has them.
        most: tokens that it keeps at most.
    """
    lengths = torch.tensor([len(row) for row in scores])
    owner = torch.arange(len(scores)).repeat_interleave(lengths)
    pooled, order = torch.cat(list(scores)).double().sort(descending=True)
    # Places within an image, best first: up to `fewest` a token stays and from `most` on it goes in
    # any case, in between the threshold decides.
    starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    rank = torch.empty_like(order)
    rank[order[owner[order].argsort(stable=True)]] = torch.arange(len(order)) - starts
    free = ((rank >= fewest) & (rank < most))[order]
    # Tokens kept with the score of a place as the threshold; equal scores stay or go together.
    kept = int(lengths.clamp(max=fewest).sum()) + free.cumsum(0)
    apart = torch.ones_like(free)
    apart[:-1] = pooled[1:] < pooled[:-1]
    places = apart.nonzero()[:, 0]
    place = int(places[(kept[places] - wanted * len(scores)).abs().argmin()])
    return _between(pooled, place), float(kept[place]) / len(scores)


def _between(pooled: Tensor, place: int) -> float:
    """A threshold half way to the next score, so that rounding decides nothing, as float32."""
    upper = float(pooled[place])
    lower = float(pooled[place + 1]) if place + 1 < len(pooled) else upper - 1.0
    middle = float(torch.tensor((upper + lower) / 2, dtype=torch.float32))
    return middle if lower < middle <= upper else upper
