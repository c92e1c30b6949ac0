"""Supervised re-identification: cross-entropy and triplet on a BNNeck embedder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reid import losses
from reid.config import RunConfig
from reid.data.records import Record
from reid.engine.distributed import gather
from reid.errors import UserError
from reid.methods.person_batches import PersonBatches
from reid.models.drop_path import sample_keys
from reid.models.embedder import ReidModel, save_model

SELECTION_STREAM = 7


class Supervised(nn.Module):
    """One training step: images to loss.

    L = beta (L_cls + L_tri), on the features of all processes; the triplet is batch-hard with a
    soft margin, or camera-constrained for a teacher.

    Args:
        model: The model to train.
        config: Weights of the losses.
    """

    def __init__(self, model: ReidModel, config: RunConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config.loss

    def features(self, images: Tensor, keys: Tensor) -> tuple[Tensor, list[Any]]:
        """Run the backbone in training mode.

        Args:
            images: (b, 3, H, W) normalised images of this rank.
            keys: (b,) int64 keys of the samples.

        Returns:
            (b, C) float32 pre-BN features and the decisions of the sparsification stages.
        """
        from sparse_vit import SparseVisionTransformer, keyed_random

        backbone = self.model.backbone
        with sample_keys(keys):
            if isinstance(backbone, SparseVisionTransformer):
                selection = keyed_random.fold(keys, SELECTION_STREAM)
                feature, decisions = backbone.forward_with_decisions(images, keys=selection)
                return feature.float(), decisions
            return backbone(images).float(), []

    def identity_loss(
        self, feature: Tensor, labels: Tensor, camids: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """L_cls + L_tri on gathered features.

        Returns:
            The sum, the logits (B, identities) and the named parts.
        """
        logits = self.model.logits(feature)
        classification = losses.cross_entropy(logits, labels, smoothing=self.config.label_smoothing)
        if self.config.triplet == "camera":
            metric = losses.camera_triplet(
                feature, labels, camids, cam_pos=self.config.cam_pos, cam_neg=self.config.cam_neg
            )
        else:
            metric = losses.triplet(feature, labels)
        parts = {"classification": classification.detach(), "triplet": metric.detach()}
        return classification + metric, logits, parts

    def forward(
        self, views: list[Tensor], labels: Tensor, camids: Tensor, keys: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts for this rank's share of a batch."""
        local, _ = self.features(torch.cat(views), keys)
        loss, _, parts = self.identity_loss(
            gather(local), gather(labels.repeat(len(views))), gather(camids.repeat(len(views)))
        )
        return self.config.beta * loss, parts


class PersonTask:
    """A training module over batches of identities (see `reid.engine.task.Task`)."""

    def __init__(
        self, module: Supervised, batches: PersonBatches, config: RunConfig, extra: dict[str, Any]
    ) -> None:
        self.module = module
        self.batches = batches
        self.batches_per_epoch = len(batches)
        self.config = config
        self.extra = extra

    def batch(self, epoch: int, index: int) -> dict[str, Any]:
        """Return this rank's share of a batch."""
        return self.batches(epoch, index)

    def save(self, path: Path, state: dict[str, Tensor]) -> None:
        """Write the embedder alone; teacher and projections are not needed after training."""
        save_model(path, self.module.model, self.config, self.extra)


def build(
    config: RunConfig,
    records: Sequence[Record],
    device: torch.device,
    images: Tensor | None = None,
) -> PersonTask:
    """Build the task of a supervised run.

    Args:
        config: The whole run.
        records: Training images.
        device: Where it trains.
        images: Decoded training images, or None to read them.

    Raises:
        UserError: The model is sparse; its selectors would not be trained.
    """
    if config.model.sparse:
        raise UserError(
            "method=supervised trains a dense model; set model.sparse=false, or "
            "method=sureid to train the token selectors as well"
        )
    batches = PersonBatches(records, config, device, images)
    torch.manual_seed(config.train.seed)
    model = ReidModel(config.model, config.data.image_size, batches.identities)
    return PersonTask(Supervised(model, config).to(device), batches, config, {})
