"""What one evaluation says, in sentences that are true whatever the numbers are."""

import math
from dataclasses import replace

import numpy as np

from reid.evaluation.bootstrap import Interval, bootstrap
from reid.evaluation.result import RankingResult
from reid.report.measures import Counting
from reid.report.pairs import Threshold

_TIES = {
    "stable": "the image that comes first in the gallery",
    "optimistic": "the match, so ties help",
    "pessimistic": "the wrong image, so ties hurt",
    "expected": "each in turn, and the score is the mean over all orders",
}
_FEW = 30


def all_intervals(result: RankingResult) -> dict[str, tuple[Interval, Interval]]:
    """Return the interval of every score, over the queries and over the identities."""
    trapezoid = replace(
        result, per_query=replace(result.per_query, ap=result.per_query.ap_trapezoid)
    )
    found = []
    for unit in ("query", "pid"):
        scores = bootstrap(result, unit=unit)
        scores["mAP_trapezoid"] = bootstrap(trapezoid, unit=unit)["mAP"]
        found.append(scores)
    return {name: (found[0][name], found[1][name]) for name in found[0]}


def counting_words(result: RankingResult, counted: Counting) -> list[tuple[str, str]]:
    """Return headings with what was counted and what was left out."""
    total = len(result.query_pids)
    cameras = len(np.unique(result.query_camids))
    found = [
        (
            "Queries",
            f"{result.queries:,} of {_many(total, 'query', 'queries')} are counted, of "
            f"{_many(len(np.unique(result.query_pids)), 'identity', 'identities')} and "
            f"{_many(cameras, 'camera')}." + _few(result.queries),
        ),
        ("Skipped", _skipped(result)),
        ("Gallery", _gallery(result, counted)),
        ("Camera rule", _camera_rule(result, counted)),
        ("Distance and ties", _ties(result)),
    ]
    return found


def threshold_words(
    threshold: Threshold | None, metric: str, asked: float, wrong_pairs: int, gallery: int
) -> str:
    """Return what to compare a distance with, and what that costs.

    Args:
        threshold: What was found; None if there are too few pairs for it.
        metric: Name of the distance.
        asked: Share of wrong pairs to accept, in fractions of 1.
        wrong_pairs: Number of pairs of two persons.
        gallery: Number of gallery images.
    """
    rate = one_in(asked)
    if threshold is None:
        need = int(np.ceil(1.0 / asked))
        return (
            f"A threshold that accepts at most {rate} wrong matches cannot be told from these "
            f"features: that needs at least {need:,} pairs of two persons, here are "
            f"{wrong_pairs:,}. Ask for a larger share, or evaluate on more images."
        )
    similar = (
        f" (cosine similarity above {1.0 - shown(threshold.distance):.6f})"
        if metric == "cosine"
        else ""
    )
    expected = threshold.fpr * gallery
    per_search = f"{expected:,.0f}" if expected >= 10 else f"{expected:.2g}"
    return (
        f"To accept at most {rate} wrong matches, take two images for the same person when their "
        f"{metric} distance is below {shown(threshold.distance):.6f}{similar}. Then "
        f"{100 * threshold.tpr:.1f}% of the true pairs are accepted, and "
        f"{threshold.accepted:,} of the {wrong_pairs:,} wrong ones. In a gallery of {gallery:,} "
        f"images that is about {per_search} wrong images for each search."
    )


def shown(distance: float) -> float:
    """Return a threshold as it is printed: rounded down, so that it accepts no more pairs."""
    return math.floor(distance * 1e6) / 1e6


def one_in(share: float) -> str:
    """Return a share in words, such as `1 in 1,000`."""
    inverse = 1.0 / share
    whole = round(inverse)
    return f"1 in {whole:,}" if abs(inverse - whole) < 1e-6 * inverse else f"{100 * share:.3g}% of"


def _skipped(result: RankingResult) -> str:
    if not result.skipped:
        return "None: the gallery holds a match for every query."
    reasons = [f"{count:,} because {why}" for why, count in result.skipped_because().items()]
    return (
        f"{_many(result.skipped, 'query', 'queries')} without a match: {' and '.join(reasons)}. "
        "They enter no mean."
    )


def _gallery(result: RankingResult, counted: Counting) -> str:
    pids = result.gallery_pids
    cameras = len(np.unique(result.gallery_camids))
    words = f"{_many(len(pids), 'image')} from {_many(cameras, 'camera')}"
    parts = [
        f"{count:,} {name}"
        for count, name in (
            (counted.distractors, "distractors, which are wrong for everybody"),
            (counted.junk, "junk boxes (pid -1), which take no place"),
        )
        if count
    ]
    if parts:
        return f"{words}; among them {' and '.join(parts)}."
    return f"{words}; no distractors, no junk boxes."


def _camera_rule(result: RankingResult, counted: Counting) -> str:
    rule = (
        "A gallery image of the query's own identity and camera is junk: it takes no place and is "
        "neither right nor wrong. "
    )
    if not counted.removed:
        return (
            rule + "Here the rule removes nothing: no gallery image shares identity and camera "
            "with a query."
        )
    mean = counted.removed / len(result.query_pids)
    return f"{rule}It leaves out {counted.removed:,} pairs, {mean:.1f} for each query."


def _ties(result: RankingResult) -> str:
    first = _TIES.get(result.ties, "as the policy says")
    words = f"The distance is {result.metric}. At equal distance, {first} stands first "
    words += f"(policy {result.ties!r}). "
    if not result.tied:
        return words + "No counted query has a tie that could change its score."
    share = 100.0 * result.tied / result.queries
    return words + (
        f"In {_many(result.tied, 'query', 'queries')} ({share:.1f}%) a match and a wrong image are "
        "at exactly the same distance, so the score depends on the policy: evaluate with "
        "'optimistic' and 'pessimistic' to see by how much."
    )


def _few(queries: int) -> str:
    if queries >= _FEW:
        return ""
    return " With so few queries the intervals say little: they know only the queries at hand."


def _many(count: int, name: str, plural: str = "") -> str:
    return f"{count:,} {name if count == 1 else plural or name + 's'}"
