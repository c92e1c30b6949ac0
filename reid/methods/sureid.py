"""SUReID: a token-sparsified student taught by a frozen dense teacher (arXiv 2401.07469)."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from reid import losses
from reid.config import RunConfig
from reid.data.records import Record
from reid.engine.distributed import gather
from reid.errors import UserError
from reid.methods.person_batches import PersonBatches
from reid.methods.supervised import PersonTask, Supervised
from reid.models.embedder import ReidModel, load_model
from sparse_vit import ratio_error


class SUReID(Supervised):
    """One training step of SUReID.

    L = alpha (lambda_kl KL + kd_feature ||f_s - I(f_t)||^2 + lambda_ratio L_ratio)
        + beta (L_cls + L_tri), Eq. 9 to 14.

    Inferred: the squared feature distance is a mean over channels by default (`kd_reduction`),
    because the printed sum outweighs the classification by two orders of magnitude; the teacher's
    logits come from its own BNNeck when it was trained with one (`teacher_bn`).

    Args:
        model: The student.
        teacher: The trained teacher; frozen here. None trains without distillation.
        config: Weights of the losses.
    """

    teacher: ReidModel | None

    def __init__(self, model: ReidModel, teacher: ReidModel | None, config: RunConfig) -> None:
        super().__init__(model, config)
        self.teacher_view = config.augment.teacher_view
        self.clean_view = next((i for i, v in enumerate(config.augment.views) if v == "clean"), 0)
        self.teacher = None
        if teacher is not None:
            self.teacher = teacher.eval().requires_grad_(False)
            self.align = losses.FeatureAlign(
                config.loss.align,  # type: ignore[arg-type]
                dim_s=model.num_features,
                dim_t=teacher.num_features,
                reduction=config.loss.kd_reduction,  # type: ignore[arg-type]
            )

    def train(self, mode: bool = True) -> "SUReID":
        """Switch the student; the teacher stays in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(
        self, views: list[Tensor], labels: Tensor, camids: Tensor, keys: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts for this rank's share of a batch."""
        weights = self.config
        local, decisions = self.features(torch.cat(views), keys)
        feature = gather(local)
        identity, logits, parts = self.identity_loss(
            feature, gather(labels.repeat(len(views))), gather(camids.repeat(len(views)))
        )
        guided = feature.new_zeros(())
        if decisions:
            # (b, stages): Eq. 9 over the images of all processes
            kept = gather(torch.stack([d.kept_fraction for d in decisions], dim=1).float())
            targets = [d.target for d in decisions]
            ratio = ratio_error(kept, targets, per=weights.ratio_per)
            guided = guided + weights.ratio * ratio
            parts["ratio"] = ratio.detach()
            means = kept.detach().mean(dim=0)
            parts |= {f"kept_{number}": mean for number, mean in enumerate(means, start=1)}
        if self.teacher is not None:
            teacher_feature, teacher_logits = self.teach(views)
            align = self.align(feature, teacher_feature)
            divergence = losses.kl_logits(logits, teacher_logits, weights.kd_temperature)
            guided = guided + weights.kd_feature * align + weights.kd_logits * divergence
            parts |= {"kd_feature": align.detach(), "kd_logits": divergence.detach()}
        return weights.alpha * guided + weights.beta * identity, parts

    @torch.no_grad()
    def teach(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the teacher's pre-BN features and logits for the images of all processes."""
        assert self.teacher is not None
        if self.teacher_view == "clean":
            seen = self.teacher.backbone(views[self.clean_view]).float().repeat(len(views), 1)
        else:
            seen = self.teacher.backbone(torch.cat(views)).float()
        feature = gather(seen)
        if self.config.teacher_bn:
            return feature, self.teacher.logits(feature)
        return feature, self.teacher.neck.classifier(feature)


def build(
    config: RunConfig,
    records: Sequence[Record],
    device: torch.device,
    images: Tensor | None = None,
) -> PersonTask:
    """Build the task of a SUReID run.

    Args:
        config: The whole run; `teacher` names the checkpoint of the teacher.
        records: Training images.
        device: Where it trains.
        images: Decoded training images, or None to read them.

    Raises:
        UserError: Distillation without a teacher, or a teacher of other identities or input size.
    """
    distils = config.loss.kd_feature > 0 or config.loss.kd_logits > 0
    if distils and config.teacher is None:
        raise UserError(
            "distillation needs a teacher: give teacher=PATH of a model.safetensors "
            "(train one with the recipe sureid_teacher), or set loss.kd_feature=0 and "
            "loss.kd_logits=0"
        )
    batches = PersonBatches(records, config, device, images)
    torch.manual_seed(config.train.seed)
    student = ReidModel(config.model, config.data.image_size, batches.identities)
    teacher, extra = None, {}
    if distils and config.teacher is not None:
        teacher = _load_teacher(config, batches.identities)
        extra["teacher_sha256"] = hashlib.sha256(Path(config.teacher).read_bytes()).hexdigest()
    return PersonTask(SUReID(student, teacher, config).to(device), batches, config, extra)


def _load_teacher(config: RunConfig, identities: int) -> ReidModel:
    teacher, trained_with, _ = load_model(str(config.teacher))
    known = teacher.neck.classifier.out_features
    if config.loss.kd_logits > 0 and known != identities:
        raise UserError(
            f"the teacher {config.teacher} knows {known} identities, the training set "
            f"has {identities}; train the teacher on the same set, or set "
            "loss.kd_logits=0"
        )
    if trained_with.data.image_size != config.data.image_size:
        raise UserError(
            f"the teacher {config.teacher} expects {trained_with.data.image_size} "
            f"images, this run has data.image_size={config.data.image_size}"
        )
    return teacher
