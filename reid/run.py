"""The verbs as functions: train a configuration, evaluate or extract with a checkpoint."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reid.config import DataConfig, RunConfig, from_dict, to_dict
from reid.data.leaving_out import LIST, write_left_out
from reid.data.records import Record, ReidData
from reid.data.store import Held
from reid.engine import distributed
from reid.engine.checkpoint import write_atomic
from reid.errors import UserError
from reid.evaluation import Features, RankingResult
from reid.models.embedder import ReidModel

PROVENANCE = "provenance.json"
# Queries are shared out over processes in blocks of this many.
CHUNK = 128
# Decoded queries and gallery of at most so many bytes are kept between evaluations.
HELD_BYTES = 4 << 30


@dataclass
class TrainedRun:
    """What `train` leaves behind.

    Attributes:
        out: Folder of the run.
        model: The trained model in evaluation mode, on the device it was trained on.
        history: Logged steps.
        result: Evaluation on query and gallery with real pruning; None without them.
    """

    out: Path
    model: ReidModel
    history: list[dict[str, float]]
    result: RankingResult | None


def start_processes() -> None:
    """Join the process group when `torchrun` or `accelerate launch` started this process."""
    from reid._optional import require

    require("accelerate").PartialState(
        cpu=not torch.cuda.is_available(), timeout=distributed.TIMEOUT
    )


def pick_device() -> torch.device:
    """Return the GPU of this process, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def load_data(config: DataConfig) -> ReidData:
    """Read the data set of a run; a generated one is written first when its folder is missing."""
    from reid import data

    if distributed.is_main():
        data.prepare(config)
    distributed.barrier()
    return data.load(config.name, config.root, protocol=config.protocol, skip_bad=config.skip_bad)


def train(
    config: RunConfig,
    out: str | Path,
    *,
    resume: bool = False,
    images: Tensor | None = None,
    data: ReidData | None = None,
    evaluate_after: bool = True,
    label: str = "train",
) -> TrainedRun:
    """Train a configuration and evaluate the result.

    Args:
        config: The whole run.
        out: Folder for config.json, log.jsonl, checkpoint.safetensors and model.safetensors.
        resume: Continue an interrupted run in the same folder.
        images: Decoded training images, or None to read them.
        data: The data set, or None to read `config.data`.
        evaluate_after: Evaluate on query and gallery at the end.
        label: Shown in front of the progress bar.

    Returns:
        The trained model, its log and its evaluation.

    Raises:
        UserError: Bad data, configuration or checkpoint, or a loss that is not finite.
    """
    from reid.engine.provenance import provenance
    from reid.engine.trainer import MODEL, fit, make_accelerator
    from reid.methods import build_task

    out = Path(out)
    accelerator = make_accelerator(config.train)
    if data is None:
        data = load_data(config.data)
    if not data.train:
        raise UserError(
            f"{data.name} has no training images: train on another set, such as market1501, and "
            f"give the checkpoint to reid evaluate --data {data.name}"
        )
    _start_folder(out, config, resume)
    if distributed.is_main():
        write_left_out(data.left_out, out / LIST)
    task = build_task(config, data.train, accelerator.device, images)
    seen = _evaluation_images(config, data, evaluate_after)

    def after_epoch(finished: int) -> dict[str, float]:
        every = config.train.eval_every
        if not every or finished % every or not (data.query and data.gallery):
            return {}
        model = accelerator.unwrap_model(task.module).model
        result = evaluate_model(model, config, data, images=seen)[0]
        return {"rank1": result.rank1, "mAP": result.mAP}

    trained_before = resume and (out / MODEL).is_file()
    started = time.perf_counter()
    history = fit(
        task,
        config.optim,
        config.train,
        out,
        accelerator=accelerator,
        metadata={"config": to_dict(config), **task.extra},
        resume=resume,
        label=label,
        after_epoch=after_epoch,
    )
    if distributed.is_main() and not (trained_before and (out / PROVENANCE).is_file()):
        origin = {**provenance(), "seconds": time.perf_counter() - started}
        write_atomic(out / PROVENANCE, json.dumps(origin, indent=2).encode())
    model = accelerator.unwrap_model(task.module).model.eval()
    result = None
    if evaluate_after and data.query and data.gallery:
        result = evaluate_model(model, config, data, images=seen)[0]
        if distributed.is_main():
            write_atomic(out / "evaluation.json", json.dumps(scores(result), indent=2).encode())
    return TrainedRun(out=out, model=model, history=history, result=result)


def _evaluation_images(
    config: RunConfig, data: ReidData, evaluate_after: bool
) -> tuple[Tensor | Held | None, Tensor | Held | None]:
    """Queries and gallery: from the cache, or decoded once where a run evaluates several times."""
    from reid.data.cache import mapped

    if not (data.query and data.gallery and (config.train.eval_every or evaluate_after)):
        return None, None
    height, width = config.data.image_size
    size = (len(data.query) + len(data.gallery)) * 3 * height * width
    keep = config.train.eval_every > 0 and size <= HELD_BYTES

    def images(records: list[Record]) -> Tensor | Held | None:
        found = mapped(records, config.data)
        if found is None and keep:
            return Held(records, config.data.image_size, config.data.interpolation)
        return found

    return images(data.query), images(data.gallery)


def _start_folder(out: Path, config: RunConfig, resume: bool) -> None:
    from reid.engine.trainer import CHECKPOINT, MODEL

    if not resume and any((out / name).exists() for name in (CHECKPOINT, MODEL)):
        raise UserError(
            f"{out} already holds a run; continue it with --resume, or choose another "
            "folder with --out"
        )
    written = out / "config.json"
    if resume and written.is_file():
        # a run of an older version lacks the newer keys, whose defaults it used
        old = to_dict(from_dict(json.loads(written.read_text(encoding="utf-8"))))
        changed = _changed_keys(old, to_dict(config))
        if changed:
            raise UserError(
                f"{out} holds a run with another {', '.join(changed)}; resume with the "
                "same configuration, or choose another folder with --out"
            )
    distributed.barrier()
    if distributed.is_main():
        write_atomic(written, json.dumps(to_dict(config), indent=2).encode())
    distributed.barrier()


def _changed_keys(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    changed = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changed += _changed_keys(before, after, f"{prefix}{key}.")
        elif before != after:
            changed.append(f"{prefix}{key} ({before!r}, now {after!r})")
    return changed


def extract_features(
    model: ReidModel,
    config: RunConfig,
    records: list[Record],
    *,
    images: Tensor | Held | None = None,
    batch_size: int = 64,
    label: str = "extract",
) -> Features:
    """Embed records with the preprocessing of the configuration."""
    from reid.engine.extract import extract
    from reid.models.embedder import preprocess_of

    return extract(
        model,
        records,
        preprocess_of(config.data),
        images=images,
        batch_size=batch_size,
        label=label,
    )


def evaluate_model(
    model: ReidModel,
    config: RunConfig,
    data: ReidData,
    *,
    images: tuple[Tensor | Held | None, Tensor | Held | None] = (None, None),
    batch_size: int = 64,
) -> tuple[RankingResult, Features, Features]:
    """Extract query and gallery with real pruning and rank them.

    Args:
        model: The model.
        config: Of the run that trained it.
        data: Query and gallery.
        images: Of query and gallery, where they are decoded; None reads the files.
        batch_size: Images in one forward.

    Returns:
        The ranking, the query features and the gallery features.
    """
    from reid.evaluation import evaluate_sharded

    query, gallery = (
        extract_features(model, config, records, images=seen, batch_size=batch_size, label=label)
        for label, records, seen in (
            ("query", data.query, images[0]),
            ("gallery", data.gallery, images[1]),
        )
    )
    result = evaluate_sharded(query, gallery, chunk=CHUNK, distractor_pid=data.distractor_pid)
    return result, query, gallery


def scores(result: RankingResult) -> dict[str, Any]:
    """Return the scores of an evaluation as plain numbers, in percent."""
    return {
        "rank1": result.rank1,
        "rank5": result.rank5,
        "rank10": result.rank10,
        "mAP": result.mAP,
        "mAP_trapezoid": result.mAP_trapezoid,
        "mINP": result.mINP,
        "queries": result.queries,
        "skipped": result.skipped,
        "tied": result.tied,
    }
