"""The configuration of every row of every table, built but not trained, is what the paper says."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from reid.config import RunConfig, load_config
from reid.errors import UserError
from reid.report.paper import PAPER_TABLES
from reid.reproduce import TABLES, Row
from reid.reproduce.rows import TEACHER
from reid.reproduce.runner import row_config
from reid.reproduce.tables import _refuse_row_keys, _settings, _with_backbone

CLEAN, BOTH = ("clean",), ("clean", "occluded")
DEIT, VIT = "deit_small_patch16_224", "vit_base_patch16_224"
FILE = "weights/backbone.safetensors"
INITS = ("pretrained", "scratch", "mini", FILE)

# --init: backbone and weights of a DeiT-S row and of a ViT-B row; a file holds one backbone
BACKBONES = {
    "pretrained": {"S": (DEIT, "timm:deit_small_distilled_patch16_224"), "B": (VIT, "pretrained")},
    "scratch": {"S": (DEIT, "scratch"), "B": (VIT, "scratch")},
    "mini": {"S": ("mini", "mini"), "B": ("mini", "mini")},
    FILE: {"S": (DEIT, FILE), "B": (DEIT, FILE)},
}


class Expected(NamedTuple):
    """What tells the rows of the paper apart."""

    name: str
    size: str = "S"
    keep: float | None = 0.7
    views: tuple[str, ...] = BOTH
    distils: bool = True
    align: str = "ts_interpolate"
    alpha: float = 1.0
    jitter: float = 0.0


PAPER = {
    "table1": [Expected("sureid")],
    "table2": [Expected("sureid", "B", alpha=2.0, jitter=0.1)],
    "table3": [Expected("sureid")],
    "table4": [
        Expected("dense", keep=None, views=CLEAN, distils=False),
        Expected("hts", views=CLEAN, distils=False),
        Expected("hts+npkd", views=CLEAN),
        Expected("hts+npkd+noda"),
    ],
    "table5": [Expected(f"p{keep}", keep=keep) for keep in (0.5, 0.6, 0.7, 0.8, 0.9)],
    "table6": [
        Expected("st_linear", align="st_linear"),
        Expected("ts_linear", align="ts_linear"),
        Expected("st_interpolate", align="st_interpolate"),
        Expected("ts_interpolate"),
    ],
    "table7": [
        Expected("vit", "B", None, CLEAN, distils=False),
        Expected("vit+noda", "B", None, distils=False),
        Expected("hts+npkd", views=CLEAN),
        Expected("hts+npkd+noda"),
    ],
}
CASES = [(table, init) for table in PAPER for init in INITS]


def configurations(
    table: str, init: str, overrides: Sequence[str] = (), epochs: int | None = None
) -> tuple[RunConfig, list[RunConfig]]:
    """Return the teacher's configuration and those of the rows, as `reid reproduce` makes them."""
    base, teacher_changes, changes = _settings(
        "market1501", "data/market", "demo", epochs, init, overrides
    )
    changed: dict[str, Any] = {**TEACHER.changes, **teacher_changes}
    teacher = row_config(base, Row(TEACHER.name, TEACHER.label, changed), None, changes)
    rows = _with_backbone(table, init)
    return teacher, [row_config(base, row, "teacher.safetensors", changes) for row in rows]


def test_the_tables_and_rows_are_the_papers() -> None:
    assert {table: [row.name for row in rows] for table, rows in TABLES.items()} == {
        table: [row.name for row in rows] for table, rows in PAPER.items()
    }
    for table, rows in TABLES.items():
        printed = {row.key for row in PAPER_TABLES[table].rows if row.key}
        assert printed == {row.name for row in rows}


@pytest.mark.parametrize(("table", "init"), CASES)
def test_rows(table: str, init: str) -> None:
    rows = configurations(table, init)[1]
    for config, row in zip(rows, PAPER[table], strict=True):
        weights = config.model.backbone, config.model.init
        assert weights == BACKBONES[init][row.size], row.name
        assert config.augment.views == row.views
        assert config.augment.color_jitter == row.jitter
        assert config.model.sparse == (row.keep is not None)
        assert config.method == ("supervised" if row.keep is None else "sureid")
        assert config.teacher == ("teacher.safetensors" if row.distils else None)
        assert config.loss.triplet == "soft_margin"
        assert not config.train.cross_camera
        assert config.train.epochs == 200
        if row.keep is not None:
            assert config.model.keep_ratio == row.keep
            assert config.model.stages == (3, 6, 9)
            assert config.model.selector == "predictor"
            assert config.loss.alpha == row.alpha
            distillation = (config.loss.kd_feature, config.loss.kd_logits)
            feature = load_config("demo").loss.kd_feature if init == "mini" else 1.0
            assert distillation == ((feature, 0.1) if row.distils else (0.0, 0.0))
        if row.distils:
            assert config.loss.align == row.align


@pytest.mark.parametrize("init", INITS)
def test_teacher(init: str) -> None:
    teacher = configurations("table4", init)[0]
    assert (teacher.model.backbone, teacher.model.init) == BACKBONES[init]["B"]
    assert teacher.method == "supervised"
    assert teacher.teacher is None
    assert not teacher.model.sparse
    assert teacher.augment.views == BOTH
    assert teacher.loss.triplet == "camera"
    assert teacher.train.cross_camera


@pytest.mark.parametrize(("table", "init"), CASES)
def test_images_and_optimiser_are_the_same_in_a_table(table: str, init: str) -> None:
    teacher, rows = configurations(table, init)
    pretrained = init in ("pretrained", FILE)
    for config in (teacher, *rows):
        assert (config.data.name, config.data.root) == ("market1501", "data/market")
        assert config.data.image_size == ((128, 64) if init == "mini" else (256, 128))
        if init == "mini":
            assert (config.train.identities, config.train.instances) == (8, 4)
            assert config.optim == load_config("demo").optim
            continue
        optimiser = (config.optim.name, config.optim.lr)
        assert optimiser == (("sgd", 0.008) if pretrained else ("adamw", 5e-4))
        assert (config.train.identities, config.train.instances) == (16, 4)


@pytest.mark.parametrize("init", INITS)
def test_overrides_hold_for_the_teacher_and_every_row(init: str) -> None:
    overrides = ["optim.lr=0.25", "loss.triplet=soft_margin", "train.identities=5"]
    teacher, rows = configurations("table7", init, overrides, epochs=3)
    for config in (teacher, *rows):
        assert config.optim.lr == 0.25
        assert config.loss.triplet == "soft_margin"
        assert config.train.identities == 5
        assert config.train.epochs == 3


def test_an_override_of_the_backbone_takes_its_own_weights() -> None:
    teacher, rows = configurations("table4", "pretrained", ["model.backbone=deit_tiny_patch16_224"])
    for config in (teacher, *rows):
        weights = config.model.backbone, config.model.init
        assert weights == ("deit_tiny_patch16_224", "pretrained")


@pytest.mark.parametrize("override", ["model.keep_ratio=0.4", "augment.views=[clean]"])
def test_what_the_rows_vary_cannot_be_overridden(override: str) -> None:
    changes = _settings("market1501", "data/market", "demo", None, "pretrained", [override])[2]
    with pytest.raises(UserError, match=override.partition("=")[0]):
        _refuse_row_keys("table5", _with_backbone("table5", "pretrained"), changes)
