"""A canvas in pixels: pictures, frames and words at exact places, as one PNG."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid._optional import require
from reid.data.source import MEMBER, read_bytes
from reid.errors import UserError
from reid.report.style import INK, PAPER, context, figure, to_png

_DPI = 100


def load_image(source: str | NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return an image as RGB at a given size.

    Args:
        source: Image file, "<archive>!/<member>", or (H, W, 3) uint8.
        height: Pixels.
        width: Pixels.

    Returns:
        (height, width, 3) uint8.

    Raises:
        UserError: The file is missing or not an image.
    """
    pil = require("PIL.Image")
    if isinstance(source, np.ndarray):
        resized = pil.fromarray(source).resize((width, height), pil.Resampling.BICUBIC)
        return np.asarray(resized, dtype=np.uint8)
    try:
        file = io.BytesIO(read_bytes(source)) if MEMBER in source else source
        with pil.open(file) as image:
            resized = image.convert("RGB").resize((width, height), pil.Resampling.BICUBIC)
            return np.asarray(resized, dtype=np.uint8)
    except FileNotFoundError as error:
        raise UserError(f"image {source} does not exist; was the data set moved?") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{source} is not a readable image ({error}); replace the file") from error


def load_mask(path: str) -> NDArray[np.uint8]:
    """Read a label image as (H, W) uint8.

    Raises:
        UserError: The file is missing or not an image with one label per pixel.
    """
    pil = require("PIL.Image")
    if not Path(path).is_file():
        raise UserError(f"mask {path} does not exist; generate the data set with masks")
    try:
        with pil.open(path) as image:
            labels = np.asarray(image)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable image ({error}); replace the file") from error
    if labels.ndim != 2:
        raise UserError(f"mask {path} has shape {labels.shape}; expected one label per pixel")
    return labels.astype(np.uint8)


class Sheet:
    """Collects pictures, frames and words; coordinates are pixels from the top left corner."""

    def __init__(self, width: int, height: int) -> None:
        self._pixels = np.full((height, width, 3), 255, dtype=np.uint8)
        self._frames: list[tuple[float, float, float, float, dict[str, Any]]] = []
        self._words: list[tuple[float, float, str, dict[str, Any]]] = []

    def image(self, x: int, y: int, picture: NDArray[np.uint8]) -> None:
        """Put a (H, W, 3) picture with its top left corner at (x, y)."""
        height, width = picture.shape[:2]
        self._pixels[y : y + height, x : x + width] = picture

    def frame(
        self, x: float, y: float, width: float, height: float, colour: str, **style: Any
    ) -> None:
        """Draw a frame around a rectangle; `style` is that of matplotlib's Rectangle."""
        self._frames.append((x, y, width, height, {"edgecolor": colour, **style}))

    def text(self, x: float, y: float, words: str, size: float = 9.0, **style: Any) -> None:
        """Write words; size in points at 100 dots per inch, `style` that of matplotlib's text."""
        self._words.append((x, y, words, {"fontsize": size, "color": INK, **style}))

    def png(self) -> bytes:
        """Return the sheet as PNG, one dot per pixel."""
        height, width = self._pixels.shape[:2]
        rectangle = require("matplotlib.patches").Rectangle
        with context():
            made = figure(width / _DPI, height / _DPI, facecolor=PAPER)
            axes = made.add_axes((0.0, 0.0, 1.0, 1.0))
            axes.set_axis_off()
            axes.imshow(self._pixels, interpolation="none", extent=(0, width, height, 0))
            axes.set_aspect("auto")
            for x, y, w, h, style in self._frames:
                axes.add_patch(rectangle((x, y), w, h, fill=False, **{"linewidth": 2.0, **style}))
            for x, y, words, style in self._words:
                # a dollar sign in a file name must not start a formula
                axes.text(x, y, words, parse_math=False, **{"va": "baseline", **style})
            return to_png(made, _DPI)
