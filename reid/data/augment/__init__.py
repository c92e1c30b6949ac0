"""Augmentation of image batches on any device, with randomness from one key per image.

Every function takes a batch and (B,) int64 keys of `sparse_vit.keyed_random`. What happens to an
image depends on its pixels and its key only: not on the batch, the order, the rank or the device.
"""

from reid.data.augment.pipeline import VIEWS, Augmenter, normalize

__all__ = ["VIEWS", "Augmenter", "normalize"]
