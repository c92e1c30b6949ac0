"""How fast a checkpoint runs: dense and with fewer tokens, plain and through the engine."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reid.engine.checkpoint import write_atomic
from reid.engine.provenance import provenance
from reid.errors import UserError
from reid.inference.deployed import dense_twin
from reid.inference.race import Time, race, table
from reid.inference.runners import dtype_of
from reid.models.embedder import ReidModel, load_model

DTYPES = ("float32", "bfloat16")
ROUNDS = 11
PLAIN, ENGINE = "torch", "engine"
DENSE, OWN = "dense", "own"


@dataclass(frozen=True)
class Row:
    """One way to run the backbone of a checkpoint.

    Attributes:
        model: `dense`, with all tokens kept, or `own`, as it was trained.
        path: `torch` or `engine`.
        dtype: Of weights and activations.
        gflops: Billions of floating point operations for an image.
        time: At one batch size.
        against_dense: Images per second, against the dense model in torch in float32.
        against_same: Against the dense model by the same path and dtype.
    """

    model: str
    path: str
    dtype: str
    gflops: float
    time: Time
    against_dense: float
    against_same: float


@dataclass(frozen=True)
class Benchmark:
    """What `benchmark` measured.

    Attributes:
        rows: By batch size.
        skipped: What could not be run, and why.
        keep_counts: Patch tokens left after each stage.
        tokens: Patch tokens of an image.
    """

    rows: list[Row]
    skipped: list[str]
    keep_counts: list[int]
    tokens: int

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, with versions and the machine."""
        return {**asdict(self), "provenance": provenance()}

    def __str__(self) -> str:
        kept = ", ".join(map(str, self.keep_counts)) or "all"
        head = ("batch", "model", "path", "dtype", "GFLOP", "img/s", "ms", "x dense", "x same")
        rows = [
            (
                str(row.time.batch),
                row.model,
                row.path,
                row.dtype,
                f"{row.gflops:.2f}",
                f"{row.time.images_per_second:.1f}",
                f"{row.time.milliseconds:.2f}",
                f"{row.against_dense:.2f}",
                f"{row.against_same:.2f}",
            )
            for row in self.rows
        ]
        lines = [f"keeps {kept} of {self.tokens} patches; {torch.get_num_threads()} threads"]
        lines += [table(head, rows), *(f"left out: {reason}" for reason in self.skipped)]
        lines.append("x dense: against dense, torch, float32; x same: against dense, same way")
        return "\n".join(lines)


def benchmark(
    checkpoint: str | Path,
    *,
    batches: Sequence[int] = (1, 8, 32),
    dtypes: Sequence[str] = DTYPES,
    rounds: int = ROUNDS,
    device: str | torch.device | None = None,
    out: Path | None = None,
) -> Benchmark:
    """Time the backbone of a checkpoint in turns with its dense twin.

    Args:
        checkpoint: A model.safetensors that `reid train` wrote.
        batches: Batch sizes.
        dtypes: float32, bfloat16; float16 on a GPU.
        rounds: Measured calls of each way; medians count.
        device: None takes the first GPU, or the CPU.
        out: JSON file to write.

    Returns:
        The rows.

    Raises:
        UserError: A checkpoint that cannot be read, an option out of range, or a file that cannot
            be written.
    """
    from sparse_vit.flops import flops

    unknown = set(dtypes) - {"float32", "bfloat16", "float16"}
    if unknown or not dtypes:
        raise UserError(f"dtypes {list(dtypes)}: choose of float32, bfloat16 and float16")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    own, config, _ = load_model(checkpoint)
    models = {DENSE: dense_twin(own, config)}
    if config.model.sparse:
        models[OWN] = own
    runs: dict[tuple[str, str, str], Callable[[Tensor], Tensor]] = {}
    skipped = []
    wanted = ["float32", *(dtype for dtype in dtypes if dtype != "float32")]
    for dtype in wanted:
        for name, model in models.items():
            runs[name, PLAIN, dtype] = _plain(model, dtype, place)
            try:
                runs[name, ENGINE, dtype] = _engine(model, dtype, place, max(batches))
            except (TypeError, ValueError) as error:
                skipped.append(f"{name} through the engine in {dtype}: {error}")
    operations = {name: flops(model.backbone) / 1e9 for name, model in models.items()}
    labels = {" ".join(key): key for key in runs}
    size = config.data.image_size
    times = race(
        {label: runs[key] for label, key in labels.items()},
        size,
        batches,
        rounds=rounds,
        device=place,
    )
    speed = {(*labels[t.name], t.batch): t.images_per_second for t in times}
    rows = []
    for t in times:
        name, path, dtype = labels[t.name]
        base, same = (
            speed[DENSE, PLAIN, "float32", t.batch],
            speed.get((DENSE, path, dtype, t.batch)),
        )
        now = t.images_per_second
        against_same = now / same if same else float("nan")
        rows.append(Row(name, path, dtype, operations[name], t, now / base, against_same))
    result = Benchmark(
        rows=rows,
        skipped=skipped,
        keep_counts=list(getattr(own.backbone, "keep_counts", [])),
        tokens=int(own.backbone.patch_embed.num_patches),
    )
    if out is not None:
        write_atomic(out, json.dumps(result.as_dict(), indent=2).encode())
    return result


def _plain(model: ReidModel, dtype: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    precision = dtype_of(dtype)
    backbone = copy.deepcopy(model.backbone).to(device=device, dtype=precision)
    return lambda images: backbone(images.to(precision))


def _engine(
    model: ReidModel, dtype: str, device: torch.device, batch: int
) -> Callable[[Tensor], Tensor]:
    from sparse_vit.engine import optimize

    backbone = copy.deepcopy(model.backbone).to(device)
    return optimize(backbone, dtype=dtype_of(dtype), batch=batch)
