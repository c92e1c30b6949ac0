"""Features of the size of MSMT17 to metrics: ours, and two rankers that sort whole rows.

The rivals state in their own words what the evaluation of torchreid and fastreid computes: one
float32 product, then per query a sort of the whole row, the camera rule, and the walk down it.
"""

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

MAX_RANK = 50
CAMERAS = 15
_NOISE = 2.2
_SOURCE = Path(__file__).with_name("ranker.cpp")
Numbers = dict[str, float]


def make(queries: int, gallery: int, width: int, people: int) -> list[Any]:
    """Draw noisy images of people: features, pids and camids of queries and of the gallery."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(people, width, generator=generator)
    sets = []
    for count in (gallery, queries):
        pids = torch.arange(count) % people
        vectors = torch.randn(count, width, generator=generator).mul_(_NOISE).add_(centres[pids])
        cameras = torch.randint(0, CAMERAS, (count,), generator=generator)
        sets.append((vectors, pids.numpy() + 1, cameras.numpy()))
    return sets[::-1]


def ours(part: int, **size: int) -> Callable[[], Numbers]:
    """Return a call that evaluates the first `part` queries."""
    from reid.evaluation import Features, evaluate

    (q, pids, camids), gallery = make(**size)
    query = Features(q[:part], pids[:part], camids[:part])
    other = Features(*gallery)

    def call() -> Numbers:
        result = evaluate(query, other)
        return numbers(result.mAP, result.mINP, result.cmc)

    return call


def with_numpy(part: int, **size: int) -> Callable[[], Numbers]:
    """Return a call that sorts with NumPy and loops over the queries in Python."""
    (q, pids, camids), (g, *ids) = make(**size)
    q, pids, camids = q[:part].clone(), pids[:part], camids[:part]
    return lambda: numpy_ranker(cosine_distances(q, g), pids, camids, *ids)


def with_sort(part: int, **size: int) -> Callable[[], Numbers]:
    """Return a call that sorts with `std::sort`."""
    rank = compiled_ranker()
    (q, pids, camids), (g, *ids) = make(**size)
    q, pids, camids = q[:part].clone(), pids[:part], camids[:part]
    return lambda: rank(cosine_distances(q, g), pids, camids, *ids)


def cosine_distances(q: torch.Tensor, g: torch.Tensor) -> NDArray[np.float32]:
    """Return (Q, G) float32 by one product."""
    unit = torch.nn.functional.normalize
    return torch.mm(unit(q), unit(g).t()).neg_().add_(1.0).numpy()


def numpy_ranker(
    distances: NDArray[np.float32],
    query_pids: NDArray[np.int64],
    query_camids: NDArray[np.int64],
    gallery_pids: NDArray[np.int64],
    gallery_camids: NDArray[np.int64],
    kind: Any = None,
) -> Numbers:
    """Sort all rows, then score query after query."""
    order = np.argsort(distances, axis=1, kind=kind)
    matches = (gallery_pids[order] == query_pids[:, None]).astype(np.int32)
    average, inverse, curves = [], [], []
    for row, ranked in enumerate(order):
        junk = (gallery_pids[ranked] == query_pids[row]) & (
            gallery_camids[ranked] == query_camids[row]
        )
        kept = matches[row][~junk]
        if not kept.any():
            continue
        found = kept.cumsum()
        curves.append(np.minimum(found, 1)[:MAX_RANK])
        inverse.append(found[-1] / (np.flatnonzero(kept)[-1] + 1.0))
        average.append((found / np.arange(1.0, len(found) + 1.0) * kept).sum() / found[-1])
    return numbers(
        100 * float(np.mean(average)), 100 * float(np.mean(inverse)), 100 * np.mean(curves, axis=0)
    )


def compiler() -> list[str]:
    """Return the command of a C++ compiler; empty if there is none."""
    command = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    return command if shutil.which(command[0]) else []


def compiled_ranker() -> Callable[..., Numbers]:
    """Compile the ranker that sorts with `std::sort` and return it, called as `numpy_ranker`."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "ranker.so"
        flags = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC"]
        subprocess.run([*compiler(), *flags, str(_SOURCE), "-o", str(library)], check=True)
        function = ctypes.CDLL(str(library)).rank_rows
    function.restype = ctypes.c_int64

    def rank(distances: NDArray[np.float32], *ids: NDArray[np.int64]) -> Numbers:
        ap, inp, curve = ctypes.c_double(), ctypes.c_double(), np.zeros(MAX_RANK)
        kept = [np.ascontiguousarray(values, dtype=np.int64) for values in ids]
        valid = function(
            ctypes.c_void_p(distances.ctypes.data),
            *(ctypes.c_int64(size) for size in distances.shape),
            *(ctypes.c_void_p(values.ctypes.data) for values in kept),
            ctypes.c_int64(MAX_RANK),
            ctypes.byref(ap),
            ctypes.byref(inp),
            ctypes.c_void_p(curve.ctypes.data),
        )
        return numbers(100 * ap.value / valid, 100 * inp.value / valid, 100 * curve / valid)

    return rank


def numbers(mean_ap: float, mean_inp: float, curve: NDArray[np.float64]) -> Numbers:
    """Return what is compared, in percent."""
    ranks = {f"rank{k}": float(curve[k - 1]) for k in (1, 5, 10) if k <= len(curve)}
    return {"mAP": mean_ap, "mINP": mean_inp, **ranks}
