"""The package as a whole: its name, its version, what importing it costs."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import kernels

ROOT = Path(kernels.__file__).parents[1]


def test_version_is_the_distribution_s_and_below_the_namesake_s():
    text = (ROOT / "sparse_vit" / "_version.py").read_text(encoding="utf-8")
    assert kernels.__version__ == re.search(r'__version__ = "([^"]+)"', text).group(1)
    assert tuple(int(part) for part in kernels.__version__.split(".")[:2]) < (0, 9)


def test_import_needs_neither_triton_nor_the_other_packages():
    code = (
        "import sys; sys.modules['triton'] = None; import kernels, torch; "
        "x = torch.ones(1, 1, 2, 4); kernels.masked_attention(x, x, x, torch.ones(1, 2)); "
        "print([m for m in ('sparse_vit', 'reid', 'timm') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_namesake_is_warned_about(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: {"kernels": "0.15.2"}[name])
    with pytest.warns(RuntimeWarning, match=r"`kernels` 0\.15\.2 .*`sparse-vit` .*pip uninstall"):
        kernels._warn_about_namesake()


def test_public_names_exist():
    assert all(callable(getattr(kernels, name)) for name in kernels.__all__)
