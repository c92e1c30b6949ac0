"""Colours and type shared by every figure, and the way from a figure to a PNG file."""

import io
import os
import tempfile
from pathlib import Path
from typing import Any

from reid._optional import require

INK = "#1f2328"
MUTED = "#6b7280"
RULE = "#d5d9de"
PAPER = "#ffffff"

# Okabe and Ito's palette, distinguishable with every common colour vision
ROW_COLOURS = ("#1f2328", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
ROW_MARKERS = ("s", "o", "^", "D", "v", "P", "X")
BASELINE_DASHES = ((0, (1, 1.2)), (0, (4, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (2, 2)))
STATUS_COLOURS = {"right": "#008a5e", "wrong": "#cf3a1c", "junk": "#9aa0a6"}
REGION_COLOURS = {"body": "#0072B2", "occluder": "#D55E00", "background": "#cfd4da"}

DPI = 150

_RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e8eaed",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "legend.fontsize": 9.0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
}


def context() -> Any:
    """Return the context in which figures are made and saved; restores the caller's settings."""
    return require("matplotlib").rc_context(_RC)


def figure(width: float, height: float, **options: Any) -> Any:
    """Return a matplotlib figure on the Agg canvas, without pyplot and its global state.

    Args:
        width: Inches.
        height: Inches.
        options: Passed on to matplotlib's Figure.
    """
    made = require("matplotlib.figure").Figure(figsize=(width, height), **options)
    require("matplotlib.backends.backend_agg").FigureCanvasAgg(made)
    return made


def to_png(made: Any, dpi: int = DPI) -> bytes:
    """Return the figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> Path:
    """Write a file so that a killed run leaves the previous one or none.

    Args:
        path: Where to; missing folders are made.
        data: Text is written as UTF-8.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    content = data.encode() if isinstance(data, str) else data
    with tempfile.NamedTemporaryFile(
        dir=target.parent, prefix=f".{target.name}.", delete=False
    ) as handle:
        try:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        except BaseException:
            os.unlink(handle.name)
            raise
    os.chmod(handle.name, 0o644)
    os.replace(handle.name, target)
    return target
