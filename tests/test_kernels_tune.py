"""The tuner: files read, merged and chosen from; the search, with a clock of the test's own."""

import json
import re
import warnings
from functools import partial

import pytest
import torch

from kernels import _launch, tune
from kernels._launch import attention, choice, search, tuned
from kernels._launch.workloads import OPERATORS, Size, workloads

NAME = attention.MASKED_FORWARD
ARCH = "sm_90"
MEASURED = _launch.LaunchConfig(128, 32, 8, 2)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The user's tuning file, which does not exist yet."""
    monkeypatch.delenv(tuned.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    choice.forget()
    yield tmp_path / "sparse-vit" / f"tuning-{ARCH}.json"
    choice.forget()


def entry(tokens: int = 129, config=MEASURED, **changes) -> dict:
    found = tuned.Entry(NAME, tokens, 64, 2, config)
    return {**tuned.row(found, microseconds=1.0), **changes}


def document(*entries: dict, **changes) -> dict:
    return {"schema": tuned.SCHEMA, "architecture": ARCH, "entries": list(entries), **changes}


def forward(tokens: int = 129, head_dim: int = 64, itemsize: int = 2, arch: str = ARCH):
    return _launch.attention_forward(tokens, head_dim, itemsize, arch)


def test_what_was_measured_serves_lengths_near_it_and_nothing_else(path):
    default = {n: forward(n) for n in (60, 86, 129, 192, 200, 257)}
    other = forward(129, 128), forward(129, 64, 4), forward(129, arch="sm_80")
    tuned.write(path, document(entry()))
    choice.forget()
    assert forward(129) == forward(86) == forward(192) == MEASURED
    assert forward(129, 48) == MEASURED
    assert {n: forward(n) for n in (60, 200, 257)} == {n: default[n] for n in (60, 200, 257)}
    assert (forward(129, 128), forward(129, 64, 4), forward(129, arch="sm_80")) == other
    assert forward(129, arch="interpreter") == default[129]
    config, reason = _launch.explain(NAME, _launch.Problem(140, 64, 2, ARCH))
    assert config == MEASURED
    assert reason == f"{path}, measured at 129 tokens"


def test_the_nearest_length_by_ratio_serves(path):
    short, long = MEASURED, _launch.LaunchConfig(64, 128, 8, 1)
    tuned.write(path, document(entry(130, short), entry(180, long)))
    assert forward(152) == short
    assert forward(154) == long


def test_a_configuration_that_is_no_candidate_at_another_length_is_not_taken(path):
    tuned.write(
        path,
        document(
            {
                **entry(140),
                "kernel": attention.MASKED_GRAD,
                "config": {
                    "block_m": 16,
                    "block_n": 128,
                    "num_warps": 4,
                    "num_stages": 1,
                    "tail": 0,
                },
            }
        ),
    )
    assert _launch.attention_grad(144, 64, 2, ARCH).num_warps == 4
    # 200 tokens are more than 128 keys and a smaller tail hold.
    assert _launch.attention_grad(200, 64, 2, ARCH) is None


def test_another_kernel_may_be_measured_as_faster(path):
    assert _launch.attention_grad(129, 64, 2, ARCH) is not None
    choice.forget()
    tuned.write(path, document(entry(config=None, kernel=attention.MASKED_GRAD)))
    assert _launch.attention_grad(129, 64, 2, ARCH) is None


def test_an_override_comes_before_the_file(path):
    tuned.write(path, document(entry()))
    other = _launch.LaunchConfig(16, 16, 1, 1)
    with _launch.override({NAME: other}):
        assert forward() == other
    assert forward() == MEASURED


def test_the_variable_names_the_file_or_switches_it_off(path, tmp_path, monkeypatch):
    default = forward()
    named = tmp_path / "mine.json"
    tuned.write(named, document(entry()))
    monkeypatch.setenv(tuned.VARIABLE, str(named))
    choice.forget()
    assert forward() == MEASURED
    monkeypatch.setenv(tuned.VARIABLE, "off")
    choice.forget()
    assert forward() == default


def test_no_file_is_no_problem_unless_it_was_named(path, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forward()
    monkeypatch.setenv(tuned.VARIABLE, str(tmp_path / "absent.json"))
    choice.forget()
    with pytest.warns(UserWarning, match=r"absent\.json is not used"):
        forward()


def _config(**changes) -> dict:
    good = {"block_m": 64, "block_n": 64, "num_warps": 4, "num_stages": 2, "tail": 0}
    return {"config": {**good, **changes}}


BAD = {
    "not JSON": "{",
    "a list": json.dumps([]),
    "schema": json.dumps(document(schema=99)),
    "measured on 'gfx942'": json.dumps(document(architecture="gfx942")),
    "list named 'entries'": json.dumps(document(entries={})),
    "entry 1 is not a mapping": json.dumps(document(entry(), 3)),
    "kernel 'nonsense'": json.dumps(document(entry(kernel="nonsense"))),
    "tokens is 0": json.dumps(document(entry(tokens=0))),
    "head_dim is True": json.dumps(document(entry(head_dim=True))),
    "itemsize is None": json.dumps(document(entry(itemsize=None))),
    "config is 3": json.dumps(document(entry() | {"config": 3})),
    r"blocks are \(48, 64\)": json.dumps(document(entry() | _config(block_m=48))),
    r"blocks are \(64, '64'\)": json.dumps(document(entry() | _config(block_n="64"))),
    "num_warps is 3": json.dumps(document(entry() | _config(num_warps=3))),
    "num_stages is 0": json.dumps(document(entry() | _config(num_stages=0))),
    "tail is 8": json.dumps(document(entry() | _config(tail=8))),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_file_warns_once_with_its_name_and_the_remedy(path, reason):
    default = forward()
    choice.forget()
    path.parent.mkdir()
    path.write_text(BAD[reason])
    expected = "schema" if reason == "a list" else reason
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert forward() == default
        assert forward(65) is not None
        assert _launch.attention_grad(65, 64, 2, ARCH) is not None
    assert len(caught) == 1
    message = str(caught[0].message)
    assert re.search(expected, message)
    assert str(path) in message
    assert "python -m kernels.tune" in message
    assert f"{tuned.VARIABLE}=off" in message


def test_merging_keeps_what_was_not_measured_again():
    old = document(entry(65), entry(129), date="yesterday")
    new = document(entry(129, microseconds=2.0), entry(33), date="today")
    merged = tuned.merge(old, new)
    found = [(e["tokens"], e["microseconds"]) for e in merged["entries"]]
    assert found == [(33, 1.0), (65, 1.0), (129, 2.0)]
    assert merged["date"] == "today"
    assert tuned.merge(None, new) == new


SIZE = Size(batch=2, heads=2, head_dim=16, dtype=torch.float32)
SMALL = {
    "masked_attention": 17,
    "ragged_attention": 17,
    "select_tokens": 9,
    "gather_rows": 9,
}


def _first(count, name, problem, configs):
    return list(configs)[:count]


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_workload_runs_is_checked_and_gives_entries_that_are_read(operator):
    cpu = torch.device("cpu")
    for workload in workloads(operator, SMALL[operator], SIZE, ARCH):
        arguments = workload.inputs(2, cpu)

        def compare(calls, inputs):
            for call in calls:
                call(inputs[0])
            return [2.0 - i / 10 for i in range(len(calls))]

        fits = partial(_first, 2)
        found = search.tune(workload, [arguments], arguments, compare, fits)
        assert [e["kernel"] for e in found] == list(workload.kernels)
        entries = tuned.parse(document(*found), ARCH, frozenset(_launch.KERNELS))
        for e, row in zip(entries, found, strict=True):
            candidates = choice.candidates(e.kernel, workload.problem)
            # The clock of the test makes the last one the fastest.
            assert e.config == candidates[row["candidates"] - 1]
            assert row["microseconds"] == pytest.approx(2e6 - (row["candidates"] - 1) * 1e5)


def _masked():
    return workloads("masked_attention", 17, SIZE, ARCH)[0]


def _tune(seconds, count=2, workload=None):
    workload = workload or _masked()
    arguments = workload.inputs(2, torch.device("cpu"))
    return search.tune(
        workload,
        [arguments],
        arguments,
        lambda calls, _: seconds[: len(calls)],
        partial(_first, count),
    )


def test_the_default_stays_where_the_gain_is_within_the_noise():
    first, second = choice.candidates(NAME, _masked().problem)[:2]
    assert _tune([1.0, 0.99])[0]["config"]["num_warps"] == first.num_warps
    assert _tune([1.0, 0.99])[0]["microseconds"] == 1e6
    chosen = _tune([1.0, 0.9])[0]
    assert _launch.LaunchConfig(**chosen["config"]) == second
    assert chosen["default_microseconds"] == 1e6


def test_configurations_with_wrong_results_are_left_out(monkeypatch):
    wrong = choice.candidates(NAME, _masked().problem)[1]
    right = search.Workload.run

    def run(self, arguments):
        outputs = right(self, arguments)
        return (outputs[0] * 1.001, outputs[1]) if forward(17, 16, 4) == wrong else outputs

    monkeypatch.setattr(search.Workload, "run", run)
    assert _tune([1.0, 0.1, 0.1], 3)[0]["candidates"] == 2
    monkeypatch.setattr(search.Workload, "run", lambda *a: (right(*a)[0] * torch.nan, right(*a)[1]))
    with pytest.raises(RuntimeError, match=r"no configuration of masked_attention\.forward_kernel"):
        _tune([1.0, 1.0])


def test_a_configuration_that_cannot_be_launched_is_left_out(monkeypatch):
    right = search.Workload.run
    wrong = choice.candidates(NAME, _masked().problem)[0]

    def run(self, arguments):
        if forward(17, 16, 4) == wrong:
            raise RuntimeError("out of resource: shared memory")
        return right(self, arguments)

    monkeypatch.setattr(search.Workload, "run", run)
    found = _tune([1.0])[0]
    assert found["candidates"] == 1
    assert found["default_microseconds"] is None
    assert _launch.LaunchConfig(**found["config"]) != wrong


def test_two_passes_are_tuned_with_the_one_pass_kernel_out_of_the_way():
    workload = workloads("masked_attention", 17, Size(2, 2, 16, torch.float16), ARCH)[1]
    seen = []

    def compare(calls, inputs):
        calls[0](inputs[0])
        seen.append(_launch.KERNELS)
        return [1.0] * len(calls)

    used = []
    original = search.Workload.run

    class Spy(search.Workload):
        def run(self, arguments):
            used.append(_launch.attention_grad(17, 16, 2, ARCH) is None)
            return original(self, arguments)

    spy = Spy(**{name: getattr(workload, name) for name in workload.__dataclass_fields__})
    arguments = spy.inputs(2, torch.device("cpu"))
    search.tune(spy, [arguments], arguments, compare, partial(_first, 1))
    assert used == [True, True, True, True, False, False]


def test_an_operator_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="operator 'nonsense' does not exist"):
        workloads("nonsense", 9, SIZE, ARCH)


def test_the_command_lists_and_dries_without_a_gpu(path, capsys):
    assert tune.main(["--list", "--tokens", "129", "--arch", ARCH]) == 0
    assert f"{NAME}: 64x64" in capsys.readouterr().out
    tuned.write(path, document(entry()))
    choice.forget()
    assert tune.main(["--list", "--tokens", "129", "--arch", ARCH]) == 0
    assert f"{NAME}: 128x32 warps 8 stages 2 ({path}, measured at 129 tokens)" in (
        capsys.readouterr().out
    )
    arguments = ["--dry-run", "--tokens", "129", "--operators", "gather_rows", "--arch", "gfx942"]
    assert tune.main(arguments) == 0
    output = capsys.readouterr().out
    assert "candidates: " in output
    assert "attention" not in output


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_the_command_says_that_there_is_no_gpu(path, capsys):
    assert tune.main([]) == 2
    assert "no CUDA or ROCm device" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize("arguments", [["--tokens", "0"], ["--dtype", "int8"]])
def test_the_command_refuses_what_makes_no_sense(arguments, capsys):
    with pytest.raises(SystemExit):
        tune.main(arguments)
    assert arguments[0] in capsys.readouterr().err
