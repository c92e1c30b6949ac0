"""Weights on disk: safetensors written atomically, and backbones loaded without silence.

Nothing is unpickled: `.safetensors` has no code in it, and any other file goes through
`torch.load(weights_only=True)`.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

__all__ = ["load_weights", "read_metadata", "save_weights"]


def save_weights(
    weights: nn.Module | Mapping[str, Tensor],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes weights as safetensors so that the file is either the old one or the whole new one.

    The bytes go to a temporary file beside the target, are flushed to the disk and then renamed
    over it. For a vision transformer the grid of its position embedding is noted in the metadata.

    Args:
        weights: a module or a state dict.
        path: target, which must end in .safetensors.
        metadata: strings to store beside the tensors.

    Raises:
        ValueError: for another file name ending.
        OSError: if the disk is full or not writable; the previous file is left as it was.
    """
    target = Path(path)
    if target.suffix != ".safetensors":
        raise ValueError(f"{target} does not end in .safetensors; rename it")
    notes = dict(metadata or {})
    if isinstance(weights, nn.Module):
        grid = getattr(getattr(weights, "patch_embed", None), "grid_size", None)
        if grid is not None:
            notes.setdefault("grid_size", f"{grid[0]}x{grid[1]}")
        weights = weights.state_dict()
    # Copies, because safetensors refuses tensors that share memory (tied selectors do).
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata=notes)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except SafetensorError as error:
        raise OSError(
            f"cannot write {target}: {error}; free some space or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Flushes the rename itself; a file system without that notion may refuse."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Strings stored in a safetensors file; empty for any other file."""
    if Path(path).suffix != ".safetensors":
        return {}
    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata() or {})


def load_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Reads a state dict to the CPU.

    Args:
        path: a .safetensors file, or a PyTorch file with tensors only. Wrappings in "model" or
            "state_dict" and a leading "module." are removed.

    Returns:
        Tensors by name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, holds something else, or would need to be unpickled.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no weights at {source}; check the path")
    if source.suffix == ".safetensors":
        return _read_safetensors(source)
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged stream may raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{source} is damaged or holds more than tensors ({reason}); save its state dict as "
            "safetensors on a machine that trusts it"
        ) from error
    for wrapping in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapping), dict):
            content = content[wrapping]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{source} is not a state dict; expected tensors by name")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _read_safetensors(source: Path) -> dict[str, Tensor]:
    try:
        with safe_open(str(source), framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{source} is not a readable safetensors file ({error}); copy or download it again"
        ) from error
