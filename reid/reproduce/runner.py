"""Train and evaluate rows one after the other; a finished row is read back, not run again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from reid import config as configuration
from reid.config import RunConfig
from reid.data.cache import images_of
from reid.data.records import ReidData
from reid.engine import distributed
from reid.engine.checkpoint import write_atomic
from reid.engine.extract import extract, extract_with_kept
from reid.engine.throughput import in_fresh_process
from reid.evaluation import Features, RankingResult, evaluate_sharded
from reid.models.embedder import ReidModel, load_model, preprocess_of
from reid.reproduce.rows import TEACHER, Row
from reid.run import CHUNK, PROVENANCE, scores, train


@dataclass
class RowOutcome:
    """A trained and evaluated row.

    Attributes:
        row: What was run.
        config: Its whole configuration.
        model: The trained model in evaluation mode.
        history: Logged steps.
        ranking: Evaluation with real pruning.
        query: Query features; gallery: gallery features.
        kept: Block index -> (Q, k) original patch ids that every query keeps; None when dense.
        provenance: Versions, revision, device, date and seconds of the training.
    """

    row: Row
    config: RunConfig
    model: ReidModel
    history: list[dict[str, float]]
    ranking: RankingResult
    query: Features
    gallery: Features
    kept: dict[int, NDArray[np.int64]] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass
class DecodedData:
    """A data set with its images decoded once for all rows."""

    data: ReidData
    train: Tensor
    query: Tensor
    gallery: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def read(cls, data: ReidData, config: RunConfig) -> "DecodedData":
        """Decode all three lists at the configured size, or open them from the cache."""
        return cls(
            data=data,
            train=images_of(data.train, config.data),
            query=images_of(data.query, config.data),
            gallery=images_of(data.gallery, config.data),
        )


def row_config(
    base: RunConfig,
    row: Row,
    teacher: str | Path | None,
    overrides: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Return the configuration of a row: the base, what the row changes, then the overrides."""
    changes = {**row.changes, "teacher": str(teacher) if row.distils else None}
    return configuration.replace(base, **{**changes, **(overrides or {})})


def run_rows(
    base: RunConfig,
    rows: Sequence[Row],
    out: Path,
    decoded: DecodedData,
    *,
    teacher_changes: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[RowOutcome]:
    """Train the teacher, if a row learns from it, then every row; evaluate each.

    Rows that are finished in `out` are read back, unfinished ones continue from their checkpoint.

    Args:
        base: Configuration that the rows change.
        rows: Rows of a table.
        out: Folder; every row gets one of its own inside.
        decoded: The data set.
        teacher_changes: Further changes for the teacher, such as its backbone.
        overrides: Changes that hold for every row and for the teacher.

    Returns:
        The outcomes, the teacher first unless `base.teacher` names one that is trained already.

    Raises:
        UserError: Bad configuration, a loss that is not finite, or a full disk.
    """
    outcomes: list[RowOutcome] = []
    teacher_model: str | Path | None = base.teacher
    if teacher_model is None and any(row.distils for row in rows):
        teacher = Row(TEACHER.name, TEACHER.label, {**TEACHER.changes, **(teacher_changes or {})})
        config = row_config(base, teacher, None, overrides)
        outcomes.append(run_row(config, teacher, out, decoded))
        teacher_model = out / TEACHER.name / "model.safetensors"
    for row in rows:
        config = row_config(base, row, teacher_model, overrides)
        outcomes.append(run_row(config, row, out, decoded))
    return outcomes


def run_row(config: RunConfig, row: Row, out: Path, decoded: DecodedData) -> RowOutcome:
    """Train one row (or read it back) and evaluate it with real pruning."""
    folder = out / row.name
    run = train(
        config,
        folder,
        resume=True,
        images=decoded.train,
        data=decoded.data,
        evaluate_after=False,
        label=row.label,
    )
    # what is evaluated is what was saved
    distributed.barrier()
    model = load_model(folder / "model.safetensors")[0].to(next(run.model.parameters()).device)
    preprocess = preprocess_of(config.data)
    kept = None
    if config.model.sparse:
        query, kept = extract_with_kept(model, decoded.data.query, preprocess, images=decoded.query)
    else:
        query = extract(model, decoded.data.query, preprocess, images=decoded.query, progress=False)
    gallery = extract(
        model, decoded.data.gallery, preprocess, images=decoded.gallery, progress=False
    )
    ranking = evaluate_sharded(
        query, gallery, chunk=CHUNK, distractor_pid=decoded.data.distractor_pid
    )
    if distributed.is_main():
        payload = json.dumps(scores(ranking), indent=2)
        write_atomic(folder / "evaluation.json", payload.encode())
    origin = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    return RowOutcome(row, config, model, run.history, ranking, query, gallery, kept, origin)


def throughput(
    outcomes: Sequence[RowOutcome], out: Path, *, batch_size: int = 32, rounds: int = 51
) -> dict[str, float]:
    """Measure images per second of every distinct architecture in one interleaved run.

    Rows that share an architecture (the same configuration of the model) share the figure.

    Args:
        outcomes: Trained rows.
        out: Folder that holds the rows.
        batch_size: Images in one forward, as in the paper.
        rounds: Measured forwards of each.

    Returns:
        Row name to images per second; measured by the first process alone, in a fresh one.
    """
    shapes = {o.row.name: json.dumps(_architecture(o.config), sort_keys=True) for o in outcomes}
    files: dict[str, Path] = {}
    for outcome in outcomes:
        files.setdefault(shapes[outcome.row.name], out / outcome.row.name / "model.safetensors")
    measured = dict.fromkeys(files, 0.0)
    if distributed.is_main():
        rates = in_fresh_process(list(files.values()), batch_size=batch_size, rounds=rounds)
        measured = dict(zip(files, rates, strict=True))
    distributed.barrier()
    return {name: measured[shape] for name, shape in shapes.items()}


def _architecture(config: RunConfig) -> dict[str, object]:
    model = configuration.to_dict(config)["model"]
    names = ["backbone", "sparse", "neck_feature"]
    if config.model.sparse:
        names += ["stages", "keep_ratio", "selector"]
    return {name: model[name] for name in names}
