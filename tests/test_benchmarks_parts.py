"""The parts of the benchmarks that need no clock: costs, grid, gate, goals, tables, records."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import check, cost, goals, memory, problems, records, report, shapes, tables
from benchmarks.peers import PEERS, base
from benchmarks.peers.base import Bound, Peer
from benchmarks.roof import Roof
from kernels import reference

CPU = torch.device("cpu")


def row(**changes: Any) -> dict[str, Any]:
    """A row as a run writes it."""
    return {
        "op": "dense_attention",
        "mode": "forward",
        "dtype": "float32",
        "batch": 32,
        "heads": 6,
        "tokens": 129,
        "dim": 64,
        "label": "B=32 H=6 N=129 D=64",
        "device_type": "cpu",
        "flops": 10**9,
        "bytes": 10**7,
        "provider": "ours",
        "tags": ["own"],
        "status": "ok",
        "cache": "hot",
        "clock": "host",
        "rounds": 9,
        "p20_ms": 9.0,
        "p50_ms": 10.0,
        "p80_ms": 12.0,
        "wall_ms": 10.0,
        "gflops": 100.0,
        "gbytes": 1.0,
        "roof_share": 0.4,
        "peak_bytes": 6_000_000,
        "memory_method": "resident",
        "host_us": 21.0,
        "ratio_to_best_peer": 2.5,
        "roof": {"gflops": 500.0, "product": "mm 2048", "copy_gbytes": 20.0, "fill_gbytes": 10.0},
        "origin": {
            "device": "a machine",
            "threads": 2,
            "versions": {"torch": "2.0", "triton": "3.0", "timm": "1.0"},
            "date": "2030-01-02T03:04:05+00:00",
            "git_revision": "0123456789abcdef",
            "command": "pytest benchmarks",
            "load_average": 0.1,
        },
        **changes,
    }


def peer(name: str, milliseconds: float, *tags: str, **changes: Any) -> dict[str, Any]:
    return row(provider=name, p50_ms=milliseconds, tags=list(tags), **changes)


def test_operations_are_those_that_torch_counts() -> None:
    lengths, heads, dim = (5, 9), 3, 8
    forward = backward = 0
    for tokens in lengths:
        q, k, v = (torch.randn(heads, tokens, dim, requires_grad=True) for _ in range(3))
        with FlopCounterMode(display=False) as counter:
            o = (q @ k.transpose(1, 2)).softmax(-1) @ v
        forward += counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            o.sum().backward()
        # What is not kept between the two is computed again: one product.
        backward += counter.get_total_flops() + 2 * tokens * tokens * heads * dim
    found = {mode: cost.attention(mode, lengths, heads, dim, 4).flops for mode in cost.PRODUCTS}
    assert found == {
        "forward": forward,
        "gathered": forward,
        "backward": backward,
        "step": forward + backward,
    }


def test_bytes_are_inputs_read_once_and_outputs_written_once() -> None:
    tensor = (5 + 9) * 3 * 8 * 2
    assert cost.attention("forward", (5, 9), 3, 8, 2).bytes == 4 * tensor
    assert cost.attention("backward", (5, 9), 3, 8, 2).bytes == 8 * tensor
    assert cost.attention("step", (5, 9), 3, 8, 2).bytes == 12 * tensor
    assert cost.select(2, 10, 14, 4).bytes == 2 * 10 * 4 + 2 * 10 + 14 * 8 + 3 * 4
    assert cost.rows("gather", 7, 20, 16, 4).bytes == 2 * 7 * 64 + 7 * 8
    assert cost.rows("gather_norm", 7, 20, 16, 4).bytes == 3 * 7 * 64 + 7 * 8
    assert cost.rows("scatter", 7, 20, 16, 4).bytes == 7 * 64 + 7 * 8 + 20 * 64


def test_the_roof_is_the_slower_of_arithmetic_and_traffic() -> None:
    roof = Roof(flops=100.0, product="mm", copy=10.0, fill=5.0)
    assert roof.seconds(1000, 10) == 10.0
    assert roof.seconds(1000, 500) == 50.0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("op", shapes.OPERATORS)
def test_the_grid_has_distinct_cases_and_full_holds_more(op: str, device: str) -> None:
    default, full = (shapes.cases(op, device, extent) for extent in ("default", "full"))
    for cases in (default, full):
        names = [case.name for case in cases]
        assert len(set(names)) == len(names)
    assert len(full) > len(default)
    small = shapes.cases(op, device, "tiny")
    assert {case.mode for case in small} == {case.mode for case in default}
    if op in ("ragged_attention", "dense_attention"):
        for dtype in (torch.float32, torch.bfloat16):
            lengths = {c.tokens for c in default if (c.mode, c.dtype) == ("forward", dtype)}
            assert lengths >= {33, 63, 97, 129, 197}


def test_every_goal_covers_a_case_of_the_default_subset() -> None:
    for goal in goals.GOALS:
        cases = [
            row(
                op=case.op,
                mode=case.mode,
                dtype=shapes.dtype_name(case.dtype),
                batch=case.batch,
                heads=case.heads,
                tokens=case.tokens,
                dim=case.dim,
                device_type=goal.device,
                cache=goal.cache,
            )
            for op in goal.ops
            for case in shapes.cases(op, goal.device, "default")
        ]
        assert any(goal.covers(case) for case in cases), goal.name


CASES = [
    case
    for op in shapes.OPERATORS
    for case in shapes.cases(op, "cpu", "tiny")
    if case.dtype == torch.float32
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}-{case.mode}")
def test_the_gate_lets_right_peers_through_and_stops_wrong_ones(case: shapes.Case) -> None:
    inputs = problems.make(case, CPU)
    peers = [p for p in PEERS[case.op] if not p.modes or case.mode in p.modes]
    passed = [p for p in peers if check.admit(p, case, inputs, CPU).status == "ok"]
    assert len(passed) >= 2
    for right in passed:

        def spoiled(inputs: Any, case: shapes.Case, right: Peer = right) -> Bound:
            bound = right.bind(inputs, case)

            def named(found: Any) -> dict[str, torch.Tensor]:
                tensors = bound.named(found)
                last = list(tensors)[-1]
                value = tensors[last].clone().flatten()
                value[0] = ~value[0] if value.dtype == torch.bool else value[0] + 1
                return {**tensors, last: value.view(tensors[last].shape)}

            return Bound(bound.call, named)

        wrong = Peer("spoiled", spoiled, context=right.context, definition=right.definition)
        verdict = check.admit(wrong, case, inputs, CPU)
        assert verdict.status == "wrong", right.name
        assert verdict.bound is None
        assert verdict.reason


def test_peers_of_the_compiler_are_right_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    found = {}
    for case in CASES:
        # of a shape that no other test compiles: the peers keep what they compiled
        case = replace(case, slow_peers=True, tokens=7)
        inputs = problems.make(case, CPU)
        for peer in PEERS[case.op]:
            if case.mode in (peer.modes or (case.mode,)) and peer.reasons is not base.none:
                verdict = check.admit(peer, case, inputs, CPU)
                found[case.op, case.mode, peer.name] = verdict.status, verdict.reason
    for op, mode, name in (
        ("masked_attention", "forward", "compiled policy softmax"),
        ("masked_attention", "backward", "compiled policy softmax"),
        ("masked_attention", "step", "compiled policy softmax"),
        ("masked_attention", "forward", "FlexAttention, captured mask"),
        ("ragged_attention", "forward", "FlexAttention, documents"),
        ("dense_attention", "forward", "FlexAttention, documents"),
        ("gather", "gather_norm", "compiled index_select and LayerNorm"),
    ):
        assert found[op, mode, name] == ("ok", ""), (op, mode, name)
    missing = found["masked_attention", "step", "FlexAttention, captured mask"]
    assert missing == ("unavailable", "torch has no backward of FlexAttention on a CPU")


def test_a_peer_that_raises_is_unavailable_and_ours_is_an_error() -> None:
    case = CASES[0]

    def fail(inputs: Any, case: shapes.Case) -> Bound:
        raise NotImplementedError("no kernel for this\nand more")

    verdict = check.admit(Peer("theirs", fail), case, problems.make(case, CPU), CPU)
    assert (verdict.status, verdict.reason) == ("unavailable", "no kernel for this and more")
    with pytest.raises(NotImplementedError):
        check.admit(Peer("ours", fail, frozenset({"own"})), case, problems.make(case, CPU), CPU)


def test_the_augmented_key_gives_the_gradient_of_the_mask() -> None:
    from benchmarks.peers import augmented

    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 11, 8) for _ in range(3))
    keep = (torch.rand(2, 11) < 0.6).float()
    grad = problems.gate(torch.randn(2, 3, 11, 8), keep)
    found = []
    for function in (augmented.attend, reference.masked_attention):
        leaves = [x.detach().requires_grad_() for x in (q, k, v, keep)]
        found.append(torch.autograd.grad(function(*leaves), leaves, grad))
    for name, a, b in zip(problems.GRADIENTS, *found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)


def test_a_goal_is_decided_by_its_worst_case() -> None:
    goal = goals.Goal(
        "speed",
        "cpu",
        ("dense_attention",),
        "forward",
        ("float32",),
        (33, 197),
        goals.speed("sdpa", "explicit"),
        bound=2.0,
        stretch=3.0,
    )

    def verdict(*rows: dict[str, Any]) -> tuple[str, float]:
        (outcome,) = goals.evaluate(rows, [goal])
        return outcome.verdict, outcome.worst

    far = {"label": "B=1 H=6 N=197 D=64", "tokens": 197}
    fast = [row(), peer("SDPA", 40.0, "sdpa"), peer("mark", 1.0, "yardstick")]
    assert verdict(*fast) == ("met, and the stretch", 4.0)
    assert verdict(*fast, peer("bmm", 25.0, "explicit")) == ("met", 2.5)
    slow = [row(**far), peer("SDPA", 15.0, "sdpa", **far)]
    assert verdict(*fast, *slow) == ("missed", 1.5)
    cold = [row(cache="cold"), peer("SDPA", 40.0, "sdpa", cache="cold")]
    assert verdict(row(), *cold)[0] == "not measured"
    assert math.isnan(verdict(row())[1])
    assert goals.evaluate([row(device_type="cuda")], [goal]) == []


def test_figures_of_goals() -> None:
    line = {
        r["provider"]: r
        for r in (
            row(dtype="float32"),
            peer("eager", 30.0, "eager", peak_bytes=24_000_000),
            peer("SDPA", 8.0, "unmasked", "yardstick"),
        )
    }
    assert goals.speed("eager")(line) == 3.0
    assert goals.time_of("unmasked")(line) == pytest.approx(1.25)
    assert goals.memory_of("eager")(line) == 0.25
    assert goals.field("host_us")(line) == 21.0
    assert goals.speed("flex")(line) is None
    vector = 32 * 6 * 129
    line["ours"]["peak_bytes"] = 4 * vector * 64 * 4 + 3 * vector * 4
    assert goals.scratch_vectors(line) == 3.0


def test_tables_show_ratios_wrong_peers_and_reasons() -> None:
    rows = [
        row(),
        row(cache="cold", ratio_to_best_peer=1.75),
        peer("SDPA", 25.0, "sdpa", peak_bytes=7_000_000),
        peer("mark", 1.0, "yardstick"),
        {**row(provider="bad", tags=[], status="wrong", reason="o | is off"), "cache": None},
        {**row(provider="gone", tags=[], status="unavailable", reason="not here"), "cache": None},
    ]
    summary, against, absent = tables.sections(rows)
    (line,) = summary.body
    named = dict(zip(summary.head, line, strict=True))
    assert named["best peer"] == "SDPA"
    assert (named["ratio hot"], named["ratio cold"]) == ("2.50", "1.75")
    assert (named["roof %"], named["peak MB"], named["its MB"]) == ("40", "6.000", "7.000")
    assert dict(zip(against.head, against.body[0], strict=True))["SDPA"] == "2.50"
    assert dict(zip(against.head, against.body[0], strict=True))["mark"] == "0.10"
    assert ["bad", "dense_attention", "forward", "wrong", "o / is off"] in absent.body
    assert ["gone", "dense_attention", "forward", "unavailable", "not here"] in absent.body
    for section in (summary, against, absent):
        lines = tables.markdown(section)
        assert len({text.count("|") for text in lines if text.startswith("|")}) == 1
        assert len(tables.text(section)) == 1 + len(section.body)


def test_numbers_have_three_digits_and_no_exponent() -> None:
    found = [tables.number(x) for x in (0, 1234.5, 123.4, 12.34, 1.234, 0.1234, 0.01234)]
    assert found == ["0", "1234", "123", "12.34", "1.234", "0.123", "0.012"]


def test_new_rows_replace_those_of_the_same_case_and_keep_the_others(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.json"
    other = row(tokens=33, label="B=32 H=6 N=33 D=64")
    records.save(path, [row(), peer("SDPA", 25.0, "sdpa"), other])
    content = json.loads(path.read_text(encoding="utf-8"))
    assert len(content["origins"]) == 1
    again = row(p50_ms=5.0, origin={**row()["origin"], "date": "2031-01-01T00:00:00+00:00"})
    records.save(path, records.merge(records.load(path), [again]))
    found = records.load(path)
    assert sorted((r["tokens"], r["p50_ms"], r["origin"]["date"][:4]) for r in found) == [
        (33, 10.0, "2030"),
        (129, 5.0, "2031"),
    ]
    assert records.slug("NVIDIA H200 (80 GB)") == "nvidia-h200-80-gb"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="`make bench` writes one"):
        records.load(path)


def test_the_report_writes_between_its_marks_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, page = tmp_path / "m.json", tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text(f"a\n{report.BEGIN}\nold\n{report.END}\nb\n", encoding="utf-8")
    points = itertools.product((33, 129), (("ours", "own"), ("SDPA", "sdpa")), ("hot", "cold"))
    records.save(
        results,
        [
            row(tokens=n, label=f"N={n}", provider=name, tags=[tag], cache=cache)
            for n, (name, tag), cache in points
        ],
    )
    summary = tmp_path / "summary.md"
    summary.write_text(f"c\n{report.GOALS_BEGIN}\n{report.GOALS_END}\nd\n", encoding="utf-8")
    words = [str(results), "--page", str(page), "--images", str(tmp_path / "docs" / "images")]
    whole = tmp_path / "docs" / "models.md"
    whole.write_text(f"e\n{report.MODELS_BEGIN}\n{report.MODELS_END}\nf\n", encoding="utf-8")
    words += ["--summary", str(summary), "--models", str(whole)]
    for _ in range(2):
        assert report.main(words) == 0
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"a\n{report.BEGIN}\n## a machine\n")
        assert text.endswith(f"{report.END}\nb\n")
        assert "`pytest benchmarks`" in text
        assert text.count("### goals") == 1
        assert "](images/benchmarks-m-forward.png)" in text
    assert (tmp_path / "docs" / "images" / "benchmarks-m-forward.png").is_file()
    short = summary.read_text(encoding="utf-8")
    assert short.startswith(f"c\n{report.GOALS_BEGIN}\n* ")
    assert short.endswith(f"{report.GOALS_END}\nd\n")
    assert short.count("### goals") == 1
    assert whole.read_text(encoding="utf-8").startswith(f"e\n{report.MODELS_BEGIN}\n")
    results.write_text("[]", encoding="utf-8")
    assert report.main(words) == 2
    assert "not a file of benchmark results" in capsys.readouterr().err


@pytest.mark.skipif(not memory.can_measure_resident(), reason="no high-water mark here")
def test_resident_memory_of_known_tensors() -> None:
    size = 24 << 20
    # An earlier, higher mark does not count.
    memory.peak(lambda: torch.ones(size), CPU)
    found = memory.peak(lambda: [torch.ones(size >> 3) for _ in range(2)], CPU)
    assert found.method == "resident"
    assert size <= found.bytes + (1 << 20)
    assert found.bytes <= size + (2 << 20)


def test_allocated_memory_of_known_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "can_measure_resident", lambda: False)

    def call() -> torch.Tensor:
        torch.ones(1 << 20)
        return torch.ones(1 << 18)

    found = memory.peak(call, CPU)
    assert (found.bytes, found.method) == (4 << 20, "torch allocator")
