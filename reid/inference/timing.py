"""An exported file beside other ways to run the same model."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from reid.inference.deployed import Deployed, dense_twin
from reid.inference.export import Format
from reid.inference.race import Time, race, table
from reid.inference.runners import EngineRunner, ModelRunner
from reid.models.embedder import Preprocess, load_model
from sparse_vit.export import export_onnx, load_aot, onnx_session

THREADS = 2
BATCHES = (1, 8)
ROUNDS = 11
RUNTIMES: dict[Format, str] = {"onnx": "onnxruntime", "program": "torch", "aot": "compiled"}


def time_export(checkpoint: str | Path, file: Path, format: Format) -> list[Time]:
    """Time an exported float32 file, the dense model exported alike, torch and the engine.

    Args:
        checkpoint: What was exported.
        file: The export.
        format: Of the export.

    Returns:
        Times on the CPU with two threads, at batch 1 and 8.
    """
    model, config, stored = load_model(checkpoint)
    preprocess = Preprocess.from_metadata(stored)
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        runs: dict[str, Callable[[Tensor], Tensor]] = {
            f"this file, {RUNTIMES[format]}": _load(file, format)
        }
        if format == "onnx" and config.model.sparse:
            twin = Deployed(dense_twin(model, config), preprocess)
            with tempfile.TemporaryDirectory() as folder:
                dense = Path(folder) / "dense.onnx"
                export_onnx(twin, dense, image_size=preprocess.image_size)
                runs["all tokens, onnxruntime"] = onnx_session(dense, THREADS)
        runs["the model, torch"] = ModelRunner(model, preprocess, "timing")
        try:
            runs["the model, engine"] = EngineRunner(model, preprocess, None, max(BATCHES))
        except (TypeError, ValueError) as error:
            print(f"without the engine, which refuses the model: {error}")
        return race(runs, preprocess.image_size, BATCHES, rounds=ROUNDS)
    finally:
        torch.set_num_threads(before)


def times_table(times: list[Time]) -> str:
    """Milliseconds of an image, and images per second."""
    rows = [
        (t.name, str(t.batch), f"{t.milliseconds / t.batch:.2f}", f"{t.images_per_second:.1f}")
        for t in times
    ]
    lines = table(("", "batch", "ms an image", "img/s"), rows)
    return f"{lines}\nmedians of {ROUNDS} calls in turns, CPU, {THREADS} threads, float32"


def _load(file: Path, format: Format) -> Callable[[Tensor], Tensor]:
    if format == "onnx":
        return onnx_session(file, THREADS)
    if format == "aot":
        return load_aot(file)
    program: Callable[[Tensor], Tensor] = torch.export.load(file).module()
    return program
