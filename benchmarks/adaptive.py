"""A fixed number of tokens per image against thresholds, at the same mean number.

python -m benchmarks.adaptive NAME=model.safetensors [NAME=...] [--root DATA]

Each model is evaluated through the engine twice: with its own schedule, and with thresholds that
are calibrated to the mean count of that schedule over all query and gallery images (no labels are
used). Queries are sliced by how much of the body is covered, which a generated data set knows.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.records import RESULTS, origin, slug
from benchmarks.retrieval import BATCH, Retrieval, between, counts, rates
from reid.engine.checkpoint import write_atomic
from reid.evaluation import paired_bootstrap
from reid.evaluation.slices import slices
from reid.models.embedder import load_model
from reid.report.known_slices import known_slices
from sparse_vit import calibrate, flops
from sparse_vit.engine import optimize

PAGE = Path(__file__).parent.parent / "docs" / "results" / "adaptive.md"
ALL = "all"
TRAINING_IMAGES = 256


def compare(name: str, path: str, root: str | None, queries: int, rounds: int) -> dict[str, Any]:
    """Evaluate one model both ways.

    Args:
        name: What the table calls it.
        path: Its model.safetensors.
        root: Folder of the data; None for that of its training.
        queries: Most queries to take.
        rounds: Timed rounds of each engine.
    """
    model, config, _ = load_model(path)
    if root is not None:
        config.data.root = root
    found = Retrieval.read(config.data, queries, TRAINING_IMAGES)
    backbone = model.backbone
    images = [*found.batches(found.query), *found.batches(found.gallery)]
    schedule = calibrate(backbone, images)
    runs = {
        "fixed": optimize(backbone, batch=BATCH),
        "adaptive": optimize(backbone, batch=BATCH, adaptive=schedule),
    }
    ranked = {way: found.rank(model, run) for way, run in runs.items()}
    results = {way: result for way, (result, _) in ranked.items()}
    kept = {way: left for way, (_, left) in ranked.items()}
    trained = calibrate(backbone, found.batches(found.train))
    elsewhere = counts(optimize(backbone, batch=BATCH, adaptive=trained), images)
    labels = known_slices(
        found.data.root, [r.path for r in found.data.query], [r.pid for r in found.data.query]
    )["occlusion"]
    parts = {way: {ALL: r, **slices(r, labels)} for way, r in results.items()}
    rows = []
    for label in parts["fixed"]:
        chosen = torch.tensor([label in (ALL, own) for own in labels])
        fixed, adaptive = parts["fixed"][label], parts["adaptive"][label]
        difference = paired_bootstrap(adaptive, fixed)
        rows.append(
            {
                "occlusion": label,
                "queries": int(chosen.sum()),
                "tokens": {
                    way: left[: len(labels)][chosen].float().mean(dim=0).tolist()
                    for way, left in kept.items()
                },
                "rank1": {"fixed": fixed.rank1, "adaptive": adaptive.rank1},
                "mAP": {"fixed": fixed.mAP, "adaptive": adaptive.mAP},
                "difference": {key: asdict(difference[key]) for key in ("rank1", "mAP")},
            }
        )
    mixed = torch.cat((images[0][: BATCH // 2], images[-2][: BATCH // 2]))
    return {
        "name": name,
        "ratio_per": config.loss.ratio_per,
        "counts": list(backbone.keep_counts),
        "mean_counts": kept["adaptive"].float().mean(dim=0).tolist(),
        "spread": kept["adaptive"].float().std(dim=0).tolist(),
        "mean_counts_from_training_images": elsewhere.float().mean(dim=0).tolist(),
        "gflops": {way: _gflops(backbone, left) for way, left in kept.items()},
        "images_per_second": rates(runs, mixed, rounds),
        "schedule": json.loads(schedule.to_json()),
        "rows": rows,
    }


def _gflops(backbone: Any, kept: Tensor) -> float:
    ways, times = kept.unique(dim=0, return_counts=True)
    costs = [flops(backbone, counts=row, pooled=True) for row in ways.tolist()]
    return float(sum(c * t for c, t in zip(costs, times.tolist(), strict=True)) / len(kept) / 1e9)


def table(found: dict[str, Any]) -> str:
    """Return the comparison of one model in Markdown."""
    speed, cost = found["images_per_second"], found["gflops"]
    fixed, mean, spread, training = (
        ", ".join(f"{value:.3g}" for value in found[key])
        for key in ("counts", "mean_counts", "spread", "mean_counts_from_training_images")
    )
    lines = [
        f"### {found['name']} (`loss.ratio_per={found['ratio_per']}`)",
        "",
        f"* patch tokens after the stages: fixed {fixed}; adaptive {mean} on average, standard "
        f"deviation {spread}",
        f"* thresholds from {TRAINING_IMAGES} training images instead would keep {training} of "
        "these images",
        f"* {cost['fixed']:.3f} GFLOP an image fixed, {cost['adaptive']:.3f} adaptive; "
        f"{speed['fixed']:.0f} img/s fixed, {speed['adaptive']:.0f} adaptive (batch {BATCH}, half "
        f"queries, half gallery): ratio {speed['adaptive'] / speed['fixed']:.2f}",
        "",
        "| body covered | queries | tokens left, fixed | adaptive | rank-1, fixed | adaptive "
        "| mAP, fixed | adaptive | difference of mAP |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found["rows"]:
        change = row["difference"]["mAP"]
        cells = [
            row["occlusion"],
            str(row["queries"]),
            *(f"{row['tokens'][way][-1]:.1f}" for way in ("fixed", "adaptive")),
            *(f"{row[s][way]:.1f}" for s in ("rank1", "mAP") for way in ("fixed", "adaptive")),
            f"{change['estimate']:+.1f} [{change['low']:+.1f}, {change['high']:+.1f}]",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, save and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="NAME=PATH")
    parser.add_argument("--root", help="folder of the data; by default that of the training")
    parser.add_argument("--queries", type=int, default=0, help="most queries to take; 0: all")
    parser.add_argument("--rounds", type=int, default=40, help="timed rounds")
    parser.add_argument("--page", type=Path, help=f"page to put the tables into, e.g. {PAGE.name}")
    given = parser.parse_args(arguments)
    models = [text.partition("=") for text in given.models]
    if not all(path for _, _, path in models):
        parser.error("give every model as NAME=PATH")
    found = [compare(n, p, given.root, given.queries, given.rounds) for n, _, p in models]
    came = origin("python -m benchmarks.adaptive " + " ".join(arguments or sys.argv[1:]))
    path = RESULTS / "adaptive" / f"{slug(came['device'])}.json"
    if given.page is not None:
        payload = json.dumps({"origin": came, "models": found}, indent=1)
        write_atomic(path, f"{payload}\n".encode())
    tables = "\n\n".join(map(table, found))
    load = (
        f"load {came['load_average']:.1f}" if came["load_average"] is not None else "load unknown"
    )
    text = (
        f"{tables}\n\nDevice: {came['device']}, {came['threads']} threads, {load} from other "
        f"programs included; {came['date'][:10]}."
    )
    print(text)
    if given.page is not None:
        between(given.page, "adaptive", text)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    raise SystemExit(main())
