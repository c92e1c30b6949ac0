"""Batches of identities: sampled, sharded over processes, augmented on the device."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reid.config import RunConfig
from reid.data.ahead import Ahead
from reid.data.augment import Augmenter
from reid.data.cache import images_of
from reid.data.occluders import OccluderBank
from reid.data.records import Record
from reid.data.samplers import PKSampler, sample_keys, shard
from reid.data.store import place, relabel, take
from reid.engine import distributed


class PersonBatches:
    """Turns (epoch, index) into the views, labels and keys of this rank's share of a batch.

    Args:
        records: Training images.
        config: Sampler, augmentation and image size.
        device: Where augmentation runs.
        images: (N, 3, H, W) uint8, decoded already, in the order of `records`; None reads them.
    """

    def __init__(
        self,
        records: Sequence[Record],
        config: RunConfig,
        device: torch.device,
        images: Tensor | None = None,
    ) -> None:
        if images is None:
            images = images_of(records, config.data)
        labels, mapping = relabel(records)
        train = config.train
        self.identities = len(mapping)
        self.device = device
        self.seed = train.seed
        self.images = place(images, device, train.keep_data_on_device)
        self.labels = torch.tensor(labels, device=device)
        self.camids = torch.tensor([record.camid for record in records], device=device)
        self.sampler = PKSampler(
            [record.pid for record in records],
            [record.camid for record in records],
            p=train.identities,
            k=train.instances,
            seed=train.seed,
            cross_camera=train.cross_camera,
        )
        occluders = config.augment.occluders
        bank = OccluderBank.from_folder(occluders) if occluders else OccluderBank.default()
        self.augmenters = [
            Augmenter(
                view,
                config.augment,
                image_size=config.data.image_size,
                bank=bank,
                donors=self.images,
            )
            for view in config.augment.views
        ]
        self._epoch: tuple[int, Tensor, Tensor] | None = None
        # what lies in host memory for a GPU, or in a mapped file, is read a batch ahead
        resident = self.images.device.type == device.type
        self._ahead = None
        if not resident or (config.data.cache and device.type == "cpu"):
            self._ahead = Ahead(self._read, device)

    def __len__(self) -> int:
        return len(self.sampler)

    def __call__(self, epoch: int, index: int) -> dict[str, Any]:
        """Return this rank's share of a batch.

        Returns:
            views: list of (b, 3, H, W) float32, one for each configured view.
            labels: (b,) int64 identity labels; camids: (b,) int64.
            keys: (views * b,) int64, the randomness of every image of every view.
        """
        # on a GPU that holds the images nothing below is copied to it or waited for
        rows = self._share(self._order(epoch)[1][index])
        keys = self._keys(epoch, index, self.device)
        read: list[Tensor] = []
        if self._ahead is None:
            pixels = self.images.index_select(0, rows)
        else:
            last = index + 1 == len(self)
            pixels, *read = self._ahead(
                (epoch, index), (epoch + 1, 0) if last else (epoch, index + 1)
            )
        sources = iter(read)
        views = [
            augment(pixels, key, next(sources, None) if augment.pastes else None)
            for augment, key in zip(self.augmenters, keys, strict=True)
        ]
        return {
            "views": views,
            "labels": self.labels[rows],
            "camids": self.camids[rows],
            "keys": torch.cat(keys),
        }

    def _order(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Rows of all batches of an epoch, on the CPU and on the device."""
        known = self._epoch
        if known is None or known[0] != epoch:
            order = torch.as_tensor(self.sampler.epoch(epoch))
            known = self._epoch = (epoch, order, order.to(self.device))
        return known[1:]

    def _keys(self, epoch: int, index: int, device: torch.device) -> list[Tensor]:
        """Keys of this rank's images in a batch, for each view."""
        count = self.sampler.batch_size
        positions = self._share(torch.arange(count, device=device) + index * count)
        views = range(len(self.augmenters))
        return [sample_keys(self.seed, epoch, positions, view) for view in views]

    def _share(self, batch: Tensor) -> Tensor:
        return shard(batch, distributed.rank(), distributed.world_size())

    def _read(self, batch: tuple[int, int]) -> list[Tensor]:
        """Read the images of a batch and the donors of its views from host memory."""
        epoch, index = batch
        wanted = [self._share(self._order(epoch)[0][index])]
        keys = self._keys(epoch, index, torch.device("cpu"))
        wanted += [
            a.donor_rows(key) for a, key in zip(self.augmenters, keys, strict=True) if a.pastes
        ]
        return [take(self.images, rows, self.device) for rows in wanted]
