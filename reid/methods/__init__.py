"""One file per system: what is trained, with which losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reid.config import RunConfig
from reid.data.records import Record

if TYPE_CHECKING:
    from reid.methods.supervised import PersonTask


def build_task(
    config: RunConfig,
    records: Sequence[Record],
    device: torch.device,
    images: Tensor | None = None,
) -> PersonTask:
    """Build the task that `config.method` names.

    Args:
        config: The whole run.
        records: Training images.
        device: Where it trains.
        images: (N, 3, H, W) uint8 decoded already, or None to read them.
    """
    from reid.methods import supervised, sureid

    builders = {"supervised": supervised.build, "sureid": sureid.build}
    return builders[config.method](config, records, device, images)
