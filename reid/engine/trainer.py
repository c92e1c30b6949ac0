"""The training loop: accelerate for devices and precision, keyed randomness for exact resume."""

import contextlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reid._optional import require
from reid.config import OptimConfig, TrainConfig
from reid.engine import checkpoint, distributed
from reid.engine.optim import build_optimizer
from reid.engine.schedule import learning_rate
from reid.engine.task import Task
from reid.errors import UserError

CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
LOG = "log.jsonl"


def make_accelerator(settings: TrainConfig) -> Any:
    """Return an Accelerator whose precision suits the device.

    "auto" is bfloat16 on a GPU that computes in it, float16 on other GPUs, and float32 on a CPU,
    where small models run no faster in bfloat16.
    """
    accelerate = require("accelerate")
    on_gpu = torch.cuda.is_available()
    precision = settings.mixed_precision
    if precision == "auto":
        precision = "no"
        if on_gpu:
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            precision = "bf16" if native else "fp16"
    if precision == "fp16" and not on_gpu:
        raise UserError("train.mixed_precision=fp16 needs a GPU; use auto, no or bf16")
    # the state of an earlier run in this process would keep its precision
    require("accelerate.state").AcceleratorState._reset_state()
    return accelerate.Accelerator(
        cpu=not on_gpu,
        mixed_precision=precision,
        kwargs_handlers=[
            accelerate.DistributedDataParallelKwargs(broadcast_buffers=False),
            accelerate.InitProcessGroupKwargs(timeout=distributed.TIMEOUT),
        ],
    )


def fit(
    task: Task,
    optim: OptimConfig,
    settings: TrainConfig,
    out: Path,
    *,
    accelerator: Any,
    metadata: dict[str, Any],
    resume: bool = False,
    label: str = "train",
    after_epoch: Callable[[int], dict[str, float]] | None = None,
) -> list[dict[str, float]]:
    """Train a task and leave `model.safetensors`, a checkpoint and a log in `out`.

    Sampling, augmentation, stochastic depth and token selection are functions of (seed, epoch,
    sample), so a resumed run repeats the interrupted one exactly.

    Args:
        task: Module and batches.
        optim: Optimiser and schedule.
        settings: Length, precision and logging.
        out: Folder of the run.
        accelerator: From `make_accelerator`.
        metadata: Stored in the checkpoint and compared when resuming.
        resume: Continue from the checkpoint in `out`, if there is one.
        label: Shown in front of the progress bar.
        after_epoch: Called with the number of finished epochs; what it returns is logged.

    Returns:
        One dictionary per logged step: step, epoch, lr, loss and its parts.

    Raises:
        UserError: The loss is not finite (the batch is saved), the checkpoint belongs to another
            configuration, or the disk is full.
    """
    tqdm = require("tqdm")
    optimizer = build_optimizer(task.module, optim)
    names: dict[Tensor, str] = {p: n for n, p in task.module.named_parameters()}
    module, optimizer = accelerator.prepare(task.module, optimizer)
    steps_per_epoch = max(1, task.batches_per_epoch // settings.accumulate)
    total = settings.max_steps or settings.epochs * steps_per_epoch

    step, history = 0, []
    if resume and (out / CHECKPOINT).is_file():
        step = _restore(out / CHECKPOINT, task, optimizer, names, metadata, accelerator)
        history = _read_log(out / LOG, step)
        if step >= total and (out / MODEL).is_file():
            return history
    writer = _LogWriter(out, history) if distributed.is_main() else None
    bar = tqdm.tqdm(
        total=total,
        initial=step,
        desc=label,
        unit="step",
        disable=not distributed.is_main(),
        mininterval=1.0,
        dynamic_ncols=True,
    )
    module.train()
    sums: dict[str, float] = {}
    counted, started = 0, time.perf_counter()
    while step < total:
        rate = learning_rate(step, total, optim)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        # modules that draw from torch's own generator repeat their draws after a resume
        torch.manual_seed((settings.seed << 32) + step * 1009 + distributed.rank())
        parts = _step(
            module, optimizer, task, step, steps_per_epoch, settings, optim, accelerator, out
        )
        step += 1
        counted += 1
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value
        bar.update()
        if step % settings.log_every == 0 or step == total:
            row = {"step": step, "epoch": (step - 1) // steps_per_epoch, "lr": rate}
            row |= {name: value / counted for name, value in sums.items()}
            row["steps_per_second"] = counted / (time.perf_counter() - started)
            history.append(row)
            bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            if writer is not None:
                writer.add(row)
            sums, counted, started = {}, 0, time.perf_counter()
        if after_epoch is not None and step % steps_per_epoch == 0:
            scores = after_epoch(step // steps_per_epoch)
            if scores:
                history.append({"step": step, **scores})
            if scores and writer is not None:
                writer.add(history[-1])
            module.train()
        interval = settings.checkpoint_every or steps_per_epoch
        if step % interval == 0 or step == total:
            _save(out / CHECKPOINT, task, optimizer, names, step, metadata, accelerator)
    bar.close()
    if writer is not None:
        writer.close()
        task.save(out / MODEL, _state(task, accelerator))
    distributed.barrier()
    return history


def _step(
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    step: int,
    steps_per_epoch: int,
    settings: TrainConfig,
    optim: OptimConfig,
    accelerator: Any,
    out: Path,
) -> dict[str, float]:
    parts: dict[str, float] = {}
    epoch, within = divmod(step, steps_per_epoch)
    for micro in range(settings.accumulate):
        last = micro == settings.accumulate - 1
        batch = task.batch(epoch, (within * settings.accumulate + micro) % task.batches_per_epoch)
        with accelerator.no_sync(module) if not last else contextlib.nullcontext():
            loss, named = module(**batch)
            # one transfer from the device for all parts
            values = torch.stack([loss.detach().float(), *(v.float() for v in named.values())])
            row = dict(zip(("loss", *named), values.tolist(), strict=True))
            if not math.isfinite(row["loss"]):
                _diverged(out, batch, step, "loss", row)
            accelerator.backward(loss / settings.accumulate)
        for name, part in row.items():
            parts[name] = parts.get(name, 0.0) + part / settings.accumulate
    norm = accelerator.clip_grad_norm_(module.parameters(), optim.clip_norm or math.inf)
    # in float16 the scaler skips steps whose gradient overflows
    if accelerator.scaler is None and not math.isfinite(float(norm)):
        _diverged(out, batch, step, "gradient", parts)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return parts


def _diverged(
    out: Path, batch: dict[str, Any], step: int, what: str, parts: dict[str, float]
) -> None:
    share = f".rank{distributed.rank()}" if distributed.world_size() > 1 else ""
    saved = out / f"diverged_batch{share}.safetensors"
    tensors: dict[str, Tensor] = {}
    for name, value in batch.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        tensors |= {f"{name}.{i}": v for i, v in enumerate(values) if isinstance(v, Tensor)}
    checkpoint.save(saved, tensors, {"step": step, "parts": {k: str(v) for k, v in parts.items()}})
    bad = ", ".join(name for name, value in parts.items() if not math.isfinite(value))
    raise UserError(
        f"the {what} is not finite at step {step}{f' ({bad})' if bad else ''}; training stopped, "
        f"the last checkpoint in {out} is kept and the batch was saved as {saved}; lower optim.lr, "
        "set optim.clip_norm=1, or use train.mixed_precision=no"
    )


def _state(task: Task, accelerator: Any) -> dict[str, Tensor]:
    state = accelerator.unwrap_model(task.module).state_dict()
    return {name: t for name, t in state.items() if not name.startswith("teacher.")}


def _save(
    path: Path,
    task: Task,
    optimizer: torch.optim.Optimizer,
    names: dict[Tensor, str],
    step: int,
    metadata: dict[str, Any],
    accelerator: Any,
) -> None:
    if distributed.is_main():
        tensors = {f"task.{name}": t for name, t in _state(task, accelerator).items()}
        slots, scalars = checkpoint.flatten_optimizer(_inner(optimizer), names)
        if accelerator.scaler is not None:
            scalars["scaler"] = accelerator.scaler.state_dict()
        checkpoint.save(path, tensors | slots, {**metadata, "step": step, "scalars": scalars})
    distributed.barrier()


def _restore(
    path: Path,
    task: Task,
    optimizer: torch.optim.Optimizer,
    names: dict[Tensor, str],
    metadata: dict[str, Any],
    accelerator: Any,
) -> int:
    tensors, stored = checkpoint.load(path)
    expected = json.loads(json.dumps(metadata))
    different = [key for key in expected if stored.get(key) != expected[key]]
    if different:
        raise UserError(
            f"{path} was written by a run with another {', '.join(different)}; resume "
            "with the same configuration, or choose another folder with --out"
        )
    weights = {k.removeprefix("task."): t for k, t in tensors.items() if k.startswith("task.")}
    module = accelerator.unwrap_model(task.module)
    frozen = {k: t for k, t in module.state_dict().items() if k.startswith("teacher.")}
    checkpoint.load_strict(module, weights | frozen, str(path))
    scalars = stored["scalars"]
    if accelerator.scaler is not None and "scaler" in scalars:
        accelerator.scaler.load_state_dict(scalars["scaler"])
    slots = {k: t for k, t in tensors.items() if k.startswith("optim.")}
    checkpoint.restore_optimizer(_inner(optimizer), names, slots, scalars)
    return int(stored["step"])


def _inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return getattr(optimizer, "optimizer", optimizer)


def _read_log(path: Path, step: int) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        # a killed run may leave half a line
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return [row for row in rows if row["step"] <= step]


class _LogWriter:
    """Writes log.jsonl and TensorBoard events."""

    def __init__(self, out: Path, history: list[dict[str, float]]) -> None:
        require("tensorboard")
        from torch.utils.tensorboard.writer import SummaryWriter

        out.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in history)
        checkpoint.write_atomic(out / LOG, lines.encode())
        self.file = (out / LOG).open("a", encoding="utf-8")
        start = int(history[-1]["step"]) if history else 0
        self.board = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1)

    def add(self, row: dict[str, float]) -> None:
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        for name, value in row.items():
            if name != "step":
                self.board.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        self.file.close()
        self.board.close()
