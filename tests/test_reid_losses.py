"""Losses against plain float64 loops, values and gradients."""

import math

import pytest
import torch

from reid.losses import (
    FeatureAlign,
    camera_triplet,
    cosine_distance,
    cross_entropy,
    euclidean_distance,
    kl_logits,
    triplet,
)
from reid.losses.camera_triplet import camera_pairs
from reid.losses.distillation import resize_features

LABELS = torch.tensor([3, 3, 3, 8, 8, 5, 1, 1])
CAMIDS = torch.tensor([0, 1, 1, 0, 0, 2, 1, 2])


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    eps = torch.finfo(dtype).eps
    return {"rtol": 64 * eps, "atol": 64 * eps}


def features(dtype: torch.dtype = torch.float64, rows: int = 8, dim: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows * 100 + dim)
    return torch.randn(rows, dim, generator=generator, dtype=torch.float64).to(dtype)


def distance_loop(x: list[float], y: list[float]) -> float:
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)))


def triplet_loop(
    x: torch.Tensor,
    labels: torch.Tensor,
    camids: torch.Tensor | None = None,
    *,
    cam_pos: bool = False,
    cam_neg: bool = False,
    margin: float | None = None,
) -> float:
    rows, ids = x.double().tolist(), labels.tolist()
    cams = [0] * len(ids) if camids is None else camids.tolist()
    total = 0.0
    for a in range(len(rows)):
        positives = [j for j in range(len(rows)) if ids[j] == ids[a]]
        negatives = [j for j in range(len(rows)) if ids[j] != ids[a]]
        if cam_pos:
            others = [j for j in positives if j != a]
            crossing = [j for j in others if cams[j] != cams[a]]
            positives = crossing or others or [a]
        if cam_neg:
            negatives = [j for j in negatives if cams[j] == cams[a]] or negatives
        gap = max(distance_loop(rows[a], rows[j]) for j in positives) - min(
            distance_loop(rows[a], rows[j]) for j in negatives
        )
        total += math.log1p(math.exp(gap)) if margin is None else max(0.0, gap + margin)
    return total / len(rows)


def numeric_gradient(function, x: torch.Tensor, step: float = 1e-6) -> torch.Tensor:
    gradient = torch.zeros_like(x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            up, down = x.clone(), x.clone()
            up[i, j] += step
            down[i, j] -= step
            gradient[i, j] = (function(up) - function(down)) / (2 * step)
    return gradient


def gradient_of(function, x: torch.Tensor) -> torch.Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_equal_loops(dtype: torch.dtype) -> None:
    x, y = features(dtype), features(dtype, rows=3)
    euclid, cosine = euclidean_distance(x, y), cosine_distance(x, y)
    for i, a in enumerate(x.double().tolist()):
        for j, b in enumerate(y.double().tolist()):
            assert euclid[i, j].item() == pytest.approx(distance_loop(a, b), rel=1e-5)
            dot = sum(p * q for p, q in zip(a, b, strict=True))
            norms = distance_loop(a, [0.0] * 5) * distance_loop(b, [0.0] * 5)
            assert cosine[i, j].item() == pytest.approx(1 - dot / norms, abs=1e-6)


def test_euclidean_distance_of_near_rows_far_from_the_origin_keeps_its_digits() -> None:
    x = torch.full((1, 16), 1000.0)
    y = x + 0.25
    assert euclidean_distance(x, y).item() == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    x = features(dtype)
    loss = triplet(x, LABELS)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(triplet_loop(x, LABELS), rel=1e-5)


def test_distances_refuse_different_widths() -> None:
    with pytest.raises(ValueError, match=r"\(8, 5\) and \(8, 4\)"):
        euclidean_distance(features(), features(dim=4))


@pytest.mark.parametrize("margin", [None, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_triplet_equals_loop(dtype: torch.dtype, margin: float | None) -> None:
    x = features(dtype)
    torch.testing.assert_close(
        triplet(x, LABELS, margin=margin).double(),
        torch.tensor(triplet_loop(x, LABELS, margin=margin), dtype=torch.float64),
        **tolerance(dtype),
    )


def test_triplet_gradient_equals_finite_differences() -> None:
    x = features()
    torch.testing.assert_close(
        gradient_of(lambda z: triplet(z, LABELS), x),
        numeric_gradient(lambda z: triplet_loop(z, LABELS), x),
        rtol=1e-6,
        atol=1e-8,
    )


def test_triplet_gradient_is_finite_between_identical_images() -> None:
    x = features()
    x[1] = x[2] = x[0]
    x[3] = x[0]
    gradient = gradient_of(lambda z: triplet(z, LABELS), x)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


def test_triplet_uses_the_distance_it_is_given() -> None:
    x = features()
    unit = torch.nn.functional.normalize(x, dim=1)
    cosine = triplet(x, LABELS, distance=cosine_distance)
    # On the unit sphere, squared distance is twice the cosine distance: same pairs, other gaps.
    squared = triplet(unit, LABELS, distance=lambda a, b: torch.cdist(a, b).square() / 2)
    torch.testing.assert_close(cosine, squared)


def test_triplet_with_one_identity_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"one identity only.*at least two identities"):
        triplet(features(rows=4), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="one identity only"):
        camera_triplet(features(rows=2), torch.ones(2), torch.tensor([0, 1]))


def test_triplet_refuses_labels_of_another_length() -> None:
    with pytest.raises(ValueError, match=r"\(8, 5\) and \(3,\)"):
        triplet(features(), LABELS[:3])


@pytest.mark.parametrize("cam_pos", [False, True])
@pytest.mark.parametrize("cam_neg", [False, True])
def test_camera_triplet_equals_loop(cam_pos: bool, cam_neg: bool) -> None:
    x = features()
    switches = {"cam_pos": cam_pos, "cam_neg": cam_neg}
    loss = camera_triplet(x, LABELS, CAMIDS, **switches)
    assert loss.item() == pytest.approx(triplet_loop(x, LABELS, CAMIDS, **switches), rel=1e-12)
    torch.testing.assert_close(
        gradient_of(lambda z: camera_triplet(z, LABELS, CAMIDS, **switches), x),
        numeric_gradient(lambda z: triplet_loop(z, LABELS, CAMIDS, **switches), x),
        rtol=1e-6,
        atol=1e-8,
    )


def test_camera_triplet_without_constraints_is_the_triplet_loss() -> None:
    x = features()
    free = camera_triplet(x, LABELS, CAMIDS, cam_pos=False, cam_neg=False)
    assert free.item() == triplet(x, LABELS).item()


def test_camera_pairs_fall_back_when_the_constraint_leaves_nothing() -> None:
    positives, negatives = camera_pairs(LABELS, CAMIDS)
    expected = {
        0: ([1, 2], [3, 4]),  # both constraints hold
        3: ([4], [0]),  # identity 8 has one camera: the other image, not itself
        5: ([5], [7]),  # alone in the batch: itself
        7: ([6], [5]),
    }
    for anchor, (same, other) in expected.items():
        assert positives[anchor].nonzero().flatten().tolist() == same
        assert negatives[anchor].nonzero().flatten().tolist() == other
    _, alone = camera_pairs(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 1]))
    assert alone[0].tolist() == [False, True, True]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_loop(smoothing: float) -> None:
    logits = features(dim=6)
    labels = torch.arange(8) % 6
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(value) for value in row))
        for k, value in enumerate(row):
            target = smoothing / 6 + (1 - smoothing if k == label else 0.0)
            total -= target * (value - log_sum)
    assert cross_entropy(logits, labels, smoothing=smoothing).item() == pytest.approx(total / 8)


def test_cross_entropy_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\), got 1"):
        cross_entropy(features(), LABELS, smoothing=1.0)
    with pytest.raises(ValueError, match=r"got \(8, 5\) and \(2,\)"):
        cross_entropy(features(), LABELS[:2])


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_kl_logits_equals_loop_and_flows_to_the_student_only(temperature: float) -> None:
    student, teacher = features(), features().flip(0) * 2

    def loop(logits: torch.Tensor) -> float:
        total = 0.0
        for s, t in zip(logits.tolist(), teacher.tolist(), strict=True):
            p_s = [math.exp(v / temperature) for v in s]
            p_t = [math.exp(v / temperature) for v in t]
            total += sum(
                b / sum(p_t) * (math.log(b / sum(p_t)) - math.log(a / sum(p_s)))
                for a, b in zip(p_s, p_t, strict=True)
            )
        return total / len(teacher)

    assert kl_logits(student, teacher, temperature).item() == pytest.approx(loop(student))
    target = teacher.clone().requires_grad_()
    source = student.clone().requires_grad_()
    kl_logits(source, target, temperature).backward()
    assert target.grad is None
    torch.testing.assert_close(source.grad, numeric_gradient(loop, student), rtol=1e-6, atol=1e-8)


def test_kl_logits_refuses_a_teacher_of_other_identities() -> None:
    with pytest.raises(ValueError, match="same identities"):
        kl_logits(features(dim=5), features(dim=6))
    with pytest.raises(ValueError, match="positive, got 0"):
        kl_logits(features(), features(), 0)


def test_interpolation_768_to_384_is_the_mean_of_channel_pairs() -> None:
    x = features(rows=2, dim=768)
    torch.testing.assert_close(resize_features(x, 384), x.view(2, 384, 2).mean(-1))
    assert resize_features(x, 768) is x


def interpolate_loop(row: list[float], dim: int) -> list[float]:
    out = []
    for i in range(dim):
        at = min(max((i + 0.5) * len(row) / dim - 0.5, 0.0), len(row) - 1.0)
        left = int(at)
        right = min(left + 1, len(row) - 1)
        out.append(row[left] * (1 - (at - left)) + row[right] * (at - left))
    return out


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("mode", ["ts_interpolate", "st_interpolate", "ts_linear", "st_linear"])
def test_feature_align_equals_loop(mode: str, reduction: str) -> None:
    align = FeatureAlign(mode, dim_s=4, dim_t=6, reduction=reduction).double()
    student, teacher = features(dim=4), features(dim=6)

    def fit(row: list[float], dim: int) -> list[float]:
        if align.project is None:
            return interpolate_loop(row, dim)
        weight, bias = align.project.weight.tolist(), align.project.bias.tolist()
        return [
            b + sum(w * v for w, v in zip(ws, row, strict=True))
            for ws, b in zip(weight, bias, strict=True)
        ]

    def loop(x: torch.Tensor) -> float:
        total = 0.0
        for s, t in zip(x.tolist(), teacher.tolist(), strict=True):
            left, right = (s, fit(t, 4)) if mode.startswith("ts") else (fit(s, 6), t)
            squares = sum((a - b) ** 2 for a, b in zip(left, right, strict=True))
            total += squares / len(left) if reduction == "mean" else squares
        return total / len(teacher)

    assert align(student, teacher).item() == pytest.approx(loop(student))
    target = teacher.clone().requires_grad_()
    source = student.clone().requires_grad_()
    align(source, target).backward()
    assert target.grad is None
    torch.testing.assert_close(source.grad, numeric_gradient(loop, student), rtol=1e-6, atol=1e-7)
    assert [p.grad is not None for p in align.parameters()] == [True] * (2 * ("linear" in mode))


def test_feature_align_accepts_half_precision_and_refuses_other_widths() -> None:
    align = FeatureAlign("st_linear", dim_s=4, dim_t=6)
    assert align(features(torch.bfloat16, dim=4), features(torch.bfloat16, dim=6)).dtype == (
        torch.float32
    )
    with pytest.raises(ValueError, match=r"student \(B, 4\) and teacher \(B, 6\), got \(8, 6\)"):
        align(features(dim=6), features(dim=6))
    with pytest.raises(ValueError, match="unknown mode 'bilinear'"):
        FeatureAlign("bilinear", dim_s=4, dim_t=6)
    with pytest.raises(ValueError, match="unknown reduction 'max'"):
        FeatureAlign(dim_s=4, dim_t=6, reduction="max")
