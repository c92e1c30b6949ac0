"""A trained model as a file that other programs run."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from reid._optional import require
from reid.config import RunConfig, from_dict, to_dict
from reid.engine.checkpoint import write_atomic
from reid.errors import UserError
from reid.inference.deployed import Deployed
from reid.inference.origin import sha256_of, without_paths
from reid.inference.runners import dtype_of
from reid.inference.threshold import read_threshold
from reid.models.embedder import Preprocess, ReidModel, load_model
from sparse_vit.export import (
    ExportReport,
    ParityError,
    compile_aot,
    export_onnx,
    export_program,
)

Format = Literal["onnx", "program", "aot"]
FORMATS: tuple[Format, ...] = get_args(Format)
ENDINGS: dict[Format, str] = {"onnx": ".onnx", "program": ".pt2", "aot": ".pt2"}
DTYPES: dict[Format, tuple[str, ...]] = {
    "onnx": ("float32", "float16"),
    "program": ("float32", "bfloat16", "float16"),
    "aot": ("float32", "bfloat16", "float16"),
}
INPUT = "images (batch, 3, height, width) float32 RGB from 0 to 1, resized; normalised inside"


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    format: Format = "onnx",
    dtype: str = "float32",
    normalize: bool = True,
    device: str = "cpu",
) -> ExportReport:
    """Export a checkpoint, and compare what was written with the model.

    The file takes pixels and gives features: normalisation of the pixels, backbone with tokens
    dropped for real, neck and L2 normalisation are inside, resizing is not. Its metadata (see
    `metadata_of`) also lies beside it as JSON.

    Args:
        checkpoint: A model.safetensors that `reid train` wrote.
        out: File to write: .onnx, or .pt2 for the other formats.
        format: `onnx`; `program`, of torch.export; or `aot`, compiled by AOTInductor.
        dtype: Of the backbone.
        normalize: Whether features are divided by their L2 norm.
        device: That a program or a compiled package is for.

    Returns:
        The report of sparse_vit.export.

    Raises:
        UserError: A format, dtype or name that does not fit, a missing package or compiler, a file
            that cannot be written, or one that computes something else than the model.
    """
    if format not in FORMATS:
        raise UserError(f"format is one of {', '.join(FORMATS)}, got {format!r}")
    out = Path(out)
    if out.suffix != ENDINGS[format]:
        raise UserError(
            f"--out {out} must end in {ENDINGS[format]} for the format {format}; rename it"
        )
    if dtype not in DTYPES[format]:
        raise UserError(
            f"dtype {dtype!r} is not possible with the format {format}; choose "
            f"{' or '.join(DTYPES[format])}"
        )
    if format == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            require(package, "export")
    model, _, stored = load_model(checkpoint)
    preprocess = Preprocess.from_metadata(stored)
    precision = dtype_of(dtype)
    assert precision is not None
    deployed = Deployed(model, preprocess, normalize=normalize, dtype=precision).to(device)
    metadata = metadata_of(model, preprocess, checkpoint, from_dict(stored["config"]), normalize)
    write: Any = {"onnx": export_onnx, "program": export_program, "aot": compile_aot}[format]
    strings = {key: json.dumps(value) for key, value in metadata.items()}
    try:
        report: ExportReport = write(
            deployed, out, image_size=preprocess.image_size, metadata=strings
        )
    except ParityError as error:
        raise UserError(f"{out} is not written: {error}") from error
    except (ValueError, TypeError, IsADirectoryError) as error:
        raise UserError(f"cannot export {checkpoint}: {error}") from error
    except OSError as error:
        raise UserError(
            f"cannot write {out} ({error.strerror or error}); free some space or choose another "
            "folder with --out"
        ) from error
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"cannot export {checkpoint} as {format}: {reason}") from error
    beside = {**metadata, "export": report.as_dict()}
    write_atomic(beside_of(out), json.dumps(beside, indent=2).encode())
    return report


def beside_of(path: Path) -> Path:
    """Where the metadata of an exported file lies: model.onnx.json for model.onnx."""
    return path.with_name(f"{path.name}.json")


def metadata_of(
    model: ReidModel,
    preprocess: Preprocess,
    checkpoint: str | Path,
    config: RunConfig,
    normalize: bool,
) -> dict[str, Any]:
    """What a program needs to know to feed an exported file, and where the file comes from.

    Returns:
        `input` (in words), `preprocess` (image_size as height and width, interpolation, mean, std),
        `dim`, `normalized`, `tokens` (patches), `keep_counts` (patches left after each stage),
        `config` of the run, `checkpoint_sha256`, and `threshold` if `reid calibrate` wrote one.
    """
    threshold = read_threshold(checkpoint)
    return {
        "format": "sparse-vit reid export 1",
        "input": INPUT,
        "preprocess": asdict(preprocess),
        "dim": model.num_features,
        "normalized": normalize,
        "tokens": int(model.backbone.patch_embed.num_patches),
        "keep_counts": list(getattr(model.backbone, "keep_counts", [])),
        "config": to_dict(without_paths(config)),
        "checkpoint_sha256": sha256_of(checkpoint),
        "threshold": None if threshold is None else asdict(threshold),
    }
