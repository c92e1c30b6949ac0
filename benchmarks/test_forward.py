"""Dense against pruned: the forward of timm's eager model and of the same weights with selection.

Both run eagerly in float32 in inference mode on the same images with random weights; the schedule,
and with it the cost, does not depend on them.
"""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch

from reid.config import ModelConfig
from reid.models.backbone import create_backbone
from sparse_vit import sparsify


def mini(size: tuple[int, int]) -> torch.nn.Module:
    """The small backbone of `reid demo` with random weights: 12 blocks, width 128, patch 8."""
    return create_backbone(ModelConfig(backbone="mini", init="scratch", sparse=False), size)


def deit_small(size: tuple[int, int]) -> torch.nn.Module:
    """DeiT-S with random weights and without classifier."""
    return timm.create_model("deit_small_patch16_224", img_size=size, num_classes=0)


def compare(
    versus: Callable[..., None],
    build: Callable[[tuple[int, int]], torch.nn.Module],
    size: tuple[int, int],
    batch: int,
    keep: float,
    device: torch.device,
) -> None:
    """Time the pruned forward with the dense one in turns."""
    torch.manual_seed(0)
    dense: Any = build(size).to(device).eval()
    pruned = sparsify(dense, keep_ratio=keep).eval()
    images = torch.randn(batch, 3, *size, device=device)
    with torch.inference_mode():
        assert pruned(images).shape == dense(images).shape
        versus(
            lambda: pruned(images),
            lambda: dense(images),
            case=f"{build.__name__} {size[0]}x{size[1]}, keep {keep}, batch {batch}",
            names=("pruned", "dense timm"),
            batch=batch,
            tokens=[dense.patch_embed.num_patches, *pruned.keep_counts],
        )


@pytest.mark.parametrize("batch", [1, 8, 32])
@pytest.mark.benchmark(group="forward of the mini backbone")
def test_mini(versus: Callable[..., None], device: torch.device, tiny: bool, batch: int) -> None:
    size, batch = ((32, 16), 1) if tiny else ((128, 64), batch)
    compare(versus, mini, size, batch, 0.7, device)


@pytest.mark.parametrize("keep", [0.7, 0.5])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.benchmark(group="forward of DeiT-S")
def test_deit_small(
    versus: Callable[..., None], device: torch.device, tiny: bool, batch: int, keep: float
) -> None:
    size, batch = ((64, 32), 1) if tiny else ((256, 128), batch)
    compare(versus, deit_small, size, batch, keep, device)
