"""What the kept tokens lie on: body, occluder or background, per stage, against masks.

With a_j(c) the share of patch j's pixels that carry class c (body, occluder, background), and K_s
the patches that an image keeps after stage s,

    share(s, c)    = 1/|K_s|  sum_{j in K_s} a_j(c)          of what is kept, how much is c
    survives(s, c) = sum_{j in K_s} a_j(c) / sum_j a_j(c)    of all c, how much is kept

Stage 0 keeps everything: share(0, c) is the base rate that a pruning has to beat. Shares are means
over the images; `survives` divides the sums over all images, so images without an occluder do not
divide by zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid.errors import UserError
from reid.report.overlays import Grid
from reid.report.sheet import load_mask
from reid.report.style import MUTED, PAPER, REGION_COLOURS, context, figure, to_png

REGIONS = ("body", "occluder", "background")
_OCCLUDER = 7
_HIGHEST = 7


@dataclass(frozen=True)
class StageShare:
    """Where the tokens of one stage lie, means over the images, in percent.

    Attributes:
        stage: Block index of the pruning stage; 0 for all tokens.
        tokens: Patch tokens per image.
        share: Region -> share of the kept area.
        survives: Region -> share of the region's area that is still kept.
    """

    stage: int
    tokens: int
    share: dict[str, float]
    survives: dict[str, float]


def patch_regions(mask: NDArray[np.uint8], grid: Grid) -> NDArray[np.float64]:
    """Return which share of each patch is body, occluder and background.

    Args:
        mask: (H, W) labels: 0 background, 1 to 6 body and carried things, 7 occluder. A size that
            the grid does not divide is sampled at the nearest pixel first.
        grid: Patch grid.

    Returns:
        (patches, 3) float64 in the order of `REGIONS`; each row sums to 1.

    Raises:
        UserError: A label above 7.
    """
    if mask.size and int(mask.max()) > _HIGHEST:
        raise UserError(
            f"mask holds the label {int(mask.max())}; expected 0 (background), 1 to 6 (body) "
            "and 7 (occluder)"
        )
    height, width = mask.shape
    down = max(1, round(height / grid.rows))
    across = max(1, round(width / grid.columns))
    row = ((np.arange(grid.rows * down) + 0.5) * height / (grid.rows * down)).astype(np.int64)
    column = ((np.arange(grid.columns * across) + 0.5) * width / (grid.columns * across)).astype(
        np.int64
    )
    labels = mask[row[:, None], column]
    regions = np.stack([(labels > 0) & (labels < _OCCLUDER), labels == _OCCLUDER, labels == 0])
    cells = regions.reshape(3, grid.rows, down, grid.columns, across)
    return cells.mean(axis=(2, 4)).reshape(3, grid.patches).T


def read_regions(mask_paths: Sequence[str], grid: Grid) -> NDArray[np.float64]:
    """Return `patch_regions` of every mask file, (Q, patches, 3)."""
    return np.stack([patch_regions(load_mask(path), grid) for path in mask_paths])


def stage_shares(
    regions: NDArray[np.float64], kept: dict[int, NDArray[np.int64]]
) -> list[StageShare]:
    """Measure where the kept tokens lie.

    Args:
        regions: (Q, patches, 3) as `read_regions` returns.
        kept: Block index of each pruning stage -> (Q, k) original patch ids.

    Returns:
        All tokens first (stage 0), then one entry per stage in order.

    Raises:
        UserError: Ids for another number of images or outside the grid.
    """
    count, patches = regions.shape[:2]
    everything = np.tile(np.arange(patches), (count, 1))
    total = regions.sum(axis=(0, 1))
    shares = []
    for stage, ids in [(0, everything), *((stage, kept[stage]) for stage in sorted(kept))]:
        if len(ids) != count or (ids.size and not 0 <= ids.min() <= ids.max() < patches):
            raise UserError(
                f"stage {stage} keeps patches of {len(ids)} images with ids up to {ids.max()}; "
                f"expected {count} images with ids below {patches}: masks and model must agree"
            )
        chosen = np.take_along_axis(regions, ids[:, :, None], axis=1)
        area = chosen.sum(axis=(0, 1))
        survives = np.divide(area, total, out=np.zeros(3), where=total > 0)
        shares.append(
            StageShare(
                stage=stage,
                tokens=ids.shape[1],
                share=_named(chosen.mean(axis=(0, 1))),
                survives=_named(survives),
            )
        )
    return shares


def share_chart(rows: dict[str, list[StageShare]]) -> bytes:
    """Draw stacked bars: for each row of the comparison, one bar per stage.

    Args:
        rows: Label of the row -> its stages, all tokens first.

    Returns:
        A PNG.
    """
    with context():
        made = figure(2.2 + 2.9 * len(rows), 3.9, layout="constrained")
        panels = made.subplots(1, len(rows), sharey=True, squeeze=False)[0]
        for axes, (label, stages) in zip(panels, rows.items(), strict=True):
            _bars(axes, label, stages)
        panels[0].set_ylabel("share of the tokens' area (%)")
        made.supxlabel("pruning stage (patch tokens per image)", fontsize=10)
        handles, names = panels[0].get_legend_handles_labels()
        made.legend(handles[::-1], names[::-1], loc="outside right center")
        return to_png(made)


def _bars(axes: Any, label: str, stages: list[StageShare]) -> None:
    positions = np.arange(len(stages))
    bottom = np.zeros(len(stages))
    for region in REGIONS:
        height = np.array([stage.share[region] for stage in stages])
        axes.bar(
            positions, height, 0.74, bottom, color=REGION_COLOURS[region], label=region,
            edgecolor=PAPER, linewidth=0.8,
        )  # fmt: skip
        for x, low, size in zip(positions, bottom, height, strict=True):
            if size >= 6.0:
                colour = "#1f2328" if region == "background" else PAPER
                # the body's figure stands at the foot, clear of the dashed base rate
                middle = min(size / 2, 4.5) if region == "body" else low + size / 2
                axes.text(
                    x, middle, f"{size:.0f}", ha="center", va="center", color=colour,
                    fontsize=9,
                )  # fmt: skip
        bottom += height
    base = stages[0].share["body"]
    axes.axhline(base, color=MUTED, linewidth=1.0, linestyle=(0, (4, 2)))
    names = ["all", *(f"stage {place}" for place in range(1, len(stages)))]
    ticks = [f"{name}\n({stage.tokens})" for name, stage in zip(names, stages, strict=True)]
    axes.set_xticks(positions, ticks)
    axes.set_ylim(0, 100)
    axes.grid(False)
    axes.set_title(label)


def _named(values: NDArray[np.float64]) -> dict[str, float]:
    return {region: 100.0 * float(value) for region, value in zip(REGIONS, values, strict=True)}
