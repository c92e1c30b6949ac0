"""How hard a data set is: what chance, colours, and untrained and starting networks reach."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid.config import DataConfig, ModelConfig
from reid.data.records import Record, ReidData
from reid.engine.extract import extract
from reid.evaluation import Features, RankingResult, evaluate
from reid.models.embedder import Preprocess, ReidModel
from reid.run import pick_device, scores


def baselines(
    data: ReidData,
    query_images: Tensor,
    gallery_images: Tensor,
    model: ModelConfig,
    *,
    seed: int = 0,
) -> dict[str, RankingResult]:
    """Evaluate what needs no training on this data set.

    Args:
        data: Query and gallery lists.
        query_images: (Q, 3, H, W) uint8.
        gallery_images: (G, 3, H, W) uint8.
        model: Backbone; evaluated dense, with random weights and with its starting weights.
        seed: Of chance and of the random weights.

    Returns:
        Results of `chance`, `colour_histogram`, `untrained` and, if `model.init` is not scratch,
        `backbone`.
    """
    from reid.data.mannequins import baselines as simple

    results = {}
    rng = np.random.default_rng(seed)
    chance = [rng.standard_normal((len(rows), 64)) for rows in (data.query, data.gallery)]
    distractor = data.distractor_pid
    results["chance"] = evaluate(*_pair(data, chance[0], chance[1]), distractor_pid=distractor)
    results["colour_histogram"] = evaluate(
        *_pair(
            data,
            simple.colour_histogram(query_images.cpu().numpy()),
            simple.colour_histogram(gallery_images.cpu().numpy()),
        ),
        distractor_pid=distractor,
    )
    starts = {"untrained": "scratch"}
    if model.init != "scratch":
        starts["backbone"] = model.init
    size = (int(query_images.shape[2]), int(query_images.shape[3]))
    for name, init in starts.items():
        torch.manual_seed(seed)
        dense = ModelConfig(backbone=model.backbone, init=init, sparse=False)
        network = ReidModel(dense, size, identities=2).eval().to(pick_device())
        features = [
            extract(network, records, Preprocess(size), images=images, progress=False)
            for records, images in ((data.query, query_images), (data.gallery, gallery_images))
        ]
        results[name] = evaluate(features[0], features[1], distractor_pid=distractor)
    return results


def difficulty(name: str, root: str) -> dict[str, Any]:
    """Report the baselines of a generated data set at the small backbone's input size."""
    from reid.data import load
    from reid.data.store import load_images

    config = DataConfig(name=name, root=root, image_size=(128, 64))
    data = load(config.name, config.root)
    images = [load_images(rows, config.image_size) for rows in (data.query, data.gallery)]
    results = baselines(data, images[0], images[1], ModelConfig(backbone="mini", init="mini"))
    counts = {"train": len(data.train), "query": len(data.query), "gallery": len(data.gallery)}
    return {"counts": counts, **{key: scores(result) for key, result in results.items()}}


def _pair(data: ReidData, query: Any, gallery: Any) -> tuple[Features, Features]:
    return _features(data.query, query), _features(data.gallery, gallery)


def _features(records: list[Record], rows: Any) -> Features:
    return Features(
        features=torch.as_tensor(np.asarray(rows), dtype=torch.float32),
        pids=np.array([record.pid for record in records], dtype=np.int64),
        camids=np.array([record.camid for record in records], dtype=np.int64),
        names=[record.path for record in records],
    )
