"""What computes the features behind an `Embedder`: the model, the engine, or onnxruntime."""

import copy
import json
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from reid._optional import require
from reid.errors import UserError
from reid.models.embedder import Preprocess, ReidModel

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}


class Runner(Protocol):
    """Float RGB images (B, 3, H, W) from 0 to 1, on the CPU, to features (B, D) on the CPU."""

    dim: int

    def __call__(self, images: Tensor) -> Tensor:
        """Embed a batch; the features are not normalised unless the file does it."""

    def describe(self) -> str:
        """Which path is taken, and why."""


class ModelRunner:
    """The model as it was trained.

    Args:
        model: In evaluation mode, on its device.
        preprocess: Its normalisation.
        why: Reason for taking this path.
    """

    def __init__(self, model: ReidModel, preprocess: Preprocess, why: str) -> None:
        self._model, self._preprocess, self._why = model, preprocess, why
        self.dim = model.num_features

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Embed a batch; see `Runner`."""
        device = next(self._model.parameters()).device
        x = self._preprocess.normalize(images.to(device, non_blocking=True))
        return self._model(x).float().cpu()

    def describe(self) -> str:
        """Which path is taken, and why."""
        return f"the model in torch: {self._why}"


class EngineRunner:
    """The backbone through `sparse_vit.engine`, then the neck where features are taken after it.

    The weights are copied: a later change of the model is not seen.

    Args:
        model: In evaluation mode, on its device.
        preprocess: Its normalisation.
        dtype: Of the engine; None for float32.
        batch_size: Batches to expect.

    Raises:
        TypeError: A model that the engine cannot run.
        ValueError: Options that it does not have here.
    """

    def __init__(
        self,
        model: ReidModel,
        preprocess: Preprocess,
        dtype: torch.dtype | None,
        batch_size: int,
    ) -> None:
        from sparse_vit.engine import optimize

        self._preprocess = preprocess
        self._device = next(model.parameters()).device
        self._engine = optimize(model.backbone, dtype=dtype, batch=batch_size)
        after = model.neck_feature == "after"
        self._neck = copy.deepcopy(model.neck.norm) if after else torch.nn.Identity()
        self.dim = model.num_features

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Embed a batch; see `Runner`."""
        x = self._preprocess.normalize(images.to(self._device, non_blocking=True))
        feature: Tensor = self._neck(self._engine(x))
        return feature.cpu()

    def describe(self) -> str:
        """Which path every part takes, and why."""
        return f"sparse_vit.engine: {self._engine.describe()}"


class OnnxRunner:
    """A file that `reid export --format onnx` wrote, in onnxruntime on the CPU.

    Args:
        path: The .onnx file.

    Raises:
        UserError: Missing or damaged file, or one that is not of this package.
    """

    def __init__(self, path: Path) -> None:
        runtime: Any = require("onnxruntime", "export")
        from sparse_vit.export import onnx_session

        if not path.is_file():
            raise UserError(f"{path} does not exist; write it with reid export --format onnx")
        self._run: Any
        try:
            self._run = onnx_session(path)
        except Exception as error:  # onnxruntime has many kinds, without a common base
            reason = str(error).splitlines()[0]
            raise UserError(f"{path} cannot be read as ONNX ({reason}); export it again") from error
        session: Any = self._run.session
        stored = session.get_modelmeta().custom_metadata_map
        if "preprocess" not in stored or "dim" not in stored:
            raise UserError(
                f"{path} was not written by reid export: it holds no preprocessing; load it with "
                "onnxruntime itself"
            )
        self.metadata = {key: json.loads(value) for key, value in stored.items()}
        self.preprocess = Preprocess.from_metadata(self.metadata)
        self.dim = int(self.metadata["dim"])
        self._version = runtime.__version__

    def __call__(self, images: Tensor) -> Tensor:
        """Embed a batch; the file normalises the pixels itself."""
        features: Tensor = self._run(images.float())
        return features

    def describe(self) -> str:
        """Which path is taken, and why."""
        return f"onnxruntime {self._version} on the CPU: a file of ONNX"


def make_runner(
    model: ReidModel,
    preprocess: Preprocess,
    device: torch.device,
    *,
    engine: bool | None,
    dtype: str | torch.dtype | None,
    batch_size: int,
) -> Runner:
    """Choose what computes the features of a model.

    Args:
        model: In evaluation mode, on the device.
        preprocess: Its normalisation.
        device: Where it runs.
        engine: Whether through `sparse_vit.engine`; None takes it on the CPU and where a dtype is
            asked for, and the model itself where the engine refuses it.
        dtype: Of the engine, by name or torch's.
        batch_size: Most images in one forward.

    Raises:
        UserError: No such dtype, one without the engine, or an engine that was asked for and
            refuses the model.
    """
    precision = dtype_of(dtype)
    if engine is False or (engine is None and precision is None and device.type != "cpu"):
        if precision not in (None, torch.float32):
            raise UserError(f"dtype={dtype!r} needs the engine; leave engine=False out")
        why = "engine=False" if engine is False else f"the default on {device.type}"
        return ModelRunner(model, preprocess, why)
    try:
        return EngineRunner(model, preprocess, precision, min(batch_size, 8))
    except (TypeError, ValueError) as error:
        if engine or precision not in (None, torch.float32):
            raise UserError(f"the engine cannot run this model: {error}") from error
        return ModelRunner(model, preprocess, f"the engine refuses it ({error})")


def dtype_of(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Return the torch dtype of a name.

    Raises:
        UserError: No such name.
    """
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise UserError(f"dtype is one of {', '.join(DTYPES)}, got {dtype!r}")
    return DTYPES[dtype]
