"""Whole models: who takes part, what each computes, and how well it agrees with the model."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.roof import packed_linear
from sparse_vit import SparseVisionTransformer
from sparse_vit.engine import Agreement, Engine, agreement, optimize

DENSE, COMPILED = "dense timm, eager", "dense timm, compiled"
DENSE_ENGINE = "dense, engine"


def plain(keep: float) -> str:
    """Name the pruned model as it is."""
    return f"keep {keep}, plain"


def engine(keep: float) -> str:
    """Name the pruned model through the engine."""
    return f"keep {keep}, engine"


def adaptive(keep: float) -> str:
    """Name the pruned model through the engine with thresholds of the same mean count."""
    return f"keep {keep}, engine, adaptive"


@dataclass
class Contender:
    """A model ready to run on the images of a case."""

    call: Callable[[], Any]
    flops: int
    agreement: Agreement | None = None


@dataclass
class Thresholds:
    """See `sparse_vit.engine.AdaptiveSchedule`."""

    thresholds: tuple[float, ...]
    min_keep: int = 1
    max_keep: int | None = None


def flops_of(model: Any, images: int, prefix_last: bool) -> int:
    """Count operations of matrix products that a forward needs, two for a multiply-add.

    Args:
        model: Dense or pruned, with the standard block; keep predictors count, other selectors cost
            nothing.
        images: Number of images.
        prefix_last: Whether the last block runs for the prefix tokens alone, all that a head on the
            class token reads.
    """
    width, patches = model.embed_dim, model.patch_embed.num_patches
    prefix = model.num_prefix_tokens
    hidden = model.blocks[0].mlp.fc1.out_features
    total = 2 * patches * model.patch_embed.proj.weight[0].numel() * width
    stages: dict[int, int] = {}
    if isinstance(model, SparseVisionTransformer):
        stages = dict(zip(model.schedule.stages, model.keep_counts, strict=True))
    present = patches
    for i in range(len(model.blocks)):
        if i in stages:
            half, quarter = width // 2, width // 4
            total += 2 * present * (width * width + half * half + half * quarter + 2 * quarter)
            total += 2 * half * half
            present = stages[i]
        tokens = prefix + present
        read = prefix if prefix_last and i == len(model.blocks) - 1 else tokens
        total += 2 * width * width * (2 * tokens + 2 * read)
        total += 4 * width * tokens * read
        total += 4 * width * hidden * read
    return images * total


def contenders(
    dense: Any, pruned: dict[float, SparseVisionTransformer], x: Tensor, dtype: torch.dtype,
    full: bool,
) -> dict[str, Contender]:  # fmt: skip
    """Prepare everybody for one case; the first is what the others are compared with.

    Args:
        dense: Timm's model, float32, in evaluation mode.
        pruned: The same weights with selection, by keep ratio.
        x: (B, 3, H, W) float32 images.
        dtype: float32, bfloat16 or int8, in which only the engine takes part.
        full: Whether to compile as well, which takes a minute.
    """
    batch, found = len(x), {}
    own = torch.float32 if dtype == torch.int8 else dtype
    cast, cast_x = copy.deepcopy(dense).to(own), x.to(own)
    found[DENSE] = Contender(lambda: cast(cast_x), flops_of(dense, batch, False))
    if full and dtype != torch.int8:
        fast = torch.compile(cast, mode="max-autotune-no-cudagraphs")
        found[COMPILED] = Contender(lambda: fast(cast_x), flops_of(dense, batch, False))
    found[DENSE_ENGINE] = _through_engine(dense, x, dtype)
    for keep, model in pruned.items():
        if dtype != torch.int8:
            lower = copy.deepcopy(model).to(own)
            found[plain(keep)] = Contender(
                lambda lower=lower: lower(cast_x), flops_of(model, batch, True)
            )
        found[engine(keep)] = _through_engine(model, x, dtype)
    first = next(iter(pruned))
    if dtype != torch.int8:
        rule = thresholds_of(pruned[first], x, dtype)
        found[adaptive(first)] = _through_engine(pruned[first], x, dtype, rule)
    return found


def _through_engine(
    model: Any, x: Tensor, dtype: torch.dtype, rule: Thresholds | None = None
) -> Contender:
    run = optimize(model, dtype, batch=len(x), adaptive=rule)
    # A fixed schedule is not what thresholds are to agree with.
    found = agreement(run, model, x[:8]) if rule is None else None
    return Contender(lambda: run(x), flops_of(model, len(x), True), found)


def thresholds_of(model: SparseVisionTransformer, x: Tensor, dtype: torch.dtype) -> Thresholds:
    """Thresholds by which these images keep as many tokens on average as by the schedule."""
    chosen: list[float] = []
    stages = len(model.schedule.stages)
    for s, count in enumerate(model.keep_counts):
        rule = Thresholds((*chosen, *[-1e30] * (stages - s)))
        run = optimize(model, dtype, batch=len(x), adaptive=rule)
        scores = scores_of(run, x, s)
        ordered = scores[scores > -torch.inf].sort(descending=True).values
        chosen.append(float(ordered[min(len(x) * count, len(ordered)) - 1]))
    return Thresholds(tuple(chosen))


def scores_of(run: Engine, x: Tensor, ordinal: int) -> Tensor:
    """The scores of the patch tokens at a stage of an engine."""
    stage = list(run.stages.values())[ordinal]
    seen: list[Tensor] = []
    score = stage.scores

    def watch(*arguments: Any) -> Tensor:
        found = score(*arguments)
        seen.append(found[:, stage.prefix :].flatten())
        return found

    stage.scores = watch  # type: ignore[method-assign]
    run(x)
    stage.scores = score  # type: ignore[method-assign]
    return torch.cat(seen)


def roof_products(
    dense: Any, images: int, dtype: torch.dtype
) -> dict[str, tuple[Callable[[], Any], int]]:
    """The products of a dense block, and a square one, by every library, with their operations."""
    width, hidden = dense.embed_dim, dense.blocks[0].mlp.fc1.out_features
    rows = images * (dense.num_prefix_tokens + dense.patch_embed.num_patches)
    device = next(dense.parameters()).device
    side = 1536 if device.type == "cpu" else 8192
    shapes: Sequence[tuple[int, int, int]] = (
        (rows, width, hidden), (rows, hidden, width), (side, side, side),
    )  # fmt: skip
    found: dict[str, tuple[Callable[[], Any], int]] = {}
    for m, k, n in shapes:
        a, weight = (torch.randn(s, device=device).to(dtype) for s in ((m, k), (n, k)))
        name, work = f"{m} x {k} x {n}", 2 * m * k * n
        found[f"torch {name}"] = (lambda a=a, w=weight: torch.nn.functional.linear(a, w)), work
        packed = packed_linear(weight, m)
        if packed is not None:
            found[f"packed oneDNN {name}"] = (lambda a=a, p=packed: p(a)), work
    return found
