"""Embedding a data set through engines, scores, and the speed of engines in turns."""

import statistics
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
        """Read the gallery and so many queries and training images, evenly over their lists."""
        data = load_data(config)
        data.query = _spread(data.query, queries)
        lists = data.query, data.gallery, _spread(data.train, train)
        query, gallery, sample = (images_of(rows, config) for rows in lists)
        return cls(data, query, gallery, preprocess_of(config), sample)

    def batches(self, images: Tensor) -> list[Tensor]:
        """Return normalised batches."""
        return [self.preprocess(part) for part in images.split(BATCH)]

    def rank(
        self, model: ReidModel, backbone: Callable[[Tensor], Tensor]
    ) -> tuple[RankingResult, list[Features]]:
        """Evaluate a model with this callable in place of its backbone."""
        found = [
            _features(model, backbone, self.batches(images), records)
            for images, records in (
                (self.query, self.data.query),
                (self.gallery, self.data.gallery),
            )
        ]
        return evaluate(*found, distractor_pid=self.data.distractor_pid), found


def _spread(rows: Sequence[Record], most: int) -> list[Record]:
    step = max(1, -(-len(rows) // most)) if most else 1
    return list(rows)[::step]


def _features(
    model: ReidModel,
    backbone: Callable[[Tensor], Tensor],
    batches: Sequence[Tensor],
    records: Sequence[Record],
) -> Features:
    with torch.inference_mode():
        rows = torch.cat([backbone(batch) for batch in batches])
        if model.neck_feature == "after":
            rows = model.neck.norm(rows)
        rows = torch.nn.functional.normalize(rows, dim=1)
    ids = ([getattr(r, name) for r in records] for name in ("pid", "camid"))
    return Features(rows, *(np.array(found, dtype=np.int64) for found in ids))


def rates(runs: Mapping[str, Callable[[Tensor], Any]], images: Tensor, rounds: int) -> Any:
    """Time callables on a batch in turns.

    Returns:
        Name -> images per second in the median round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for name in runs:
        runs[name](images)
    for turn in range(rounds):
        for name in rotated(list(runs), turn):
            seconds[name].append(elapsed(lambda call=runs[name]: call(images), images.device))
    return {name: len(images) / statistics.median(found) for name, found in seconds.items()}


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
