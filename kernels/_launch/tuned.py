"""The file of measured configurations: where it lies, what it holds, how it is read and merged."""

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernels._launch.config import LaunchConfig, Problem, padded_head_dim

SCHEMA = 1
VARIABLE = "SPARSE_VIT_TUNING"
REACH = 1.5
"""A configuration serves lengths up to this factor from the one that it was measured at."""

_WARPS = (1, 2, 4, 8, 16)
_STAGES = range(1, 9)
_LARGEST_BLOCK = 4096


@dataclass(frozen=True)
class Entry:
    """The fastest configuration that was measured for one kernel and problem.

    Attributes:
        kernel: Name of the kernel.
        tokens: Tokens per sequence that it was measured at.
        head_dim: Head dimension, or width of a row.
        itemsize: Bytes per element.
        config: The configuration; None where another kernel served the problem faster.
    """

    kernel: str
    tokens: int
    head_dim: int
    itemsize: int
    config: LaunchConfig | None

    @property
    def key(self) -> tuple[str, int, int]:
        """What must agree exactly; the length need only be near."""
        return self.kernel, self.itemsize, padded_head_dim(self.head_dim)


@dataclass(frozen=True)
class Table:
    """Entries by kernel, element size and padded head dimension."""

    entries: Mapping[tuple[str, int, int], Sequence[Entry]]

    def get(self, kernel: str, problem: Problem) -> Entry | None:
        """Return the entry of the nearest length, by ratio; None if none is within `REACH`."""
        key = kernel, problem.itemsize, padded_head_dim(problem.head_dim)
        near = min(
            self.entries.get(key, ()),
            key=lambda e: (_distance(e.tokens, problem.tokens), -e.tokens),
            default=None,
        )
        if near is None or _distance(near.tokens, problem.tokens) > math.log(REACH):
            return None
        return near


def _distance(a: int, b: int) -> float:
    return abs(math.log(max(a, 1) / max(b, 1)))


def user_path(arch: str) -> Path | None:
    """Return where the user's tuning file lies, existing or not; None when it is switched off."""
    named = os.environ.get(VARIABLE, "")
    if named == "off":
        return None
    if named:
        return Path(named).expanduser()
    root = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(root).expanduser() / "sparse-vit" / f"tuning-{arch}.json"


def asked_for(path: Path) -> bool:
    """Tell whether the user named this file, so that its absence is worth a word."""
    named = os.environ.get(VARIABLE, "")
    return bool(named) and Path(named).expanduser() == path


def read(path: Path, arch: str, kernels: frozenset[str]) -> Table:
    """Read a tuning file.

    Args:
        path: The file.
        arch: The architecture that the configurations are wanted for.
        kernels: The kernels there are.

    Returns:
        Its entries.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no tuning file, or one of another schema, architecture or kernel.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from error
    return Table(_grouped(parse(document, arch, kernels)))


def parse(document: Any, arch: str, kernels: frozenset[str]) -> list[Entry]:
    """Check a tuning document and return its entries; arguments and errors as `read`."""
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else None
        raise ValueError(f"its schema is {found!r}, expected {SCHEMA}")
    if document.get("architecture") != arch:
        raise ValueError(
            f"it was measured on {document.get('architecture')!r}, this device is {arch!r}"
        )
    rows = document.get("entries")
    if not isinstance(rows, list):
        raise ValueError("it has no list named 'entries'")
    return [_entry(row, i, kernels) for i, row in enumerate(rows)]


def _entry(row: Any, position: int, kernels: frozenset[str]) -> Entry:
    where = f"entry {position}"
    if not isinstance(row, dict):
        raise ValueError(f"{where} is not a mapping")
    if row.get("kernel") not in kernels:
        raise ValueError(f"{where} names the kernel {row.get('kernel')!r}, which does not exist")
    sizes: dict[str, Any] = {name: row.get(name) for name in ("tokens", "head_dim", "itemsize")}
    for name, size in sizes.items():
        if not _whole(size) or size < 1:
            raise ValueError(f"{where}: {name} is {size!r}, expected a positive whole number")
    return Entry(row["kernel"], **sizes, config=_config(row.get("config"), where))


def _config(value: Any, where: str) -> LaunchConfig | None:
    if value is None:
        return None
    fields = ("block_m", "block_n", "num_warps", "num_stages", "tail")
    if not isinstance(value, dict) or set(value) != set(fields):
        raise ValueError(f"{where}: config is {value!r}, expected {', '.join(fields)} or null")
    config = LaunchConfig(**value)
    blocks = config.block_m, config.block_n
    if not all(_whole(b) and 1 <= b <= _LARGEST_BLOCK and b & (b - 1) == 0 for b in blocks):
        raise ValueError(f"{where}: the blocks are {blocks}, expected powers of two")
    if not _whole(config.num_warps) or config.num_warps not in _WARPS:
        raise ValueError(f"{where}: num_warps is {config.num_warps!r}, expected one of {_WARPS}")
    if not _whole(config.num_stages) or config.num_stages not in _STAGES:
        raise ValueError(f"{where}: num_stages is {config.num_stages!r}, expected 1..8")
    if not _whole(config.tail) or config.tail not in (0, 16, 32, 64):
        raise ValueError(f"{where}: tail is {config.tail!r}, expected 0, 16, 32 or 64")
    return config


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _grouped(entries: Sequence[Entry]) -> dict[tuple[str, int, int], list[Entry]]:
    grouped: dict[tuple[str, int, int], list[Entry]] = {}
    for entry in entries:
        grouped.setdefault(entry.key, []).append(entry)
    return grouped


def row(entry: Entry, **measured: Any) -> dict[str, Any]:
    """Return an entry as it is written, with what was measured beside it."""
    return {**asdict(entry), **measured}


def merge(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the new document with the entries of the old one that it does not measure again."""
    if old is None:
        return dict(new)

    def key(entry: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(entry.get(name) for name in ("kernel", "tokens", "head_dim", "itemsize"))

    fresh = {key(e) for e in new["entries"]}
    kept = [e for e in old["entries"] if key(e) not in fresh]
    entries = sorted((*kept, *new["entries"]), key=key)
    return {**new, "entries": entries}


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write a tuning document in one step, so that a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8"
    ) as file:
        json.dump(document, file, indent=1)
        file.write("\n")
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
