"""Launch configurations: pure functions, overrides, and the catalog of what can be chosen."""

import threading
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import _launch
from kernels._gpu.launching import jit
from kernels._launch import aot, attention, catalog, rows
from kernels._launch.aot import Resources, Unit

ARCHS = list(_launch.ARCHITECTURES)
ATTENTION = [name for name in _launch.KERNELS if "attention" in name]
ONE_PASS = [attention.MASKED_GRAD, attention.RAGGED_GRAD]

problems = st.builds(
    _launch.Problem,
    tokens=st.integers(1, 600),
    head_dim=st.integers(1, 128),
    itemsize=st.sampled_from([2, 4]),
    arch=st.sampled_from([*ARCHS, "interpreter", "sm_75", "sm_87", "sm_103", "sm_120", "gfx90a"]),
)


def choose(name: str, p: _launch.Problem) -> _launch.LaunchConfig | None:
    return _launch.choose(name, p.tokens, p.head_dim, p.itemsize, p.arch)


@given(problem=problems)
@settings(max_examples=300, deadline=None)
def test_every_configuration_is_well_formed_and_a_candidate(problem):
    for name in ATTENTION:
        config = choose(name, problem)
        assert config in _launch.candidates(name, problem)
        if config is None:
            assert name in ONE_PASS
            continue
        for block in (config.block_m, config.block_n):
            assert 16 <= block <= 128
            assert block & (block - 1) == 0
        assert config.num_warps in (1, 2, 4, 8)
        assert config.tail == 0 or 16 <= config.tail < config.block_n


@given(problem=problems)
@settings(max_examples=300, deadline=None)
def test_the_one_pass_kernels_hold_every_key(problem):
    config = choose(attention.MASKED_GRAD, problem)
    if config is not None:
        assert problem.tokens <= config.block_n + _launch.tail(problem.tokens, config.block_n)
    config = choose(attention.RAGGED_GRAD, problem)
    if config is not None:
        assert problem.tokens <= config.block_n + config.tail


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", ATTENTION)
def test_tiles_grow_with_the_sequence_and_waste_less_than_half_of_their_rows(name, arch):
    for itemsize in (2, 4):
        keys = [
            0 if config is None else config.block_n
            for tokens in range(1, 65)
            for config in [_launch.choose(name, tokens, 64, itemsize, arch)]
        ]
        assert keys == sorted(keys)
        if itemsize == 2 and "two_pass" not in name:
            for tokens, block in enumerate(keys, 1):
                assert block < max(2 * tokens, 17)


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 33, 64, 65, 96, 97, 128, 129, 197, 577, 600])
@pytest.mark.parametrize("block", [16, 32, 64, 128])
def test_tail_holds_what_whole_blocks_leave_over(tokens, block):
    rows = _launch.tail(tokens, block)
    left = tokens % block
    if rows == 0:
        assert left == 0 or 2 * left > block or block == 16
    else:
        assert max(left, 16) <= rows < block
        assert rows == 16 or left > rows // 2


def test_sequences_of_129_tokens_cost_144_rows_and_columns():
    config = _launch.attention_forward(129, 64, 2, "sm_90")
    for block in (config.block_m, config.block_n):
        whole = 129 // block * block
        assert whole + _launch.tail(129, block) == 144
    held = _launch.attention_grad(129, 64, 2, "sm_90")
    assert held.block_n + _launch.tail(129, held.block_n) == 144


def test_an_override_holds_for_every_problem_and_thread_and_ends_with_its_block():
    name = attention.MASKED_FORWARD
    before = _launch.attention_forward(129, 64, 2, "sm_90")
    other = _launch.LaunchConfig(16, 16, 1, 1)
    seen = []
    with _launch.override({name: other}):
        for tokens in (1, 129, 600):
            assert _launch.attention_forward(tokens, 64, 2, "gfx942") == other
        thread = threading.Thread(
            target=lambda: seen.append(_launch.attention_forward(129, 64, 2, "sm_90"))
        )
        thread.start()
        thread.join()
        assert _launch.explain(name, _launch.Problem(129, 64, 2, "sm_90")) == (other, "override")
        inner = _launch.LaunchConfig(32, 32, 2, 1)
        with _launch.override({name: inner, attention.MASKED_GRAD: None}):
            assert _launch.attention_forward(129, 64, 2, "sm_90") == inner
            assert _launch.attention_grad(16, 64, 2, "sm_90") is None
        assert _launch.attention_forward(129, 64, 2, "sm_90") == other
        assert _launch.attention_grad(16, 64, 2, "sm_90") is not None
    assert seen == [other]
    assert _launch.attention_forward(129, 64, 2, "sm_90") == before


def test_an_override_ends_when_its_block_raises():
    before = _launch.attention_forward(129, 64, 2, "sm_90")
    with (
        pytest.raises(RuntimeError, match=r"masked_attention\.forward_kernel .* 129 tokens"),
        _launch.override({attention.MASKED_FORWARD: None}),
    ):
        _launch.attention_forward(129, 64, 2, "sm_90")
    assert _launch.attention_forward(129, 64, 2, "sm_90") == before


def test_an_override_of_an_unknown_kernel_names_the_known_ones():
    with (
        pytest.raises(ValueError, match=r"no kernel named nonsense; choose among masked_attention"),
        _launch.override({"nonsense": None}),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("sm_87", "sm_80"),
        ("sm_103", "sm_100"),
        ("sm_120", "sm_89"),
        ("sm_75", "sm_89"),
        ("gfx90a", "gfx942"),
        ("interpreter", "sm_90"),
    ],
)
def test_an_architecture_that_is_not_listed_has_the_limits_of_its_like(name, known):
    assert _launch.limits(name).name == known


def test_a_processor_stands_for_the_interpreter():
    assert _launch.architecture(torch.device("cpu")) == "interpreter"


def test_the_catalog_is_small_and_holds_every_choice():
    total = 0
    for arch in ARCHS:
        entries = catalog.entries(arch)
        total += len(entries)
        assert len({str(e.unit) for e in entries}) == len(entries)
        held = {_key(e.unit) for e in entries}
        for name in ATTENTION:
            for tokens in (1, 16, 17, 33, 50, 65, 97, 129, 145, 197, 257, 577):
                for head_dim in (24, 64, 80):
                    for dtype, itemsize in catalog.DTYPES.items():
                        problem = _launch.Problem(tokens, head_dim, itemsize, arch)
                        config = choose(name, problem)
                        if config is not None:
                            unit = catalog.unit_of(name, problem, config, dtype)
                            assert _key(unit) in held
    assert total <= 300


def test_the_catalog_reaches_the_limits_and_holds_every_kind_of_call():
    widest = {"norm_kernel": 0, "norm_grad_kernel": 0}
    for name in widest:
        for entry in catalog.entries("sm_90", f"gather.{name}"):
            widest[name] = max(widest[name], dict(entry.unit.constants)["BLOCK_C"])
    assert set(widest.values()) == {rows.MAX_CHANNELS}
    for arch in ARCHS:
        units = [entry.unit for entry in catalog.entries(arch, "select_kernel")]
        kinds = {(dict(u.constants)["COUNTED"], dict(u.constants)["BLOCK_N"]) for u in units}
        assert kinds >= {(False, rows.MAX_TOKENS), (True, rows.MAX_TOKENS)}
    masked = [entry.unit for entry in catalog.entries("sm_90", "masked_attention")]
    for kind in ("forward", "grad"):
        some = [unit for unit in masked if kind in unit.kernel.split(".")[1]]
        assert any(dict(unit.constants)["PRECISION"] == "tf32" for unit in some)
        assert any(("keep_ptr", "*fp32") in unit.types for unit in some)
        assert any(not unit.types for unit in some)


def test_products_that_may_round_are_expected_on_the_tensor_cores():
    for entry in catalog.entries("sm_80", "masked_attention.forward"):
        unit = entry.unit
        true = unit.dtype == "fp32" and dict(unit.constants)["PRECISION"] == "ieee"
        assert ("mma" in aot.expected_instructions(unit)) != true


def _key(unit: Unit) -> tuple:
    constants = dict(unit.constants)
    blocks = (constants.get("BLOCK_M"), constants.get("BLOCK_N"))
    return unit.kernel, unit.dtype, unit.num_warps, unit.num_stages, *blocks


class Recorder:
    """Stands in for a kernel and keeps what it was launched with."""

    def __init__(self) -> None:
        self.launches: list[dict] = []

    def __getitem__(self, grid):
        return lambda *arguments, **constants: self.launches.append(constants)


@pytest.fixture
def recorders(monkeypatch):
    found = {}
    for name in _launch.KERNELS:
        module, function = name.split(".")
        found[name] = Recorder()
        monkeypatch.setattr(jit(module), function, found[name])
    return found


OPTIONS = {"num_warps", "num_stages", "enable_fp_fusion"}


def _check_constants(recorders, name, problem, **flags):
    (launch,) = recorders[name].launches
    config = choose(name, problem)
    assert (launch["num_warps"], launch["num_stages"]) == (config.num_warps, config.num_stages)
    unit = catalog.unit_of(name, problem, config, "bf16")
    given = {key: value for key, value in launch.items() if key not in OPTIONS}
    assert given == dict(unit.constants) | flags
    recorders[name].launches.clear()


@pytest.mark.parametrize("tokens", [5, 33, 129, 150, 257])
@pytest.mark.parametrize("head_dim", [32, 48, 128])
def test_the_catalog_compiles_what_masked_attention_launches(recorders, tokens, head_dim):
    from kernels._gpu import masked_attention

    problem = _launch.Problem(tokens, head_dim, 2, "interpreter")
    q = torch.zeros(1, 2, tokens, head_dim, dtype=torch.float16)
    keep = torch.ones(1, tokens, dtype=torch.bool)
    o, lse = masked_attention.forward(q, q, q, keep, 1.0)
    _check_constants(recorders, attention.MASKED_FORWARD, problem)
    for needs_keep in (True, False):
        masked_attention.backward(q, q, q, q, keep, o, lse, 1.0, needs_keep)
        if choose(attention.MASKED_GRAD, problem):
            _check_constants(recorders, attention.MASKED_GRAD, problem, KEEP_GRAD=needs_keep)
        else:
            _check_constants(recorders, attention.MASKED_GRAD_QUERIES, problem)
            _check_constants(recorders, attention.MASKED_GRAD_KEYS, problem, KEEP_GRAD=needs_keep)
        assert not any(recorder.launches for recorder in recorders.values())


@pytest.mark.parametrize("tokens", [5, 33, 129, 150, 257])
@pytest.mark.parametrize("gathered", [False, True])
def test_the_catalog_compiles_what_ragged_attention_launches(recorders, tokens, gathered):
    from kernels._gpu import ragged_attention

    problem = _launch.Problem(tokens, 64, 2, "interpreter")
    q = torch.zeros(tokens, 2, 64, dtype=torch.float16)
    cu = torch.tensor([0, tokens], dtype=torch.int32)
    rows = torch.arange(tokens) if gathered else None
    o, lse = ragged_attention.forward(q, q, q, cu, tokens, rows, 1.0)
    _check_constants(recorders, attention.RAGGED_FORWARD, problem, GATHERED=gathered)
    ragged_attention.backward(q, q, q, q, cu, tokens, rows, o, lse, 1.0)
    if choose(attention.RAGGED_GRAD, problem):
        _check_constants(recorders, attention.RAGGED_GRAD, problem, GATHERED=gathered)
    else:
        _check_constants(recorders, attention.RAGGED_GRAD_QUERIES, problem, GATHERED=gathered)
        _check_constants(recorders, attention.RAGGED_GRAD_KEYS, problem, GATHERED=gathered)
    # The gradients of gathered rows are added up by kernels of their own.
    assert not any(recorders[name].launches for name in ATTENTION)


def test_launchers_follow_an_override(recorders):
    from kernels._gpu import masked_attention, ragged_attention

    q = torch.zeros(1, 2, 129, 32, dtype=torch.float16)
    keep, lse = torch.ones(1, 129, dtype=torch.bool), torch.zeros(1, 2, 129)
    packed, cu = q[0].transpose(0, 1), torch.tensor([0, 129], dtype=torch.int32)
    other = _launch.LaunchConfig(128, 16, 8, 1)
    calls = {
        attention.MASKED_FORWARD: lambda: masked_attention.forward(q, q, q, keep, 1.0),
        attention.MASKED_GRAD_QUERIES: lambda: masked_attention.backward(
            q, q, q, q, keep, q, lse, 1.0, True
        ),
        attention.RAGGED_FORWARD: lambda: ragged_attention.forward(
            packed, packed, packed, cu, 129, None, 1.0
        ),
        attention.RAGGED_GRAD_QUERIES: lambda: ragged_attention.backward(
            packed, packed, packed, packed, cu, 129, None, packed, lse[0], 1.0
        ),
    }
    two_passes = {attention.MASKED_GRAD: None, attention.RAGGED_GRAD: None}
    for name, call in calls.items():
        # Before and after, so that nothing is remembered that was chosen otherwise.
        for config in (choose(name, _launch.Problem(129, 32, 2, "interpreter")), other, None):
            changes = two_passes if config is None else {**two_passes, name: config}
            with _launch.override(changes):
                call()
            launch = recorders[name].launches.pop()
            if config is not None:
                tile = launch["BLOCK_M"], launch["BLOCK_N"], launch["num_warps"]
                assert tile == (config.block_m, config.block_n, config.num_warps)
    for call in calls.values():
        call()
    assert len(recorders[attention.MASKED_GRAD].launches) == 1
    assert len(recorders[attention.RAGGED_GRAD].launches) == 1


@pytest.mark.parametrize("tokens", [3, 17, 40])
def test_a_wide_block_holds_a_short_sequence(tokens):
    from kernels._eager import masked_attention as eager
    from kernels._gpu import masked_attention

    q, k, v, grad = torch.randn(4, 2, tokens, 2, 16).transpose(2, 3)
    keep = torch.rand(2, tokens) < 0.5
    o, lse = eager.forward(q, k, v, keep, 0.25)
    arguments = grad, q, k, v, keep, o, lse, 0.25, True
    expected = eager.backward(*arguments)
    with _launch.override({attention.MASKED_GRAD: _launch.LaunchConfig(16, 128, 4, 1)}):
        found = masked_attention.backward(*arguments)
    for x, right in zip(found, expected, strict=True):
        torch.testing.assert_close(x, right)


def test_the_catalog_gives_every_constant_of_every_kernel():
    for entry in catalog.entries("sm_90"):
        unit = entry.unit
        module, function = unit.kernel.split(".")
        arguments = getattr(jit(module), function).arg_names
        types = aot.signature_of(arguments, dict(unit.constants), unit.dtype)
        assert list(types) == list(arguments)
        assert {name for name in types if types[name] == "constexpr"} == dict(unit.constants).keys()


def test_a_constant_that_is_missing_or_unknown_is_named():
    with pytest.raises(ValueError, match=r"\['BLOCK'\], the catalog gives \['BLOCKS'\]"):
        aot.signature_of(["x_ptr", "BLOCK"], {"BLOCKS": 1}, "bf16")


UNIT = Unit(
    attention.MASKED_FORWARD,
    (("BLOCK_M", 64), ("BLOCK_N", 64), ("PRECISION", "ieee")),
    4,
    2,
    "bf16",
    "sm_90",
)
GOOD = Resources(128, 40960, 0, {"wgmma": 8}, 1.0)


def test_faults_are_found():
    assert aot.faults(UNIT, GOOD) == []
    assert "8 bytes" in aot.faults(UNIT, replace(GOOD, spilled=8))[0]
    assert "limit" in aot.faults(UNIT, replace(GOOD, shared=(227 << 10) + 1))[0]
    assert aot.faults(UNIT, replace(GOOD, shared=227 << 10)) == []
    assert "wgmma" in aot.faults(UNIT, replace(GOOD, instructions={"mma": 8}))[0]
    assert aot.faults(replace(UNIT, arch="sm_80"), replace(GOOD, instructions={"mma": 8})) == []
    assert "mfma" in aot.faults(replace(UNIT, arch="gfx942"), replace(GOOD, instructions={}))[0]
    assert aot.faults(replace(UNIT, dtype="fp32"), replace(GOOD, instructions={})) == []


@pytest.mark.parametrize(
    ("arch", "registers", "shared", "warps", "programs"),
    [
        ("sm_90", 128, 0, 4, 4),
        ("sm_90", 129, 0, 4, 3),
        ("sm_90", 32, 0, 4, 16),
        ("sm_90", 32, 113 << 10, 4, 2),
        ("sm_90", 32, 114 << 10, 4, 1),
        ("sm_90", 16, 0, 1, 32),
        ("sm_86", 40, 0, 4, 12),
        ("sm_86", 255, 49 << 10, 4, 2),
        ("gfx942", 128, 0, 4, 4),
        ("gfx942", 128, 33 << 10, 4, 1),
    ],
)
def test_occupancy_follows_the_scarcest_resource(arch, registers, shared, warps, programs):
    resources = Resources(registers, shared, 0, {}, 0.0)
    limits = _launch.ARCHITECTURES[arch]
    assert resources.programs(limits, warps) == programs
    assert resources.occupancy(limits, warps) == programs * warps / limits.warps
