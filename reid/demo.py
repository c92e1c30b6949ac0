"""`reid demo`: generate data, train the rows of Table IV, evaluate, measure, report."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from reid.config import RunConfig, load_config, replace, to_dict
from reid.data.records import ReidData
from reid.difficulty import baselines
from reid.engine import distributed
from reid.engine.checkpoint import write_atomic
from reid.engine.provenance import provenance
from reid.evaluation import RankingResult, paired_bootstrap
from reid.reproduce.rows import TABLES
from reid.reproduce.runner import DecodedData, RowOutcome, run_rows, throughput
from reid.run import load_data, scores, start_processes

BASELINES = ("chance", "colour_histogram", "untrained", "backbone")


def demo(out: str | Path = "runs/demo", *, quick: bool = False) -> str:
    """Run the paper's Table IV on generated data and write a report.

    Args:
        out: Folder for data, runs, results.json, report.html and the PNGs.
        quick: Tiny data and a few steps: shows that everything runs, its scores mean nothing.

    Returns:
        A few lines that say what was found and where the report is.

    Raises:
        UserError: The disk is full, or the folder holds another run.
    """
    from reid.report import build_report

    started = time.perf_counter()
    out = Path(out)
    start_processes()
    config = replace(load_config("demo", QUICK if quick else ()), data__root=str(out / "data"))
    data = load_data(config.data)
    decoded = DecodedData.read(data, config)
    simple = baselines(data, decoded.query, decoded.gallery, config.model, seed=config.train.seed)
    outcomes = run_rows(config, TABLES["table4"], out, decoded)
    rates = throughput(outcomes, out, rounds=5 if quick else 51)
    if not distributed.is_main():
        return ""
    results = _results(config, outcomes, simple, rates, quick)
    results["minutes"] = (time.perf_counter() - started) / 60
    results["minutes_of_training"] = sum(o.provenance["seconds"] for o in outcomes) / 60
    write_atomic(out / "results.json", json.dumps(results, indent=2).encode())
    run = _report_input(config, data, outcomes, simple, rates, results)
    page = build_report(run, out)
    return _summary(results, page)


QUICK = (
    "data.size=tiny",
    "train.max_steps=3",
    "train.identities=4",
    "train.instances=2",
    "train.log_every=1",
)


def _results(
    config: RunConfig,
    outcomes: list[RowOutcome],
    simple: dict[str, RankingResult],
    rates: dict[str, float],
    quick: bool,
) -> dict[str, Any]:
    rows = [
        {
            "name": outcome.row.name,
            "label": outcome.row.label,
            **scores(outcome.ranking),
            "tokens": tokens_of(outcome),
            "images_per_second": rates[outcome.row.name],
            "speedup": rates[outcome.row.name] / rates["dense"],
            "trained": outcome.provenance,
        }
        for outcome in outcomes
    ]
    return {
        "command": "reid demo --quick" if quick else "reid demo",
        **provenance(),
        "seed": config.train.seed,
        "config": to_dict(config),
        "rows": rows,
        "baselines": {name: scores(simple[name]) for name in BASELINES},
        "differences": {
            name: {score: dataclasses.asdict(interval) for score, interval in intervals.items()}
            for name, intervals in _differences(outcomes).items()
        },
    }


def _differences(outcomes: list[RowOutcome]) -> dict[str, Any]:
    by_name = {outcome.row.name: outcome.ranking for outcome in outcomes}
    pairs = [
        ("teacher", "dense"),
        ("hts", "dense"),
        ("hts+npkd", "hts"),
        ("hts+npkd+noda", "hts+npkd"),
        ("hts+npkd+noda", "dense"),
    ]
    return {f"{a} - {b}": paired_bootstrap(by_name[a], by_name[b]) for a, b in pairs}


def tokens_of(outcome: RowOutcome) -> list[int]:
    """Return the patch tokens of each part of the network: all, then what each stage keeps."""
    backbone = outcome.model.backbone
    total = int(backbone.patch_embed.num_patches)
    if not outcome.config.model.sparse:
        return [total]
    return [total, *(int(count) for count in backbone.keep_counts)]


def _report_input(
    config: RunConfig,
    data: ReidData,
    outcomes: list[RowOutcome],
    simple: dict[str, RankingResult],
    rates: dict[str, float],
    results: dict[str, Any],
) -> Any:
    from reid.data.mannequins import mask_path
    from reid.report import DemoRun, RowResult

    rows = [
        RowResult(
            name=outcome.row.name,
            label=outcome.row.label,
            tokens=tokens_of(outcome),
            images_per_second=rates[outcome.row.name],
            speedup=rates[outcome.row.name] / rates["dense"],
            ranking=outcome.ranking,
            history=outcome.history,
            kept=outcome.kept,
            query_features=outcome.query,
            gallery_features=outcome.gallery,
        )
        for outcome in outcomes
    ]
    settings = {
        "data": f"{config.data.name}, size {config.data.size}, seed {config.data.seed}",
        "images": f"{len(data.train)} train, {len(data.query)} query, {len(data.gallery)} gallery",
        "backbone": f"{config.model.backbone}, started from {config.model.init}",
        "keep ratio": config.model.keep_ratio,
        "steps of every row": config.train.max_steps,
        "batch": f"{config.train.identities} identities x {config.train.instances} images",
        "optimiser": f"{config.optim.name}, learning rate {config.optim.lr}",
        "seed": config.train.seed,
        "throughput": "median of interleaved forwards in a process of their own, batch of 32",
        "minutes, all in all": round(results["minutes"], 1),
    }
    versions = {
        **results["versions"],
        "git revision": results["git_revision"],
        "device": results["device"],
        "date": results["date"],
    }
    return DemoRun(
        rows=rows,
        baselines=simple,
        query_paths=[record.path for record in data.query],
        gallery_paths=[record.path for record in data.gallery],
        mask_paths=[str(mask_path(record.path)) for record in data.query],
        image_size=config.data.image_size,
        patch_size=int(outcomes[0].model.backbone.patch_embed.patch_size[0]),
        settings=settings,
        versions=versions,
        differences=_differences(outcomes),
        command=results["command"],
        data="Mannequins: drawn figures, occluded protocol",
    )


def _summary(results: dict[str, Any], page: Path) -> str:
    lines = [f"{'':<18}{'tokens':<20}{'img/s':>8}{'ratio':>8}{'rank-1':>8}{'mAP':>8}"]
    for name, row in results["baselines"].items():
        lines.append(f"{name:<54}{row['rank1']:>8.1f}{row['mAP']:>8.1f}")
    for row in results["rows"]:
        tokens = " ".join(str(count) for count in row["tokens"])
        lines.append(
            f"{row['label']:<18}{tokens:<20}{row['images_per_second']:>8.0f}"
            f"{row['speedup']:>8.2f}{row['rank1']:>8.1f}{row['mAP']:>8.1f}"
        )
    lines.append(f"report: {page}")
    return "\n".join(lines)
