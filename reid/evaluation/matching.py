"""Which gallery rows are a match, junk or wrong for a query."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reid.evaluation.features import Features

JUNK_PID = -1


class Pairs(NamedTuple):
    """Pairs of a query of a block and a gallery row, sorted by query, then by gallery row."""

    query: Tensor
    gallery: Tensor


class Ids:
    """Identities and cameras on a device, and the gallery rows of every identity.

    Args:
        query: The queries.
        gallery: The gallery.
        distractor_pid: Identity that is nobody's match, or None.
        cross_camera: Whether images of the query's own camera are junk.
        device: Where.

    Attributes:
        countable: (G,) bool, rows that are not junk for everybody.
    """

    def __init__(
        self,
        query: Features,
        gallery: Features,
        distractor_pid: int | None,
        cross_camera: bool,
        device: torch.device,
    ) -> None:
        self._cross_camera = cross_camera
        self._query_pids = torch.from_numpy(query.pids).to(device)
        self._query_camids = torch.from_numpy(query.camids).to(device)
        self._pids = torch.from_numpy(gallery.pids).to(device)
        self._camids = torch.from_numpy(gallery.camids).to(device)
        self.countable = self._pids != JUNK_PID
        self._matchable = self.countable.clone()
        if distractor_pid is not None:
            self._matchable &= self._pids != distractor_pid
        rows = self._matchable.nonzero()[:, 0]
        order = self._pids[rows].argsort(stable=True)
        self._rows = rows[order]
        self._sorted_pids = self._pids[self._rows]

    def pairs(self, block: slice) -> tuple[Pairs, Pairs]:
        """Return the matches of a block of queries and its junk of the same identity."""
        pids, camids = self._query_pids[block], self._query_camids[block]
        first = torch.searchsorted(self._sorted_pids, pids)
        count = torch.searchsorted(self._sorted_pids, pids, right=True) - first
        query = torch.arange(len(pids), device=pids.device).repeat_interleave(count)
        start = count.cumsum(dim=0) - count
        place = torch.arange(len(query), device=pids.device) - start[query] + first[query]
        gallery = self._rows[place]
        junk = camids[query] == self._camids[gallery]
        if not self._cross_camera:
            junk = torch.zeros_like(junk)
        return Pairs(query[~junk], gallery[~junk]), Pairs(query[junk], gallery[junk])

    def status(self, block: slice, gallery: Tensor) -> Tensor:
        """Return indices into `result.STATUSES` of rows (B, T) of the gallery, int8."""
        pids, camids = self._query_pids[block, None], self._query_camids[block, None]
        same = (pids == self._pids[gallery]) & self._matchable[gallery]
        own = same & (camids == self._camids[gallery]) & self._cross_camera
        junk = own | ~self.countable[gallery]
        return torch.where(junk, 2, torch.where(same, 0, 1)).to(torch.int8)


def padded(pairs: Pairs, queries: int, values: Tensor, fill: float) -> Tensor:
    """Return one row of values per query, (B, max(R, 1)).

    Args:
        pairs: P of them.
        queries: B.
        values: (P,).
        fill: What rows are padded with.
    """
    count = torch.bincount(pairs.query, minlength=queries)
    width = max(1, int(count.max())) if queries else 1
    slot = torch.arange(len(values), device=values.device)
    slot -= (count.cumsum(dim=0) - count)[pairs.query]
    table = values.new_full((queries, width), fill)
    table[pairs.query, slot] = values
    return table


def without_match(query: Features, gallery: Features) -> str:
    """Say why no query has a match."""
    shared = np.intersect1d(query.pids, gallery.pids)
    if len(shared) == 0:
        return (
            f"no query has a match: none of the {len(np.unique(query.pids))} query identities "
            f"(pids {_some(query.pids)}) occurs among the gallery's (pids {_some(gallery.pids)}); "
            "check that both folders belong to one data set"
        )
    return (
        f"no query has a match: {len(shared)} identities are in both sets, but always with the "
        f"query's own camera (query cameras {_some(query.camids)}, gallery cameras "
        f"{_some(gallery.camids)}), and images of the same camera do not count; check the camera "
        "ids, and where a set has none give the queries camera 0 and the gallery camera 1"
    )


def _some(values: np.ndarray) -> str:
    unique = np.unique(values)
    text = ", ".join(str(value) for value in unique[:5])
    return text + (", ..." if len(unique) > 5 else "")
