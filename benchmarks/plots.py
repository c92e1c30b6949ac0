"""Plots of the rows of one device."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

# Okabe and Ito's palette, told apart without colour vision; every line has its own marker as well.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PANEL = (5.6, 4.2)
PEERS_SHOWN = 5
OF = {"dense_attention": "a", "ragged_attention": "the longest"}
TITLES = {"dense_attention": "sequences of one length", "ragged_attention": "ragged sequences"}


def forward(rows: Sequence[Row], path: Path) -> bool:
    """Draw the rate of the forward over the length, ours, peers and roof; False without rows."""
    import matplotlib.pyplot as plt

    state = _state(rows)
    kept = [
        r
        for r in rows
        if r["status"] == "ok" and r["mode"] == "forward" and r["cache"] == state
        and r["op"] in TITLES and r["dim"] == 64
    ]  # fmt: skip
    panels = sorted({(r["op"], r["dtype"]) for r in kept}, key=lambda p: (p[0], p[1] != "float32"))
    if not panels:
        return False
    columns = 2 if len(panels) > 1 else 1
    height = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        height, columns, figsize=(PANEL[0] * columns, PANEL[1] * height), squeeze=False
    )
    styles = {"ours": (COLOURS[0], MARKERS[0])}
    for axis, (op, dtype) in zip(axes.flat, panels, strict=False):
        _rates(axis, [r for r in kept if (r["op"], r["dtype"]) == (op, dtype)], styles)
        axis.set_title(f"{TITLES[op]}, {dtype}")
        axis.set_xlabel(f"tokens of {OF[op]} sequence")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    finish(figure, plt, path)
    return True


def _rates(axis: Any, rows: Sequence[Row], styles: dict[str, tuple[str, str]]) -> None:
    """Draw one panel; a provider keeps the colour and marker of the panel it came up in first."""
    from matplotlib.ticker import LogLocator, NullLocator

    by_provider: dict[str, dict[int, float]] = defaultdict(dict)
    roof: dict[int, float] = {}
    for row in rows:
        by_provider[row["provider"]][row["tokens"]] = row["gflops"]
        limit = row["flops"] / max(
            row["flops"] / row["roof"]["gflops"], row["bytes"] / row["roof"]["copy_gbytes"]
        )
        roof[row["tokens"]] = limit
    peers = sorted((n for n in by_provider if n != "ours"), key=lambda n: -_mean(by_provider[n]))
    names = ["ours"] * ("ours" in by_provider) + peers[:PEERS_SHOWN]
    for name in names:
        taken = {styles[other] for other in names if other in styles}
        free = (style for style in zip(COLOURS, MARKERS, strict=True) if style not in taken)
        colour, marker = styles.setdefault(name, next(free))
        points = sorted(by_provider[name].items())
        axis.plot(
            *zip(*points, strict=True),
            color=colour,
            marker=marker,
            linewidth=2.4 if name == "ours" else 1.4,
            label=name,
        )
    axis.plot(*zip(*sorted(roof.items()), strict=True), color="0.4", linestyle="--", label="roof")
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_xticks(sorted(roof))
    axis.set_ylabel("useful GFLOP/s")
    axis.grid(True, color="0.9")
    axis.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)


def step(rows: Sequence[Row], path: Path) -> bool:
    """Draw time and peak memory of a training step under a mask; False without rows."""
    import matplotlib.pyplot as plt

    state = _state(rows)
    kept = [
        r
        for r in rows
        if r["status"] == "ok" and (r["op"], r["mode"]) == ("masked_attention", "step")
        and r["cache"] == state
    ]  # fmt: skip
    if not kept:
        return False
    # the shape with the most providers
    labels = [f"{r['label']}, {r['dtype']}" for r in kept]
    label = max(dict.fromkeys(labels), key=labels.count)
    shown = [r for r, name in zip(kept, labels, strict=True) if name == label]
    shown.sort(key=lambda r: -r["p50_ms"])
    names = [r["provider"] for r in shown]
    figure, axes = plt.subplots(1, 2, figsize=(PANEL[0] * 2, 1.2 + 0.36 * len(names)), sharey=True)
    colours = [_bar(r) for r in shown]
    for axis, values, unit in (
        (axes[0], [r["p50_ms"] for r in shown], "time of a training step (ms)"),
        (axes[1], [r["peak_bytes"] / 1e6 for r in shown], "peak memory beyond the inputs (MB)"),
    ):
        bars = axis.barh(names, values, color=colours)
        axis.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
        axis.set_xlabel(unit)
        axis.margins(x=0.14)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"masked attention, {label}; grey: marks that compute no mask", fontsize=10)
    finish(figure, plt, path)
    return True


def _bar(row: Row) -> str:
    if "own" in row["tags"]:
        return COLOURS[0]
    return "0.7" if "yardstick" in row["tags"] else COLOURS[1]


def _state(rows: Sequence[Row]) -> str:
    return "cold" if any(r["device_type"] == "cuda" for r in rows) else "hot"


def _mean(points: Mapping[int, float]) -> float:
    return sum(points.values()) / len(points)


def finish(figure: Any, plt: Any, path: Path) -> None:
    """Save a figure and forget it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=130, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
