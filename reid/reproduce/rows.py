"""Rows of SUReID's tables (arXiv 2401.07469): what changes from one to the next."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TWO_VIEWS = ("clean", "occluded")


@dataclass(frozen=True)
class Row:
    """One trained model of a table.

    Attributes:
        name: Key in results.json and name of the folder.
        label: What the table prints.
        changes: Dotted configuration keys, written section__key, and their values.
        distils: Whether the row learns from the teacher.
    """

    name: str
    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    distils: bool = False


TEACHER = Row(
    "teacher",
    "teacher",
    {
        "method": "supervised",
        "model__sparse": False,
        "loss__triplet": "camera",
        "train__cross_camera": True,
        "augment__views": TWO_VIEWS,
    },
)
DENSE = Row("dense", "dense student", {"method": "supervised", "model__sparse": False})
HTS = Row("hts", "+ HTS", {"loss__kd_feature": 0.0, "loss__kd_logits": 0.0})
NPKD = Row("hts+npkd", "+ NPKD", {}, distils=True)
SUREID = Row("hts+npkd+noda", "+ NODA", {"augment__views": TWO_VIEWS}, distils=True)

BASE_BACKBONE = {"model__backbone": "vit_base_patch16_224", "model__init": "pretrained"}
PAPER_RATIOS = (0.5, 0.6, 0.7, 0.8, 0.9)
ALIGNMENTS = {
    "st_linear": "S-T (linear)",
    "ts_linear": "T-S (linear)",
    "st_interpolate": "S-T (interpolation)",
    "ts_interpolate": "T-S (interpolation)",
}


def _sureid(name: str, label: str, **changes: Any) -> Row:
    return Row(name, label, {**SUREID.changes, **changes}, distils=True)


# Table II trains on Market-1501 with a ViT-B student, alpha = 2 and extra colour jitter.
_CROSS_DOMAIN = {**BASE_BACKBONE, "loss__alpha": 2.0, "augment__color_jitter": 0.1}

TABLES: dict[str, tuple[Row, ...]] = {
    "table1": (_sureid("sureid", "SUReID"),),
    "table2": (_sureid("sureid", "SUReID", **_CROSS_DOMAIN),),
    "table3": (_sureid("sureid", "SUReID"),),
    "table4": (DENSE, HTS, NPKD, SUREID),
    "table5": tuple(
        _sureid(f"p{ratio}", f"p = {ratio}", model__keep_ratio=ratio) for ratio in PAPER_RATIOS
    ),
    "table6": tuple(_sureid(mode, label, loss__align=mode) for mode, label in ALIGNMENTS.items()),
    "table7": (
        Row("vit", "vanilla ViT", {**DENSE.changes, **BASE_BACKBONE}),
        Row(
            "vit+noda",
            "vanilla ViT + NODA",
            {**DENSE.changes, **BASE_BACKBONE, "augment__views": TWO_VIEWS},
        ),
        NPKD,
        SUREID,
    ),
}
