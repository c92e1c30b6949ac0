"""How most public code reads a training set: one image at a time, in the workers of a DataLoader.

Written from the descriptions of the transforms (torchvision's RandomHorizontalFlip, Pad,
RandomCrop, ToTensor and Normalize; random erasing of Zhong et al., AAAI 2020) on Pillow and torch.
"""

import math
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reid.data.records import Record


class Images(Dataset[tuple[Tensor, int, int]]):
    """Opens, resizes and augments an image each time it is asked for."""

    def __init__(self, records: Sequence[Record], size: tuple[int, int]) -> None:
        self.records = list(records)
        self.size = size

    def __len__(self) -> int:
        """Number of images."""
        return len(self.records)

    def __getitem__(self, row: int) -> tuple[Tensor, int, int]:
        """Return the normalised image, (3, H, W) float32, its identity and its camera."""
        record, (height, width) = self.records[row], self.size
        with Image.open(record.path) as opened:
            image = opened.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        if random.random() < 0.5:
            image = ImageOps.mirror(image)
        pad = round(10 * height / 256)
        left, top = random.randint(0, 2 * pad), random.randint(0, 2 * pad)
        image = ImageOps.expand(image, pad).crop((left, top, left + width, top + height))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255
        return erased((pixels - 0.5) / 0.5), record.pid, record.camid


def erased(image: Tensor) -> Tensor:
    """Fill a rectangle with noise, with probability 0.5."""
    _, height, width = image.shape
    if random.random() < 0.5:
        return image
    for _ in range(10):
        area = random.uniform(0.02, 1 / 3) * height * width
        aspect = math.exp(random.uniform(math.log(0.3), -math.log(0.3)))
        tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if tall < height and wide < width:
            top, left = random.randint(0, height - tall), random.randint(0, width - wide)
            image[:, top : top + tall, left : left + wide] = torch.randn(3, tall, wide)
            break
    return image


def batches(
    records: Sequence[Record], size: tuple[int, int], rows: Sequence[list[int]], workers: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the batches of an epoch: images, identities and cameras."""
    yield from DataLoader(Images(records, size), batch_sampler=rows, num_workers=workers)
