"""`reid reproduce`: run a table with the paper's settings and print it beside the paper's."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reid.config import RunConfig, load_config, read_value, replace, to_dict
from reid.data import GENERATED
from reid.data.records import ReidData
from reid.engine import distributed
from reid.engine.checkpoint import write_atomic
from reid.engine.provenance import provenance
from reid.errors import UserError
from reid.evaluation import bootstrap
from reid.reproduce.rows import TABLES, Row
from reid.reproduce.runner import DecodedData, RowOutcome, run_rows, throughput
from reid.run import load_data, scores, start_processes

# From scratch, a transformer needs AdamW and a longer warm-up (DeiT, arXiv 2012.12877, table 9).
SCRATCH: dict[str, Any] = {
    "model__init": "scratch",
    "optim__name": "adamw",
    "optim__lr": 5e-4,
    "optim__weight_decay": 0.05,
    "optim__bias_lr_factor": 1.0,
    "optim__warmup": 0.1,
    "optim__clip_norm": 1.0,
}
# The small backbone is trained for few steps, with what suits them in the demo's recipe.
DEMO_KEYS = (
    "model__init",
    "model__backbone",
    "model__drop_path",
    "data__image_size",
    "augment__erasing",
    "augment__random_patch",
    "loss__kd_feature",
    "loss__ratio",
    "optim",
    "train__identities",
    "train__instances",
)
TEACHER_BACKBONE = "vit_base_patch16_224"


def reproduce(
    table: str,
    *,
    data: str,
    root: str,
    size: str = "demo",
    epochs: int | None = None,
    init: str = "pretrained",
    out: str | Path,
    overrides: Sequence[str] = (),
) -> str:
    """Train and evaluate the rows of one of the paper's tables.

    Args:
        table: table1 to table7.
        data: Data set of the catalog.
        root: Its folder.
        size: Size of a generated set.
        epochs: The same for every row; None is the recipe's 200.
        init: pretrained, scratch, mini or a file with weights of the student's backbone.
        out: Folder; finished rows in it are read back, an unfinished one continues.
        overrides: "section.key=value" changes for every row, the teacher included.

    Returns:
        The table in Markdown, also written to `out` together with results.json.

    Raises:
        UserError: Unknown table, bad data or configuration.
    """
    from reid.report.tables import write_table

    if table not in TABLES:
        raise UserError(f"unknown table {table!r}; choose one of {', '.join(TABLES)}")
    out = Path(out)
    start_processes()
    base, teacher_changes, changes = _settings(data, root, size, epochs, init, overrides)
    rows = _with_backbone(table, init)
    _refuse_row_keys(table, rows, changes)
    read = load_data(base.data)
    if not read.train:
        raise UserError(
            f"{data} has no training images; train on another set and evaluate with: "
            f"reid evaluate --checkpoint FILE --data {data} --root {root}"
        )
    decoded = DecodedData.read(read, base)
    outcomes = run_rows(
        base, rows, out, decoded, teacher_changes=teacher_changes, overrides=changes
    )
    rates = throughput(outcomes, out)
    if not distributed.is_main():
        return ""
    record = _record(table, base, read, init, outcomes, rates)
    words = ["reid reproduce", table, "--data", data, "--size", size, "--init", init]
    if epochs is not None:
        words += ["--epochs", str(epochs)]
    record |= {"command": " ".join([*words, *overrides]), "overrides": list(overrides)}
    write_atomic(out / "results.json", json.dumps(record, indent=2).encode())
    return write_table(record, out)


def _settings(
    data: str, root: str, size: str, epochs: int | None, init: str, overrides: Sequence[str]
) -> tuple[RunConfig, dict[str, object], dict[str, Any]]:
    base = load_config("sureid")
    base = replace(
        base, data__name=data, data__root=root, data__size=size, augment__views=["clean"]
    )
    teacher: dict[str, object] = {"model__backbone": TEACHER_BACKBONE, "model__init": "pretrained"}
    if init == "mini":
        base, teacher = replace(base, **_short_settings()), {}
    elif init == "scratch":
        base, teacher["model__init"] = replace(base, **SCRATCH), "scratch"
    elif init != "pretrained":
        # a file holds one backbone: teacher and student share it
        base, teacher = replace(base, model__init=init), {}
    if epochs is not None:
        base = replace(base, train__epochs=epochs)
    changes: dict[str, Any] = {}
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise UserError(f"override {override!r} is not of the form section.key=value")
        changes[key.strip().replace(".", "__")] = read_value(override, value)
    if "model__backbone" in changes and "model__init" not in changes and init == "pretrained":
        changes["model__init"] = "pretrained"
    # a trained teacher belongs to the rows that distil, the others refuse one
    base = replace(base, **changes)
    changes.pop("teacher", None)
    return base, teacher, changes


def _short_settings() -> dict[str, Any]:
    tree = to_dict(load_config("demo"))
    settings = {}
    for key in DEMO_KEYS:
        section, _, name = key.partition("__")
        settings[key] = tree[section][name] if name else tree[section]
    return settings


def _refuse_row_keys(table: str, rows: Sequence[Row], changes: dict[str, Any]) -> None:
    varied = {key for row in rows for key in row.changes}
    for key in sorted(varied & changes.keys()):
        name = key.replace("__", ".")
        raise UserError(
            f"{name} is what the rows of {table} set; leave it out, or train a single "
            f"configuration with: reid train sureid {name}=VALUE --out FOLDER"
        )


def _with_backbone(table: str, init: str) -> list[Row]:
    if init == "pretrained":
        return list(TABLES[table])
    # a given backbone replaces the ViT-B of tables II and VII
    fixed = {"model__init"} if init == "scratch" else {"model__init", "model__backbone"}
    rows = []
    for row in TABLES[table]:
        changes = {k: v for k, v in row.changes.items() if k not in fixed}
        rows.append(Row(row.name, row.label, changes, row.distils))
    return rows


def _record(
    table: str,
    base: RunConfig,
    data: ReidData,
    init: str,
    outcomes: list[RowOutcome],
    rates: dict[str, float],
) -> dict[str, Any]:
    """Everything the table shows and where it comes from."""
    rows = []
    for outcome in outcomes:
        intervals = bootstrap(outcome.ranking)
        rows.append(
            {
                "name": outcome.row.name,
                "label": outcome.row.label,
                "backbone": outcome.config.model.backbone,
                "keep_ratio": outcome.config.model.keep_ratio if outcome.config.model.sparse else 1,
                **scores(outcome.ranking),
                "rank1_interval": [intervals["rank1"].low, intervals["rank1"].high],
                "mAP_interval": [intervals["mAP"].low, intervals["mAP"].high],
                "images_per_second": rates[outcome.row.name],
                "config": to_dict(outcome.config),
                "trained": outcome.provenance,
            }
        )
    return {
        "table": table,
        "data": base.data.name,
        "generated": base.data.name in GENERATED,
        "counts": {
            "train": len(data.train),
            "query": len(data.query),
            "gallery": len(data.gallery),
        },
        "epochs": base.train.epochs,
        "max_steps": base.train.max_steps,
        "init": init,
        "optimiser": f"{base.optim.name}, learning rate {base.optim.lr}",
        "seed": base.train.seed,
        **provenance(),
        "rows": rows,
    }
