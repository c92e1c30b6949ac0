"""Which method at which budget: accuracy and images per second against operations.

python -m benchmarks.budgets [--checkpoint model.safetensors] [--root DATA]

Every method runs through the same engine on the same weights: the small backbone of the package,
which no method was trained for, or a checkpoint. A predictor takes part if the checkpoint has one.
"""

import argparse
import copy
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plots import COLOURS, MARKERS
from benchmarks.records import RESULTS, origin, slug
from benchmarks.retrieval import BATCH, Retrieval, between, rates
from reid.config import DataConfig, ModelConfig
from reid.engine.checkpoint import write_atomic
from reid.evaluation import paired_bootstrap
from reid.models.backbone import create_backbone
from reid.models.embedder import ReidModel, load_model
from sparse_vit import KeepPredictor, constant_merging, flops, sparsify
from sparse_vit.engine import optimize

DOCS = Path(__file__).parent.parent / "docs"
DENSE, PREDICTOR = "dense", "prune, predictor"
CLASS_ATTENTION, FUSE = "prune, class attention", "fuse (EViT)"
MERGE, MERGE_ALL = "merge, three stages", "merge, every block (ToMe)"
SMALLEST_MERGE = 0.5
"""Pairs halve the tokens of a stage at most."""
Variant = tuple[str, str, Any]


def variants(own: Any, dense: Any, ratios: Sequence[float]) -> list[Variant]:
    """Return method, setting and backbone of everybody who takes part.

    Args:
        own: Backbone of the model, perhaps with a trained predictor.
        dense: The same weights without.
        ratios: Keep ratios p of the stages p, p^2, p^3.
    """
    stages = tuple(own.schedule.stages) if hasattr(own, "schedule") else (3, 6, 9)
    found: list[Variant] = [(DENSE, "all", dense)]
    patches, depth = int(dense.patch_embed.num_patches), len(dense.blocks)
    for p in ratios:
        setting = f"p = {p}"
        if any(type(s) is KeepPredictor for s in getattr(own, "selectors", ())):
            pruned = copy.deepcopy(own)
            pruned.set_keep_ratio(p)
            found.append((PREDICTOR, setting, pruned))
        found.append((CLASS_ATTENTION, setting, sparsify(dense, stages, p, "class_attention")))
        found.append((FUSE, setting, sparsify(dense, stages, p, reduction="fuse")))
        if p >= SMALLEST_MERGE:
            found.append((MERGE, setting, sparsify(dense, stages, p, reduction="merge")))
        # r of about the same operations: the mean over blocks of the tokens is that of the stages
        r = round(2 * patches * (1 - (1 + p + p**2 + p**3) / 4) / depth)
        every = constant_merging(patches, depth, r)
        found.append((MERGE_ALL, f"r = {r}", sparsify(dense, *every, reduction="merge")))
    return [(method, setting, backbone.eval()) for method, setting, backbone in found]


def measure(
    model: ReidModel, dense: Any, found: Retrieval, ratios: Sequence[float], rounds: int
) -> list[dict[str, Any]]:
    """Evaluate and time all variants; one row each."""
    rows, runs, scores = [], {}, []
    for method, setting, backbone in variants(model.backbone, dense, ratios):
        run = optimize(backbone, batch=BATCH)
        result = found.rank(model, run)[0]
        scores.append(result)
        difference = paired_bootstrap(result, scores[0])["mAP"]
        runs[f"{method}, {setting}"] = run
        rows.append(
            {
                "method": method,
                "setting": setting,
                "gflops": flops(backbone, pooled=True) / 1e9,
                "rank1": result.rank1,
                "mAP": result.mAP,
                "mAP_difference": asdict(difference),
            }
        )
    speed = rates(runs, found.batches(found.query[:BATCH])[0], rounds)
    for row, rate in zip(rows, speed.values(), strict=True):
        row["images_per_second"] = rate
        ideal = rows[0]["images_per_second"] * rows[0]["gflops"] / row["gflops"]
        row["share_of_ideal"] = rate / ideal
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows in Markdown, by method and operations."""
    lines = [
        "| method | setting | MFLOP | img/s | against dense | share of the ideal | rank-1 | mAP "
        "| against dense |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    order = {row["method"]: n for n, row in reversed(list(enumerate(rows)))}
    for row in sorted(rows, key=lambda r: (order[r["method"]], r["gflops"])):
        ratio = row["images_per_second"] / rows[0]["images_per_second"]
        change = row["mAP_difference"]
        lines.append(
            f"| {row['method']} | {row['setting']} | {1e3 * row['gflops']:.0f} | "
            f"{row['images_per_second']:.0f} | {ratio:.2f} | {100 * row['share_of_ideal']:.0f} % | "
            f"{row['rank1']:.1f} | {row['mAP']:.1f} | "
            f"{change['estimate']:+.1f} [{change['low']:+.1f}, {change['high']:+.1f}] |"
        )
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw accuracy and images per second against operations."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4))
    dense = rows[0]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for number, method in enumerate(methods):
        own = sorted((r for r in rows if r["method"] == method), key=lambda r: r["gflops"])
        style = {"color": COLOURS[number - 1], "marker": MARKERS[number - 1], "label": method}
        for axis, key in zip(axes, ("mAP", "images_per_second"), strict=True):
            axis.plot([1e3 * r["gflops"] for r in own], [r[key] for r in own], **style)
    least = min(row["gflops"] for row in rows)
    costs = np.linspace(1e3 * least, 1e3 * dense["gflops"])
    ideal = dense["images_per_second"] * 1e3 * dense["gflops"] / costs
    axes[1].plot(costs, ideal, color="0.4", linestyle="--", label="ideal: as dense, per operation")
    axes[0].axhline(dense["mAP"], color="0.4", linestyle=":")
    for axis, title in zip(axes, ("mAP (%)", "images per second"), strict=True):
        axis.set_xlabel("MFLOP an image")
        axis.set_ylabel(title)
        axis.grid(True, color="0.9")
    axes[1].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _model(checkpoint: str | None) -> tuple[ReidModel, Any, DataConfig]:
    """Return the model, its backbone as a dense one, and its data."""
    size = (128, 64)
    if checkpoint is None:
        start = ModelConfig(backbone="mini", init="mini", sparse=False, drop_path=0.0)
        model = ReidModel(start, size, identities=2).eval()
        return model, model.backbone, DataConfig(name="occluded-mannequins", image_size=size)
    model, config, _ = load_model(checkpoint)
    plain = replace(config.model, sparse=False, init="scratch")
    dense: Any = create_backbone(plain, config.data.image_size).eval()
    tensors = model.backbone.state_dict()
    dense.load_state_dict({name: tensors[name] for name in dense.state_dict()})
    return model, dense, config.data


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, save, plot and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="model.safetensors; the small backbone by default")
    parser.add_argument("--root", default="data/occluded-mannequins", help="folder of the data")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.3, 0.5, 0.7, 0.9])
    parser.add_argument("--queries", type=int, default=320, help="most queries; 0: all")
    parser.add_argument("--rounds", type=int, default=30, help="timed rounds")
    parser.add_argument("--page", type=Path, help="page to put table and plot into")
    given = parser.parse_args(arguments)
    model, dense, data = _model(given.checkpoint)
    found = Retrieval.read(replace(data, root=given.root), given.queries, train=1)
    rows = measure(model, dense, found, given.ratios, given.rounds)
    came = origin("python -m benchmarks.budgets " + " ".join(arguments or sys.argv[1:]))
    text = table(rows)
    load = came["load_average"]
    text += (
        f"\n\n{len(found.query)} queries, {len(found.gallery)} gallery images, batch {BATCH}, "
        f"float32. Device: {came['device']}, {came['threads']} threads"
        f"{'' if load is None else f', load {load:.1f}'}; {came['date'][:10]}."
    )
    print(text)
    if given.page is not None:
        payload = json.dumps({"origin": came, "rows": rows}, indent=1)
        path = RESULTS / "budgets" / f"{slug(came['device'])}.json"
        write_atomic(path, f"{payload}\n".encode())
        plot(rows, given.page.parent / "images" / "budgets.png")
        between(given.page, "budgets", text)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    raise SystemExit(main())
