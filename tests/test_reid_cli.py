"""The command line: each kind of bad input is one clear line and a non-zero exit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reid.cli import main
from reid.config import load_config
from reid.run import train

HTS = ["loss.kd_feature=0", "loss.kd_logits=0"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a verb that must fail and return its one line."""
    code = main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("reid: error:")]
    assert code == 2
    assert len(lines) == 1, error
    assert "Traceback" not in error
    return lines[0]


@pytest.fixture
def copy(tiny_data: str, tmp_path: Path) -> Path:
    """A copy of the tiny data set that a test may damage."""
    shutil.copytree(tiny_data, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def model(tiny_data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained sparse model."""
    out = tmp_path_factory.mktemp("model")
    overrides = [
        f"data.root={tiny_data}",
        "data.size=tiny",
        "data.image_size=[64, 32]",
        "model.init=scratch",
        "train.identities=4",
        "train.instances=2",
        "train.max_steps=1",
    ]
    train(load_config("demo", [*overrides, *HTS]), out / "run", evaluate_after=False)
    return out / "run" / "model.safetensors"


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, contextlib, io\n"
        "from reid.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):\n"
        "    main(['--help'])\n"
        "heavy = {'torch', 'timm', 'cv2', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "print(sorted(heavy), 'reproduce' in out.getvalue())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert result.stdout.strip() == "[] True"


def test_a_missing_extra_is_named(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    line = refused(capsys, "train", "demo", "--out", tmp_path)
    assert "sparse-vit[reid]" in line


def test_missing_and_empty_folders(capsys, tmp_path, tiny_overrides) -> None:
    line = refused(
        capsys,
        "train",
        "demo",
        *tiny_overrides,
        "data.name=market1501",
        f"data.root={tmp_path / 'absent'}",
        "--out",
        tmp_path / "run",
    )
    assert "absent" in line
    (tmp_path / "empty").mkdir()
    line = refused(capsys, "data", "check", "market1501", "--root", tmp_path / "empty")
    assert "empty" in line


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0truncated"])
def test_a_damaged_image_is_named(capsys, copy, tmp_path, tiny_overrides, content) -> None:
    victim = sorted((copy / "bounding_box_train").glob("*.jpg"))[3]
    victim.write_bytes(content)
    line = refused(
        capsys,
        "train",
        "demo",
        *tiny_overrides,
        *HTS,
        f"data.root={copy}",
        "--out",
        tmp_path / "run",
    )
    assert victim.name in line
    assert main(["data", "check", "occluded-mannequins", "--root", str(copy)]) == 1
    assert victim.name in capsys.readouterr().out


def test_a_wrong_file_name_is_named(capsys, copy, tmp_path, tiny_overrides) -> None:
    victim = sorted((copy / "query").glob("*.jpg"))[0]
    victim.rename(victim.with_name("holiday.jpg"))
    line = refused(
        capsys,
        "train",
        "demo",
        *tiny_overrides,
        *HTS,
        f"data.root={copy}",
        "--out",
        tmp_path / "run",
    )
    assert "holiday.jpg" in line


def test_no_match_between_query_and_gallery(capsys, copy, tmp_path, tiny_overrides) -> None:
    for path in (copy / "bounding_box_test").glob("*.jpg"):
        if not path.name.startswith(("0000", "-1")):
            path.rename(path.with_name("9" + path.name[1:]))
    line = refused(
        capsys,
        "train",
        "demo",
        *tiny_overrides,
        *HTS,
        f"data.root={copy}",
        "--out",
        tmp_path / "run",
    )
    assert "quer" in line


def test_one_identity_cannot_be_trained(capsys, copy, tmp_path, tiny_overrides) -> None:
    images = sorted((copy / "bounding_box_train").glob("*.jpg"))
    for path in images:
        if path.name[:4] != images[0].name[:4]:
            path.unlink()
    line = refused(
        capsys,
        "train",
        "demo",
        *tiny_overrides,
        *HTS,
        f"data.root={copy}",
        "--out",
        tmp_path / "run",
    )
    assert "identit" in line


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.keep_ratio=1.2", "(0, 1]"),
        ("model.stages=[3, 40]", "40"),
        ("data.image_size=[60, 32]", "(64, 32)"),
        ("model.backbone=resnet50", "resnet50"),
        ("model.backbone=vit_smal_patch16_224", "vit_smal"),
        ("model.init=absent.safetensors", "absent.safetensors"),
        ("modell.init=scratch", "did you mean 'model'"),
    ],
)
def test_a_configuration_that_cannot_work(
    capsys, tmp_path, tiny_overrides, override, words
) -> None:
    line = refused(
        capsys, "train", "demo", *tiny_overrides, *HTS, override, "--out", tmp_path / "run"
    )
    assert words in line


def test_weights_of_another_architecture_are_named(capsys, model, tmp_path, tiny_overrides) -> None:
    from reid.engine import checkpoint

    tensors, _ = checkpoint.load(model)
    prefix = "backbone."
    backbone = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
    backbone["blocks.0.mlp.fc1.weight"] = backbone["blocks.0.mlp.fc1.weight"][:100]
    checkpoint.save(tmp_path / "other.safetensors", backbone, {})
    line = refused(
        capsys,
        "train",
        "demo",
        *tiny_overrides,
        *HTS,
        f"model.init={tmp_path / 'other.safetensors'}",
        "--out",
        tmp_path / "run",
    )
    assert "blocks.0.mlp.fc1.weight" in line


def test_a_checkpoint_that_is_none(capsys, tmp_path, tiny_data) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"hello")
    verbs = ["evaluate", "extract", "visualize"]
    for verb in verbs:
        extra = [] if verb == "evaluate" else ["--out", tmp_path / "out"]
        line = refused(
            capsys,
            verb,
            "--checkpoint",
            path,
            "--data",
            "occluded-mannequins",
            "--root",
            tiny_data,
            *extra,
        )
        assert "model.safetensors" in line


def test_evaluate_extract_and_visualize_agree(capsys, model, tiny_data, tmp_path) -> None:
    data = ["--data", "occluded-mannequins", "--root", tiny_data]
    for split in ("query", "gallery"):
        out = tmp_path / f"{split}.npz"
        arguments = ["extract", "--checkpoint", str(model), *data, "--split", split]
        assert main([*arguments, "--out", str(out)]) == 0
        with np.load(out, allow_pickle=False) as file:
            norms = np.linalg.norm(file["features"], axis=1)
        np.testing.assert_allclose(norms, 1.0, atol=1e-5)
    assert (
        main(["evaluate", "--checkpoint", str(model), *data, "--json", str(tmp_path / "a.json")])
        == 0
    )
    assert (
        main(
            [
                "evaluate",
                "--features",
                str(tmp_path / "query.npz"),
                str(tmp_path / "gallery.npz"),
                "--json",
                str(tmp_path / "b.json"),
            ]
        )
        == 0
    )
    scores = [json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json")]
    assert scores[0] == scores[1]
    assert (
        main(
            [
                "visualize",
                "--checkpoint",
                str(model),
                *data,
                "--count",
                "2",
                "--out",
                str(tmp_path / "pictures"),
            ]
        )
        == 0
    )
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"kept_tokens.png", "ranked_lists.png"}
    assert "wrote" in capsys.readouterr().out


def test_a_folder_of_images_is_enough_to_extract(model, tiny_data, tmp_path) -> None:
    out = tmp_path / "features.npz"
    folder = Path(tiny_data) / "query"
    assert (
        main(["extract", "--checkpoint", str(model), "--images", str(folder), "--out", str(out)])
        == 0
    )
    with np.load(out, allow_pickle=False) as file:
        assert len(file["features"]) == len(list(folder.glob("*.jpg")))


def test_evaluation_does_not_write_over_what_it_cannot_replace(
    capsys, model, tiny_data, tmp_path
) -> None:
    (tmp_path / "file").write_text("mine")
    line = refused(
        capsys,
        "evaluate",
        "--checkpoint",
        model,
        "--data",
        "occluded-mannequins",
        "--root",
        tiny_data,
        "--json",
        tmp_path / "file" / "out.json",
    )
    assert "cannot write" in line
    assert (tmp_path / "file").read_text() == "mine"
