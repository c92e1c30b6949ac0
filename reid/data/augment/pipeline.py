"""The views of training images: which augmentations, in which order."""

from collections.abc import Sequence

import torch
from torch import Tensor

from reid.config import AugmentConfig
from reid.data.augment.color import color_jitter
from reid.data.augment.erasing import random_erasing
from reid.data.augment.flip_crop import flip_crop, scaled_padding
from reid.data.augment.noda import noda
from reid.data.augment.random_patch import donor_rows, random_patch
from reid.data.occluders import OccluderBank
from sparse_vit.keyed_random import fold

VIEWS = ("clean", "occluded")
HALF = (0.5, 0.5, 0.5)


def normalize(images: Tensor, mean: Sequence[float] = HALF, std: Sequence[float] = HALF) -> Tensor:
    """Scale to [0, 1], subtract the mean and divide by the deviation of each channel.

    Args:
        images: (B, 3, H, W) uint8 in [0, 255], or float in [0, 1].
        mean: Of each channel.
        std: Of each channel.

    Returns:
        (B, 3, H, W) float32.
    """
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    out = images.to(torch.float32, copy=True)
    if len(set(mean)) == 1 and len(set(std)) == 1:
        return out.mul_(1.0 / (scale * std[0])).sub_(mean[0] / std[0])
    for channel, (shift, gain) in enumerate(zip(mean, std, strict=True)):
        out[:, channel].mul_(1.0 / (scale * gain)).sub_(shift / gain)
    return out


class Augmenter:
    """One view of training images, as a function of pixels and keys.

    "clean" (specified by SUReID, arXiv 2401.07469, section III-C, first batch): flip, pad and
    crop, random patch, normalise, random erasing. "occluded" (second batch): flip, pad and crop,
    NODA, normalise. Colour jitter, if any, acts before an occluder is pasted.

    Args:
        view: "clean" or "occluded".
        config: Strengths and probabilities; `pad` holds for a height of 256 and scales.
        image_size: Height and width of the images.
        bank: Occluders; needed by the occluded view.
        donors: (N, 3, H, W) uint8 training images, at best on the device of the batches; needed
            by the clean view while `config.random_patch` is not 0.
        mean: Of each channel, subtracted at the end.
        std: Of each channel, divided by at the end.

    Raises:
        ValueError: An unknown view, or one that lacks its bank or donors.
    """

    def __init__(
        self,
        view: str,
        config: AugmentConfig,
        *,
        image_size: tuple[int, int],
        bank: OccluderBank | None = None,
        donors: Tensor | None = None,
        mean: Sequence[float] = HALF,
        std: Sequence[float] = HALF,
    ) -> None:
        if view not in VIEWS:
            raise ValueError(f"unknown view {view!r}; expected one of {VIEWS}")
        if view == "occluded" and bank is None:
            raise ValueError("the occluded view needs a bank of occluders: OccluderBank.default()")
        size = (int(image_size[0]), int(image_size[1]))
        if view == "clean" and config.random_patch > 0:
            if donors is None:
                raise ValueError(
                    "random patch needs the training images as donors; pass donors, or set "
                    "augment.random_patch to 0"
                )
            if donors.dtype != torch.uint8 or donors.shape[1:] != (3, *size) or not len(donors):
                raise ValueError(
                    f"donors must be (N, 3, {size[0]}, {size[1]}) uint8, got "
                    f"{tuple(donors.shape)} {donors.dtype}"
                )
        self.view = view
        self.config = config
        self.image_size = size
        self.donors = donors
        self.mean, self.std = tuple(mean), tuple(std)
        self._bank = bank
        self._occluders: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor, keys: Tensor, sources: Tensor | None = None) -> Tensor:
        """Augment a batch.

        Args:
            images: (B, 3, H, W) uint8, already resized; not changed.
            keys: (B,) int64, one per image and view: see `reid.data.samplers.sample_keys`.
            sources: (B, 3, H, W) uint8 donors at `donor_rows(keys)`, where they were read before.

        Returns:
            (B, 3, H, W) float32, normalised, on the device of `images`.

        Raises:
            ValueError: A shape or dtype does not fit.
        """
        if images.dtype != torch.uint8 or images.shape[1:] != (3, *self.image_size):
            raise ValueError(
                f"expected uint8 images (B, 3, {self.image_size[0]}, {self.image_size[1]}), got "
                f"{tuple(images.shape)} {images.dtype}; resize them first"
            )
        if keys.shape != images.shape[:1] or keys.dtype != torch.int64:
            raise ValueError(
                f"expected {images.shape[0]} int64 keys, got {tuple(keys.shape)} {keys.dtype}"
            )
        config = self.config
        keys = keys.to(images.device)
        pad = scaled_padding(config.pad, self.image_size[0])
        out = flip_crop(images, fold(keys, 0), flip=config.flip, pad=pad)
        if self.pastes:
            assert self.donors is not None
            out = random_patch(
                out, fold(keys, 1), self.donors, p=config.random_patch, sources=sources
            )
        if config.color_jitter > 0 or self.view == "occluded":
            out = out.float() / 255.0
        if config.color_jitter > 0:
            out = color_jitter(out, fold(keys, 2), config.color_jitter)
        if self.view == "occluded":
            out = noda(out, fold(keys, 3), *self._occluders_on(images.device))
        out = normalize(out, self.mean, self.std)
        if self.view == "clean" and config.erasing > 0:
            out = random_erasing(out, fold(keys, 4), p=config.erasing)
        return out

    @property
    def pastes(self) -> bool:
        """Whether images get patches of donors."""
        return self.view == "clean" and self.config.random_patch > 0 and self.donors is not None

    def donor_rows(self, keys: Tensor) -> Tensor:
        """Rows of the donors that a batch takes patches from, (B,) int64, where `pastes` holds."""
        assert self.donors is not None
        return donor_rows(fold(keys, 1), len(self.donors))

    def _occluders_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cut-outs for this image size, and their aspect ratios, on a device."""
        if device not in self._occluders:
            assert self._bank is not None
            occluders, aspects = self._bank.tensors(self.image_size)
            self._occluders[device] = (occluders.to(device), aspects.to(device))
        return self._occluders[device]
