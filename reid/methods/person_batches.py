"""Batches of identities: sampled, sharded over processes, augmented on the device."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reid.config import RunConfig
from reid.data.augment import Augmenter
from reid.data.occluders import OccluderBank
from reid.data.records import Record
from reid.data.samplers import PKSampler, sample_keys, shard
from reid.data.store import load_images, place, relabel
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
            images = load_images(records, config.data.image_size, config.data.interpolation)
        labels, mapping = relabel(records)
        train = config.train
        self.identities = len(mapping)
        self.device = device
        self.seed = train.seed
        self.images = place(images, device, train.keep_data_on_device)
        self.labels = torch.tensor(labels)
        self.camids = torch.tensor([record.camid for record in records])
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
        self._epoch: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return len(self.sampler)

    def __call__(self, epoch: int, index: int) -> dict[str, Any]:
        """Return this rank's share of a batch.

        Returns:
            views: list of (b, 3, H, W) float32, one for each configured view.
            labels: (b,) int64 identity labels; camids: (b,) int64.
            keys: (views * b,) int64, the randomness of every image of every view.
        """
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, torch.as_tensor(self.sampler.epoch(epoch)))
        indices = self._epoch[1][index]
        positions = torch.arange(indices.numel()) + index * indices.numel()
        rank, world = distributed.rank(), distributed.world_size()
        indices, positions = shard(indices, rank, world), shard(positions, rank, world)
        pixels = self.images[indices.to(self.images.device)].to(self.device, non_blocking=True)
        views, keys = [], []
        for number, augment in enumerate(self.augmenters):
            key = sample_keys(self.seed, epoch, positions, number).to(self.device)
            views.append(augment(pixels, key))
            keys.append(key)
        return {
            "views": views,
            "labels": self.labels[indices].to(self.device),
            "camids": self.camids[indices].to(self.device),
            "keys": torch.cat(keys),
        }
