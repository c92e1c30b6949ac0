"""What bad input gets: one clear line that names the file and the remedy, or a list of what is
left out."""

import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from reid.cli import main
from reid.config import load_config
from reid.run import train

NAME = "occluded-mannequins"
TRUNCATED = "0011_c2s1_001000_01.jpg"
SPLITS = ("bounding_box_train", "query", "bounding_box_test")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a verb that must fail and return its one line."""
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("reid: error:")]
    assert len(lines) == 1, error
    return lines[0]


@pytest.fixture
def copy(tiny_data: str, tmp_path: Path) -> Path:
    """The three folders of the tiny data set, which a test may damage."""
    for split in SPLITS:
        shutil.copytree(Path(tiny_data) / split, tmp_path / "copy" / split)
    return tmp_path / "copy"


@pytest.fixture
def damaged(copy: Path) -> dict[str, Path]:
    """One image of each split that cannot be read."""
    victims = {split: sorted((copy / split).glob("0*.jpg"))[-1] for split in SPLITS}
    contents = (b"", b"a text file\n", victims["bounding_box_test"].read_bytes()[:-300])
    for victim, content in zip(victims.values(), contents, strict=True):
        victim.write_bytes(content)
    return victims


@pytest.fixture(scope="module")
def model(tiny_data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "run"
    settings = [
        f"data.root={tiny_data}",
        "data.size=tiny",
        "data.image_size=[64, 32]",
        "model.init=scratch",
        "train.identities=4",
        "train.instances=2",
        "train.max_steps=1",
        "loss.kd_feature=0",
        "loss.kd_logits=0",
    ]
    train(load_config("demo", settings), out, evaluate_after=False)
    return out / "model.safetensors"


def training(copy: Path, overrides: list[str], out: Path) -> list[object]:
    rest = ["loss.kd_feature=0", "loss.kd_logits=0", "train.max_steps=1", "data.name=mannequins"]
    return ["train", "demo", *overrides, *rest, f"data.root={copy}", "--out", out]


def test_unreadable_images_stop_training_and_name_the_option(
    capsys, copy, damaged, tiny_overrides, tmp_path
) -> None:
    line = refused(capsys, *training(copy, tiny_overrides, tmp_path / "run"))
    assert damaged["bounding_box_train"].name in line
    assert "data.skip_bad=true" in line


def test_training_leaves_them_out_on_request_and_lists_them(
    capsys, copy, damaged, tiny_overrides, tmp_path
) -> None:
    arguments = training(copy, [*tiny_overrides, "data.skip_bad=true"], tmp_path / "run")
    assert main([str(argument) for argument in arguments]) == 0
    assert "left out 3 unreadable images" in capsys.readouterr().err
    listed = (tmp_path / "run" / "left_out.txt").read_text().splitlines()
    assert [Path(line.split(" ")[0]).name for line in listed] == [
        path.name for path in damaged.values()
    ]
    scores = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert scores["queries"] == len(list((copy / "query").glob("*.jpg"))) - 1


def test_a_clean_set_leaves_nothing_out(capsys, copy, tiny_overrides, tmp_path) -> None:
    from reid.data import load

    assert load("mannequins", copy, skip_bad=True) == load("mannequins", copy)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("archived", [False, True])
def test_evaluation_and_extraction(capsys, model, copy, damaged, tmp_path, archived) -> None:
    root = copy
    if archived:
        root = tmp_path / "set.tar"
        with tarfile.open(root, "w") as archive:
            for split in SPLITS:
                archive.add(copy / split, split)
    data = ["--checkpoint", model, "--data", "mannequins", "--root", root]
    queries = len(list((copy / "query").glob("*.jpg")))
    runs = {
        "evaluate": ["--json", tmp_path / "scores.json"],
        "extract": ["--out", tmp_path / "query.npz"],
        "visualize": ["--out", tmp_path / "pictures", "--count", 2],
    }
    for verb, more in runs.items():
        line = refused(capsys, verb, *data, *more)
        assert damaged["query"].name in line
        assert "--skip-bad" in line
        assert main([str(word) for word in (verb, *data, *more, "--skip-bad")]) == 0
        assert "left out 3 unreadable images" in capsys.readouterr().err
    assert json.loads((tmp_path / "scores.json").read_text())["queries"] == queries - 1
    with np.load(tmp_path / "query.npz") as file:
        assert len(file["features"]) == queries - 1
    lists = ("scores.json.left_out.txt", "query.npz.left_out.txt", "pictures/left_out.txt")
    for name in lists:
        assert len((tmp_path / name).read_text().splitlines()) == 3


def test_a_folder_without_identities(capsys, model, copy, damaged, tmp_path) -> None:
    out = tmp_path / "features.npz"
    arguments = ["extract", "--checkpoint", model, "--images", copy / "query", "--out", out]
    line = refused(capsys, *arguments)
    assert damaged["query"].name in line
    assert "--skip-bad" in line
    assert main([str(argument) for argument in (*arguments, "--skip-bad")]) == 0
    with np.load(out) as file:
        assert len(file["features"]) == len(list((copy / "query").glob("*.jpg"))) - 1
    assert damaged["query"].name in out.with_name("features.npz.left_out.txt").read_text()


def test_nothing_is_left(capsys, model, copy, tmp_path) -> None:
    for path in (copy / "query").glob("*.jpg"):
        path.write_bytes(b"text")
    data = ["--checkpoint", model, "--data", "mannequins", "--root", copy, "--skip-bad"]
    line = refused(capsys, "evaluate", *data)
    assert "no image of the query split" in line
    out = ["--images", copy / "query", "--skip-bad", "--out", tmp_path / "x.npz"]
    assert "none of the" in refused(capsys, "extract", "--checkpoint", model, *out)


def test_one_readable_training_identity(capsys, copy, tiny_overrides, tmp_path) -> None:
    images = sorted((copy / "bounding_box_train").glob("*.jpg"))
    for path in images:
        if path.name[:4] != images[0].name[:4]:
            path.write_bytes(b"text")
    overrides = [*tiny_overrides, "data.skip_bad=true"]
    line = refused(capsys, *training(copy, overrides, tmp_path / "run"))
    assert "one training identity" in line


def test_an_empty_gallery(capsys, copy) -> None:
    for path in (copy / "bounding_box_test").glob("*"):
        path.unlink()
    line = refused(capsys, "data", "check", "mannequins", "--root", copy)
    assert "bounding_box_test holds no images" in line


def test_one_camera_only(capsys, model, tmp_path) -> None:
    for split, names in zip(SPLITS, (("0001", "0002"), ("0003",), ("0003",)), strict=True):
        (tmp_path / "set" / split).mkdir(parents=True)
        for number, pid in enumerate(names):
            (tmp_path / "set" / split / f"{pid}_c1s1_{number:06d}_00.jpg").write_bytes(b"x")
    data = ["--checkpoint", model, "--data", "mannequins", "--root", tmp_path / "set"]
    line = refused(capsys, "evaluate", *data)
    assert "all from the same camera" in line
    assert main(["data", "check", "mannequins", "--root", str(tmp_path / "set")]) == 1
    assert "there is one camera only" in capsys.readouterr().out


def test_a_list_that_names_missing_files(capsys, model, tmp_path) -> None:
    name = "0000_000_01_0303morning_0008_0.jpg"
    for folder in ("train", "test"):
        (tmp_path / "set" / folder / "0000").mkdir(parents=True)
        (tmp_path / "set" / folder / "0000" / name).write_bytes(b"x")
    for split in ("train", "val", "query", "gallery"):
        text = f"0000/{name} 0\n0001/{name.replace('0000_', '0001_', 1)} 1\n"
        (tmp_path / "set" / f"list_{split}.txt").write_text(text)
    data = ["--checkpoint", model, "--data", "msmt17", "--root", tmp_path / "set"]
    line = refused(capsys, "evaluate", *data)
    assert "list_train.txt, line 2" in line
    assert "does not exist" in line
    assert "--skip-bad" in line


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ("../query/0001_c1s1_000001_00.jpg", "leaves the folder"),
        ("/etc/x.jpg", "leaves the folder"),
    ],
)
def test_a_path_that_leaves_the_archive(capsys, tmp_path, member, words) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("query/0001_c1s1_000001_00.jpg", b"x")
        archive.writestr(member, b"x")
    line = refused(capsys, "data", "check", "mannequins", "--root", tmp_path / "set.zip")
    assert member in line
    assert words in line


def test_a_zip_bomb_is_an_unreadable_image(capsys, model, copy, tmp_path) -> None:
    root = tmp_path / "set.zip"
    bomb = sorted((copy / "query").glob("*.jpg"))[0].name
    with zipfile.ZipFile(root, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in copy.rglob("*.jpg"):
            if path.name != bomb:
                archive.write(path, path.relative_to(copy))
        archive.writestr(f"query/{bomb}", bytes(2**23))
    data = ["--checkpoint", model, "--data", "mannequins", "--root", root]
    line = refused(capsys, "evaluate", *data)
    assert f"query/{bomb}" in line
    assert "zip bomb" in line
    assert main([str(word) for word in ("evaluate", *data, "--skip-bad")]) == 0


def test_a_truncated_archive(capsys, copy, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in copy.rglob("*.jpg"):
            archive.write(path, path.relative_to(copy))
    whole = (tmp_path / "set.zip").read_bytes()
    (tmp_path / "set.zip").write_bytes(whole[: len(whole) // 2])
    line = refused(capsys, "data", "check", "mannequins", "--root", tmp_path / "set.zip")
    assert "no complete archive" in line


def test_duplicate_ids_and_rows(capsys, tmp_path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    out = ["--out", tmp_path / "out"]
    (tmp_path / "l.csv").write_text("path,pid\na.jpg,1\nb.jpg,2\na.jpg,2\n")
    line = refused(capsys, "data", "import", "--csv", tmp_path / "l.csv", *out)
    assert "a.jpg (lines 2 and 4)" in line
    (tmp_path / "l.csv").write_text("path,pid\na.jpg,1\nb.jpg,01\n")
    line = refused(capsys, "data", "import", "--csv", tmp_path / "l.csv", *out)
    assert "'01' and '1' differ only in leading zeros" in line
    assert not (tmp_path / "out").exists()


def feature_file(path: Path, features: np.ndarray, camids: list[int], pids: list[int]) -> Path:
    np.savez(path, features=features, pids=np.array(pids, int), camids=np.array(camids, int))
    return path


@pytest.mark.parametrize(
    ("query", "gallery", "cameras", "words"),
    [
        (np.ones((2, 4), np.float32), np.full((2, 4), np.nan, np.float32), 1, "NaN"),
        (np.ones((2, 4), np.float32), np.ones((2, 5), np.float32), 1, "5"),
        (np.ones((2, 4), np.float32), np.ones((0, 4), np.float32), 1, "empty"),
        (np.ones((2, 4), np.float32), np.ones((2, 4), np.float32), 0, "camera"),
    ],
)
def test_features_that_cannot_be_ranked(capsys, tmp_path, query, gallery, cameras, words) -> None:
    first = feature_file(tmp_path / "q.npz", query, [0, 0], [1, 2])
    count = len(gallery)
    second = feature_file(tmp_path / "g.npz", gallery, [cameras] * count, [1, 2][:count])
    line = refused(capsys, "evaluate", "--features", first, second)
    assert words in line


def test_imported_images_go_through_every_verb(capsys, tiny_data, tiny_overrides, tmp_path) -> None:
    root = tmp_path / "set"
    pattern = r"(?P<split>[a-z_]+)/(?P<pid>-1|\d+)_c(?P<camid>\d+).*"
    source = tmp_path / "three"
    for split in SPLITS:
        shutil.copytree(Path(tiny_data) / split, source / split)
    words = ["data", "import", "--pattern", pattern, "--images", str(source), "--out", str(root)]
    assert main(words) == 0
    assert main(["data", "check", "imported", "--root", str(root)]) == 0
    overrides = ["data.name=imported", f"data.root={root}", "loss.kd_feature=0", "loss.kd_logits=0"]
    run = tmp_path / "run"
    assert main(["train", "demo", *tiny_overrides, *overrides, "--out", str(run)]) == 0
    data = ["--checkpoint", str(run / "model.safetensors"), "--data", "imported", "--root"]
    out = tmp_path / "scores.json"
    assert main(["evaluate", *data, str(root), "--json", str(out)]) == 0
    scores = json.loads(out.read_text())
    after_training = json.loads((run / "evaluation.json").read_text())
    assert {name: scores[name] for name in after_training} == after_training
    line = refused(capsys, "evaluate", *data, root, "--protocol", "x")
    assert "imported images have no protocol 'x'" in line
