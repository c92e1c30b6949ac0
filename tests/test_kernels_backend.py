"""Which versions of Triton the kernels run on, and what serves where one is too old."""

import importlib.metadata
from collections.abc import Iterator

import pytest
import torch

from kernels import _backend

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand in for a recent GPU and an installed triton, and remember no version."""
    monkeypatch.setattr(_backend, "_capability", lambda device: (9, 0))
    monkeypatch.setattr(_backend, "has_triton", lambda: True)
    _backend.triton_version.cache_clear()
    yield
    _backend.triton_version.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, distribution: str, version: str) -> None:
    def find(name: str) -> str:
        if name != distribution:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", find)


def default() -> str:
    return _backend.choose("op", None, CUDA, {"triton": lambda: _backend.triton_reasons(CUDA)})


@pytest.mark.parametrize("distribution", ["triton", "pytorch-triton", "triton-rocm"])
@pytest.mark.parametrize("version", ["2.3.1", "3.2.0", "3.5.1+git0a1b2c3d"])
def test_an_older_triton_leaves_the_reference_and_says_why(
    monkeypatch: pytest.MonkeyPatch, distribution: str, version: str
) -> None:
    install(monkeypatch, distribution, version)
    assert default() == "reference"
    reason = f"triton {version} is installed, the kernels need 3.6 or later"
    assert _backend.triton_reasons(CUDA) == [reason]


@pytest.mark.parametrize("version", ["3.6.0", "3.6.0+git1", "3.9.0", "3.10.0", "4.0.0"])
def test_triton_from_3_6_serves(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    install(monkeypatch, "triton", version)
    assert default() == "triton"


@pytest.mark.parametrize("version", ["unknown", "3"])
def test_a_version_that_cannot_be_told_is_tried(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    install(monkeypatch, "triton", version)
    assert default() == "triton"
    _backend.triton_version.cache_clear()
    install(monkeypatch, "a fork of triton", "3.2.0")
    assert default() == "triton"


def test_without_triton_there_is_one_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "triton", "3.2.0")
    monkeypatch.setattr(_backend, "has_triton", lambda: False)
    assert _backend.triton_reasons(CUDA) == ["triton is not installed"]
