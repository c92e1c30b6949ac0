"""Exact nearest neighbours without the matrix of all distances.

A float32 product, tile by tile, yields for each row a few more candidates than are asked for; their
distances are then computed as `reid.clustering.distances` defines them, and ordered by distance
and index. With x, y centred and scaled so that the longest has length 1, the product's score

    s = x.y - |x|^2/2 - |y|^2/2 = -|x - y|^2 / 2

is off by at most e = (D + 16) 2^-24 (|x|^2 + 1) / 2 whatever the order of its sums (Higham,
Accuracy and Stability of Numerical Algorithms, section 3.1). A row is done when everything that was
not a candidate, its score raised by e, is still farther than the k-th neighbour; the few other rows
are searched in float64. The result is therefore the same for every tile size and number of threads.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reid.clustering.distances import NEGLIGIBLE, Metric, Points, full_precision, listed_distances
from reid.errors import UserError

_SPARE = 8
_MASK = (1 << 32) - 1


class Neighbours(NamedTuple):
    """Nearest rows of each row, itself included, ascending by distance, then by index.

    Attributes:
        indices: (N, k) int64.
        distances: (N, k) float32.
    """

    indices: Tensor
    distances: Tensor


def neighbours(
    features: Tensor,
    k: int,
    *,
    gallery: Tensor | None = None,
    metric: Metric = "cosine",
    chunk: int = 2048,
    device: str | torch.device | None = None,
) -> Neighbours:
    """Find the `k` nearest rows of every row, exactly.

    Without a gallery each tile of the product serves its rows and its columns, so that half of the
    product is computed. Memory is one float32 copy of the features, the lists, and a tile of
    `chunk` x 2 `chunk`.

    Args:
        features: (N, D), taken as float32.
        k: How many; a row has at most as many neighbours as there are rows.
        gallery: (G, D) rows to search; None searches `features` itself, each row included.
        metric: `cosine` (1 - cosine similarity) or `euclidean`.
        chunk: Rows of a tile. Changes speed and memory, not the result.
        device: Where to compute; None takes the device of the features.

    Returns:
        (N, min(k, G)) indices and distances, on that device.

    Raises:
        UserError: Features that are empty, not finite, zero under cosine or of two widths, or `k`
            or `chunk` below 1.
    """
    place = torch.device(device) if device is not None else torch.as_tensor(features).device
    own = Points(torch.as_tensor(features).to(place), metric)
    other = own if gallery is None else Points(torch.as_tensor(gallery).to(place), metric)
    return search(own, other, k, chunk=chunk)[0]


def search(
    query: Points, gallery: Points, k: int, *, chunk: int = 2048, farthest: bool = False
) -> tuple[Neighbours, Tensor | None]:
    """Find neighbours as `neighbours`, and on request each row's largest distance.

    Args:
        query: (N, D).
        gallery: (G, D); the same object as `query` for the search of a set in itself.
        k: How many.
        chunk: Rows of a tile.
        farthest: Also return the distance to the farthest row. Which row that is, float32 decides:
            among those whose distance agrees to about 1e-6 it may be another one.

    Returns:
        The neighbours, and (N,) float32 or None.
    """
    for name, value in (("k", k), ("chunk", chunk)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if query.values.shape[1] != gallery.values.shape[1]:
        raise UserError(
            f"query features have {query.values.shape[1]} dimensions and gallery features "
            f"{gallery.values.shape[1]}; extract both with the same model"
        )
    k = min(k, len(gallery))
    with full_precision(gallery.device):
        frame = _Frame(gallery, query)
        lists = _Lists(len(query), min(k + _SPARE, len(gallery)), gallery.device)
        far = _Farthest(len(query), gallery.device) if farthest else None
        if query is gallery:
            _search_itself(frame, lists, far, chunk)
        else:
            _search_other(frame, lists, far, chunk)
        found = _settle(frame, lists, k)
        if far is None:
            return found, None
        index = torch.arange(len(query), device=gallery.device)
        return found, listed_distances(query, index, gallery, far.index[:, None])[:, 0]


class _Frame:
    """The origin and unit in which float32 errs least, and the bound on that error."""

    def __init__(self, gallery: Points, query: Points) -> None:
        self.query, self.gallery = query, gallery
        sets = [gallery] if query is gallery else [gallery, query]
        total = sum(rows.sum(dim=0) for points in sets for _, rows in points.blocks())
        self.center = total / sum(len(points) for points in sets)
        self.half = {id(points): self._half(points) for points in sets}
        longest = max(float(half.max()) for half in self.half.values())
        self.unit = (2.0 * longest) ** 0.5 or 1.0

    def _half(self, points: Points) -> Tensor:
        parts = [(rows - self.center).square().sum(dim=1) for _, rows in points.blocks()]
        return torch.cat(parts) / 2.0

    def slack(self, points: Points, unit_roundoff: float) -> Tensor:
        """Return how far a score of each row can be off, (N,) float64."""
        terms = 1.1 * (points.values.shape[1] + 16) * unit_roundoff
        return terms * (self.half[id(points)] / self.unit**2 + 0.5)

    def operand(self, points: Points, order: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return centred rows (N, D) and half their squared lengths (N,), in float32."""
        values = torch.empty_like(points.values)
        half = self.half[id(points)] / self.unit**2
        step = 256
        for start in range(0, len(points), step):
            block: Tensor | slice = slice(start, start + step)
            rows = points.rows(block if order is None else order[block])
            values[block] = rows.sub_(self.center).div_(self.unit).to(torch.float32)
        return values, (half if order is None else half[order]).to(torch.float32)

    def distance(self, score: Tensor) -> Tensor:
        """Turn float64 scores into distances, float32."""
        return self.query.from_squared((-2.0 * self.unit**2 * score).clamp(min=0.0))

    def score(self, distance: Tensor) -> Tensor:
        """Turn distances into float64 scores."""
        return self.query.squared(distance) / (-2.0 * self.unit**2)


class _Lists:
    """The best scores of each row so far, and their columns."""

    def __init__(self, rows: int, width: int, device: torch.device) -> None:
        self.score = torch.full((rows, width), -torch.inf, device=device)
        self.index = torch.full((rows, width), -1, dtype=torch.int32, device=device)

    def offer(self, first: int, tile: Tensor, offset: int) -> None:
        """Merge a tile (B, C) of the rows from `first` on and the columns from `offset` on."""
        rows = slice(first, first + tile.shape[0])
        floor = self.score[rows, -1]
        better = None if bool((floor == -torch.inf).any()) else _above(tile, floor)
        if better is None:
            best = tile.contiguous().topk(min(self.score.shape[1], tile.shape[1]), dim=1)
            self._merge(torch.arange(first, rows.stop), best.values, best.indices + offset)
        elif len(better.row):
            self._merge(better.touched + first, better.score, better.column + offset)

    def _merge(self, rows: Tensor, score: Tensor, index: Tensor) -> None:
        rows = rows.to(self.score.device)
        width = self.score.shape[1]
        best = torch.cat([self.score[rows], score], dim=1).topk(width, dim=1)
        every = torch.cat([self.index[rows], index.to(torch.int32)], dim=1)
        self.score[rows] = best.values
        self.index[rows] = every.gather(1, best.indices)


class _Above(NamedTuple):
    """Entries of a tile above their row's floor, as padded lists of the rows that have any."""

    row: Tensor
    touched: Tensor
    score: Tensor
    column: Tensor


def _above(tile: Tensor, floor: Tensor) -> _Above | None:
    """Return the entries above the floor of each row; None where a row has too many to pad."""
    rows, columns = tile.shape
    if tile.is_contiguous():
        flat = _nonzero(tile > floor[:, None])
        row, column = flat // columns, flat % columns
    else:
        flat = _nonzero(tile.t() > floor)
        column, row = flat // rows, flat % rows
        row, order = row.sort(stable=True)
        column = column[order]
    count = torch.bincount(row, minlength=rows)
    width = int(count.max())
    if width > max(64, columns // 8):
        return None
    touched = count.nonzero()[:, 0]
    place = torch.empty_like(count)
    place[touched] = torch.arange(len(touched), device=tile.device)
    slot = torch.arange(len(row), device=tile.device) - (count.cumsum(0) - count)[row]
    score = tile.new_full((len(touched), width), -torch.inf)
    score[place[row], slot] = tile[row, column]
    padded = column.new_zeros(score.shape)
    padded[place[row], slot] = column
    return _Above(row, touched, score, padded)


def _nonzero(mask: Tensor) -> Tensor:
    """Return the flat places of the few true entries of a contiguous mask, ascending."""
    if mask.device.type != "cpu" or mask.numel() % 8:
        return mask.flatten().nonzero()[:, 0]
    flat = mask.numpy().ravel()
    # eight at a time: nearly all are false
    words = np.flatnonzero(flat.view(np.uint64))
    places = (words[:, None] * 8 + np.arange(8)).ravel()
    return torch.from_numpy(places[flat[places]])


class _Farthest:
    """The lowest score of each row so far, and its column."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.score = torch.full((rows,), torch.inf, device=device)
        self.index = torch.zeros(rows, dtype=torch.int64, device=device)

    def offer(self, first: int, tile: Tensor, offset: int) -> None:
        """Merge a tile, as `_Lists.offer`."""
        lowest = tile.amin(dim=1)
        rows = (lowest < self.score[first : first + len(lowest)]).nonzero()[:, 0]
        self.score[rows + first] = lowest[rows]
        self.index[rows + first] = tile[rows].argmin(dim=1) + offset


def _search_itself(frame: _Frame, lists: _Lists, far: _Farthest | None, chunk: int) -> None:
    """Offer every pair of rows once, in an order that makes the first strip a random sample."""
    count = len(frame.query)
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    order = shuffled.to(frame.query.device)
    values, half = frame.operand(frame.query, order)
    offers = _offers(lists, far)
    for start in range(0, count, chunk):
        stop = min(start + chunk, count)
        strip = values[start:stop], half[start:stop]
        tile = _scores(strip, (values[start:stop], half[start:stop]))
        for offer in offers:
            offer(start, tile, start)
        for left in range(stop, count, 2 * chunk):
            right = min(left + 2 * chunk, count)
            tile = _scores(strip, (values[left:right], half[left:right]))
            for offer in offers:
                offer(start, tile, left)
                offer(left, tile.t(), start)
    back = torch.empty_like(order)
    back[order] = torch.arange(count, device=order.device)
    lists.score = lists.score[back]
    lists.index = order.to(torch.int32)[lists.index.long()][back]
    if far is not None:
        far.index = order[far.index][back]


def _search_other(frame: _Frame, lists: _Lists, far: _Farthest | None, chunk: int) -> None:
    values, half = frame.operand(frame.query)
    others, other_half = frame.operand(frame.gallery)
    offers = _offers(lists, far)
    for start in range(0, len(values), chunk):
        strip = values[start : start + chunk], half[start : start + chunk]
        for left in range(0, len(others), 2 * chunk):
            columns = slice(left, left + 2 * chunk)
            tile = _scores(strip, (others[columns], other_half[columns]))
            for offer in offers:
                offer(start, tile, left)


def _offers(lists: _Lists, far: _Farthest | None) -> list[Callable[[int, Tensor, int], None]]:
    return [lists.offer] if far is None else [lists.offer, far.offer]


def _scores(rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    product = rows[0] @ columns[0].t()
    return product.sub_(rows[1][:, None]).sub_(columns[1])


def _settle(frame: _Frame, lists: _Lists, k: int) -> Neighbours:
    """Order the candidates by their exact distances, and search the doubtful rows again."""
    query, gallery = frame.query, frame.gallery
    every = torch.arange(len(query), device=gallery.device)
    keys = _keys(listed_distances(query, every, gallery, lists.index.long()), lists.index.long())
    found = keys.sort(dim=1).values[:, :k]
    if lists.score.shape[1] < len(gallery):
        slack = frame.slack(query, 2.0**-24)
        nearest_other = frame.distance(lists.score[:, -1].double() + slack)
        doubtful = (nearest_other <= _distance_of(found[:, -1])).nonzero()[:, 0]
        for rows in torch.split(doubtful, 256):
            found[rows] = _search_in_float64(frame, rows, k)
    return Neighbours(found & _MASK, _distance_of(found))


def _search_in_float64(frame: _Frame, rows: Tensor, k: int) -> Tensor:
    """Return the keys of the neighbours of some rows, (R, k)."""
    query, gallery = frame.query, frame.gallery
    mine = query.rows(rows).sub_(frame.center).div_(frame.unit)
    score = torch.empty(len(rows), len(gallery), dtype=torch.float64, device=gallery.device)
    for block, other in gallery.blocks():
        score[:, block] = mine @ other.sub_(frame.center).div_(frame.unit).t()
    score -= (frame.half[id(gallery)] + frame.half[id(query)][rows, None]) / frame.unit**2
    # what rounds to the same float32 as the last one is ordered by index, so it takes part
    last = frame.distance(score.topk(k, dim=1).values[:, -1])
    next_up = torch.nextafter(last, torch.full_like(last, torch.inf)).clamp(min=NEGLIGIBLE)
    floor = frame.score(next_up) - 2.0 * frame.slack(query, 2.0**-53)[rows]
    row, column = (score >= floor[:, None]).nonzero(as_tuple=True)
    distance = listed_distances(query, rows[row], gallery, column[:, None])[:, 0]
    keys, order = _keys(distance, column).sort()
    row, again = row[order].sort(stable=True)
    keys = keys[again]
    count = torch.bincount(row, minlength=len(rows))
    first = count.cumsum(0) - count
    return keys[first[:, None] + torch.arange(k, device=keys.device)]


def _keys(distance: Tensor, index: Tensor) -> Tensor:
    """Return one int64 that orders by distance, then by index: distances are not negative."""
    return (distance.view(torch.int32).to(torch.int64) << 32) | index


def _distance_of(keys: Tensor) -> Tensor:
    return (keys >> 32).to(torch.int32).view(torch.float32)
