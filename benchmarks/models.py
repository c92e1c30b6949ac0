"""Whole models: who takes part, what each computes, and how well it agrees with the model."""

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from benchmarks.roof import packed_linear
from sparse_vit import SparseVisionTransformer, calibrate, constant_merging, flops, sparsify
from sparse_vit.engine import Agreement, agreement, optimize

DENSE, COMPILED = "dense timm, eager", "dense timm, compiled"
DENSE_ENGINE, DENSE_ONNX = "dense, engine", "dense, onnxruntime"
FUSE, MERGE = "fuse 0.7", "merge"
CALIBRATED = 8
"""Images that thresholds are found on at a time."""


def label(who: float | str) -> str:
    """Name a method: a keep ratio of pruning, or what it is called."""
    return who if isinstance(who, str) else f"keep {who}"


def plain(who: float | str) -> str:
    """Name a model with fewer tokens as it is."""
    return f"{label(who)}, plain"


def engine(who: float | str) -> str:
    """Name it through the engine."""
    return f"{label(who)}, engine"


def adaptive(keep: float) -> str:
    """Name the pruned model through the engine with thresholds of the same mean count."""
    return f"keep {keep}, engine, adaptive"


def onnx(keep: float) -> str:
    """Name the pruned model in onnxruntime."""
    return f"keep {keep}, onnxruntime"


@dataclass
class Subject:
    """One set of weights, dense and with fewer tokens.

    Attributes:
        dense: Timm's model, float32, in evaluation mode.
        pruned: With keep predictors, by keep ratio.
        reduced: With other reductions, by name.
        exported: Sessions of onnxruntime, or why there is none, by name of the contender.
    """

    dense: Any
    pruned: dict[float, SparseVisionTransformer]
    reduced: dict[str, SparseVisionTransformer]
    exported: dict[str, Callable[[Tensor], Tensor] | str] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Number of patches."""
        return int(self.dense.patch_embed.num_patches)


def deit_small(device: torch.device, keeps: Sequence[float], tiny: bool) -> Subject:
    """DeiT-S with random weights; merging is set to the operations of the first keep ratio."""
    torch.manual_seed(0)
    small = {"embed_dim": 64, "num_heads": 2, "depth": 4} if tiny else {}
    size = (64, 32) if tiny else (256, 128)
    dense: Any = timm.create_model("deit_small_patch16_224", img_size=size, num_classes=0, **small)
    dense = dense.to(device).eval()
    depth, patches = len(dense.blocks), int(dense.patch_embed.num_patches)
    stages = tuple(depth * quarter // 4 for quarter in (1, 2, 3))
    pruned = {keep: sparsify(dense, stages, keep).eval() for keep in keeps}
    # The mean over blocks of the tokens is that of the stages.
    mean = 1 - sum(keeps[0] ** stage for stage in range(4)) / 4
    every = constant_merging(patches, depth, max(1, round(2 * patches * mean / depth)))
    fused = sparsify(dense, stages, keeps[0], reduction="fuse").eval()
    merged = sparsify(dense, *every, reduction="merge").eval()
    return Subject(dense, pruned, {FUSE: fused, MERGE: merged})


@dataclass
class Contender:
    """A model ready to run on the images of a case."""

    call: Callable[[], Any]
    flops: int
    agreement: Agreement | None = None
    run: Any = None


@dataclass(frozen=True)
class Extent:
    """Who takes part in a case beside the dense and the pruned model.

    Attributes:
        compiled: The dense model by torch.compile, half a minute a case.
        reductions: Fusing and merging through the engine.
        exports: Onnxruntime.
    """

    compiled: bool = False
    reductions: bool = False
    exports: bool = False


def contenders(
    subject: Subject, x: Tensor, dtype: torch.dtype, extent: Extent
) -> tuple[dict[str, Contender], dict[str, str]]:
    """Prepare everybody for one case; the first is what the others are compared with.

    Args:
        subject: The weights.
        x: (B, 3, H, W) float32 images.
        dtype: float32, bfloat16 or int8, in which only the engine takes part.
        extent: Who else takes part.

    Returns:
        Contenders by name, and why others cannot take part.
    """
    dense, found, absent = subject.dense, {}, {}
    whole = len(x) * flops(dense)
    own = torch.float32 if dtype == torch.int8 else dtype
    cast, cast_x = copy.deepcopy(dense).to(own), x.to(own)
    found[DENSE] = Contender(lambda: cast(cast_x), whole)
    if extent.compiled:
        fast = torch.compile(cast)
        fast(cast_x)
        found[COMPILED] = Contender(lambda: fast(cast_x), whole)
    found[DENSE_ENGINE] = through_engine(dense, x, dtype)
    models = {**subject.pruned, **subject.reduced}
    for who, model in models.items():
        if dtype != torch.int8:
            lower = copy.deepcopy(model).to(own)
            work = len(x) * flops(model, pooled=True)
            found[plain(who)] = Contender(lambda lower=lower: lower(cast_x), work)
        if who in subject.pruned or extent.reductions:
            found[engine(who)] = through_engine(model, x, dtype)
    first = next(iter(subject.pruned))
    if dtype != torch.int8 and len(x) > 1:
        rule = calibrate(subject.pruned[first], x.split(CALIBRATED), dtype=dtype)
        found[adaptive(first)] = through_engine(subject.pruned[first], x, dtype, rule)
    if extent.exports:
        for name, model in ((DENSE_ONNX, dense), (onnx(first), subject.pruned[first])):
            session = exported(subject, name, model)
            if isinstance(session, str):
                absent[name] = session
                continue
            pooled = isinstance(model, SparseVisionTransformer)
            work = len(x) * flops(model, pooled=pooled)
            found[name] = Contender(lambda session=session: session(x), work)
    return found, absent


def through_engine(model: Any, x: Tensor, dtype: torch.dtype, rule: Any = None) -> Contender:
    """Prepare a model through the engine, with thresholds if there is a rule."""
    run = optimize(model, dtype, batch=len(x), adaptive=rule)
    # A fixed schedule is not what thresholds are to agree with.
    found = agreement(run, model, x[:8]) if rule is None else None
    return Contender(lambda: run(x), len(x) * flops(model, pooled=True), found, run)


def exported(subject: Subject, name: str, model: Any) -> Callable[[Tensor], Tensor] | str:
    """A session of onnxruntime, made once, or why there is none."""
    from sparse_vit.export import export_onnx, onnx_session

    if name not in subject.exported:
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                export_onnx(model, path)
                subject.exported[name] = onnx_session(path)
        except ModuleNotFoundError as error:
            subject.exported[name] = str(error)
    return subject.exported[name]


def roof_products(
    dense: Any, images: int, dtype: torch.dtype
) -> dict[str, tuple[Callable[[], Any], int]]:
    """The products of a dense block, and a square one, by every library, with their operations."""
    width, hidden = dense.embed_dim, dense.blocks[0].mlp.fc1.out_features
    rows = images * (dense.num_prefix_tokens + dense.patch_embed.num_patches)
    device = next(dense.parameters()).device
    side = 1536 if device.type == "cpu" else 8192
    shapes: Sequence[tuple[int, int, int]] = (
        (rows, width, hidden), (rows, hidden, width), (side, side, side),
    )  # fmt: skip
    found: dict[str, tuple[Callable[[], Any], int]] = {}
    for m, k, n in shapes:
        a, weight = (torch.randn(s, device=device).to(dtype) for s in ((m, k), (n, k)))
        name, work = f"{m} x {k} x {n}", 2 * m * k * n
        found[f"torch {name}"] = (lambda a=a, w=weight: torch.nn.functional.linear(a, w)), work
        packed = packed_linear(weight, m)
        if packed is not None:
            found[f"packed oneDNN {name}"] = (lambda a=a, p=packed: p(a)), work
    return found
