"""From image files to uint8 tensors: decoded at once, or when they are first asked for."""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from reid._optional import require
from reid.data import usable_cores
from reid.data.records import Record
from reid.data.source import read_bytes
from reid.errors import UserError

# 200 MB when decoded; a photograph of a camera has less, a crop of a person much less
MOST_PIXELS = 2**26


def decode(
    path: str, image_size: tuple[int, int] | None, interpolation: str = "bicubic"
) -> np.ndarray:
    """Read one image file.

    Args:
        path: File of any format Pillow reads, or "<archive>!/<member>".
        image_size: Height and width of the result in pixels; None keeps those of the file.
        interpolation: bicubic or bilinear, both with anti-aliasing.

    Returns:
        (3, H, W) uint8 RGB.

    Raises:
        UserError: Missing, empty or damaged file; the message names it.
    """
    return decode_bytes(read_bytes(path), path, image_size, interpolation)


def decode_bytes(
    content: bytes, path: str, image_size: tuple[int, int] | None, interpolation: str = "bicubic"
) -> np.ndarray:
    """Decode what `path` held; as `decode`."""
    image_module = require("PIL.Image")
    resampling = image_module.Resampling
    filters = {"bicubic": resampling.BICUBIC, "bilinear": resampling.BILINEAR}
    chosen = filters[interpolation]
    if not content:
        raise UserError(f"{path} is empty (0 bytes); delete it or copy it again")
    try:
        with image_module.open(io.BytesIO(content)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UserError(
                    f"{path} has {image.width} x {image.height} pixels, far more than any image of "
                    "a person; remove it"
                )
            rgb = image.convert("RGB")
            if image_size is not None and rgb.size != image_size[::-1]:
                rgb = rgb.resize(image_size[::-1], chosen)
            return np.asarray(rgb).transpose(2, 0, 1)
    except UserError:
        raise
    except image_module.DecompressionBombError as error:
        raise UserError(f"{path} is far larger than any image of a person ({error})") from error
    except require("PIL").UnidentifiedImageError as error:
        raise UserError(
            f"{path} cannot be read as an image (no known format begins with {content[:8]!r}); "
            "delete it or copy it again"
        ) from error
    except Exception as error:
        # decoders raise nearly anything on damaged bytes
        raise UserError(
            f"{path} cannot be read as an image ({error}); delete it or copy it again"
        ) from error


def load_images(
    records: Sequence[Record],
    image_size: tuple[int, int],
    interpolation: str = "bicubic",
    workers: int | None = None,
) -> Tensor:
    """Decode many images.

    Args:
        records: Images to read.
        image_size: Height and width in pixels.
        interpolation: bicubic or bilinear.
        workers: Threads; None uses one for each core.

    Returns:
        (N, 3, H, W) uint8 on the CPU, in the order of `records`.

    Raises:
        UserError: Names every unreadable file, up to five.
    """
    images = np.empty((len(records), 3, *image_size), dtype=np.uint8)

    def read(number: int) -> None:
        images[number] = decode(records[number].path, image_size, interpolation)

    each(read, len(records), workers)
    return torch.from_numpy(images)


def each(read: Callable[[int], None], count: int, workers: int | None = None) -> None:
    """Call `read` with 0 to count - 1 in threads.

    Raises:
        UserError: Joins the messages of the calls that raised one, up to five.
    """
    problems: list[str] = []

    def call(number: int) -> None:
        try:
            read(number)
        except UserError as error:
            problems.append(str(error))

    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        list(pool.map(call, range(count)))
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise UserError(
            f"{'; '.join(sorted(problems)[:5])}{more}; to leave unreadable images out, set "
            "data.skip_bad=true or give --skip-bad"
        )


class Held:
    """Images that are decoded when they are first asked for, and kept.

    Memory is taken for the rows that were asked for only, so a process of several holds its share.

    Args:
        records: Images to read.
        image_size: Height and width in pixels.
        interpolation: bicubic or bilinear.
    """

    def __init__(
        self,
        records: Sequence[Record],
        image_size: tuple[int, int],
        interpolation: str = "bicubic",
    ) -> None:
        self._records = records
        self._how = image_size, interpolation
        self._images = torch.from_numpy(np.empty((len(records), 3, *image_size), np.uint8))
        self._known = np.zeros(len(records), dtype=bool)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, rows: slice) -> Tensor:
        """Return a (b, 3, H, W) uint8 view.

        Raises:
            UserError: Names every unreadable file, up to five.
        """
        wanted = np.arange(len(self))[rows]
        missing = wanted[~self._known[wanted]]
        if len(missing):
            found = load_images([self._records[row] for row in missing], *self._how)
            self._images[torch.from_numpy(missing)] = found
            self._known[missing] = True
        return self._images[rows]


def relabel(records: Sequence[Record]) -> tuple[list[int], dict[int, int]]:
    """Number the identities of a training set from 0, in ascending order of pid.

    Returns:
        The label of each record and the mapping from pid to label.
    """
    mapping = {pid: label for label, pid in enumerate(sorted({r.pid for r in records}))}
    return [mapping[record.pid] for record in records], mapping


def place(images: Tensor, device: torch.device, policy: str = "auto") -> Tensor:
    """Move a decoded set to the device, if it fits.

    Args:
        images: (N, 3, H, W) uint8 on the CPU.
        device: Where training happens.
        policy: auto (when it takes at most half of the free memory), yes or no.

    Returns:
        The images on the device, or as they are on the CPU: `reid.data.ahead` then brings batches.
    """
    if device.type != "cuda" or policy == "no":
        return images
    if policy == "auto":
        free, _ = torch.cuda.mem_get_info(device)
        if images.numel() > free // 2:
            return images
    return images.to(device)


def take(images: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """Copy rows of a set in host memory, into pinned memory if they are meant for a GPU.

    Args:
        images: (N, 3, H, W) uint8 on the CPU.
        rows: (B,) int64 on the CPU.
        device: Where the rows will be used.

    Returns:
        (B, 3, H, W) uint8 on the CPU.
    """
    out = torch.empty(
        (len(rows), *images.shape[1:]), dtype=images.dtype, pin_memory=device.type == "cuda"
    )
    return torch.index_select(images, 0, rows, out=out)
