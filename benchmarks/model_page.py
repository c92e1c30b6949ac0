"""The page of whole models: goals, tables, where the time goes, and speed against operations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import goals, tables, training
from benchmarks.model_goals import model_goals
from benchmarks.models import DENSE_ENGINE
from benchmarks.plots import COLOURS, finish

Row = Mapping[str, Any]

ALT = "Images per second against operations an image, by batch size, with the ideal line"
DTYPES = ("float32", "bfloat16", "int8")
WAYS = {
    "engine": COLOURS[0],
    "plain": COLOURS[1],
    "onnxruntime": COLOURS[2],
    "compiled": COLOURS[3],
}
METHODS = {"prune": "o", "fuse": "^", "merge": "s", "adaptive": "D"}
NAMES = {"plain": "torch, eager", "compiled": "torch.compile", "prune": "dense and pruned"}
PANEL = (4.3, 3.9)


def belongs(row: Row) -> bool:
    """Tell whether a row is of this page."""
    return row["op"] == training.OP or (row["op"], row["mode"]) == ("model", "engine")


def lines(rows: Sequence[Row]) -> list[str]:
    """Return goals and tables of one device in Markdown, float32 first."""
    rows = sorted(rows, key=lambda row: (DTYPES.index(row["dtype"]), row["batch"]))
    outcomes = goals.evaluate(rows, model_goals())
    sections = [tables.goals_of(outcomes)] if outcomes else []
    return [line for s in (*sections, *tables.sections(rows)) for line in tables.markdown(s)]


def point(row: Row) -> tuple[str, str, float, float]:
    """Return method, way, GFLOP an image and images per second of a row."""
    method, _, way = row["provider"].partition(", ")
    way, _, kind = way.partition(", ")
    kind = kind or method.split()[0]
    images = row["images_per_second"] * row["p50_ms"] / 1e3
    return (
        kind if kind in METHODS else "prune",
        way if way in WAYS else "plain",
        row["flops"] / images / 1e9,
        row["images_per_second"],
    )


def plot(rows: Sequence[Row], path: Path) -> bool:
    """Draw the speed in float32 over the operations, a panel per batch; False without rows."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    kept = [r for r in rows if r["status"] == "model" and r["dtype"] == DTYPES[0]]
    batches = sorted({r["batch"] for r in kept})
    if not batches:
        return False
    width = PANEL[0] * len(batches)
    figure, axes = plt.subplots(1, len(batches), figsize=(width, PANEL[1]), squeeze=False)
    seen: dict[str, dict[str, None]] = {"way": {}, "method": {}}
    for axis, batch in zip(axes[0], batches, strict=True):
        own = [r for r in kept if r["batch"] == batch]
        for row in own:
            method, way, _, _ = point(row)
            seen["way"][way], seen["method"][method] = None, None
        _panel(axis, own)
        axis.set_title(f"batch {batch}")
    axes[0][0].set_ylabel("images per second")
    handles = [
        *(Line2D([], [], color=WAYS[way], label=NAMES.get(way, way)) for way in seen["way"]),
        *(
            Line2D([], [], color="0.3", marker=METHODS[m], linestyle="", label=NAMES.get(m, m))
            for m in METHODS if m in seen["method"]
        ),
        Line2D([], [], color="0.4", linestyle="--", label="ideal: the dense engine, per operation"),
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, -0.1), ncols=5, frameon=False,
        fontsize=9,
    )  # fmt: skip
    finish(figure, plt, path)
    return True


def _panel(axis: Any, rows: Sequence[Row]) -> None:
    found = [point(row) for row in rows]
    for way, colour in WAYS.items():
        line = sorted((x, y) for method, own, x, y in found if (method, own) == ("prune", way))
        if line:
            axis.plot(*zip(*line, strict=True), color=colour, marker=METHODS["prune"])
        for method, own, x, y in found:
            if own == way and method != "prune":
                axis.plot(x, y, color=colour, marker=METHODS[method], markersize=6, alpha=0.8)
    dense = next((r for r in rows if r["provider"] == DENSE_ENGINE), None)
    if dense is not None:
        _, _, work, rate = point(dense)
        least, most = min(x for _, _, x, _ in found), max(x for _, _, x, _ in found)
        steps = [least + (most - least) * i / 40 for i in range(41)]
        axis.plot(steps, [rate * work / x for x in steps], color="0.4", linestyle="--", zorder=1)
        ratio = axis.secondary_yaxis("right", functions=(lambda y: y / rate, lambda r: r * rate))
        ratio.set_ylabel("times the dense engine")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("GFLOP an image")
    axis.grid(True, color="0.9")
