"""Embedding a data set through engines, scores, and the speed of engines in turns."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import elapsed, rotated
from reid.config import DataConfig
from reid.data.cache import images_of
from reid.data.records import Record, ReidData
from reid.evaluation import Features, RankingResult, evaluate
from reid.models.embedder import Preprocess, ReidModel, preprocess_of
from reid.run import load_data
from sparse_vit.engine import Engine

BATCH = 32


@dataclass
class Retrieval:
    """A data set in memory.

    Attributes:
        data: Its lists.
        query: (Q, 3, H, W) uint8.
        gallery: (G, 3, H, W) uint8.
        preprocess: From these to the input of a network.
        train: (T, 3, H, W) uint8, a sample of the training images.
    """

    data: ReidData
    query: Tensor
    gallery: Tensor
    preprocess: Preprocess
    train: Tensor

    @classmethod
    def read(cls, config: DataConfig, queries: int, train: int) -> "Retrieval":
        """Read the queries and gallery images of some people, and training images.

        Args:
            config: Where the data are.
            queries: Most queries; people are left out evenly, with their gallery images. 0: all.
            train: Most training images, evenly over their list.
        """
        data = load_data(config)
        people = set(_spread(sorted({r.pid for r in data.query}), queries / len(data.query)))
        if queries:
            data.query = [r for r in data.query if r.pid in people]
            data.gallery = [r for r in data.gallery if r.pid in people]
        lists = data.query, data.gallery, _spread(data.train, train / len(data.train))
        query, gallery, sample = (images_of(rows, config) for rows in lists)
        return cls(data, query, gallery, preprocess_of(config), sample)

    def batches(self, images: Tensor) -> list[Tensor]:
        """Return normalised batches."""
        return [self.preprocess(part) for part in images.split(BATCH)]

    def rank(self, model: ReidModel, run: Engine) -> tuple[RankingResult, Tensor]:
        """Evaluate a model with this engine in place of its backbone.

        Returns:
            The scores, and (Q + G, S) patch tokens that every image keeps after each stage.
        """
        query, kept = _features(model, run, self.batches(self.query), self.data.query)
        gallery, also = _features(model, run, self.batches(self.gallery), self.data.gallery)
        result = evaluate(query, gallery, distractor_pid=self.data.distractor_pid)
        return result, torch.cat((kept, also))


def counts(run: Engine, images: Sequence[Tensor]) -> Tensor:
    """(N, S) patch tokens that every image keeps after each stage."""
    return torch.cat([_counts(run.with_kept(batch)[1], len(batch)) for batch in images])


def _counts(kept: Sequence[Tensor], images: int) -> Tensor:
    columns = [mask.sum(dim=1) for mask in kept]
    return torch.stack(columns, dim=1) if columns else torch.zeros(images, 0, dtype=torch.long)


def _spread(rows: Sequence[Any], share: float) -> list[Any]:
    step = math.ceil(1 / share) if 0 < share < 1 else 1
    return list(rows)[::step]


def _features(
    model: ReidModel, run: Engine, batches: Sequence[Tensor], records: Sequence[Record]
) -> tuple[Features, Tensor]:
    found, kept = zip(*(run.with_kept(batch) for batch in batches), strict=True)
    with torch.inference_mode():
        rows = torch.cat(found)
        if model.neck_feature == "after":
            rows = model.neck.norm(rows)
        rows = torch.nn.functional.normalize(rows, dim=1)
    ids = ([getattr(r, name) for r in records] for name in ("pid", "camid"))
    features = Features(rows, *(np.array(found, dtype=np.int64) for found in ids))
    pairs = zip(kept, batches, strict=True)
    return features, torch.cat([_counts(masks, len(batch)) for masks, batch in pairs])


def rates(runs: Mapping[str, Callable[[Tensor], Any]], images: Tensor, rounds: int) -> Any:
    """Time callables on a batch in turns.

    Returns:
        Name -> images per second in the fastest round, which met the fewest other programs.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for name in runs:
        runs[name](images)
    for turn in range(rounds):
        for name in rotated(list(runs), turn):
            seconds[name].append(elapsed(lambda call=runs[name]: call(images), images.device))
    return {name: len(images) / min(found) for name, found in seconds.items()}


def between(page: Path, mark: str, text: str) -> None:
    """Replace what stands between the two comments of a mark in a page.

    Raises:
        ValueError: The page lacks them.
    """
    from reid.engine.checkpoint import write_atomic

    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} lacks the line {begin} or {end}; put both where the table goes")
    write_atomic(page, f"{before}{begin}\n{text}\n{end}{after}".encode())
