"""A set of cut-outs with alpha: read from a folder, or drawn."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from reid._optional import require
from reid.errors import UserError

Pixels = npt.NDArray[np.uint8]

SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
LARGEST_SIDE = 512
CONTACT_SHEET = "contact_sheet.png"


class OccluderBank:
    """Cut-outs for NODA.

    Args:
        cutouts: (h, w, 4) uint8 RGBA arrays, each with a visible pixel.
        names: A name for each; numbered if left out.

    Raises:
        ValueError: No cut-outs, or one of another shape or dtype.
    """

    def __init__(self, cutouts: Sequence[Pixels], names: Sequence[str] | None = None) -> None:
        if not cutouts:
            raise ValueError("a bank needs at least one cut-out")
        for number, cutout in enumerate(cutouts):
            if cutout.ndim != 3 or cutout.shape[2] != 4 or cutout.dtype != np.uint8:
                raise ValueError(
                    f"cut-out {number} must be (h, w, 4) uint8, got {cutout.shape} {cutout.dtype}"
                )
        self.cutouts = list(cutouts)
        self.names = list(names or (f"{number:03d}" for number in range(len(cutouts))))
        self._tensors: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.cutouts)

    @classmethod
    def default(cls, seed: int = 0) -> "OccluderBank":
        """Draw the default bank: bins, bicycles, trees, crates and the like, three of each.

        Inferred: the paper photographed its occluders and did not publish them. These are drawn,
        with code of their own, so that they resemble the generated test occluders no more than
        any object resembles another.

        Args:
            seed: Same seed, same bank.
        """
        names, cutouts = zip(*_drawn(seed), strict=True)
        return cls(cutouts, names)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> "OccluderBank":
        """Read all images below a folder, in the order of their paths.

        PNG and WebP files bring their alpha; images without one are opaque rectangles. Each is
        cropped to its visible part. The contact sheet of a bank made by `reid data occluders` is
        passed over.

        Args:
            folder: Searched with its subfolders.

        Raises:
            UserError: The folder is missing or holds no image, or a file cannot be read or is
                fully transparent.
        """
        root = Path(folder)
        if not root.is_dir():
            raise UserError(
                f"occluder folder {root} does not exist; give a folder of PNG cut-outs, or leave "
                "augment.occluders empty to draw the default ones"
            )
        paths = sorted(
            path
            for path in root.rglob("*")
            if path.suffix.lower() in SUFFIXES
            and not path.name.startswith(".")
            and path != root / CONTACT_SHEET
        )
        if not paths:
            raise UserError(
                f"occluder folder {root} holds no image ({', '.join(SUFFIXES)}); put cut-outs "
                "there, or leave augment.occluders empty to draw the default ones"
            )
        names = [path.relative_to(root).with_suffix("").as_posix() for path in paths]
        return cls([_read(path) for path in paths], names)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write every cut-out as a PNG with alpha, to look at, edit and read back.

        Args:
            folder: Created if missing.

        Returns:
            The folder.
        """
        image = require("PIL.Image")
        root = Path(folder)
        for name, cutout in zip(self.names, self.cutouts, strict=True):
            path = root / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.fromarray(cutout).save(path)
        return root

    def tensors(self, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The bank in the form that `reid.data.augment.noda` takes, cached per image size.

        Args:
            image_size: Height and width of the images that will be occluded.

        Returns:
            occluders (M, 4, S, S) uint8 with colours multiplied by alpha, stretched to squares of
            side S = max(image_size) and free of detail that the paste could not show; aspects
            (M,) float32 height / width of the cut-outs.
        """
        key = (int(image_size[0]), int(image_size[1]))
        if key not in self._tensors:
            squares = torch.stack([_square(cutout, key) for cutout in self.cutouts])
            aspects = [cutout.shape[0] / cutout.shape[1] for cutout in self.cutouts]
            self._tensors[key] = (squares, torch.tensor(aspects, dtype=torch.float32))
        return self._tensors[key]


@lru_cache(maxsize=4)
def _drawn(seed: int) -> tuple[tuple[str, Pixels], ...]:
    require("PIL.Image")
    from reid.data.occluders.drawing import draw_all

    return tuple(draw_all(seed))


def _read(path: Path) -> Pixels:
    """Read one image as RGBA, cropped to its visible part and to a moderate size."""
    image = require("PIL.Image")
    try:
        with image.open(path) as opened:
            rgba = opened.convert("RGBA")
    except (OSError, ValueError, SyntaxError, image.DecompressionBombError) as error:
        raise UserError(
            f"occluder {path} cannot be read ({error}); remove or replace it"
        ) from error
    box = rgba.getchannel("A").getbbox()
    if box is None:
        raise UserError(f"occluder {path} is fully transparent; remove or replace it")
    rgba = rgba.crop(box)
    rgba.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return np.array(rgba)


def _square(cutout: Pixels, image_size: tuple[int, int]) -> Tensor:
    """Multiply colours by alpha, shrink to about the pasted size, stretch to a square."""
    height, width = image_size
    pixels = torch.from_numpy(cutout.copy()).permute(2, 0, 1)[None].float()
    pixels[:, :3] *= pixels[:, 3:] / 255.0
    vertical = cutout.shape[0] > 2 * cutout.shape[1]
    pasted = (height, width // 2) if vertical else (height // 2, width)
    side = max(image_size)
    for size in (pasted, (side, side)):
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    return pixels[0].round().clamp(0, 255).to(torch.uint8)
