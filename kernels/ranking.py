"""Exact places in rows of a distance matrix that is never held, and the nearest rows.

Distances are computed in float64 and rounded to float32 before they are compared. A cosine or
visible distance of at most 2^-40 is zero, and so is a euclidean one whose square is at most 2^-40
(|q|^2 + |g|^2): rows that differ by less than 1.3e-6 of their length tie as copies do, which also
hides what the float64 sums lose. That is about 1e-16 of |q| |g|. Implementations add in different
orders, so they round a small distance differently: at a cosine distance of 1e-9, or a euclidean one
of 4e-5 |q|, by a step of float32, at a cosine distance of 1 by a billionth. With rows q and g

    cosine     1 - q.g / (|q| |g|)
    euclidean  |q - g|
    hamming    differing bits
    visible    sum_p v_p w_p (1 - cos(q_p, g_p)) / sum_p v_p w_p, and 2 where the sum is 0

The C++ implementation (`impl="cpu"`) takes float32 products of centred rows for a first look. Let
u = 2^-24, q' and g' be rows less the gallery's mean, under cosine of rows made unit length before,
and s = q'.g' - |g'|^2 / 2. Then |q - g|^2 = |q'|^2 - 2 s, also twice the cosine distance of
unit rows. With D products added up 128 at a time the computed score is within

    (128 + ceil(D / 128) + 8) u |q'| |g'| + 2 u |g'|^2

of s in any order of summation (Higham, Accuracy and Stability of Numerical Algorithms, 3.1; the
constants have room for the rounding of factors and of |g'|^2). A row whose score is farther from a
threshold's than this is counted by its score; of the others the distance itself is computed, and
of all rows for a query 2^60 times longer than they are, whose scores might overflow. Being centred,
rows that all point the same way are told apart as well as rows that do not.
"""

import torch
from torch import Tensor

from kernels import _backend
from kernels._cpu import ranking as _cpu
from kernels._eager import ranking as _eager
from kernels._eager.ranking import Places

__all__ = ["METRICS", "Gallery", "Places", "nearest"]

METRICS = ("cosine", "euclidean", "hamming", "visible")


class Gallery:
    """Rows that queries are ranked against, prepared once.

    Args:
        features: (G, D) float32; under `hamming` (G, W) int64, 64 bits each; under `visible`
            (G, P D + P), the parts one after the other, then their visibility, 0 to 1.
        metric: One of `METRICS`.
        countable: (G,) bool, rows that are counted; None for all.
        parts: P, under `visible`.
        impl: "reference", "cpu", or None for the default of the device.

    Raises:
        ValueError: The features have another dtype or shape, a row is NaN, infinite or, under
            cosine, zero, or there is no such metric or implementation.
        RuntimeError: The implementation asked for cannot serve; all reasons are listed.
    """

    def __init__(
        self,
        features: Tensor,
        metric: str = "cosine",
        *,
        countable: Tensor | None = None,
        parts: int = 1,
        impl: str | None = None,
    ) -> None:
        if metric not in METRICS:
            raise ValueError(f"Gallery: metric must be one of {', '.join(METRICS)}, got {metric!r}")
        self.metric, self.shape = metric, features.shape
        self._check(features, "features")
        served = _backend.choose(
            "Gallery", impl, features.device, {"cpu": lambda: _cpu.reasons(features, metric)}
        )
        self.impl = served
        features = features.detach()
        self._gallery: _cpu.Gallery | _eager.Gallery = (
            _cpu.Gallery(features, metric, countable)
            if served == "cpu"
            else _eager.Gallery(features, metric, countable, parts)
        )

    def __len__(self) -> int:
        return int(self.shape[0])

    def distances(self, queries: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the distances of pairs, exactly those that `places` compares with.

        Args:
            queries: (B, D).
            rows: (P,) int64, rows of the queries.
            columns: (P,) int64, rows of the gallery.

        Returns:
            (P,) float32.
        """
        self._check(queries, "queries")
        return self._gallery.distances(queries, rows, columns)

    def places(
        self,
        queries: Tensor,
        thresholds: Tensor | None = None,
        columns: Tensor | None = None,
        *,
        sizes: Tensor | None = None,
        excluded: tuple[Tensor, Tensor] | None = None,
        top: int = 0,
    ) -> Places:
        """Count the rows of the gallery before thresholds, and list the nearest rows.

        The reference holds B x G distances; the C++ kernels hold none.

        Args:
            queries: (B, D).
            thresholds: (B, R) float32 distances, ascending.
            columns: (B, R) int64, rows of the gallery: the place of a threshold among the rows at
                its distance, for `earlier`. None: before all.
            sizes: (B,) int64, how many thresholds of a row count; the rest is padding. None: all.
            excluded: (E,) rows of the queries, ascending, and (E,) rows of the gallery that do
                not count for them.
            top: How many nearest rows to list, at most G.

        Returns:
            The counts, 0 for padding, and the nearest rows.

        Raises:
            ValueError: Queries have another dtype or shape, one of them is NaN, infinite or, under
                cosine, zero, or `top` is out of range.
        """
        self._check(queries, "queries")
        if thresholds is None:
            thresholds = queries.new_empty(len(queries), 0, dtype=torch.float32)
        if columns is None:
            columns = torch.zeros_like(thresholds, dtype=torch.int64)
        if not 0 <= top <= len(self):
            raise ValueError(f"Gallery: top={top} is outside 0..{len(self)} rows of the gallery")
        if sizes is None:
            sizes = columns.new_full((len(queries),), thresholds.shape[1])
        return self._gallery.places(queries, thresholds, columns, sizes, excluded, top)

    def _check(self, x: Tensor, name: str) -> None:
        dtype = torch.int64 if self.metric == "hamming" else torch.float32
        if x.dim() != 2 or x.shape[1] != self.shape[1] or x.dtype != dtype:
            raise ValueError(
                f"Gallery: {name} must be (rows, {self.shape[1]}) {dtype} under {self.metric}, got "
                f"shape {tuple(x.shape)}, {x.dtype}"
            )
        if self.metric == "hamming":
            return
        norms = torch.linalg.vector_norm(x.detach(), dim=1)
        # rows whose squares leave float32 are looked at again
        unclear = (~norms.isfinite() | (norms == 0.0)).nonzero()[:, 0]
        largest = torch.linalg.vector_norm(x.detach()[unclear], torch.inf, dim=1)
        wrong = ~largest.isfinite()
        if self.metric == "cosine":
            wrong |= largest == 0.0
        if bool(wrong.any()):
            place = int(wrong.to(torch.uint8).argmax())
            what = "all zeros, which has no cosine" if largest[place] == 0.0 else "not finite"
            raise ValueError(f"Gallery: {name} row {int(unclear[place])} is {what}")


def nearest(
    queries: Tensor,
    gallery: Tensor | Gallery,
    k: int,
    *,
    metric: str = "cosine",
    impl: str | None = None,
    chunk: int = 1 << 22,
) -> tuple[Tensor, Tensor]:
    """Return the k nearest rows of every query, exactly, without the distance matrix.

    Args:
        queries: (Q, D) as `Gallery` takes them.
        gallery: (G, D), or a prepared one.
        k: How many, at most G.
        metric: One of `METRICS`; that of a prepared gallery goes before.
        impl: As in `Gallery`.
        chunk: Most distances that the reference holds.

    Returns:
        indices (Q, k) int64, by distance, then by index; distances (Q, k) float32.

    Raises:
        ValueError: As `Gallery` and its `places`.
    """
    if isinstance(gallery, Tensor):
        gallery = Gallery(gallery, metric, impl=impl)
    rows = max(1, chunk // len(gallery)) if gallery.impl == "reference" else len(queries)
    found = [gallery.places(part, top=k) for part in torch.split(queries, max(1, rows))]
    return (
        torch.cat([part.nearest for part in found]),
        torch.cat([part.distances for part in found]),
    )
