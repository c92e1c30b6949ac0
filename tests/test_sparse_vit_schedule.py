"""Stages, ratios and token counts."""

import pytest

from sparse_vit import PruningSchedule


@pytest.mark.parametrize(
    ("ratio", "counts"),
    [
        (0.5, [64, 32, 16]),
        (0.6, [76, 46, 27]),
        (0.7, [89, 62, 43]),
        (0.8, [102, 81, 65]),
        (0.9, [115, 103, 93]),
        (1.0, [128, 128, 128]),
    ],
)
def test_counts_of_the_paper_for_128_patches(ratio: float, counts: list[int]) -> None:
    assert PruningSchedule.build((3, 6, 9), ratio, 12).counts(128) == counts


def test_a_tuple_sets_fractions_of_the_original_patches() -> None:
    schedule = PruningSchedule.build((1, 2), (0.5, 0.5), 4)
    assert schedule.counts(10) == [5, 5]


def test_counts_survive_floating_error_and_never_reach_zero() -> None:
    for n in range(1, 400):
        for k in range(1, n + 1):
            assert PruningSchedule((0,), (k / n,)).counts(n) == [k]
    assert PruningSchedule.build((0, 1, 2), 0.01, 3).counts(20) == [1, 1, 1]


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.0001, float("nan"), float("inf")])
def test_ratio_outside_the_unit_interval(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"outside \(0, 1\]"):
        PruningSchedule.build((1,), ratio, 4)


@pytest.mark.parametrize(
    ("stages", "ratio", "message"),
    [
        ((3, 6, 12), 0.7, "stage 12 is outside the model.*0 to 11"),
        ((-1,), 0.7, "stage -1 is outside"),
        ((6, 3), 0.7, "strictly ascending"),
        ((3, 3), 0.7, "strictly ascending"),
        ((3, 6), (0.7,), "1 values for 2 stages"),
        ((3, 6), (0.5, 0.7), "increases"),
    ],
)
def test_bad_schedules_name_the_value(stages: tuple, ratio: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PruningSchedule.build(stages, ratio, 12)


@pytest.mark.parametrize(("stages", "ratio"), [((1.5,), 0.7), ((True,), 0.7), ((1,), "0.7")])
def test_wrong_types(stages: tuple, ratio: object) -> None:
    with pytest.raises(TypeError, match=r"is not a"):
        PruningSchedule.build(stages, ratio, 12)
