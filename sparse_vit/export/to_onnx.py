"""ONNX of a model that drops tokens, in standard operators."""

import contextlib
import copy
import io
import logging
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparse_vit.export.files import arriving
from sparse_vit.export.parity import check_parity
from sparse_vit.export.program import image_size_of, trace
from sparse_vit.export.report import ExportReport

__all__ = ["export_onnx", "onnx_session"]

OPSET = 18
INPUT, OUTPUT = "images", "features"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 2**31
"""Bytes that a file in the format of protocol buffers can hold."""
FOREIGN = ("If", "Loop", "Scan", "ScatterElements", "ScatterND", "Scatter")
"""What runtimes are slow at or cannot do with a free batch size."""


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    opset: int = OPSET,
    metadata: Mapping[str, str] | None = None,
) -> ExportReport:
    """Writes a model as ONNX, in one file, with tokens dropped for real.

    The selection becomes TopK and Gather; equal scores go to the lower index, as ONNX demands of
    TopK. The graph has standard operators only, no control flow and nothing scattered. Input
    `images` (batch, 3, H, W) float32, output `features` (batch, D).

    Args:
        model: as of `export_program`; float32 or float16.
        path: file to write, ending in .onnx.
        image_size: H and W; None takes the model's own.
        opset: version of the operators.
        metadata: strings to store in the file.

    Returns:
        The report, with the distance from the model as run by onnxruntime on the processor.

    Raises:
        ModuleNotFoundError: if a package of the extra `export` is missing.
        ValueError: for a model in training mode or one that decides at random, another ending, or
            weights beyond two gigabytes.
        ParityError: if the file computes something else; then nothing is written.
        RuntimeError: if the graph holds other operators; then nothing is written.
        OSError: if the file cannot be written.
    """
    _require()
    import onnx

    start = time.perf_counter()
    size = image_size or image_size_of(model)
    tensors = (*model.parameters(), *model.buffers())
    if sum(t.numel() * t.element_size() for t in tensors) >= LARGEST:
        raise ValueError("the weights are larger than the 2 GB of an ONNX file; export a program")
    here = copy.deepcopy(model).cpu()
    dtype = next(here.parameters()).dtype
    with arriving(path, ".onnx") as temporary:
        program = _translate(trace(here, size), opset)
        _forget_sources(program.model)
        program.model.metadata_props.update(dict(metadata or {}))
        program.save(str(temporary), external_data=False)
        written = onnx.load(str(temporary))
        onnx.checker.check_model(written, full_check=True)
        operators = _operators(written)
        parity = check_parity(here, onnx_session(temporary), size, dtype)
        length = temporary.stat().st_size
    return ExportReport(
        path=Path(path),
        format="onnx",
        size=length,
        dtype=str(dtype).removeprefix("torch."),
        image_size=size,
        opset=opset,
        operators=operators,
        parity=parity,
        seconds=time.perf_counter() - start,
    )


def onnx_session(
    path: str | os.PathLike[str], threads: int | None = None
) -> Callable[[Tensor], Tensor]:
    """Loads an ONNX file into onnxruntime, on the processor.

    Args:
        path: what `export_onnx` wrote.
        threads: within an operator; None for those of torch.

    Returns:
        A callable from (B, 3, H, W) float32 to (B, D); its attribute `session` is onnxruntime's.
    """
    _require()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {INPUT: images.numpy(force=True)})[0])

    run.session = session  # type: ignore[attr-defined]
    return run


def _require() -> None:
    from importlib.util import find_spec

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"ONNX needs {', '.join(missing)}, which is not installed; install it with: "
            "pip install 'sparse-vit[export]'",
            name=missing[0],
        )


def _translate(program: torch.export.ExportedProgram, opset: int) -> Any:
    """Torch's exporter, without its progress on the terminal."""
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                program,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                dynamo=True,
                verbose=False,
                custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            )
    finally:
        quiet.setLevel(level)


def _stable_sort(
    x: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> Any:
    """A sort as TopK of everything, which lets the lower index go first where values are equal."""
    from onnxscript import opset18

    op: Any = opset18
    length = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
    return op.TopK(x, length, axis=dim, largest=int(descending), sorted=1)


def _forget_sources(model: Any) -> None:
    """Removes stack traces, which hold paths of this machine."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    model.graph.metadata_props.clear()


def _operators(model: Any) -> dict[str, int]:
    """Counts operators, and refuses those that a runtime may not have.

    Raises:
        RuntimeError: naming them.
    """
    nodes = [node for body in (model.graph, *model.functions) for node in body.node]
    foreign = sorted(
        {f"{n.domain}.{n.op_type}".lstrip(".") for n in nodes if n.domain or n.op_type in FOREIGN}
    )
    if foreign:
        raise RuntimeError(
            f"the graph holds {', '.join(foreign)}, which not every runtime can run; a selector "
            "of one's own may be the reason"
        )
    return dict(Counter(node.op_type for node in nodes).most_common())
