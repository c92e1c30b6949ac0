"""Non-parametric feature-alignment knowledge distillation (NPKD) and its parametric rivals."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AlignMode = Literal["ts_interpolate", "st_interpolate", "ts_linear", "st_linear"]


def kl_logits(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL divergence of the student's class distribution from the teacher's.

    KL(softmax(g_t / T) || softmax(g_s / T)), without the T^2 factor some works add.
    Inferred: the paper prints the arguments the other way round; this is the order of the
    implementation it builds on, and the one in which the teacher is the target.

    Args:
        student: (B, K) logits.
        teacher: (B, K) logits; receives no gradient.
        temperature: T > 0.

    Returns:
        Scalar, summed over classes and averaged over the batch. SUReID (arXiv 2401.07469)
        Eq. 11-12.

    Raises:
        ValueError: The shapes differ or the temperature is not positive.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher logits must both be (B, K), got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}; distillation needs a teacher trained on the same identities"
        )
    if not temperature > 0.0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if student.element_size() < 4:
        student = student.float()
    log_s = F.log_softmax(student / temperature, dim=1)
    log_t = F.log_softmax(teacher.detach().to(student.dtype) / temperature, dim=1)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


def resize_features(features: Tensor, dim: int) -> Tensor:
    """Resize the channel axis by linear interpolation; 768 to 384 is the mean of channel pairs.

    Args:
        features: (B, C) features.
        dim: Channels wanted.

    Returns:
        (B, dim). I(.) of SUReID (arXiv 2401.07469) Eq. 13.
    """
    if features.shape[1] == dim:
        return features
    return F.interpolate(features[:, None], size=dim, mode="linear", align_corners=False)[:, 0]


class FeatureAlign(nn.Module):
    """Squared distance between student and teacher features of possibly different width.

    ||f_s - I(f_t)||^2 of SUReID (arXiv 2401.07469) Eq. 13, and the variants of its Table VI.

    Args:
        mode: "ts_interpolate" brings the teacher's feature to the student's width (the paper's
            choice), "st_interpolate" the student's to the teacher's; "ts_linear" and "st_linear"
            do the same with a learned projection. Inferred: the projection is one affine layer,
            trained together with the student.
        dim_s: Width of the student's feature.
        dim_t: Width of the teacher's feature.
        reduction: "mean" over channels, or "sum", the literal squared norm, larger by the width.
            Inferred: the mean is the default because the sum dwarfs the classification loss at
            the paper's learning rate.

    Raises:
        ValueError: An unknown mode or reduction, or a width below 1.
    """

    def __init__(
        self,
        mode: AlignMode = "ts_interpolate",
        *,
        dim_s: int,
        dim_t: int,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        if mode not in get_args(AlignMode):
            raise ValueError(f"unknown mode {mode!r}; expected one of {get_args(AlignMode)}")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"unknown reduction {reduction!r}; expected 'mean' or 'sum'")
        if dim_s < 1 or dim_t < 1:
            raise ValueError(f"widths must be positive, got dim_s={dim_s} and dim_t={dim_t}")
        self.mode = mode
        self.reduction = reduction
        self.dim_s = dim_s
        self.dim_t = dim_t
        self.project: nn.Linear | None = None
        if mode == "ts_linear":
            self.project = nn.Linear(dim_t, dim_s)
        elif mode == "st_linear":
            self.project = nn.Linear(dim_s, dim_t)

    def _fit(self, features: Tensor, dim: int) -> Tensor:
        """Bring (B, C) to (B, dim) in float32 or better."""
        if self.project is not None:
            return self.project(features.to(self.project.weight.dtype))
        return resize_features(features, dim)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss, averaged over the batch.

        Args:
            student: (B, dim_s) features.
            teacher: (B, dim_t) features; receives no gradient.

        Raises:
            ValueError: A shape differs from the widths given at construction.
        """
        batch = student.shape[:1]
        if student.shape != (*batch, self.dim_s) or teacher.shape != (*batch, self.dim_t):
            raise ValueError(
                f"expected student (B, {self.dim_s}) and teacher (B, {self.dim_t}), got "
                f"{tuple(student.shape)} and {tuple(teacher.shape)}"
            )
        with torch.autocast(student.device.type, enabled=False):
            student = student.float() if student.element_size() < 4 else student
            teacher = teacher.detach().to(student.dtype)
            if self.mode.startswith("ts"):
                teacher = self._fit(teacher, self.dim_s)
            else:
                student = self._fit(student, self.dim_t)
            squared = (student - teacher).square()
            per_image = squared.mean(dim=1) if self.reduction == "mean" else squared.sum(dim=1)
            return per_image.mean()
