"""The suite of whole models: who takes part, goals judged, tables and the plot made."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import goals, model_goals, model_page, models, parts, tables, training
from sparse_vit import blocks, flops
from sparse_vit.engine import optimize
from sparse_vit.engine.stages import EngineStage


def test_every_reduction_has_about_the_operations_of_the_first_ratio() -> None:
    subject = models.deit_small(torch.device("cpu"), (0.7, 0.5), tiny=False)
    assert subject.tokens == 128
    assert subject.pruned[0.7].keep_counts == [89, 62, 43]
    assert subject.reduced[models.MERGE].keep_counts == [128 - 8 * n for n in range(1, 13)]
    wanted = flops(subject.pruned[0.7])
    for model in subject.reduced.values():
        assert flops(model) == pytest.approx(wanted, rel=0.06)


def test_contenders_compute_the_same_and_say_what_it_takes(monkeypatch: Any) -> None:
    subject = models.deit_small(torch.device("cpu"), (0.7, 0.5), tiny=True)
    monkeypatch.setattr(models, "exported", lambda _, name, __: f"no {name}")
    x = torch.randn(3, 3, 64, 32)
    extent = models.Extent(reductions=True, exports=True)
    with torch.inference_mode():
        found, absent = models.contenders(subject, x, torch.float32, extent)
        results = {name: contender.call() for name, contender in found.items()}
    assert absent == {models.DENSE_ONNX: "no dense, onnxruntime",
                      models.onnx(0.7): "no keep 0.7, onnxruntime"}  # fmt: skip
    assert next(iter(found)) == models.DENSE
    torch.testing.assert_close(results[models.DENSE], results[models.DENSE_ENGINE])
    for who in (0.7, 0.5, models.FUSE, models.MERGE):
        torch.testing.assert_close(results[models.plain(who)], results[models.engine(who)])
        assert found[models.plain(who)].flops == found[models.engine(who)].flops
    assert found[models.DENSE].flops == 3 * flops(subject.dense)
    assert found[models.DENSE_ENGINE].flops == 3 * flops(subject.dense, pooled=True)
    counts = [int(mask.sum()) for mask in found[models.adaptive(0.7)].run.with_kept(x)[1]]
    assert counts == [3 * count for count in subject.pruned[0.7].keep_counts]


def test_a_missing_package_is_a_reason(monkeypatch: Any) -> None:
    subject = models.deit_small(torch.device("cpu"), (0.7,), tiny=True)

    def refuse(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("ONNX needs onnx, which is not installed")

    monkeypatch.setattr("sparse_vit.export.export_onnx", refuse)
    found = models.exported(subject, models.DENSE_ONNX, subject.dense)
    assert found == "ONNX needs onnx, which is not installed"


def test_time_goes_to_the_innermost_part(monkeypatch: Any) -> None:
    now = iter(range(100))
    monkeypatch.setattr(parts.time, "perf_counter", lambda: next(now))
    clock = parts.Clock()
    with clock:
        with clock.part("attention"), clock.part("linear layers"):
            pass
        with clock.part("selection"), clock.part("linear layers"):
            pass
    # Readings: enter; begin and end of every part; exit.
    assert clock.seconds == {
        parts.OTHER: 3, "attention": 2, "linear layers": 1, "selection": 3,
    }  # fmt: skip


def test_parts_are_those_of_the_layers_that_ran() -> None:
    subject = models.deit_small(torch.device("cpu"), (0.7,), tiny=True)
    x = torch.randn(2, 3, 64, 32)
    dense = optimize(subject.dense, batch=2)
    before = EngineStage.__call__
    found = parts.shares(lambda: dense(x), 3)
    assert found["selection"] == 0.0
    assert min(found[name] for name in ("linear layers", "attention", "LayerNorm", "other")) > 0.0
    assert sum(found.values()) == pytest.approx(1.0)
    assert EngineStage.__call__ is before


def test_training_steps_train_and_the_policy_is_another_attention(monkeypatch: Any) -> None:
    subject = models.deit_small(torch.device("cpu"), (0.7,), tiny=True)
    x = torch.randn(2, 3, 64, 32)
    steps = training.steps(subject.dense, subject.pruned[0.7], x)
    assert list(steps) == [training.DENSE, training.OURS, training.POLICY]
    calls: list[str] = []
    own, policy = blocks.masked_attention, training.policy_softmax

    def seen(name: str, function: Any) -> Any:
        return lambda *a, **k: calls.append(name) or function(*a, **k)

    monkeypatch.setattr(blocks, "masked_attention", seen("own", own))
    monkeypatch.setattr(training, "policy_softmax", seen("policy", policy))
    for name, wanted in ((training.DENSE, []), (training.OURS, ["own"] * 3),
                         (training.POLICY, ["policy"] * 3)):  # fmt: skip
        calls.clear()
        monkeypatch.setattr(training, "RATE", 0.1)
        first, second = steps[name](), steps[name]()
        assert calls == wanted * 2
        assert second != first
    assert all(p.grad is None for p in subject.pruned[0.7].parameters())


def test_the_policy_softmax_is_that_of_the_released_code() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 1, 4, 8, dtype=torch.float64).unbind(0)
    keep = torch.tensor([[1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    found = training.policy_softmax(q, k, v, keep, scale=0.5)[0, 0]
    for i in range(4):
        logits = [0.5 * float(q[0, 0, i] @ k[0, 0, j]) for j in range(4)]
        raised = [
            math.exp(logits[j] - max(logits)) * (1.0 if i == j else float(keep[0, j]))
            for j in range(4)
        ]
        weights = [(w + 1e-6 / 4) / (sum(raised) + 1e-6) for w in raised]
        expected = sum(w * v[0, 0, j] for j, w in enumerate(weights))
        torch.testing.assert_close(found[i], expected, rtol=1e-12, atol=1e-12)


def test_the_two_masked_steps_agree_where_the_policy_is_tame() -> None:
    subject = models.deit_small(torch.device("cpu"), (0.7,), tiny=True)
    x = torch.randn(2, 3, 64, 32)
    steps = training.steps(subject.dense, subject.pruned[0.7], x)
    torch.manual_seed(1)
    ours = steps[training.OURS]()
    torch.manual_seed(1)
    # The epsilon of the policy softmax leaks a millionth of a row.
    assert steps[training.POLICY]() == pytest.approx(ours, rel=1e-4)


def rows(dtype: str, batch: int, times: dict[str, float]) -> list[dict[str, Any]]:
    shape = {
        "op": "model", "mode": "engine", "dtype": dtype, "batch": batch, "heads": 6, "tokens": 128,
        "dim": 64, "label": f"batch {batch}", "device_type": "cpu", "status": "model",
        "cache": "hot", "roof_gflops": 300.0, "cosine": 0.5, "overlap": (0.25, 1.0),
        "images_per_second": 7.0,
    }  # fmt: skip
    return [
        {**shape, "provider": name, "p50_ms": ms, "ratio": times[models.DENSE] / ms,
         "flops": 30 if "keep" not in name else 20, "roof_share": 0.8}
        for name, ms in times.items()
    ]  # fmt: skip


@pytest.mark.parametrize(("dense", "verdict"), [(39.0, "met"), (37.0, "missed")])
def test_goals_are_judged_by_their_batch(dense: float, verdict: str) -> None:
    fast, ragged = models.engine(0.7), models.adaptive(0.7)
    times = {models.DENSE: dense, models.DENSE_ENGINE: 15.0, fast: 10.0, ragged: 11.0}
    found = rows("float32", 32, times) + rows("float32", 1, {models.DENSE: 10.0, fast: 3.6})
    outcomes = {
        (o.goal.name, o.goal.dtypes): o for o in goals.evaluate(found, model_goals.model_goals())
    }
    assert outcomes["keep 0.7, times dense timm, eager", ("float32",)].verdict == verdict
    assert outcomes["keep 0.7, share of the roof", ("float32",)].verdict == "missed"
    assert outcomes["keep 0.7, share of the roof", ("bfloat16",)].verdict == "not measured"
    both = ("float32", "bfloat16")
    over = outcomes["keep 0.7, times the dense engine over the ratio of FLOPs", both]
    assert over.worst == pytest.approx(1.0)
    latency = outcomes["keep 0.7, batch 1, time over dense timm, eager", ("float32",)]
    assert (latency.worst, latency.verdict) == (pytest.approx(0.36), "missed")
    assert outcomes["keep 0.7, adaptive times fixed", both].verdict == "missed"


def test_the_table_says_what_was_measured() -> None:
    (section,) = tables.models_of(rows("int8", 8, {models.DENSE: 40.0, models.engine(0.7): 10.0}))
    assert section.title == "batch 8, int8; best product 300 GFLOP/s"
    assert section.body[1][1:5] == ["10.00", "7.000", "4.00", "2e-08"]
    assert section.body[1][5:] == ["80", "5.00", "0.500000", "25.0 100.0"]


def test_the_best_rival_counts() -> None:
    fast = models.engine(0.7)
    rivals = {models.plain(0.7): 24.0, models.plain(models.FUSE): 22.0}
    rivals |= {models.plain(models.MERGE): 30.0, models.engine(models.FUSE): 12.0}
    rivals |= {models.engine(models.MERGE): 10.4}
    found = rows("float32", 32, {models.DENSE: 40.0, fast: 10.0, **rivals})
    outcomes = [
        o for o in goals.evaluate(found, model_goals.model_goals()) if "best of" in o[0].name
    ]
    worst = {(o.goal.name, o.goal.dtypes): (round(o.worst, 2), o.verdict) for o in outcomes}
    name = "keep 0.7, times the best of prune, fuse and merge without the engine"
    assert worst[name, ("float32",)] == (2.2, "met")
    name = "keep 0.7, times the best of fuse and merge through the engine"
    assert worst[name, ("float32", "bfloat16")] == (1.04, "missed")


def test_goals_of_training() -> None:
    shape = {"op": "training", "mode": "step", "dtype": "float32", "batch": 8, "heads": 6,
             "tokens": 128, "dim": 64, "label": "batch 8", "device_type": "cpu", "status": "way",
             "cache": "hot"}  # fmt: skip
    found = [
        {**shape, "provider": name, "p50_ms": ms, "peak_bytes": peak}
        for name, ms, peak in ((training.DENSE, 9.0, 50), (training.OURS, 10.0, 60),
                               (training.POLICY, 14.0, 100))
    ]  # fmt: skip
    outcomes = {o.goal.name: o for o in goals.evaluate(found, model_goals.model_goals())}
    expected = {
        "masks, times the eager policy softmax": (1.4, "met"),
        "masks, times the dense step": (0.9, "missed"),
        "masks, peak memory over that of the eager policy softmax": (0.6, "met"),
        "masks, peak memory over that of the dense step": (1.2, "missed"),
    }
    for name, (worst, verdict) in expected.items():
        assert (outcomes[name].worst, outcomes[name].verdict) == (pytest.approx(worst), verdict)


def test_the_rate_of_each_library_stands_in_a_table() -> None:
    given = rows("float32", 8, {models.DENSE: 4.0, models.engine(0.7): 1.0})
    for row in given:
        row["products"] = {"torch 1 x 2 x 3": 150.0, "torch 4 x 5 x 6": 285.0,
                           "packed oneDNN 1 x 2 x 3": 300.0}  # fmt: skip
    (line,) = tables.products_of(given).body
    assert line == ["batch 8, float32", "285", "300", "0.95"]


def test_parts_stand_in_a_table() -> None:
    given = rows("float32", 1, {models.DENSE: 4.0, models.engine(0.7): 1.0})
    given[1]["shares"] = {"other": 0.15, "attention": 0.1, "linear layers": 0.75}
    section = tables.parts_of(given)
    assert section.head == ["case", "model", "linear layers", "attention", "other"]
    assert section.body == [["batch 1, float32", "keep 0.7, engine", "75", "10", "15"]]


@pytest.mark.parametrize(("load", "told"), [(2.4, False), (2.6, True), (None, False)])
def test_a_busy_machine_is_told(load: float | None, told: bool) -> None:
    origin = {
        "device": "a machine", "threads": 2, "date": "2030-01-01", "git_revision": "0" * 40,
        "versions": {"torch": "3", "triton": "4", "timm": "2"}, "load_average": load,
    }  # fmt: skip
    assert ("other programs running (load 2.6)" in tables.origin_line(origin)) == told


@pytest.mark.parametrize(
    ("provider", "method", "way"),
    [
        (models.DENSE, "prune", "plain"),
        (models.COMPILED, "prune", "compiled"),
        (models.DENSE_ENGINE, "prune", "engine"),
        (models.DENSE_ONNX, "prune", "onnxruntime"),
        (models.plain(0.7), "prune", "plain"),
        (models.engine(models.FUSE), "fuse", "engine"),
        (models.plain(models.MERGE), "merge", "plain"),
        (models.adaptive(0.7), "adaptive", "engine"),
    ],
)
def test_a_point_of_the_plot(provider: str, method: str, way: str) -> None:
    row = {"provider": provider, "flops": 12e9, "images_per_second": 20.0, "p50_ms": 200.0}
    assert model_page.point(row) == (method, way, pytest.approx(3.0), 20.0)


def test_the_plot_has_a_panel_for_every_batch(tmp_path: Path) -> None:
    times = {models.DENSE: 9.0, models.DENSE_ENGINE: 8.0, models.engine(0.7): 6.0}
    given = rows("float32", 1, times) + rows("float32", 8, times)
    assert model_page.plot(given, tmp_path / "deep" / "plot.png")
    assert (tmp_path / "deep" / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert not model_page.plot(rows("int8", 8, times), tmp_path / "other.png")
