"""The grid: which shapes, dtypes and modes a run measures, by device and by extent."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

FLOAT, HALF = torch.float32, torch.bfloat16
LENGTHS = (33, 63, 97, 129, 197)
LONG = (257, 385, 577)
FORWARD = ("forward", "gathered")
"""Modes of attention without gradient."""


@dataclass(frozen=True)
class Case:
    """One line of a table.

    Attributes:
        op: "masked_attention", "ragged_attention", "dense_attention", "token_select" or "gather".
        mode: "forward", "gathered" (the forward of kept tokens that still lie among others),
            "backward" or "step" (forward and backward); for rows what is computed.
        dtype: Dtype of the inputs.
        batch: Images.
        heads: Heads of attention.
        tokens: Tokens of an image; the longest image of a ragged batch.
        dim: Head dimension; channels of a row for `gather`.
        keep: Share of the tokens that a mask or a selection keeps.
        slow_peers: Whether peers that a compiler builds take part.
    """

    op: str
    mode: str
    dtype: torch.dtype
    batch: int
    heads: int
    tokens: int
    dim: int
    keep: float = 0.7
    slow_peers: bool = False

    @property
    def label(self) -> str:
        """Short name of the shape."""
        heads = f" H={self.heads}" if "attention" in self.op else ""
        return f"B={self.batch}{heads} N={self.tokens} D={self.dim}"

    @property
    def name(self) -> str:
        """Name in pytest's listing."""
        return f"{self.mode}-{dtype_name(self.dtype)}-{self.label.replace(' ', '-')}"


def dtype_name(dtype: torch.dtype) -> str:
    """Return "float32" for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def cases(op: str, device: str, extent: str) -> list[Case]:
    """List the cases of an operator.

    Args:
        op: Name of the operator.
        device: "cpu" or "cuda".
        extent: "tiny" (shows that all of it runs), "default" or "full".
    """
    if extent == "tiny":
        return [replace(_shrunk(case), slow_peers=False) for case in _tiny(op, device)]
    full = extent == "full"
    return list(_GRIDS[op](device, full))


def _tiny(op: str, device: str) -> list[Case]:
    first: dict[tuple[str, torch.dtype], Case] = {}
    for case in _GRIDS[op](device, False):
        first.setdefault((case.mode, case.dtype), case)
    return list(first.values())


def _shrunk(case: Case) -> Case:
    return replace(case, batch=3, heads=2, tokens=9, dim=16)


def _models(device: str) -> tuple[tuple[int, int, int], ...]:
    """Batch, heads and head dimension: DeiT-S and the small backbone; ViT-B on a GPU."""
    return ((32, 6, 64), (32, 4, 32)) if device == "cpu" else ((128, 12, 64), (128, 4, 32))


def _attention(op: str, device: str, full: bool) -> Iterator[Case]:
    wide, narrow = _models(device)
    lengths = LENGTHS if device == "cpu" else (*LENGTHS, *LONG)
    for dtype in (FLOAT, HALF):
        for batch, heads, dim in (wide, narrow):
            few = dim == narrow[2] and not full
            for tokens in (63, 129) if few else lengths:
                slow = full or ((dtype == HALF) == (device != "cpu") and (tokens, dim) == (129, 64))
                yield Case(op, "forward", dtype, batch, heads, tokens, dim, slow_peers=slow)
    batch, heads, dim = wide
    if op == "ragged_attention":
        for dtype in (FLOAT, HALF):
            for tokens in lengths if full else (129,):
                yield Case(op, "gathered", dtype, batch, heads, tokens, dim)
    for dtype in (FLOAT, HALF) if full else (FLOAT,) if device == "cpu" else (HALF,):
        for tokens in lengths if full else (129,):
            for mode in ("backward", "step") if full else ("step",):
                yield Case(op, mode, dtype, batch, heads, tokens, dim)


def _masked(device: str, full: bool) -> Iterator[Case]:
    wide, narrow = _models(device)
    usual = FLOAT if device == "cpu" else HALF
    points = [(usual, wide, 129), (usual, wide, 197), (usual, narrow, 129)]
    if device == "cpu":
        points.append((HALF, wide, 129))
    else:
        points += [(usual, wide, n) for n in (*LENGTHS, *LONG) if n not in (129, 197)]
    if full:
        lengths = (*LENGTHS, *LONG)
        points = [(d, m, n) for d in (FLOAT, HALF) for m in (wide, narrow) for n in lengths]
    for dtype, (batch, heads, dim), tokens in points:
        usual_only = not full and (dtype, dim) != (usual, wide[2])
        for mode in ("forward", "step") if usual_only else ("forward", "backward", "step"):
            slow = full or (mode == "step" and (dtype, dim, tokens) == (usual, 64, 129))
            yield Case("masked_attention", mode, dtype, batch, heads, tokens, dim, slow_peers=slow)


def _select(device: str, full: bool) -> Iterator[Case]:
    batches = (1, 32, 128) if full else (32,) if device == "cpu" else (1, 128)
    for mode in ("top_k", "threshold"):
        for batch in batches:
            for tokens in (128, 196, 576) if full else (128,):
                yield Case("token_select", mode, FLOAT, batch, 1, tokens, 1)


def _gather(device: str, full: bool) -> Iterator[Case]:
    wide = (32, 129, 384) if device == "cpu" else (128, 197, 768)
    narrow = (32, 129, 128)
    for mode in ("gather", "gather_norm", "scatter"):
        for dtype in (FLOAT, HALF):
            for batch, tokens, channels in (wide, narrow) if full else (wide,):
                yield Case("gather", mode, dtype, batch, 1, tokens, channels, slow_peers=full)


_GRIDS = {
    "masked_attention": _masked,
    "ragged_attention": lambda device, full: _attention("ragged_attention", device, full),
    "dense_attention": lambda device, full: _attention("dense_attention", device, full),
    "token_select": _select,
    "gather": _gather,
}
OPERATORS = tuple(_GRIDS)
