"""`Embedder`: one call from images of persons to features."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from reid._optional import require
from reid.data.store import decode
from reid.errors import UserError
from reid.inference.boxes import BoxFormat, crop, to_corners
from reid.inference.compare import Comparison, compare_features
from reid.inference.pixels import as_pictures, check_color, from_tensor, read_items, resize
from reid.inference.runners import OnnxRunner, Runner, make_runner
from reid.inference.threshold import Threshold, read_threshold, threshold_from
from reid.models.embedder import Preprocess, ReidModel, load_model

Output = Literal["numpy", "torch"]
Outside = Literal["error", "zeros"]


class Embedder:
    """A trained model that takes images in any usual form.

    Args:
        model: The network; put into evaluation mode.
        preprocess: Size and normalisation it was trained with.
        device: Where it runs; None takes the first GPU, or the CPU.
        color: Order of the channels of NumPy arrays, 'rgb' or 'bgr', where a call does not say.
        batch_size: Most images in one forward.
        normalize: Whether features are divided by their L2 norm.
        output: 'numpy' arrays or 'torch' tensors on the CPU.
        engine: Whether the backbone runs through `sparse_vit.engine`, which copies the weights;
            None does so on the CPU, where the engine takes the model. `describe()` tells.
        dtype: Of the engine: 'float32', 'bfloat16', 'float16' on a GPU, 'int8' on the CPU; None
            for float32.
    """

    def __init__(
        self,
        model: ReidModel,
        preprocess: Preprocess,
        *,
        device: str | torch.device | None = None,
        color: str | None = None,
        batch_size: int = 64,
        normalize: bool = True,
        output: Output = "numpy",
        engine: bool | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> None:
        default = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device or default)
        self.model: ReidModel | None = model.to(self.device).eval()
        self._settings(preprocess, color, batch_size, normalize, output)
        self._runner: Runner = make_runner(
            self.model, preprocess, self.device, engine=engine, dtype=dtype, batch_size=batch_size
        )

    def _settings(
        self,
        preprocess: Preprocess,
        color: str | None = None,
        batch_size: int = 64,
        normalize: bool = True,
        output: Output = "numpy",
    ) -> None:
        check_color(color)
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size}")
        if output not in ("numpy", "torch"):
            raise UserError(f"output is 'numpy' or 'torch', got {output!r}")
        self.preprocess = preprocess
        self.color = color
        self.batch_size = batch_size
        self.normalize = normalize
        self.output: Output = output
        self.source: Path | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Any) -> "Embedder":
        """Read a model that `reid train` or `reid export` wrote.

        Args:
            path: A model.safetensors, the folder of a run that holds one, or an .onnx file, which
                onnxruntime runs on the CPU.
            **options: Arguments of `Embedder`; of an .onnx file color, batch_size, normalize and
                output.

        Raises:
            UserError: Missing or damaged file, or one that is not a model of this package.
        """
        file = Path(path)
        if file.suffix == ".onnx":
            return cls._of_onnx(file, options)
        if file.is_dir():
            file = file / "model.safetensors"
        model, _, metadata = load_model(file)
        embedder = cls(model, Preprocess.from_metadata(metadata), **options)
        embedder.source = file
        return embedder

    @classmethod
    def from_pretrained(
        cls, name: str | os.PathLike[str], *, revision: str | None = None, **options: Any
    ) -> "Embedder":
        """Read a model from a folder, or from the hub: see `reid.inference.hub.download`."""
        from reid.inference.hub import download

        return cls.load(download(name, revision=revision), **options)

    @classmethod
    def _of_onnx(cls, file: Path, options: dict[str, Any]) -> "Embedder":
        known = ("color", "batch_size", "normalize", "output")
        foreign = sorted(options.keys() - set(known))
        if foreign:
            raise UserError(
                f"an .onnx file takes no {', '.join(foreign)}; its options are {', '.join(known)}"
            )
        runner = OnnxRunner(file)
        if options.get("normalize") is False and runner.metadata.get("normalized"):
            raise UserError(
                f"{file} normalises its features itself; export it with --no-normalize, or leave "
                "normalize=False out"
            )
        embedder = cls.__new__(cls)
        embedder.device, embedder.model = torch.device("cpu"), None
        embedder._settings(runner.preprocess, **options)
        embedder._runner, embedder.source = runner, file
        return embedder

    @property
    def dim(self) -> int:
        """Numbers of a feature, D."""
        return self._runner.dim

    @property
    def threshold(self) -> Threshold | None:
        """What `reid calibrate` measured for these weights, if it did.

        Raises:
            UserError: It is damaged, or belongs to other weights.
        """
        if isinstance(self._runner, OnnxRunner):
            stored = self._runner.metadata.get("threshold")
            return None if stored is None else threshold_from(stored)
        return None if self.source is None else read_threshold(self.source)

    def describe(self) -> str:
        """What computes the features: the engine, part by part, the model, or onnxruntime."""
        return self._runner.describe()

    def compare(
        self, a: Any, b: Any, *, threshold: float | None = None, color: str | None = None
    ) -> Comparison:
        """Tell how alike two persons look, and whether they are one.

        Args:
            a: One image of the first person, or several: anything that a call takes.
            b: The same of the second.
            threshold: Cosine distance below which they count as one; None takes the calibrated one.
            color: As in a call.

        Raises:
            UserError: As a call; a side without an image; a threshold of other weights.
        """
        sides = [torch.as_tensor(self(x, color=color)) for x in (a, b)]
        known = self.threshold if threshold is None else None
        return compare_features(sides[0], sides[1], threshold, known)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write a folder for `from_pretrained`: see `reid.inference.hub.save_folder`."""
        from reid.inference.hub import save_folder

        return save_folder(self._checkpoint(), Path(folder))

    def push_to_hub(self, name: str, *, private: bool = True, api: Any = None) -> str:
        """Upload the model with its card: see `reid.inference.hub.push`."""
        from reid.inference.hub import push

        return push(self._checkpoint(), name, private=private, api=api)

    def _checkpoint(self) -> Path:
        if self.source is None or self.model is None:
            raise UserError(
                "this embedder was not loaded from a model.safetensors, which is what is shared; "
                "write one with reid.models.embedder.save_model and load that"
            )
        return self.source

    def __call__(
        self,
        x: Any,
        boxes: ArrayLike | None = None,
        *,
        box_format: BoxFormat = "xyxy",
        color: str | None = None,
        outside: Outside = "error",
    ) -> Any:
        """Embed images.

        Args:
            x: A path of an image; a folder, whose images are taken in the order of their paths; a
                PIL image; an (H, W, 3) or (N, H, W, 3) uint8 array; an (N, 3, H, W) or (3, H, W)
                tensor, uint8 or float from 0 to 1 and not normalised; or a list of paths, PIL
                images and arrays. With `boxes` one frame: a path, a PIL image or an array.
            boxes: (N, 4) boxes in the frame, clipped to it; N may be 0.
            box_format: `xyxy` (left, top, right, bottom) or `tlwh` (left, top, width, height).
            color: Order of the channels, 'rgb' or 'bgr', over the embedder's own. NumPy arrays
                need one of the two; tensors are RGB unless this says otherwise.
            outside: What a box without a pixel in the frame gets: an `error`, or `zeros`.

        Returns:
            (N, D) float32, L2-normalised unless switched off, one row for each image or box in
            their order; (0, D) for none at all.

        Raises:
            UserError: What was given is not an image, is damaged, has another shape or type, has
                no colour order, or a box is malformed or outside the frame.
        """
        order = color if color is not None else self.color
        check_color(order)
        if outside not in ("error", "zeros"):
            raise UserError(f"outside is 'error' or 'zeros', got {outside!r}")
        if boxes is not None:
            return self._finish(self._embed_boxes(x, boxes, box_format, order, outside))
        size, filter_ = self.preprocess.image_size, self.preprocess.interpolation
        if isinstance(x, Tensor):
            chunks = (
                from_tensor(part, size, filter_, color)
                for part in torch.split(x[None] if x.ndim == 3 else x, self.batch_size)
            )
            return self._finish(self._embed_chunks(chunks))
        return self._finish(self._embed_items(read_items(x, size, filter_, order)))

    def _embed_boxes(
        self, x: Any, boxes: ArrayLike, box_format: BoxFormat, color: str | None, outside: Outside
    ) -> Tensor:
        corners = to_corners(boxes, box_format)
        frame = _frame(x, color)
        crops = crop(frame, corners)
        inside = [number for number, cut in enumerate(crops) if cut is not None]
        if outside == "error" and len(inside) < len(crops):
            number = next(i for i, cut in enumerate(crops) if cut is None)
            raise UserError(
                f"box {number} ({corners[number].round(1).tolist()} as xyxy) lies outside the "
                f"frame of {frame.shape[1]}x{frame.shape[0]} pixels; remove it, or pass "
                "outside='zeros'"
            )
        size, filter_ = self.preprocess.image_size, self.preprocess.interpolation
        pictures = (resize(cut, size, filter_) for cut in crops if cut is not None)
        rows = torch.zeros(len(crops), self.dim)
        rows[inside] = self._embed_items(pictures)
        return rows

    def _embed_items(self, items: Iterable[Tensor]) -> Tensor:
        return self._embed_chunks(
            torch.stack(chunk).float() / 255.0 for chunk in _chunks(items, self.batch_size)
        )

    @torch.inference_mode()
    def _embed_chunks(self, chunks: Iterable[Tensor]) -> Tensor:
        rows = [torch.empty(0, self.dim)]
        for chunk in chunks:
            if len(chunk):
                rows.append(self._runner(chunk))
        features = torch.cat(rows)
        return torch.nn.functional.normalize(features, dim=1) if self.normalize else features

    def _finish(self, features: Tensor) -> Tensor | NDArray[np.float32]:
        # leaves inference mode: such a tensor would refuse to take part in autograd
        features = features.clone()
        return features if self.output == "torch" else features.numpy()


def _frame(x: Any, color: str | None) -> NDArray[np.uint8]:
    """One (H, W, 3) RGB frame."""
    if isinstance(x, (str, os.PathLike)):
        return np.ascontiguousarray(decode(str(x), None).transpose(1, 2, 0))
    if isinstance(x, np.ndarray):
        if x.ndim != 3:
            raise UserError(
                f"with boxes, x is one frame (H, W, 3), got shape {x.shape}; call once per frame"
            )
        return as_pictures(x, color)[0]
    if isinstance(x, require("PIL.Image").Image):
        return np.asarray(x.convert("RGB"))
    raise UserError(
        f"with boxes, x is one frame: a path, a PIL image or an (H, W, 3) uint8 array, got a "
        f"{type(x).__name__}"
    )


def _chunks(items: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    chunk: list[Tensor] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
