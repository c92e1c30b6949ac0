"""Ahead-of-time compilation of the Triton kernels for machines that need not be present.

A covering set: every kernel on every architecture, with another configuration on each, so that
together they take most of what the launcher can choose. `python -m benchmarks.resources` compiles
all of it.
"""

import pytest

from kernels._launch import ARCHITECTURES, KERNELS, aot, catalog

pytestmark = pytest.mark.aot

ARCHS = list(ARCHITECTURES)
SHARED = {
    "sm_80": 163 << 10,
    "sm_86": 99 << 10,
    "sm_89": 99 << 10,
    "sm_90": 227 << 10,
    "sm_100": 227 << 10,
    "gfx942": 64 << 10,
}


@pytest.fixture(autouse=True)
def _compiles() -> None:
    from kernels._triton import common

    assert not common.INTERPRETED, (
        "these tests compile Triton kernels: run `make test`, or `pytest -m aot` in a process "
        "without TRITON_INTERPRET"
    )


def _covered(arch: str, name: str) -> aot.Unit:
    entries = catalog.entries(arch, name)
    return entries[ARCHS.index(arch) % len(entries)].unit


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("arch", ARCHS)
def test_kernels_compile_without_spills_within_shared_memory_and_on_the_tensor_cores(arch, name):
    unit = _covered(arch, name)
    resources = aot.measure(unit)
    assert aot.faults(unit, resources) == [], str(unit)
    assert resources.shared <= SHARED[arch]
    assert 0 < resources.registers <= (512 if arch == "gfx942" else 255)


@pytest.mark.parametrize("name", [name for name in KERNELS if "attention" in name])
def test_tiles_of_129_tokens_and_64_channels_reach_the_warpgroup_instructions(name):
    problem = catalog.Problem(129, 64, 2, "sm_90")
    config = catalog.shipped(name, problem)[0]
    unit = catalog.unit_of(name, problem, config, "bf16")
    assert aot.expected_instructions(unit) == {"wgmma"}
    resources = aot.measure(unit)
    assert resources.instructions["wgmma"] > 0
    assert aot.faults(unit, resources) == []


def test_a_kernel_that_spills_is_reported():
    problem = catalog.Problem(64, 128, 2, "sm_90")
    name = "masked_attention.forward_kernel"
    unit = catalog.unit_of(name, problem, catalog.LaunchConfig(64, 64, 1, 1), "bf16")
    resources = aot.measure(unit)
    assert resources.spilled > 0
    assert any("local memory" in fault for fault in aot.faults(unit, resources))
