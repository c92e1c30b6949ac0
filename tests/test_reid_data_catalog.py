"""Readers of data sets in Market-1501's layout."""

from pathlib import Path

import pytest

from reid.data import catalog
from reid.errors import UserError

MARKET = {
    "bounding_box_train": [
        "0002_c1s1_000451_03.jpg",
        "0002_c2s1_000452_01.jpg",
        "0007_c3s3_000453_02.jpg",
        "0000_c1s1_000100_01.jpg",
        "-1_c1s1_000200_01.jpg",
    ],
    "query": ["0010_c1s1_000001_00.jpg", "0011_c2s1_000002_00.jpg"],
    "bounding_box_test": [
        "-1_c4s1_000300_01.jpg",
        "0000_c5s1_000301_01.jpg",
        "0010_c1s1_000003_01.jpg",
        "0010_c2s1_000004_01.jpg",
        "0011_c6s1_000005_01.jpg",
    ],
}


def build(root: Path, folders: dict[str, list[str]]) -> Path:
    for folder, names in folders.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / name).write_bytes(b"x")
    return root


def changed(**folders: list[str]) -> dict[str, list[str]]:
    return {**MARKET, **folders}


def test_junk_is_dropped_and_distractors_stay_in_the_gallery(tmp_path: Path) -> None:
    data = catalog.read("market1501", build(tmp_path, MARKET))
    assert [(r.pid, r.camid) for r in data.train] == [(2, 0), (2, 1), (7, 2)]
    assert [(r.pid, r.camid) for r in data.query] == [(10, 0), (11, 1)]
    assert [(r.pid, r.camid) for r in data.gallery] == [(0, 4), (10, 0), (10, 1), (11, 5)]
    assert data.num_cameras == 6
    assert data.protocol == "holistic"
    assert all(Path(r.path).is_file() for r in data.train + data.query + data.gallery)


@pytest.mark.parametrize(
    "below", [".", "Market-1501-v15.09.15", "market1501/Market-1501-v15.09.15", "market1501"]
)
def test_usual_places_below_the_root(tmp_path: Path, below: str) -> None:
    build(tmp_path / below, MARKET)
    assert len(catalog.read("market1501", tmp_path).train) == 3


def test_parent_folder_that_looks_like_a_name(tmp_path: Path) -> None:
    root = build(tmp_path / "2024_c1_run" / "0099_c5s1_000001_01.jpg", MARKET)
    data = catalog.read("market1501", root)
    assert [(r.pid, r.camid) for r in data.query] == [(10, 0), (11, 1)]


def test_two_digit_cameras_copied_endings_and_foreign_files(tmp_path: Path) -> None:
    names = [*MARKET["bounding_box_test"], "0010_c15s2_000009_01.jpg.jpg", "Thumbs.db", "._x.jpg"]
    data = catalog.read("market1501", build(tmp_path, changed(bounding_box_test=names)))
    assert (10, 14) in [(r.pid, r.camid) for r in data.gallery]
    assert data.num_cameras == 15
    assert len(data.gallery) == 5


def test_duke_names(tmp_path: Path) -> None:
    folders = {
        "bounding_box_train": ["0001_c2_f0046182.jpg", "0005_c8_f0000001.jpg"],
        "query": ["0003_c1_f0000001.jpg"],
        "bounding_box_test": ["0003_c1_f0000001.jpg", "0003_c4_f0000002.jpg"],
    }
    build(tmp_path / "Occluded_Duke", folders)
    data = catalog.read("occluded-duke", tmp_path)
    assert [(r.pid, r.camid) for r in data.train] == [(1, 1), (5, 7)]
    assert (data.protocol, data.num_cameras) == ("occluded", 8)


def test_order_does_not_follow_the_directory(tmp_path: Path) -> None:
    names = MARKET["bounding_box_train"]
    first = catalog.read("market1501", build(tmp_path / "a", MARKET))
    second = catalog.read(
        "market1501", build(tmp_path / "b", changed(bounding_box_train=names[::-1]))
    )
    assert [Path(r.path).name for r in first.train] == [Path(r.path).name for r in second.train]


def test_missing_root_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        catalog.read("market1501", tmp_path / "nowhere")


def test_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        catalog.read("market1501", tmp_path / "file")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    build(tmp_path, {key: MARKET[key] for key in ("bounding_box_train", "bounding_box_test")})
    with pytest.raises(UserError, match="no folder 'query'"):
        catalog.read("market1501", tmp_path)


@pytest.mark.parametrize("folder", ["bounding_box_train", "query", "bounding_box_test"])
def test_empty_folder(tmp_path: Path, folder: str) -> None:
    with pytest.raises(UserError, match=f"{folder} holds no images"):
        catalog.read("market1501", build(tmp_path, changed(**{folder: ["Thumbs.db"]})))


@pytest.mark.parametrize("folder", ["bounding_box_train", "query", "bounding_box_test"])
@pytest.mark.parametrize(
    "name",
    ["person.jpg", "2_c1s1_000451_03.jpg", "0002_c0s1_000451_03.jpg", "x0002_c1s1_000451_03.jpg"],
)
def test_wrong_name_is_named_with_the_pattern(tmp_path: Path, folder: str, name: str) -> None:
    folders = changed(**{folder: [*MARKET[folder], name]})
    with pytest.raises(UserError) as caught:
        catalog.read("market1501", build(tmp_path, folders))
    assert str(tmp_path / folder / name) in str(caught.value)
    assert "0002_c1s1_000451_03.jpg" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_training_identity(tmp_path: Path) -> None:
    folders = changed(bounding_box_train=["0002_c1s1_000451_03.jpg", "0002_c2s1_000452_03.jpg"])
    with pytest.raises(UserError, match=r"one identity \(0002\)"):
        catalog.read("market1501", build(tmp_path, folders))


def test_only_junk(tmp_path: Path) -> None:
    folders = changed(bounding_box_train=["-1_c1s1_000451_03.jpg", "0000_c2s1_000452_03.jpg"])
    with pytest.raises(UserError, match="only junk"):
        catalog.read("market1501", build(tmp_path, folders))


def test_no_identity_in_common(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the 1 queries has its identity"):
        catalog.read("market1501", build(tmp_path, changed(query=["0500_c1s1_000001_00.jpg"])))


def test_matches_from_the_same_camera_do_not_count(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="all from the same camera"):
        catalog.read("market1501", build(tmp_path, changed(query=["0011_c6s1_000001_00.jpg"])))


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(UserError, match=r"'market'; .*market1501"):
        catalog.read("market", "anywhere")
