"""What a report is made from: one record per trained row and one per run."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid.evaluation.bootstrap import Interval
from reid.evaluation.features import Features
from reid.evaluation.result import RankingResult


@dataclass
class RowResult:
    """One trained model of the comparison.

    Attributes:
        name: Key in results.json: teacher, dense, hts, hts+npkd, hts+npkd+noda.
        label: What the report prints, such as `+ NPKD`.
        tokens: Patch tokens (without prefix tokens) that go through each part of the network:
            first all of them, then what is left after each pruning stage; one entry when dense.
        images_per_second: Throughput with real pruning.
        speedup: Throughput over that of the dense row, measured in the same run.
        ranking: Evaluation with real pruning.
        history: One dictionary per logged step: `step`, `loss` and the named parts.
        kept: Block index of each pruning stage -> (Q, k) original patch ids that every query
            keeps, in the order of the queries; None when dense.
        query_features: Features of the queries, for the t-SNE; None leaves the row out of it.
        gallery_features: Features of the gallery, likewise.
    """

    name: str
    label: str
    tokens: list[int]
    images_per_second: float
    speedup: float
    ranking: RankingResult
    history: list[dict[str, float]] = field(default_factory=list)
    kept: dict[int, NDArray[np.int64]] | None = None
    query_features: Features | None = None
    gallery_features: Features | None = None


@dataclass
class DemoRun:
    """Everything a report shows.

    Attributes:
        rows: The trained rows, teacher first, in the order of the table.
        baselines: Name (chance, colour_histogram, untrained, backbone) -> evaluation.
        query_paths: (Q) image files.
        gallery_paths: (G) image files.
        mask_paths: (Q) label images of the queries (0 background, 1 to 6 body and carried
            things, 7 occluder); None when the data set has none.
        image_size: Height and width of the network's input, pixels.
        patch_size: Side of a patch, pixels.
        settings: What was run: recipe values, seed, steps; printed in the footer.
        versions: Package versions, git revision, machine; printed in the footer.
        differences: Name such as `hts+npkd - hts` -> score -> interval of the difference, as
            `paired_bootstrap` returns; what is missing here is computed from the rows.
        title: Heading of the report.
        command: The command that made it.
        data: Name of the data set, in words.
    """

    rows: list[RowResult]
    baselines: dict[str, RankingResult]
    query_paths: list[str]
    gallery_paths: list[str]
    mask_paths: list[str] | None
    image_size: tuple[int, int]
    patch_size: int
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    differences: dict[str, dict[str, Interval]] = field(default_factory=dict)
    title: str = "SUReID: a sparse student, trained, evaluated and shown"
    command: str = ""
    data: str = ""
