"""The generated data set on disk."""

import hashlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from reid.data import catalog
from reid.data.attributes import read_attributes
from reid.data.check import check
from reid.data.mannequins import SIZES, SizeSpec, generate, mask_path, read_manifest, report
from reid.data.mannequins.identity import identity
from reid.data.mannequins.labels import OCCLUDER
from reid.errors import UserError

writing = importlib.import_module("reid.data.mannequins.writing")
protocols = importlib.import_module("reid.data.mannequins.protocols")

IMAGE = (64, 32)
SMALL = SizeSpec(3, 9, 3, 6, 9, 2, 2)
SPLITS = ("bounding_box_train", "query", "bounding_box_test")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("data") / "tiny", size="tiny", image_size=IMAGE)


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != ".mat"
    }


def test_the_ordinary_reader_reads_it(tiny: Path) -> None:
    size = SIZES["tiny"]
    data = catalog.read("occluded-mannequins", tiny)
    assert len(data.train) == size.train_images
    assert len({r.pid for r in data.train}) == size.train_ids
    assert len(data.query) == size.query_images
    assert len({r.pid for r in data.query}) == size.test_ids
    assert len(data.gallery) == size.gallery_images + size.distractors
    assert sum(r.pid == 0 for r in data.gallery) == size.distractors
    assert not {r.pid for r in data.train} & {r.pid for r in data.query}
    assert {r.pid for r in data.query} == {r.pid for r in data.gallery} - {0}
    assert len(list((tiny / "bounding_box_test").glob("-1_*"))) == size.junk
    assert check("occluded-mannequins", tiny).findings == []
    assert catalog.read("market1501", tiny).query == data.query


def test_names_are_those_of_market(tiny: Path) -> None:
    pattern = re.compile(r"^(-1|\d{4})_c[1-6]s\d+_\d{6}_\d{2}\.jpg$")
    for split in SPLITS:
        assert all(pattern.match(name) for name in os.listdir(tiny / split))


def test_every_image_has_a_mask_of_its_size_and_share(tiny: Path) -> None:
    manifest = read_manifest(tiny)
    for split in SPLITS:
        for path in (tiny / split).iterdir():
            image = cv2.imread(str(path))
            mask = cv2.imread(str(mask_path(path)), cv2.IMREAD_UNCHANGED)
            assert image.shape == (*IMAGE, 3)
            assert mask.shape == IMAGE
            assert mask.max() <= OCCLUDER
            covered = manifest["occlusion"][split][path.name]
            assert (covered > 0) == bool((mask == OCCLUDER).any())


def test_queries_are_occluded_and_the_gallery_is_mostly_whole(tiny: Path) -> None:
    covered = read_manifest(tiny)["occlusion"]
    assert all(0.2 <= share <= 0.6 for share in covered["query"].values())
    assert np.mean([share > 0 for share in covered["bounding_box_test"].values()]) < 0.3
    summary = report(tiny)
    assert summary["occlusion"]["query"]["share"] == 1.0
    assert summary["occlusion"]["query"]["mean"] == pytest.approx(
        np.mean(list(covered["query"].values()))
    )
    assert summary["counts"]["query_images"] == 24


def test_attributes_are_those_of_the_identities(tiny: Path) -> None:
    tables = read_attributes(tiny / "attribute" / "market_attribute.mat")
    assert tables["train"].pids.tolist() == list(range(1, 9))
    assert tables["test"].pids.tolist() == list(range(9, 17))
    for table in tables.values():
        for row, pid in enumerate(table.pids.tolist()):
            known = identity(0, pid).attributes
            assert table.values[row].tolist() == [known[name] for name in table.names]


def test_workers_do_not_change_a_byte(tmp_path: Path, tiny: Path) -> None:
    other = generate(tmp_path / "two", size="tiny", image_size=IMAGE, workers=2)
    assert contents(other) == contents(tiny)


def test_seed_and_first_identity_change_the_content(tmp_path: Path) -> None:
    hashes = {
        read_manifest(generate(tmp_path / name, size=SMALL, image_size=IMAGE, **other))[
            "content_sha256"
        ]
        for name, other in (("a", {}), ("b", {"seed": 1}), ("c", {"first_identity": 500}))
    }
    assert len(hashes) == 3


def test_second_run_changes_nothing(tiny: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny.rglob("*")}
    generate(tiny, size="tiny", image_size=IMAGE)
    assert {path: path.stat().st_mtime_ns for path in tiny.rglob("*")} == before


def test_other_parameters_are_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match="seed 0, not 5"):
        generate(tiny, size="tiny", image_size=IMAGE, seed=5)


def test_damaged_set_is_refused(tmp_path: Path) -> None:
    root = generate(tmp_path / "set", size=SMALL, image_size=IMAGE)
    next((root / "query").iterdir()).unlink()
    with pytest.raises(UserError, match="5 of 6 images"):
        generate(root, size=SMALL, image_size=IMAGE)


def test_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        generate(tmp_path, size=SMALL, image_size=IMAGE)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    generate(tmp_path / "set", size=SMALL, image_size=IMAGE)
    assert len(catalog.read("occluded-mannequins", tmp_path / "set").query) == 6


def test_failing_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []

    def full_disk(path: Path, *rest: object) -> None:
        saved.append(path)
        if len(saved) == 20:
            raise OSError(28, "No space left on device")
        path.write_bytes(b"x")

    monkeypatch.setattr(writing, "_save", full_disk)
    with pytest.raises(UserError, match="No space left"):
        generate(tmp_path / "set", size=SMALL, image_size=IMAGE)
    assert len(saved) == 20
    assert list(tmp_path.iterdir()) == []


def test_killed_run_leaves_nothing_that_loads(tmp_path: Path) -> None:
    code = (
        "from reid.data.mannequins import SizeSpec, generate; import sys; "
        "generate(sys.argv[1], size=SizeSpec(2, 4, 200, 400, 8000, 0, 0), image_size=(64, 32))"
    )
    root = tmp_path / "set"
    process = subprocess.Popen([sys.executable, "-c", code, str(root)])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(tmp_path.rglob("*.jpg"))) < 150:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(tmp_path.rglob("*.jpg"))) >= 150
    for folder in (root, *tmp_path.iterdir()):
        with pytest.raises(UserError):
            catalog.read("occluded-mannequins", folder)
    generate(root, size=SMALL, image_size=IMAGE)
    assert len(catalog.read("occluded-mannequins", root).query) == 6


def test_without_masks(tmp_path: Path) -> None:
    root = generate(tmp_path / "set", size=SMALL, image_size=IMAGE, with_masks=False)
    assert not (root / "masks").exists()
    assert len(list((root / "query").iterdir())) == 6


def test_holistic_protocol_is_mostly_whole(tmp_path: Path) -> None:
    root = generate(tmp_path / "set", protocol="mannequins", size="tiny", image_size=IMAGE)
    assert report(root)["occlusion"]["query"]["share"] < 0.4


def test_partial_queries_are_crops_of_what_is_visible(tmp_path: Path) -> None:
    root = generate(tmp_path / "set", protocol="partial-mannequins", size="tiny", image_size=IMAGE)
    hidden = []
    for path in (root / "query").iterdir():
        mask = cv2.imread(str(mask_path(path)), cv2.IMREAD_UNCHANGED)
        assert cv2.imread(str(path)).shape[:2] == mask.shape
        assert mask.size < IMAGE[0] * IMAGE[1]
        assert (mask > 0).any()
        hidden.append((mask == OCCLUDER).mean())
    assert np.mean(hidden) < 0.15


def test_visible_box_cuts_the_occluder_off() -> None:
    mask = np.zeros((24, 12), np.uint8)
    mask[2:22, 3:9] = 2
    mask[14:] = OCCLUDER
    assert writing.visible_box(mask) == (0, 14, 0, 12)
    mask = np.zeros((24, 24), np.uint8)
    mask[2:22, 3:20] = 2
    mask[:, :9] = OCCLUDER
    assert writing.visible_box(mask) == (0, 24, 9, 24)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, "unknown size 'huge'"),
        ({"protocol": "faces"}, "unknown protocol 'faces'"),
        ({"image_size": (8, 4)}, "8x4"),
        ({"seed": -1}, "must not be negative"),
        ({"workers": 0}, "workers is 0"),
        ({"size": SizeSpec(1, 9, 3, 6, 9, 0, 0)}, "at least two training ids"),
        ({"size": SizeSpec(3, 9, 3, 60, 9, 0, 0)}, "at most one query"),
        ({"size": SizeSpec(3, 9, 3, 6, 4, 0, 0)}, "two images of every test identity"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate(tmp_path / "set", **{"size": SMALL, "image_size": IMAGE, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_market_size_has_markets_counts() -> None:
    items = protocols.plan("mannequins", SIZES["market"], 0, 0)
    found = {split: sum(item.split == split for item in items) for split in SPLITS}
    assert found == {"bounding_box_train": 12_936, "query": 3_368, "bounding_box_test": 19_732}
    assert sum(item.pid == -1 for item in items) == 3_819
    assert len({(item.split, item.name) for item in items}) == len(items)
    for split, count in (("bounding_box_train", 751), ("query", 750)):
        assert len({item.pid for item in items if item.split == split}) == count


def test_manifest_of_a_foreign_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no mannequins\.json"):
        read_manifest(tmp_path)
    (tmp_path / "mannequins.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_manifest(tmp_path)
    (tmp_path / "mannequins.json").write_text(json.dumps([1]))
    with pytest.raises(UserError, match="not a description"):
        report(tmp_path)
