"""Checkpoints: one safetensors file, written atomically, nothing pickled."""

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reid.errors import UserError


def write_atomic(path: Path, payload: bytes) -> None:
    """Write a file so that a crash or a full disk leaves the previous one in place.

    Args:
        path: Destination; its folder is made when missing.
        payload: Whole content.

    Raises:
        UserError: The disk is full, the folder cannot be written, or `path` is a folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files that only their owner may read
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        kept = "; the previous file is unchanged" if path.is_file() else ""
        raise UserError(
            f"cannot write {path} ({error.strerror or error}){kept}; {_remedy(error, path)}"
        ) from error


def _remedy(error: OSError, path: Path) -> str:
    if path.is_dir():
        return f"it is a folder: name a file, such as {path / 'out'}"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return "a folder on the way there is a file: choose another folder"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "you may not write there: choose another folder, or change its permissions"
    return "free some space or choose another folder"


def save(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Save tensors and JSON metadata in one safetensors file, atomically.

    Args:
        path: Destination, ending in .safetensors.
        tensors: Name to tensor; shared memory is copied.
        metadata: JSON-serialisable values.

    Raises:
        UserError: The file cannot be written.
    """
    from safetensors.torch import save as serialise

    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    header = {key: json.dumps(value) for key, value in metadata.items()}
    write_atomic(Path(path), serialise(plain, header))


def load(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load what `save` wrote.

    Args:
        path: A .safetensors file.

    Returns:
        Tensors on the CPU and metadata.

    Raises:
        UserError: Missing, truncated or foreign file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {str(path)!r} does not exist")
    if path.suffix != ".safetensors":
        raise UserError(
            f"checkpoint {str(path)!r} is not a .safetensors file; convert it first: "
            "pickled files can run code and are not read"
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"checkpoint {str(path)!r} cannot be read ({error}); it is damaged or not "
            "a safetensors file"
        ) from error
    metadata = {}
    for key, value in header.items():
        try:
            metadata[key] = json.loads(value)
        except json.JSONDecodeError:
            metadata[key] = value
    return tensors, metadata


def flatten_optimizer(
    optimizer: torch.optim.Optimizer, names: dict[Tensor, str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Write the state of an optimiser as named tensors.

    Args:
        optimizer: Any torch optimiser.
        names: Parameter to its name in the model.

    Returns:
        Tensors `optim.<parameter>.<slot>` and the non-tensor entries.
    """
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for parameter, state in optimizer.state.items():
        for slot, value in state.items():
            key = f"optim.{names[parameter]}.{slot}"
            if isinstance(value, Tensor):
                tensors[key] = value
            else:
                scalars[key] = value
    return tensors, scalars


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    names: dict[Tensor, str],
    tensors: dict[str, Tensor],
    scalars: dict[str, Any],
) -> None:
    """Load what `flatten_optimizer` wrote."""
    by_name = {name: parameter for parameter, name in names.items()}
    for key, value in [*tensors.items(), *scalars.items()]:
        if not key.startswith("optim."):
            continue
        name, _, slot = key.removeprefix("optim.").rpartition(".")
        parameter = by_name[name]
        if isinstance(value, Tensor) and slot != "step":
            value = value.to(parameter.device)
        optimizer.state[parameter][slot] = value


def load_strict(module: torch.nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Load a state dict, or say which keys and shapes do not fit.

    Raises:
        UserError: Names the missing and unexpected keys and the differing shapes.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - own.keys())
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(own.keys() & tensors.keys())
        if own[name].shape != tensors[name].shape
    ]
    problems = [
        f"{title}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for title, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"{source} belongs to another architecture ({'; '.join(problems)}); "
            "use the configuration it was trained with"
        )
    module.load_state_dict(tensors)
