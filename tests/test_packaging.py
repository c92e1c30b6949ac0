"""The wheel, installed into a clean environment and used from another directory."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

USE = """
import json, sys
import kernels, torch
assert "triton" not in sys.modules and "timm" not in sys.modules
import reid, sparse_vit, timm
model = sparse_vit.sparsify(
    timm.create_model("vit_tiny_patch16_224", img_size=(64, 32), num_classes=3), keep_ratio=0.5
).eval()
out = model(torch.rand(2, 3, 64, 32))
print(json.dumps([list(out.shape), kernels.__file__, sparse_vit.__file__, reid.__file__]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(out),
            str(REPOSITORY),
        ],
        check=True,
        timeout=300,
    )
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_packages_recipes_and_weights_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.partition("/")[0] for name in names}
    assert {"kernels", "sparse_vit", "reid"} <= top
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "kernels",
        "sparse_vit",
        "reid",
    }
    for needed in (
        "kernels/py.typed",
        "kernels/_cpu/src/attention.h",
        "kernels/_cpu/src/binding.cpp",
        "sparse_vit/py.typed",
        "reid/py.typed",
        "reid/recipes/demo.yaml",
        "reid/assets/mini_backbone.safetensors",
    ):
        assert needed in names
    assert (REPOSITORY / "reid/assets/mini_backbone.safetensors").stat().st_size <= 5_000_000


def test_the_wheel_asks_for_what_it_needs(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [n for n in archive.namelist() if n.endswith("METADATA")]
    text = archive.read(name).decode()
    assert re.search(r"^Name: sparse[-_]vit$", text, re.MULTILINE)
    assert "Requires-Python: >=3.10" in text
    base = {
        re.match(r"[\w-]+", line.partition(": ")[2]).group()
        for line in text.splitlines()
        if line.startswith("Requires-Dist") and "extra ==" not in line
    }
    assert base == {"numpy", "safetensors", "timm", "torch", "ninja", "triton"}
    extras = set(re.findall(r"^Provides-Extra: (\w+)$", text, re.MULTILINE))
    assert extras == {"reid", "export", "test", "bench", "dev"}


def test_a_clean_environment_can_use_it_from_another_directory(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=300)
    python = home / "bin" / "python"
    run = {"check": True, "timeout": 300, "cwd": tmp_path, "capture_output": True, "text": True}
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "TRITON_INTERPRET")
    }
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)],
        env=environment,
        **run,
    )
    # the dependencies, gigabytes of them, are lent by the environment of the tests
    site = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        env=environment,
        **run,
    ).stdout.strip()
    (Path(site) / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    result = subprocess.run([str(python), "-c", USE], env=environment, **run)
    shape, *files = __import__("json").loads(result.stdout.strip().splitlines()[-1])
    assert shape == [2, 3]
    for file in files:
        assert file.startswith(str(home)), file
    help_text = subprocess.run([str(home / "bin" / "reid"), "--help"], env=environment, **run)
    assert "reproduce" in help_text.stdout
    recipe = subprocess.run(
        [
            str(python),
            "-c",
            "from reid.config import load_config; print(load_config('demo').method)",
        ],
        env=environment,
        **run,
    )
    assert recipe.stdout.strip() == "sureid"
