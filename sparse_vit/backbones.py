"""Loads the weights of a dense or sparse transformer into another of the same shape.

Differences that have one right answer are bridged: the distillation token of a DeiT, recognised by
the shape of its position embedding, and the grid of positions. Every other difference is an error
that names keys and shapes, unless the caller allows it by name.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from sparse_vit.checkpoints import load_weights, read_metadata

__all__ = ["LoadReport", "load_backbone", "load_pretrained_by_tag"]

NEW_HERE = ("selectors.", "reweight_scale")
"""What a dense checkpoint cannot hold."""


@dataclass
class LoadReport:
    """What `load_backbone` did.

    Attributes:
        loaded: names that were loaded.
        missing: names of the model that the source lacks, all of them allowed.
        skipped: names of the source that were not used, all of them allowed.
        distilled: whether the source has a distillation token.
        resized_from: rows and columns of the source's positions, if they were resized.
    """

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    distilled: bool = False
    resized_from: tuple[int, int] | None = None


def load_backbone(
    model: nn.Module,
    source: str | os.PathLike[str] | Mapping[str, Tensor],
    *,
    skip: Sequence[str] = (),
    allow_missing: Sequence[str] = NEW_HERE,
    keep_dist: bool = False,
    source_grid: tuple[int, int] | None = None,
    interpolation: str = "bilinear",
) -> LoadReport:
    """Loads weights into a vision transformer, or fails without touching it.

    Args:
        model: a timm VisionTransformer, sparse or dense.
        source: path of a checkpoint, or a state dict.
        skip: prefixes of names to leave alone on both sides, e.g. ("head.",) for another number
            of classes.
        allow_missing: prefixes of names that the source may lack; the selectors by default.
        keep_dist: keeps the distillation token of a DeiT as the one register token of a model
            without such a token of its own (as a second token that is never dropped); by default
            it is dropped with its position and its head (TransReID's recipe, told by shape).
        source_grid: rows and columns of the source's patches, where they cannot be inferred.
        interpolation: "bilinear" or "bicubic", of positions on another grid.

    Returns:
        What was done.

    Raises:
        ValueError: naming every key and shape that does not fit.
        FileNotFoundError: if there is no file at the path.
    """
    if isinstance(source, Mapping):
        state = dict(source)
    else:
        state = load_weights(source)
        grid = read_metadata(source).get("grid_size")
        if source_grid is None and grid:
            rows, columns = grid.split("x")
            source_grid = int(rows), int(columns)
    report = LoadReport()
    own = model.state_dict()
    _adapt_distillation(own, state, keep_dist, report)
    _adapt_positions(model, own, state, source_grid, interpolation, report)

    allowed_unused, allowed_missing = tuple(skip), (*skip, *allow_missing)
    report.loaded = [n for n in own if n in state and not n.startswith(allowed_unused)]
    report.missing = [n for n in own if n not in report.loaded]
    unused = [n for n in state if n not in report.loaded]
    report.skipped += unused
    problems = [
        f"missing {n} {tuple(own[n].shape)}"
        for n in report.missing
        if not n.startswith(allowed_missing)
    ]
    problems += [
        f"unexpected {n} {tuple(state[n].shape)}"
        for n in unused
        if not n.startswith(allowed_unused)
    ]
    problems += [
        f"{n} is {tuple(state[n].shape)}, the model has {tuple(own[n].shape)}"
        for n in report.loaded
        if state[n].shape != own[n].shape
    ]
    if problems:
        shown = "; ".join(problems[:8])
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(
            f"the weights do not fit the model: {shown}{more}. Use the architecture they were "
            "made for, or name prefixes to leave out with skip=, e.g. skip=('head.',)"
        )
    with torch.no_grad():
        for name in report.loaded:
            own[name].copy_(state[name])
    return report


def load_pretrained_by_tag(
    model: nn.Module,
    name: str,
    *,
    skip: Sequence[str] = ("head.", "head_dist."),
    keep_dist: bool = False,
    interpolation: str = "bilinear",
) -> LoadReport:
    """Loads timm's pretrained weights of a dense model into a model of the same shape.

    Args:
        model: a timm VisionTransformer, sparse or dense.
        name: timm's name with tag, e.g. "deit_small_distilled_patch16_224.fb_in1k".
        skip: prefixes of names to leave alone; the classifier by default.
        keep_dist: as of `load_backbone`.
        interpolation: as of `load_backbone`.

    Returns:
        What was done.

    Raises:
        ValueError: if timm has no such weights, or they do not fit.
        RuntimeError: if they cannot be fetched.
    """
    dense_name, _, tag = name.partition(".")
    check_tag(dense_name, tag or None)
    try:
        dense: Any = timm.create_model(name, pretrained=True)
    except OSError as error:
        raise RuntimeError(
            f"pretrained weights {name} could not be fetched ({error}); check the network, or "
            "load a file with sparse_vit.load_backbone(model, path)"
        ) from error
    return load_backbone(
        model,
        dense.state_dict(),
        skip=skip,
        keep_dist=keep_dist,
        source_grid=dense.patch_embed.grid_size,
        interpolation=interpolation,
    )


def check_tag(dense_name: str, tag: str | None) -> None:
    """Refuses a tag without weights, for which timm would go on with random ones.

    Raises:
        ValueError: naming the tags that exist.
    """
    names = timm.list_pretrained(f"{dense_name}.*")
    if not names or (tag and f"{dense_name}.{tag}" not in names):
        raise ValueError(
            f"timm has no pretrained weights of {dense_name} under the tag {tag!r}; it has "
            f"{[name.partition('.')[2] for name in names]}. Use one of these, or load a file with "
            "sparse_vit.load_backbone(model, path)"
        )


def _is_square(count: int) -> bool:
    return count > 0 and math.isqrt(count) ** 2 == count


def _adapt_distillation(
    own: Mapping[str, Tensor], state: dict[str, Tensor], keep_dist: bool, report: LoadReport
) -> None:
    """Drops or renames the distillation token of a DeiT: 198 positions where a ViT has 197."""
    positions = state.get("pos_embed")
    rows = 0 if positions is None else positions.shape[1]
    by_shape = "reg_token" not in state and _is_square(rows - 2) and not _is_square(rows - 1)
    report.distilled = "dist_token" in state or by_shape
    if not report.distilled or "dist_token" in own:
        return
    if keep_dist:
        register = own.get("reg_token")
        if register is None or register.shape[1] != 1 or "dist_token" not in state:
            raise ValueError(
                "keep_dist needs weights with a dist_token and a model with a place for it: "
                "build it with reg_tokens=1, or as a distilled DeiT"
            )
        state["reg_token"] = state.pop("dist_token")
    else:
        if positions is not None:
            state["pos_embed"] = torch.cat((positions[:, :1], positions[:, 2:]), dim=1)
        if state.pop("dist_token", None) is not None:
            report.skipped.append("dist_token")
    heads = [name for name in state if name.startswith("head_dist.")]
    for name in heads:
        del state[name]
    report.skipped += heads


def _adapt_positions(
    model: nn.Module,
    own: Mapping[str, Tensor],
    state: dict[str, Tensor],
    source_grid: tuple[int, int] | None,
    interpolation: str,
    report: LoadReport,
) -> None:
    """Resizes positions to the model's grid, leaving those of prefix tokens alone."""
    positions = state.get("pos_embed")
    if positions is None or "pos_embed" not in own or positions.ndim != 3:
        return
    vit: Any = model
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    target = tuple(vit.patch_embed.grid_size)
    count = positions.shape[1] - prefix
    grid = source_grid or _infer_grid(count, target)
    if grid is None or grid[0] * grid[1] != count:
        raise ValueError(
            f"pos_embed has {positions.shape[1]} rows, {count} after {prefix} prefix tokens of the "
            f"model, which is no grid of {grid or 'known'} size (the model's is {target}); pass "
            "source_grid=(rows, columns), or use weights with the model's prefix tokens"
        )
    if grid == target:
        return
    report.resized_from = grid
    state["pos_embed"] = resample_abs_pos_embed(
        positions,
        new_size=list(target),
        old_size=list(grid),
        num_prefix_tokens=prefix,
        interpolation=interpolation,
        antialias=False,
    )


def _infer_grid(count: int, target: tuple[int, int]) -> tuple[int, int] | None:
    """A square grid or the model's own; None where both or neither would do."""
    side = math.isqrt(max(count, 0))
    candidates = {(side, side)} if _is_square(count) else set()
    if count == target[0] * target[1]:
        candidates.add(target)
    return candidates.pop() if len(candidates) == 1 else None
