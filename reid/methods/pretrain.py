"""The small backbone that ships with the package: what a figure wears, who it is, where it is.

It stands in for ImageNet weights on machines that cannot train a transformer from nothing:
`python -m reid.methods.pretrain --out reid/assets/mini_backbone.safetensors` trains it on
generated identities and cameras that no protocol of the generated data set uses, none of them
occluded, so that what the methods do about occlusion is theirs.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reid.config import ModelConfig, OptimConfig, TrainConfig
from reid.engine import distributed
from reid.models.backbone import create_backbone
from reid.models.neck import BNNeck
from sparse_vit import keyed_random, save_weights

PARTS = 8


class Pretrain(nn.Module):
    """Attributes and identity from the class token, body parts from the patch tokens.

    In most steps 60 % of the patches are left out, which saves as much of the cost (as in masked
    autoencoders, arXiv 2111.06377); the last steps see all of them.

    Args:
        backbone: A dense timm VisionTransformer without classifier.
        values: Number of values of each attribute.
        identities: Number of training identities.
    """

    def __init__(self, backbone: Any, values: list[int], identities: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.values = values
        width = int(backbone.num_features)
        self.attributes = nn.Linear(width, sum(values))
        self.parts = nn.Linear(width, PARTS)
        self.neck = BNNeck(width, identities)

    def forward(
        self,
        images: Tensor,
        parts: Tensor,
        attributes: Tensor,
        labels: Tensor,
        keys: Tensor,
        keep: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts.

        Args:
            images: (B, 3, H, W) normalised.
            parts: (B, N, 8) share of each part label in every patch.
            attributes: (B, A) int64 value of each attribute, counted from 0.
            labels: (B,) int64 identities.
            keys: (B,) int64.
            keep: Share of the patches that are seen.
        """
        vit = self.backbone
        tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
        if keep < 1.0:
            count = round(keep * parts.shape[1])
            order = keyed_random.uniform(keys, (parts.shape[1],), stream=3).argsort(dim=1)
            order = order[:, :count]
            parts = parts.gather(1, order[..., None].expand(-1, -1, PARTS))
            patches = tokens[:, 1:].gather(1, order[..., None].expand(-1, -1, tokens.shape[-1]))
            tokens = torch.cat([tokens[:, :1], patches], dim=1)
        tokens = vit.norm(vit.blocks(tokens))
        feature = tokens[:, 0]
        logits = self.attributes(feature).split(self.values, dim=1)
        dressed = torch.stack(
            [F.cross_entropy(logit, attributes[:, i]) for i, logit in enumerate(logits)]
        ).mean()
        placed = -(parts * self.parts(tokens[:, 1:]).log_softmax(dim=-1)).sum(-1).mean()
        named = F.cross_entropy(self.neck(feature), labels, label_smoothing=0.1)
        loss = 4.0 * dressed + placed + 0.5 * named
        return loss, {
            "attributes": dressed.detach(),
            "parts": placed.detach(),
            "identity": named.detach(),
        }


class PretrainTask:
    """Freshly generated figures, shuffled every epoch (see `reid.engine.task.Task`).

    Args:
        module: What is trained.
        figures: Rendered images with masks, identities and attributes.
        settings: Batch and seed.
        total: Optimiser steps of the run.
        patch: Side of a patch in pixels.
    """

    def __init__(
        self,
        module: Pretrain,
        figures: dict[str, Tensor],
        settings: TrainConfig,
        total: int,
        patch: int,
    ) -> None:
        self.module = module
        self.figures = figures
        self.batch_size = settings.identities * settings.instances
        self.batches_per_epoch = len(figures["images"]) // self.batch_size
        self.seed = settings.seed
        self.total = total
        self.patch = patch

    def batch(self, epoch: int, index: int) -> dict[str, Any]:
        """Return this rank's share of a batch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.figures["images"]), generator=generator)
        rank, world = distributed.rank(), distributed.world_size()
        rows = order[index * self.batch_size :][: self.batch_size].chunk(world)[rank]
        keys = keyed_random.fold(rows, self.seed * 1_000_003 + epoch)
        device = next(self.module.parameters()).device
        images, masks = self.figures["images"][rows], self.figures["masks"][rows]
        flip = keyed_random.uniform(keys, (), stream=1).view(-1, 1, 1) < 0.5
        masks = torch.where(flip, masks.flip(-1), masks)
        images = torch.where(flip[:, None], images.flip(-1), images).float() / 255.0
        jitter = keyed_random.uniform(keys, (2, 3, 1, 1), stream=2) - 0.5
        images = images * (1.0 + 0.4 * jitter[:, 0]) + 0.2 * jitter[:, 1]
        share = F.one_hot(masks.long(), PARTS).permute(0, 3, 1, 2).float()
        share = F.avg_pool2d(share, self.patch).flatten(2).transpose(1, 2)
        step = epoch * self.batches_per_epoch + index
        return {
            "images": ((images.clamp(0, 1) - 0.5) / 0.5).to(device),
            "parts": share.to(device),
            "attributes": self.figures["attributes"][rows].to(device),
            "labels": self.figures["labels"][rows].to(device),
            "keys": keys.to(device),
            "keep": 0.4 if step < 0.9 * self.total else 1.0,
        }

    def save(self, path: Path, state: dict[str, Tensor]) -> None:
        """Write the backbone in float16."""
        prefix = "backbone."
        weights = {
            name.removeprefix(prefix): value.half()
            for name, value in state.items()
            if name.startswith(prefix)
        }
        rows, columns = self.module.backbone.patch_embed.grid_size
        about = {"trained_by": "python -m reid.methods.pretrain", "steps": str(self.total)}
        save_weights(weights, path, {**about, "grid_size": f"{rows}x{columns}"})


def render_figures(
    identities: int, frames: int, image_size: tuple[int, int], seed: int
) -> dict[str, Tensor]:
    """Draw the training figures, of identities and cameras that no protocol uses.

    Returns:
        images (N, 3, H, W) uint8, masks (N, H, W) uint8, labels (N,) and attributes (N, A),
        counted from 0.
    """
    from reid.data import mannequins, usable_cores

    specs = mannequins.training_specs(identities, frames, seed=seed, occluded=0.0)
    drawn = mannequins.render_many(specs, workers=usable_cores(), image_size=image_size)
    pids = np.unique(drawn.pids, return_inverse=True)[1]
    return {
        "images": torch.as_tensor(drawn.images),
        "masks": torch.as_tensor(drawn.masks),
        "labels": torch.from_numpy(pids),
        "attributes": torch.as_tensor(drawn.attributes).long() - 1,
    }


def main() -> None:
    """Train the backbone and write it."""
    from reid.engine.checkpoint import write_atomic
    from reid.engine.trainer import MODEL, fit, make_accelerator

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="file of the backbone")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/pretrain"), help="folder of the run"
    )
    parser.add_argument("--identities", type=int, default=1200)
    parser.add_argument("--frames", type=int, default=14, help="images of each identity")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    arguments = parser.parse_args()
    image_size = (128, 64)
    figures = render_figures(arguments.identities, arguments.frames, image_size, arguments.seed)
    settings = TrainConfig(
        max_steps=arguments.steps, seed=arguments.seed, log_every=50, checkpoint_every=500
    )
    optim = OptimConfig(
        name="adamw",
        lr=arguments.lr,
        weight_decay=0.05,
        bias_lr_factor=1.0,
        warmup=0.05,
        clip_norm=1.0,
    )
    torch.manual_seed(settings.seed)
    config = ModelConfig(backbone="mini", init="scratch", sparse=False, drop_path=0.0)
    backbone = create_backbone(config, image_size)
    values = [int(column.max()) + 1 for column in figures["attributes"].unbind(1)]
    module = Pretrain(backbone, values, int(figures["labels"].max()) + 1)
    task = PretrainTask(module, figures, settings, arguments.steps, patch=8)
    accelerator = make_accelerator(settings)
    fit(
        task,
        optim,
        settings,
        arguments.work,
        accelerator=accelerator,
        metadata={key: str(value) for key, value in vars(arguments).items() if key != "resume"},
        resume=arguments.resume,
        label="pretrain",
    )
    if distributed.is_main():
        write_atomic(arguments.out, (arguments.work / MODEL).read_bytes())


if __name__ == "__main__":
    main()
