"""Occluded-DukeMTMC is built out of Duke and three lists, as a whole or not at all."""

import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest

from reid.cli import main
from reid.data import catalog
from reid.data.occluded_duke import MANIFEST, build_occluded_duke
from reid.errors import UserError

TRAIN = ["0001_c2_f0046182.jpg", "0001_c5_f0051341.jpg", "0005_c1_f0051629.jpg"]
SPARE = "0005_c8_f0000001.jpg"
OWN_QUERY = "0003_c1_f0044158.jpg"
COPIED = "0004_c7_f0000010.jpg"
GALLERY = ["0003_c4_f0000002.jpg", "0004_c6_f0000003.jpg", COPIED, "0900_c3_f0000004.jpg"]
LISTS = {"train": TRAIN, "query": [OWN_QUERY, COPIED], "gallery": GALLERY}


def write_duke(root: Path) -> Path:
    folders = {
        "bounding_box_train": [*TRAIN, SPARE, "Thumbs.db"],
        "query": [OWN_QUERY],
        # the query folder goes first
        "bounding_box_test": [*GALLERY, OWN_QUERY],
    }
    for folder, names in folders.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / name).write_bytes(f"{folder}/{name}".encode())
    return root


def write_lists(root: Path, *, ending: str = ".list", newline: str = "\n", **changed) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split, names in {**LISTS, **changed}.items():
        # the last line has no line feed
        (root / f"{split}{ending}").write_bytes(newline.join(names).encode())
    return root


@pytest.fixture
def duke(tmp_path: Path) -> Path:
    return write_duke(tmp_path / "in" / "test" / "DukeMTMC-reID").parents[1]


def content(out: Path) -> dict[str, bytes]:
    files = (path for path in out.rglob("*.jpg"))
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


EXPECTED = {
    **{f"bounding_box_train/{name}": f"bounding_box_train/{name}".encode() for name in TRAIN},
    f"query/{OWN_QUERY}": f"query/{OWN_QUERY}".encode(),
    f"query/{COPIED}": f"bounding_box_test/{COPIED}".encode(),
    **{f"bounding_box_test/{name}": f"bounding_box_test/{name}".encode() for name in GALLERY},
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("copy", [False, True])
def test_files_come_from_their_split_or_else_from_the_gallery(
    tmp_path: Path, duke: Path, newline: str, copy: bool
) -> None:
    lists = write_lists(tmp_path / "lists" / "Occluded_Duke", newline=newline)
    built = build_occluded_duke(duke, tmp_path / "lists", tmp_path / "out", copy=copy)
    assert content(tmp_path / "out") == EXPECTED
    original = duke / "test" / "DukeMTMC-reID" / "query" / OWN_QUERY
    shared = os.path.samefile(original, tmp_path / "out" / "query" / OWN_QUERY)
    assert shared is not copy
    assert built.copies == 1
    assert built.splits["query"].from_gallery == 1
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["queries_in_gallery"] == 1
    for split in LISTS:
        digest = hashlib.sha256((lists / f"{split}.list").read_bytes()).hexdigest()
        assert manifest["splits"][split]["list_sha256"] == digest
    assert manifest["splits"]["gallery"]["identities"] == 3


def test_the_result_is_read_as_occluded_duke(tmp_path: Path, duke: Path) -> None:
    build_occluded_duke(duke, write_lists(tmp_path / "lists"), tmp_path / "out")
    data = catalog.read("occluded-duke", tmp_path / "out")
    assert [(r.pid, r.camid) for r in data.query] == [(3, 0), (4, 6)]
    assert (len(data.train), len(data.gallery)) == (3, 4)


def test_archives_of_duke_and_of_the_lists(tmp_path: Path, duke: Path) -> None:
    lists = write_lists(tmp_path / "lists", ending=".txt")
    for name, folder in (("duke.zip", duke), ("lists.zip", lists)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for path in folder.rglob("*"):
                archive.write(path, path.relative_to(folder))
    build_occluded_duke(tmp_path / "duke.zip", tmp_path / "lists.zip", tmp_path / "out")
    assert content(tmp_path / "out") == EXPECTED


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"train": []}, "train.list is empty"),
        ({"train": [*TRAIN, TRAIN[0]]}, r"listed twice, in lines 1 and 4"),
        ({"query": [OWN_QUERY, "0003_c1_f004415.jpg"]}, r"query.list, line 2: '0003_c1_f004415"),
        ({"query": [OWN_QUERY, "../../etc/passwd"]}, "line 2: '../../etc/passwd' is no file name"),
        ({"query": ["9999_c1_f0000000.jpg"]}, r"lacks 1 images .*9999_c1_f0000000.jpg \(query"),
        ({"query": [TRAIN[0]]}, r"lacks 1 images .*0001_c2_f0046182.jpg \(query"),
    ],
)
def test_lists_that_cannot_be_built(tmp_path: Path, duke: Path, changed, words: str) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    lists = write_lists(tmp_path / "lists", **changed)
    with pytest.raises(UserError, match=words) as caught:
        build_occluded_duke(duke, lists, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "lists"])


def test_missing_and_damaged_inputs(tmp_path: Path, duke: Path) -> None:
    lists = write_lists(tmp_path / "lists")
    (lists / "query.list").unlink()
    with pytest.raises(UserError, match=r"has no query\.list; "):
        build_occluded_duke(duke, lists, tmp_path / "out")
    (lists / "query.list").write_bytes(b"0003_c1_f0044158.jpg\n\xff\n")
    with pytest.raises(UserError, match="line 2: byte 0xff is not UTF-8"):
        build_occluded_duke(duke, lists, tmp_path / "out")
    write_lists(lists)
    with pytest.raises(UserError, match="no folder with bounding_box_train"):
        build_occluded_duke(lists, lists, tmp_path / "out")
    with pytest.raises(UserError, match="does not exist"):
        build_occluded_duke(tmp_path / "nowhere", lists, tmp_path / "out")


def test_nothing_is_written_over_and_a_failure_leaves_nothing(
    tmp_path: Path, duke: Path, monkeypatch
) -> None:
    lists, out = write_lists(tmp_path / "lists"), tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        build_occluded_duke(duke, lists, out)
    assert [path.name for path in out.iterdir()] == ["mine"]
    (out / "mine").unlink()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("reid.data.occluded_duke.put", full)
        with pytest.raises(UserError, match=r"cannot write .*No space left"):
            build_occluded_duke(duke, lists, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "lists", "out"]
    build_occluded_duke(duke, lists, out)
    assert content(out) == EXPECTED


def test_the_verb_prints_counts_beside_the_published(tmp_path: Path, duke: Path, capsys) -> None:
    lists = write_lists(tmp_path / "lists")
    arguments = ["--duke", str(duke), "--lists", str(lists), "--out", str(tmp_path / "out")]
    assert main(["data", "build", "occluded-duke", *arguments]) == 0
    printed = capsys.readouterr().out
    for words in ("15618", "2210", "17661", "not as long as", "1 queries are in the gallery too"):
        assert words in printed
    assert main(["data", "build", "occluded-duke", *arguments]) == 2
    assert main(["data", "build", "market1501", *arguments]) == 2
    assert "'market1501' cannot be built" in capsys.readouterr().err


def test_published_lengths_bring_no_warning(tmp_path: Path, duke: Path, monkeypatch) -> None:
    counts = {split: len(names) for split, names in LISTS.items()}
    monkeypatch.setattr("reid.data.occluded_duke.COUNTS", counts)
    built = build_occluded_duke(duke, write_lists(tmp_path / "lists"), tmp_path / "out")
    assert built.published
    assert "warning" not in str(built)
