"""The distances of re-identification as galleries that rank exactly.

The only place where the evaluation meets the operators in `kernels.ranking`.
"""

from typing import Literal

import torch
from torch import Tensor

from kernels.ranking import Gallery, Places
from reid.errors import UserError
from reid.evaluation.features import Features

Metric = Literal["cosine", "euclidean", "hamming", "visible"]
METRICS = ("cosine", "euclidean", "hamming", "visible")
BLOCK = 1 << 22
"""Most distances that are held at a time where the C++ operator does not serve."""

__all__ = ["METRICS", "Gallery", "Metric", "Places", "check", "fitting", "gallery_of", "rows_of"]


def check(query: Features, gallery: Features, metric: str) -> None:
    """Refuse features that the metric does not compare.

    Raises:
        UserError: Dimensions differ, no such metric, the wrong kind of features, or a row without
            direction under cosine.
    """
    if query.features.shape[1:] != gallery.features.shape[1:]:
        raise UserError(
            f"query features have {_size(query)} dimensions and gallery features "
            f"{_size(gallery)}; extract both with the same model"
        )
    if metric not in METRICS:
        quoted = ", ".join(repr(name) for name in METRICS[:-1])
        raise UserError(f"metric is {quoted} or {METRICS[-1]!r}, got {metric!r}")
    for which, features in (("query", query), ("gallery", gallery)):
        kind = _kind(features)
        wanted = {"hamming": "codes", "visible": "parts"}.get(metric, "vectors")
        if kind != wanted:
            raise UserError(
                f"metric={metric!r} compares {_DESCRIPTIONS[wanted]}, and the {which} features are "
                f"{_DESCRIPTIONS[kind]}; use metric={_FITTING[kind]!r}"
            )
        if metric == "cosine":
            zero = (features.features == 0.0).all(dim=1).nonzero()
            if len(zero):
                raise UserError(
                    f"{which} feature {int(zero[0])} is all zeros, which has no cosine; "
                    "check the model that made it or use metric='euclidean'"
                )


_FITTING: dict[str, Metric] = {"codes": "hamming", "parts": "visible", "vectors": "cosine"}
_DESCRIPTIONS = {
    "codes": "packed binary codes, (N, words) uint64",
    "parts": "part features (N, parts, dimensions) with a visibility (N, parts)",
    "vectors": "one vector per image, (N, dimensions) float32",
}


def fitting(features: Features) -> Metric:
    """The metric of features for which none is named."""
    return _FITTING[_kind(features)]


def _kind(features: Features) -> str:
    if features.visibility is not None:
        return "parts"
    return "vectors" if features.features.is_floating_point() else "codes"


def _size(features: Features) -> str:
    return " x ".join(str(size) for size in features.features.shape[1:])


def rows_of(features: Features, device: torch.device) -> Tensor:
    """Return features as the rows that `kernels.ranking.Gallery` takes."""
    rows = features.features.to(device)
    if features.visibility is None:
        return rows
    weights = features.visibility.to(device)
    return torch.cat([rows.flatten(1), weights], dim=1)


def gallery_of(
    features: Features,
    metric: Metric,
    device: torch.device,
    *,
    countable: Tensor | None = None,
    impl: str | None = None,
) -> Gallery:
    """Prepare a gallery.

    Args:
        features: Of the gallery.
        metric: How it is compared.
        device: Where.
        countable: (G,) bool, rows that take a place; None for all.
        impl: As in `kernels.ranking.Gallery`.

    Raises:
        UserError: The implementation cannot serve.
    """
    parts = 1 if features.visibility is None else features.visibility.shape[1]
    try:
        return Gallery(
            rows_of(features, device), metric, countable=countable, parts=parts, impl=impl
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from error
