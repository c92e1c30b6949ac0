"""A set of feature vectors with identities and cameras, in memory and as a .npz file."""

import math
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from reid.errors import UserError

_REQUIRED = ("features", "pids", "camids")


@dataclass
class Features:
    """Feature vectors of a query or gallery set.

    Anything array-like is accepted; features become a float32 tensor on their device, pids and
    camids int64 arrays. Features of type uint64 are packed binary codes and become int64 of the
    same bits.

    Attributes:
        features: (N, D) float32; (N, W) int64, 64 bits of a code each; or, with a visibility,
            (N, P, D) float32, one vector per part.
        pids: (N,) identities as in the file names; -1 is junk, 0 a distractor.
        camids: (N,) cameras.
        names: (N) file names, or None.
        visibility: (N, P) float32, 0 for a part that is hidden to 1 for one in full view, or None.

    Raises:
        UserError: A wrong shape, lengths that differ, no rows, or NaN or infinite values.
    """

    features: Tensor
    pids: NDArray[np.int64]
    camids: NDArray[np.int64]
    names: list[str] | None = None
    visibility: Tensor | None = None

    def __post_init__(self) -> None:
        self.features = _rows(self.features)
        self.pids = _integers("pids", self.pids)
        self.camids = _integers("camids", self.camids)
        if self.visibility is not None:
            self._check_visibility()
        elif self.features.ndim != 2:
            raise UserError(
                f"features must be a table (images, dimensions), got shape "
                f"{tuple(self.features.shape)}; flatten each image's feature to one row, or give "
                "the visibility of its parts"
            )
        count, width = self.features.shape[0], math.prod(self.features.shape[1:])
        if count == 0 or width == 0:
            raise UserError(
                f"features are empty, shape {tuple(self.features.shape)}; check that the folder "
                "holds images"
            )
        lengths = {"pids": len(self.pids), "camids": len(self.camids)}
        if self.names is not None:
            self.names = [str(name) for name in self.names]
            lengths["names"] = len(self.names)
        for label, length in lengths.items():
            if length != count:
                raise UserError(
                    f"{length} {label} for {count} feature rows; give one of each per image"
                )
        bad = ~torch.isfinite(self.features.flatten(1)).all(dim=1)
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            name = f" ({self.names[row]})" if self.names is not None else ""
            raise UserError(
                f"{int(bad.sum())} of {count} feature rows hold NaN or infinite values, the first "
                f"is row {row}{name}; check the checkpoint and extract again in float32"
            )

    def _check_visibility(self) -> None:
        self.visibility = torch.as_tensor(self.visibility).detach().to(self.features)
        shape, expected = tuple(self.visibility.shape), tuple(self.features.shape[:2])
        if self.features.ndim != 3 or shape != expected or not self.features.is_floating_point():
            raise UserError(
                f"a visibility of shape {shape} needs float features (images, parts, dimensions) "
                f"of the same images and parts, got {tuple(self.features.shape)}"
            )
        bad = ~((self.visibility >= 0.0) & (self.visibility <= 1.0)).all(dim=1)
        if bool(bad.any()):
            raise UserError(
                f"row {int(bad.nonzero()[0])} has a visibility outside 0 (hidden) to 1 (in full "
                "view)"
            )

    def __len__(self) -> int:
        return int(self.features.shape[0])

    def subset(self, rows: ArrayLike) -> "Features":
        """Return the images of some rows.

        Args:
            rows: (M,) indices, or (N,) bool.
        """
        chosen = np.arange(len(self))[np.asarray(rows)]
        places = torch.from_numpy(chosen).to(self.features.device)
        features = self.features[places]
        return Features(
            features if features.is_floating_point() else features.view(torch.uint64),
            self.pids[chosen],
            self.camids[chosen],
            None if self.names is None else [self.names[row] for row in chosen],
            None if self.visibility is None else self.visibility[places],
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a .npz file atomically: a killed write leaves the previous file.

        Args:
            path: Where to; `.npz` is added when missing.

        Returns:
            The file written.
        """
        target = Path(path)
        if target.suffix != ".npz":
            target = target.with_name(target.name + ".npz")
        target.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, NDArray] = {
            "features": self.features.cpu().numpy(),
            "pids": self.pids,
            "camids": self.camids,
        }
        if not self.features.is_floating_point():
            arrays["features"] = arrays["features"].view(np.uint64)
        if self.visibility is not None:
            arrays["visibility"] = self.visibility.cpu().numpy()
        if self.names is not None:
            arrays["names"] = np.asarray(self.names, dtype=np.str_)
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as handle:
            try:
                np.savez(handle, **arrays)  # type: ignore[arg-type]
                handle.flush()
                os.fsync(handle.fileno())
            except BaseException:
                os.unlink(handle.name)
                raise
        os.chmod(handle.name, 0o644)
        os.replace(handle.name, target)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Features":
        """Read what `save` wrote. Nothing is unpickled.

        Raises:
            UserError: No such file, not a .npz, an array is missing or holds Python objects.
        """
        source = Path(path)
        if not source.is_file():
            raise UserError(f"no feature file at {source}; write one with: reid extract")
        try:
            archive = np.load(source, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UserError(
                    f"{source} holds a single array; expected a .npz with "
                    f"{', '.join(_REQUIRED)}; write one with: reid extract"
                )
            with archive:
                missing = [name for name in _REQUIRED if name not in archive.files]
                if missing:
                    raise UserError(
                        f"{source} lacks the array {', '.join(missing)}; it holds "
                        f"{', '.join(archive.files) or 'nothing'}; write it with: reid extract"
                    )
                arrays = {name: archive[name] for name in _REQUIRED}
                names = archive["names"].tolist() if "names" in archive.files else None
                visibility = archive["visibility"] if "visibility" in archive.files else None
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{source} is not a readable feature file ({error}); "
                "write it again with: reid extract"
            ) from error
        try:
            return cls(
                _tensor(arrays["features"]),
                arrays["pids"],
                arrays["camids"],
                names,
                None if visibility is None else torch.as_tensor(visibility),
            )
        except UserError as error:
            raise UserError(f"{source}: {error}") from error


def _tensor(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise UserError(f"features must be numbers, got type {array.dtype}; store them as float32")
    codes = array.dtype == np.uint64
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.uint64 if codes else np.float32))


def _rows(values: Any) -> Tensor:
    """Return features as float32, codes as int64."""
    tensor = _tensor(values)
    if tensor.dtype == torch.uint64:
        return tensor.view(torch.int64)
    return tensor.to(torch.float32)


def _integers(label: str, values: ArrayLike) -> NDArray[np.int64]:
    array = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise UserError(
            f"{label} must be a list of whole numbers, got shape {array.shape} and type "
            f"{array.dtype}"
        )
    if array.dtype == np.uint64 and array.size and int(array.max()) >= 2**63:
        raise UserError(
            f"{label} hold {array.max()}, which is larger than a signed 64-bit number; a -1 that "
            "was stored as uint64 reads so: store them as int64"
        )
    return array.astype(np.int64)
