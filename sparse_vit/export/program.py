"""`torch.export` of a model: the graph that the other formats start from, and a file of its own."""

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from sparse_vit.export.files import arriving
from sparse_vit.export.parity import check_parity
from sparse_vit.export.plain import decompositions
from sparse_vit.export.report import ExportReport
from sparse_vit.selectors import FixedDecisions, RandomSelector

__all__ = ["export_program", "image_size_of", "operators_of", "trace"]

EXAMPLE_BATCH = 2
MOST_IMAGES = 65535
"""In a batch: a bound that lets the tracer prove that row numbers fit."""
METADATA = "metadata.json"


def export_program(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> ExportReport:
    """Writes a model as an exported program, which torch alone can load and run.

    Tokens are dropped for real, by plain operators: `torch.export.load(path).module()(images)`
    needs neither this package nor timm.

    Args:
        model: in evaluation mode, (B, 3, H, W) to (B, D): a `SparseVisionTransformer`, a dense
            timm model, or a module around one.
        path: file to write, ending in .pt2.
        image_size: H and W; None takes the model's own.
        metadata: strings to store in the file, as JSON in its extra file `metadata.json`.

    Returns:
        The report, with the distance from the model.

    Raises:
        ValueError: for a model in training mode or one that decides at random, or another ending.
        ParityError: if the program computes something else; then nothing is written.
        OSError: if the file cannot be written.
    """
    start = time.perf_counter()
    size = image_size or image_size_of(model)
    with arriving(path, ".pt2") as temporary:
        program = trace(model, size)
        extra = {METADATA: json.dumps(dict(metadata or {}))}
        torch.export.save(program, temporary, extra_files=extra)
        dtype = next(model.parameters()).dtype
        device = next(model.parameters()).device
        saved: Any = torch.export.load(temporary).module()
        with torch.inference_mode():
            parity = check_parity(model, lambda x: saved(x.to(device)), size, dtype)
        written = temporary.stat().st_size
    return ExportReport(
        path=Path(path),
        format="program",
        size=written,
        dtype=str(dtype).removeprefix("torch."),
        image_size=size,
        opset=None,
        operators=operators_of(program),
        parity=parity,
        seconds=time.perf_counter() - start,
    )


def trace(model: nn.Module, image_size: tuple[int, int]) -> ExportedProgram:
    """Captures the forward of a model with a free batch size, in plain operators.

    Args:
        model: as of `export_program`.
        image_size: H and W.

    Returns:
        The program; what it remembers of source files is removed.

    Raises:
        ValueError: for a model in training mode, or one that decides at random.
    """
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() before the export")
    for module in model.modules():
        if isinstance(module, (RandomSelector, FixedDecisions)):
            raise ValueError(
                f"{type(module).__name__} does not decide by the image, so its result cannot be "
                "exported; use selector='predictor' or 'class_attention'"
            )
    weight = next(model.parameters())
    example = torch.rand(EXAMPLE_BATCH, 3, *image_size, device=weight.device)
    batch = Dim("batch", min=1, max=MOST_IMAGES)
    with torch.no_grad():
        program = torch.export.export(
            model, (example,), dynamic_shapes=({0: batch},), strict=False
        ).run_decompositions(decompositions())
    for node in program.graph.nodes:
        # a path of this machine is nobody's business
        node.meta.pop("stack_trace", None)
    return program


def image_size_of(model: nn.Module) -> tuple[int, int]:
    """Height and width that a vision transformer, or the one within a module, was built for.

    Raises:
        ValueError: if there is none, or it takes any size.
    """
    for module in model.modules():
        embed = getattr(module, "patch_embed", None)
        size = getattr(embed, "img_size", None)
        if size is not None:
            return int(size[0]), int(size[1])
    raise ValueError(f"{type(model).__name__} does not tell its image size; pass image_size=(H, W)")


def operators_of(program: ExportedProgram) -> dict[str, int]:
    """How often each operator occurs, the most frequent first."""
    names = (
        str(node.target).removesuffix(".default")
        for node in program.graph.nodes
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)
    )
    return dict(Counter(names).most_common())
