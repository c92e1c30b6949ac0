"""What the engine aims at for whole models, as data for `benchmarks.goals`."""

from collections.abc import Callable

from benchmarks import training
from benchmarks.goal import BF16, F32, Goal, Line
from benchmarks.models import DENSE, DENSE_ENGINE, FUSE, MERGE, adaptive, engine, plain

Measure = Callable[[Line], float | None]


def _of(batch: int, figure: Measure) -> Measure:
    """A figure of the lines of one batch size, where nobody is missing."""

    def measure(line: Line) -> float | None:
        if next(iter(line.values()))["batch"] != batch:
            return None
        try:
            return figure(line)
        except KeyError:
            return None

    return measure


def _times(name: str, *rivals: str) -> Measure:
    """How many times faster than the fastest rival."""
    return lambda line: min(line[r]["p50_ms"] for r in rivals) / line[name]["p50_ms"]


def _share_of_flop_ratio(name: str, rival: str) -> Measure:
    def share(line: Line) -> float:
        own, other = line[name], line[rival]
        return other["p50_ms"] / own["p50_ms"] * own["flops"] / other["flops"]

    return share


def _latency(name: str) -> Measure:
    return lambda line: line[name]["p50_ms"] / line[DENSE]["p50_ms"]


def _times_in_training(rival: str) -> Measure:
    return lambda line: line[rival]["p50_ms"] / line[training.OURS]["p50_ms"]


def _memory_in_training(rival: str) -> Measure:
    return lambda line: line[training.OURS]["peak_bytes"] / line[rival]["peak_bytes"]


def _goal(
    name: str, dtypes: tuple[str, ...], measure: Measure, bound: float,
    stretch: float | None = None, at_least: bool = True,
) -> Goal:  # fmt: skip
    return Goal(
        name, "cpu", ("model",), "engine", dtypes, (128, 128), measure, bound, stretch, at_least
    )


def model_goals() -> tuple[Goal, ...]:
    """Goals of DeiT-S at 256 x 128 on a processor; batch 32 unless said otherwise."""
    found = []
    for keep, times in ((0.7, 3.8), (0.5, 5.0)):
        name, flops = engine(keep), _share_of_flop_ratio(engine(keep), DENSE_ENGINE)
        roof = _of(32, lambda line, name=name: line[name]["roof_share"])
        found += [
            _goal(f"keep {keep}, share of the roof", F32, roof, 0.85),
            _goal(f"keep {keep}, share of the roof", BF16, roof, 0.75, 0.85),
            _goal(f"keep {keep}, times dense timm, eager", F32,
                  _of(32, _times(name, DENSE)), times),
            _goal(f"keep {keep}, times the dense engine over the ratio of FLOPs", (*F32, *BF16),
                  _of(32, flops), 0.97),
            _goal(f"keep {keep}, batch 1, time over dense timm, eager", F32,
                  _of(1, _latency(name)), 0.35, at_least=False),
            _goal(f"keep {keep}, batch 1, time over dense timm, eager", BF16,
                  _of(1, _latency(name)), 0.5, at_least=False),
        ]  # fmt: skip
    ragged = _of(32, _times(adaptive(0.7), engine(0.7)))
    found.append(_goal("keep 0.7, adaptive times fixed", (*F32, *BF16), ragged, 0.95))
    outside = _of(32, _times(engine(0.7), plain(0.7), plain(FUSE), plain(MERGE)))
    name = "keep 0.7, times the best of prune, fuse and merge without the engine"
    found += [_goal(name, F32, outside, 2.0), _goal(name, BF16, outside, 1.1, 1.25)]
    inside = _of(32, _times(engine(0.7), engine(FUSE), engine(MERGE)))
    name = "keep 0.7, times the best of fuse and merge through the engine"
    found.append(_goal(name, (*F32, *BF16), inside, 1.05))
    return (*found, *_training_goals())


def _training_goals() -> tuple[Goal, ...]:
    """Goals of a masked training step, which no operation of a mask should make dearer."""

    def goal(name: str, measure: Measure, at_least: bool) -> Goal:
        dtypes = (*F32, *BF16)
        return Goal(
            name, "cpu", (training.OP,), training.MODE, dtypes, (128, 128), _of(8, measure), 1.0,
            at_least=at_least,
        )  # fmt: skip

    return (
        goal("masks, times the eager policy softmax", _times_in_training(training.POLICY), True),
        goal("masks, times the dense step", _times_in_training(training.DENSE), True),
        goal("masks, peak memory over that of the eager policy softmax",
             _memory_in_training(training.POLICY), False),
        goal("masks, peak memory over that of the dense step",
             _memory_in_training(training.DENSE), False),
    )  # fmt: skip
