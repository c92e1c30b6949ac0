"""What `reid evaluate` takes beyond its source; apart from reid.evaluation, which loads torch."""

import argparse
import csv
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reid._verbs import refuse_folder
from reid.errors import UserError

if TYPE_CHECKING:
    from reid.evaluation import Features, RankingResult
    from reid.evaluation.reranking import Reranked

_DEFAULTS = {"metric": None, "ties": "stable", "max_rank": 50, "tpr_at": None, "rerank": None}
_PROTOCOLS = ("all", "single-gallery-shot")
# The largest float32 number, which `verify` returns where every pair is accepted.
_ANY = (2 - 2**-23) * 2.0**127


def add_ranking_options(parser: Any) -> None:
    """Add how features are compared: the metric and the order of equal distances."""
    parser.add_argument(
        "--metric",
        choices=("cosine", "euclidean", "hamming", "visible"),
        help="default: cosine, hamming for uint64 codes, visible where a visibility is given",
    )
    parser.add_argument(
        "--ties",
        choices=("stable", "optimistic", "pessimistic", "expected"),
        default=_DEFAULTS["ties"],
        help="order of equal distances; default stable, by gallery index",
    )


def add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    """Add how features are compared, and what is written."""
    ranking = parser.add_argument_group(
        "ranking, with --features",
        "There --protocol is all, the default, or single-gallery-shot: a CMC of one gallery image "
        "per person, drawn ten times.",
    )
    add_ranking_options(ranking)
    ranking.add_argument(
        "--max-rank", type=int, default=50, metavar="K", help="length of the CMC; default 50"
    )
    ranking.add_argument(
        "--tpr-at",
        type=float,
        nargs="+",
        metavar="FPR",
        help="also the share of true pairs accepted where this share of wrong ones is",
    )
    ranking.add_argument(
        "--rerank",
        type=float,
        nargs="*",
        metavar="X",
        help="re-rank by k-reciprocal neighbours: K1 K2 LAMBDA, default 20 6 0.3; transductive, "
        "every query's ranking depends on all queries",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores there")
    parser.add_argument("--per-query", type=Path, metavar="CSV", help="write one line per query")
    parser.add_argument(
        "--bootstrap", type=int, metavar="N", help="intervals from N samples of the identities"
    )


def evaluate_files(arguments: argparse.Namespace) -> tuple["RankingResult", dict[str, Any]]:
    """Rank the features of two files.

    Returns:
        The evaluation, and what else was asked for, for JSON.
    """
    from reid import evaluation
    from reid.evaluation.distances import fitting

    _check_ranking(arguments)
    query, gallery = (evaluation.Features.load(path) for path in arguments.features)
    metric = arguments.metric or fitting(query)
    # no query may be a distractor, so a person with number 0 is one as any other
    options: dict[str, Any] = {"metric": metric, "distractor_pid": None}
    run = (
        evaluation.evaluate_single_shot
        if arguments.protocol == "single-gallery-shot"
        else evaluation.evaluate
    )
    if arguments.rerank is not None:
        options["blocks"] = _reranked(arguments, query, gallery, metric)
    result = run(
        query, gallery, ties=arguments.ties, max_rank=max(10, arguments.max_rank), **options
    )
    if not arguments.tpr_at:
        return result, {}
    found = evaluation.verify(query, gallery, arguments.tpr_at, **options)
    rows = zip(found.rates, found.tpr, found.fpr, found.thresholds, strict=True)
    return result, {
        "verification": [
            {
                "rate": float(rate),
                "tpr": float(tpr),
                "fpr": float(fpr),
                "threshold": float(below),
                "over": "all pairs of the whole gallery",
            }
            for rate, tpr, fpr, below in rows
        ]
    }


def _check_ranking(arguments: argparse.Namespace) -> None:
    """Refuse what can be told wrong before anything is read or ranked."""
    for option, given in (("--data", arguments.data), ("--root", arguments.root)):
        if given is not None:
            raise UserError(
                f"{option} goes with --checkpoint; features bring their own identities and "
                "cameras, so leave it out"
            )
    if arguments.skip_bad:
        raise UserError("--skip-bad goes with --checkpoint; features are of readable images")
    if arguments.protocol not in (None, *_PROTOCOLS):
        raise UserError(
            f"--protocol is {' or '.join(_PROTOCOLS)} with --features, got {arguments.protocol!r}"
        )
    if arguments.max_rank < 1:
        raise UserError(f"--max-rank must be at least 1, got {arguments.max_rank}")
    for rate in arguments.tpr_at or []:
        if not 0.0 < rate <= 1.0:
            raise UserError(
                f"--tpr-at takes rates above 0 and at most 1, such as 0.001, got {rate}"
            )
    if arguments.rerank is not None:
        _check_rerank(arguments)


def _check_rerank(arguments: argparse.Namespace) -> None:
    if arguments.protocol not in (None, "all") or arguments.tpr_at:
        raise UserError("--rerank goes with --protocol all and without --tpr-at; drop one of them")
    given: list[float] = arguments.rerank
    numbers = len(given) <= 3 and all(map(math.isfinite, given))
    if not numbers or not all(value.is_integer() for value in given[:2]):
        raise UserError(
            f"--rerank takes K1 K2 LAMBDA, such as 20 6 0.3, got {' '.join(map(str, given))}"
        )


def _reranked(
    arguments: argparse.Namespace, query: "Features", gallery: "Features", metric: str
) -> "Reranked":
    from reid.evaluation.reranking import rerank

    if metric not in ("cosine", "euclidean"):
        raise UserError(f"--rerank goes with --metric cosine or euclidean, not with {metric}")
    given: list[float] = arguments.rerank
    k1, k2, lambda_value = [*given, *(20.0, 6.0, 0.3)[len(given) :]]
    chosen: Any = metric
    return rerank(query, gallery, k1=int(k1), k2=int(k2), lambda_value=lambda_value, metric=chosen)


def check_outputs(arguments: argparse.Namespace) -> None:
    """Refuse what would fail only when the evaluation is over.

    Raises:
        UserError: A folder where a file is to be written, or no sample of the bootstrap.
    """
    refuse_folder("--json", arguments.json)
    refuse_folder("--per-query", arguments.per_query)
    if arguments.bootstrap is not None and arguments.bootstrap < 1:
        raise UserError(f"--bootstrap must be at least 1, got {arguments.bootstrap}; usual is 1000")


def refuse_ranking_options(arguments: argparse.Namespace) -> None:
    """Refuse options that only features are ranked with.

    Raises:
        UserError: One is given.
    """
    for name, default in _DEFAULTS.items():
        if getattr(arguments, name) != default:
            option = "--" + name.replace("_", "-")
            raise UserError(
                f"{option} goes with --features; write features with: reid extract, then: "
                f"reid evaluate --features QUERY GALLERY {option} ..."
            )


def write(
    arguments: argparse.Namespace,
    result: "RankingResult",
    scores: dict[str, Any],
    extra: dict[str, Any],
) -> dict[str, Any]:
    """Write the files asked for.

    Args:
        arguments: Of the command.
        result: The evaluation.
        scores: Its scores by name.
        extra: What else was computed.

    Returns:
        The content of the JSON file.
    """
    from reid.engine.checkpoint import write_atomic
    from reid.evaluation import bootstrap

    content = {
        **scores,
        "skipped_because": result.skipped_because(),
        "metric": result.metric,
        "ties": result.ties,
        "protocol": result.protocol,
        "cmc": result.cmc[: arguments.max_rank].tolist(),
        **extra,
    }
    if arguments.bootstrap is not None:
        intervals = bootstrap(result, arguments.bootstrap, unit="pid")
        content["intervals"] = {name: found.as_dict() for name, found in intervals.items()}
    if arguments.json:
        write_atomic(arguments.json, json.dumps(content, indent=2).encode())
    if arguments.per_query:
        write_atomic(arguments.per_query, _table(result).encode())
    return content


def _table(result: "RankingResult") -> str:
    text = io.StringIO()
    rows = [
        {**row, "pid": int(pid), "camid": int(camid)}
        for row, pid, camid in zip(
            result.per_query.rows(), result.query_pids, result.query_camids, strict=True
        )
    ]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def print_more(content: dict[str, Any]) -> None:
    """Print why queries were skipped, intervals and rates."""
    for reason, count in content["skipped_because"].items():
        print(f"{'':>14}  {count} skipped: {reason}")
    for name, interval in content.get("intervals", {}).items():
        print(
            f"{name:>14}  {interval['low']:.2f} to {interval['high']:.2f} "
            f"({100 * interval['level']:.0f} % of {interval['samples']} samples of identities)"
        )
    for row in content.get("verification", []):
        below = row["threshold"]
        accepted = "any distance" if below >= _ANY else f"distance below {below:.6f}"
        print(
            f"{'TPR':>14}  {100 * row['tpr']:.2f} at FPR {row['fpr']:.2e} over {row['over']}, "
            f"{accepted}"
        )
