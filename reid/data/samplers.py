"""Which images make up each batch: pure functions of (seed, epoch).

Nothing here holds state, so a resumed run and every rank of a distributed run compute the same
batches without talking to each other.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reid.errors import UserError
from sparse_vit.keyed_random import fold

T = TypeVar("T", bound=Sequence | np.ndarray | Tensor)
Indices = npt.NDArray[np.int64]


class PKSampler:
    """Batches of P identities with K images each; one epoch is one pass over the images.

    As TransReID's identity sampler: the images of an identity are shuffled and cut into groups of
    K (left-overs wait for another epoch), and a batch takes one group from each of P identities
    drawn at random. That sampler stops when fewer than P identities have groups left, which makes
    its length random; here every epoch has the largest number of batches that can be filled
    without using a group twice, so that a schedule counted in steps is exact.

    Args:
        pids: (N,) identity of each image.
        camids: (N,) camera of each image.
        p: Identities in a batch.
        k: Images of each identity in a batch; repeated only if the identity has fewer.
        seed: Of all epochs.
        cross_camera: A group is a random anchor and images that come from other cameras than the
            anchor's as far as there are any (PPLR, CVPR 2022); the length stays the same.

    Raises:
        ValueError: `p` or `k` is below 1, or the lengths of `pids` and `camids` differ.
        UserError: There are fewer than `p` identities.
    """

    def __init__(
        self,
        pids: Sequence[int] | npt.NDArray[np.integer],
        camids: Sequence[int] | npt.NDArray[np.integer],
        *,
        p: int = 16,
        k: int = 4,
        seed: int = 0,
        cross_camera: bool = False,
    ) -> None:
        if p < 1 or k < 1:
            raise ValueError(f"a batch needs p >= 1 and k >= 1, got p={p} and k={k}")
        if len(pids) != len(camids):
            raise ValueError(f"got {len(pids)} pids but {len(camids)} camids; one per image")
        self.p, self.k, self.seed, self.cross_camera = p, k, seed, cross_camera
        self._cameras: Indices = np.asarray(camids, dtype=np.int64)
        labels = np.unique(np.asarray(pids, dtype=np.int64), return_inverse=True)[1].reshape(-1)
        order = np.argsort(labels, kind="stable")
        counts = np.bincount(labels)
        if len(counts) < p:
            raise UserError(
                f"a batch of {p} identities needs as many in the training set, which has "
                f"{len(counts)}; set train.identities to {len(counts)} or less, or add data"
            )
        self._images: list[Indices] = np.split(order.astype(np.int64), np.cumsum(counts)[:-1])
        self._groups: Indices = np.maximum(counts // k, 1)
        self._length = _longest_epoch(self._groups, p)

    def __len__(self) -> int:
        """Batches in every epoch."""
        return self._length

    @property
    def batch_size(self) -> int:
        """Images in a batch, over all ranks."""
        return self.p * self.k

    def epoch(self, epoch: int) -> Indices:
        """Return the batches of an epoch, counted from 0.

        Returns:
            (len(self), P*K) int64 indices of images; each run of K shares an identity, and the P
            identities of a batch are distinct.
        """
        rng = np.random.default_rng([self.seed, epoch])
        groups = [self._group(rng, images) for images in self._images]
        left = np.minimum(self._groups, self._length)
        surplus = int(left.sum()) - self.p * self._length
        if surplus:
            dropped = rng.choice(np.repeat(np.arange(len(left)), left), surplus, replace=False)
            left = left - np.bincount(dropped, minlength=len(left))
        batches = np.empty((self._length, self.p, self.k), dtype=np.int64)
        for row, batch in enumerate(batches):
            # An identity with as many groups as batches to come must be in each of them.
            due = np.flatnonzero(left == self._length - row)
            free = np.flatnonzero((left > 0) & (left < self._length - row))
            chosen = np.concatenate([due, rng.choice(free, self.p - len(due), replace=False)])
            left[chosen] -= 1
            for slot, identity in enumerate(rng.permutation(chosen)):
                batch[slot] = groups[identity][left[identity]]
        return batches.reshape(self._length, self.batch_size)

    def _group(self, rng: np.random.Generator, images: Indices) -> Indices:
        """Cut the images of one identity into groups: (groups, K)."""
        if len(images) < self.k:
            extra = rng.choice(images, self.k - len(images))
            group = np.concatenate([rng.permutation(images), extra])
            return group[None]
        shuffled = rng.permutation(images)
        count = len(images) // self.k
        if not self.cross_camera:
            return shuffled[: count * self.k].reshape(count, self.k)
        groups = np.empty((count, self.k), dtype=np.int64)
        for row, anchor in enumerate(shuffled[:count]):
            others = rng.permutation(images[images != anchor])
            near = self._cameras[others] == self._cameras[anchor]
            groups[row, 0] = anchor
            groups[row, 1:] = others[np.argsort(near, kind="stable")][: self.k - 1]
        return groups


def _longest_epoch(groups: Indices, p: int) -> int:
    """Largest m with sum_i min(groups_i, m) >= p * m: m batches of p distinct identities."""
    low, high = 1, int(groups.sum()) // p
    while low < high:
        middle = (low + high + 1) // 2
        if int(np.minimum(groups, middle).sum()) >= p * middle:
            low = middle
        else:
            high = middle - 1
    return low


def shard(batch: T, rank: int, world: int) -> T:
    """Return the contiguous part of a batch that belongs to a rank.

    Args:
        batch: Anything with a length that can be sliced; axis 0 is the batch.
        rank: In [0, world).
        world: Number of ranks.

    Raises:
        ValueError: `rank` is outside [0, world).
        UserError: The batch cannot be cut into equal parts.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank must be in [0, {world}), got {rank}")
    if len(batch) % world:
        raise UserError(
            f"a batch of {len(batch)} images cannot be shared equally by {world} processes; "
            f"choose train.identities x train.instances as a multiple of {world}"
        )
    size = len(batch) // world
    return batch[rank * size : (rank + 1) * size]  # type: ignore[return-value]


def sample_keys(seed: int, epoch: int, positions: Tensor, view: int = 0) -> Tensor:
    """Random keys of the images of an epoch, for augmentation and token selection.

    Args:
        seed: Of the run.
        epoch: Counted from 0.
        positions: (B,) int64 places in the epoch: batch number x images per batch + place in the
            whole batch. Not image indices, so an image drawn twice is augmented twice.
        view: Which of several views of the same place.

    Returns:
        (B,) int64 on the device of `positions`; the same on any device, rank and batch split.
    """
    keys = torch.full_like(positions, seed, dtype=torch.int64)
    for value in (epoch, view):
        keys = fold(keys, value)
    return fold(keys, positions)
