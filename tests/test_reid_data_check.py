"""The check of a data set: each kind of trouble is found, named and graded."""

import io
import json
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reid_layouts import LAYOUTS, write

from reid.cli import main
from reid.data import load
from reid.data.check import DAMAGE, NOTE, WARNING, check, readable
from reid.data.check.rules import _index_like, camera_ids, counts
from reid.data.check.subject import Numbers, Subject
from reid.data.folder import folder_records
from reid.data.imported import from_folders, from_pattern, import_images
from reid.data.records import Record
from reid.errors import UserError

MARKET = {
    "bounding_box_train": [
        "0002_c1s1_000451_03.jpg",
        "0002_c2s1_000452_01.jpg",
        "0007_c3s3_000453_02.jpg",
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
# Market-1501's layout without published counts
NAME = "mannequins"


def picture(seed: int, ending: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, ending)
    return stream.getvalue()


def build(root: Path, folders: dict[str, list[str]] = MARKET) -> Path:
    """Write a data set in which no two pictures are alike."""
    seed = 0
    for folder, names in folders.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            seed += 1
            (root / folder / name).write_bytes(picture(seed))
    return root


def bomb(width: int = 20_000, height: int = 10_000) -> bytes:
    """A PNG of a few bytes that declares a huge picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


def kinds(report) -> set[tuple[str, str]]:
    return {(finding.severity, finding.kind) for finding in report.findings}


def test_a_clean_set_has_no_findings(tmp_path: Path) -> None:
    report = check(NAME, build(tmp_path))
    assert report.findings == []
    assert report.ok
    assert report.splits == {
        "train": Numbers(3, 2, 3, junk=1, distractors=0),
        "query": Numbers(2, 2, 2, junk=0, distractors=0),
        "gallery": Numbers(4, 2, 4, junk=1, distractors=1),
    }
    assert report.files == 11
    assert report.bytes == sum(path.stat().st_size for path in tmp_path.rglob("*.jpg"))


BROKEN = {
    "truncated": (picture(0)[:-100], "runcated"),
    "text": (b"not an image", "no known format"),
    "empty": (b"", "0 bytes"),
    "bomb": (bomb(), "far larger than any image of a person"),
    "small bomb": (bomb(9_000, 9_000), "9000 x 9000 pixels"),
}


@pytest.mark.parametrize("archived", [False, True])
def test_unreadable_images_are_named_and_left_out(tmp_path: Path, archived: bool) -> None:
    root = build(tmp_path / "set")
    extra = [f"0007_c3s3_{n:06d}_09.jpg" for n in range(len(BROKEN))]
    for name, (content, _) in zip(extra, BROKEN.values(), strict=True):
        (root / "bounding_box_train" / name).write_bytes(content)
    if archived:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for path in root.rglob("*.jpg"):
                archive.write(path, path.relative_to(root))
        root = tmp_path / "set.zip"
    report = check(NAME, root)
    assert kinds(report) == {(DAMAGE, "unreadable")}
    lines = report.find("unreadable").examples
    for name, (_, words), line in zip(extra, BROKEN.values(), lines, strict=True):
        assert line.startswith(f"bounding_box_train/{name}")
        assert words in line
    assert report.splits["train"].images == 8
    rest = check(NAME, root, skip_bad=True)
    assert rest.ok
    assert kinds(rest) == {(WARNING, "unreadable")}
    assert rest.splits["train"].images == 3
    light = check(NAME, root, decode=False)
    assert [line.split()[1:3] for line in light.find("unreadable").examples] == [["is", "empty"]]


def test_a_member_that_is_a_zip_bomb_is_one_unreadable_image(tmp_path: Path) -> None:
    root = build(tmp_path / "set")
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in root.rglob("*.jpg"):
            archive.write(path, path.relative_to(root))
        archive.writestr("query/0011_c3s1_000002_00.jpg", bytes(2**23))
    report = check(NAME, tmp_path / "set.zip")
    assert kinds(report) == {(DAMAGE, "unreadable")}
    assert "zip bomb" in report.find("unreadable").examples[0]


def test_counts_are_held_against_the_published(tmp_path: Path) -> None:
    report = check("market1501", build(tmp_path))
    assert kinds(report) == {(DAMAGE, "counts")}
    examples = report.find("counts").examples
    assert "train: 3 images, expected 12,936" in examples
    assert "gallery: 1 junk, expected 3,819" in examples
    assert not check("market1501", tmp_path, skip_bad=True).ok
    table = str(report)
    assert "12,936" in table.splitlines()[4]
    assert table.splitlines()[-1].startswith("1 kind of damage")


def expecting(train: int, ids: int = 2, junk: int | None = 0, **more) -> Subject:
    """Three images of two people, of which `train` are expected."""
    lists = {"train": [Record(n, p, 0) for n, p in zip("abc", (1, 1, 2), strict=True)]}
    expected = {"train": Numbers(train, ids, 1, junk, None)}
    lists |= {"query": [], "gallery": []}
    return Subject("x", "x", "x", lists, expected=expected, expected_by="X", **more)


@pytest.mark.parametrize(
    ("subject", "severity"),
    [
        (expecting(5, left_out={"train": 2}), WARNING),
        (expecting(4, junk=1, left_out={"train": 2}), WARNING),
        (expecting(5, left_out={"train": 1}), DAMAGE),
        (expecting(5, left_out={"train": 3}), DAMAGE),
        (expecting(5, left_out={"query": 2}), DAMAGE),
        (expecting(5), DAMAGE),
        (expecting(3, ids=3), DAMAGE),
        (expecting(5, ids=1, left_out={"train": 2}), DAMAGE),
        (expecting(4, left_out={"train": 0}).without({"b"}), DAMAGE),
        (expecting(3).without({"b"}), WARNING),
        (expecting(4, left_out={"train": 1}).without({"c"}), WARNING),
    ],
)
def test_only_what_was_left_out_excuses_a_short_split(subject: Subject, severity: str) -> None:
    (finding,) = counts(subject, skip_bad=True)
    assert finding.severity == severity
    assert ("without what was left out" in finding.text) == (severity == WARNING)
    (finding,) = counts(subject)
    assert finding.severity == DAMAGE


def test_a_generated_set_that_lacks_more_than_was_left_out(tiny_data: str, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny_data, tmp_path / "set"))
    first, second, *_ = sorted((root / "bounding_box_train").glob("*.jpg"))
    first.write_bytes(b"text")
    assert check("occluded-mannequins", root, skip_bad=True).ok
    second.unlink()
    report = check("occluded-mannequins", root, skip_bad=True)
    assert kinds(report) >= {(DAMAGE, "counts"), (WARNING, "unreadable")}


def test_a_generated_set_keeps_its_name(tiny_data: str) -> None:
    for name in ("mannequins", "partial-mannequins"):
        with pytest.raises(UserError, match=f"ask for occluded-mannequins instead of {name}"):
            check(name, tiny_data)
        with pytest.raises(UserError, match=r"says its mannequins\.json"):
            load(name, tiny_data)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_files_of_another_set_are_said_to_be(tmp_path: Path, skip_bad: bool) -> None:
    root = build(tmp_path)
    message = r"no file of DukeMTMC-reID: none of the 11 names, .*; ask for market1501$"
    with pytest.raises(UserError, match=message):
        check("dukemtmc-reid", root, skip_bad=skip_bad)
    with pytest.raises(UserError, match=message):
        load("dukemtmc-reid", root, skip_bad=skip_bad)
    (root / "query" / "0003_c1_f0000001.jpg").write_bytes(picture(99))
    assert (DAMAGE, "misfit") in kinds(check("dukemtmc-reid", root))


def test_numbers_that_nobody_verified_are_a_warning() -> None:
    lists = {"train": [Record("a", 1, 0)], "query": [], "gallery": []}
    for verified, severity in ((True, DAMAGE), (False, WARNING)):
        expected = {"train": Numbers(2, 1, None, 0, None, verified)}
        subject = Subject("x", "x", "x", lists, expected=expected, expected_by="X")
        (finding,) = counts(subject)
        assert (finding.severity, finding.examples) == (severity, ["train: 1 images, expected 2"])
    subject = Subject("x", "x", "x", lists, expected={"train": Numbers(1, 1, 1)})
    assert list(counts(subject)) == []


def test_a_generated_set_is_held_against_its_manifest(tiny_data: str, tmp_path: Path) -> None:
    report = check("occluded-mannequins", tiny_data)
    assert report.ok
    assert report.expected["gallery"].junk == report.splits["gallery"].junk > 0
    assert check("occluded-mannequins", tiny_data).findings == []


def test_names_that_fit_nothing_and_other_files(tmp_path: Path) -> None:
    root = build(tmp_path)
    (root / "query" / "holiday.jpg").write_bytes(picture(99))
    (root / "query" / "Thumbs.db").write_bytes(b"x")
    report = check(NAME, root)
    assert kinds(report) == {(DAMAGE, "misfit"), (NOTE, "other")}
    assert report.find("misfit").examples[0].startswith("query/holiday.jpg: the name")
    assert report.find("other").examples == ["query/Thumbs.db"]
    assert check(NAME, root, skip_bad=True).ok


def copy(root: Path, source: str, target: str) -> None:
    (root / target).write_bytes((root / source).read_bytes())


@pytest.mark.parametrize(
    ("source", "target", "found"),
    [
        (
            "bounding_box_train/0002_c1s1_000451_03.jpg",
            "bounding_box_train/0002_c1s1_000999_03.jpg",
            {(WARNING, "duplicates-train")},
        ),
        (
            "bounding_box_train/0002_c1s1_000451_03.jpg",
            "bounding_box_train/0007_c1s1_000999_03.jpg",
            {(WARNING, "duplicates-train"), (WARNING, "labels")},
        ),
        (
            "bounding_box_test/0010_c2s1_000004_01.jpg",
            "bounding_box_test/0010_c2s1_000999_01.jpg",
            {(WARNING, "duplicates-gallery")},
        ),
        (
            "query/0010_c1s1_000001_00.jpg",
            "bounding_box_test/0010_c1s1_000999_01.jpg",
            {(NOTE, "query-in-gallery")},
        ),
        (
            "query/0010_c1s1_000001_00.jpg",
            "bounding_box_test/0010_c3s1_000999_01.jpg",
            {(WARNING, "query-finds-itself")},
        ),
        (
            "query/0010_c1s1_000001_00.jpg",
            "bounding_box_test/0011_c1s1_000999_01.jpg",
            {(WARNING, "query-finds-itself"), (WARNING, "labels")},
        ),
        (
            "bounding_box_train/0002_c1s1_000451_03.jpg",
            "bounding_box_test/0002_c1s1_000451_03.jpg",
            {(WARNING, "leak"), (WARNING, "overlap")},
        ),
        (
            "bounding_box_train/0002_c1s1_000451_03.jpg",
            "bounding_box_test/-1_c1s1_000451_03.jpg",
            set(),
        ),
    ],
)
def test_copies_are_told_by_their_bytes(tmp_path: Path, source, target, found) -> None:
    root = build(tmp_path)
    copy(root, source, target)
    report = check(NAME, root)
    assert kinds(report) == found
    assert report.ok
    for finding in report.findings:
        if finding.kind not in ("overlap", "query-in-gallery", "query-finds-itself"):
            assert finding.examples == [f"{source} = {target}"]


def test_occluded_duke_explains_its_copies(tmp_path: Path) -> None:
    folders = {
        "bounding_box_train": ["0001_c2_f0046182.jpg", "0005_c8_f0000001.jpg"],
        "query": ["0003_c1_f0000001.jpg", "0004_c2_f0000001.jpg", "0004_c3_f0000007.jpg"],
        "bounding_box_test": ["0003_c4_f0000002.jpg", "0004_c4_f0000002.jpg"],
    }
    root = build(tmp_path, folders)
    for name in folders["query"][1:]:
        copy(root, f"query/{name}", f"bounding_box_test/{name}")
    report = check("occluded-duke", root)
    finding = report.find("query-in-gallery")
    assert finding.severity == NOTE
    assert finding.text.startswith("2 of 3 query images are in the gallery too")
    assert "the same-camera rule removes these copies" in finding.text


def test_synthetic_cameras_remove_no_copy(tmp_path: Path) -> None:
    folders = {
        "occluded_body_images": ["001_001.jpg", "002_001.jpg"],
        "partial_body_images": ["001_001.jpg", "002_001.jpg"],
        "whole_body_images": ["001_001.jpg", "002_001.jpg"],
    }
    root = build(tmp_path, folders)
    copy(root, "partial_body_images/001_001.jpg", "whole_body_images/001_001.jpg")
    report = check("partial-reid", root)
    assert (WARNING, "query-finds-itself") in kinds(report)
    assert (NOTE, "synthetic-cameras") in kinds(report)
    other = check("partial-reid", root, protocol="occluded-body")
    assert (WARNING, "query-finds-itself") not in kinds(other)
    assert "protocol occluded-body" in str(other)


def test_pids_that_restart_do_not_overlap(tmp_path: Path) -> None:
    names = ["0000_000_01_0303morning_0008_0.jpg", "0001_000_02_0303morning_0008_0.jpg"]
    tests = ["0000_001_01_0303noon_0008_0.jpg", "0000_002_03_0303noon_0008_0.jpg"]
    for folder, files in (("train", names), ("test", tests)):
        for number, name in enumerate(files):
            path = tmp_path / folder / name[:4] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number + 10 * (folder == "test")))
    lists = {"train": names, "val": names[:0], "query": tests[:1], "gallery": tests[1:]}
    for split, files in lists.items():
        text = "".join(f"{name[:4]}/{name} {int(name[:4])}\n" for name in files)
        (tmp_path / f"list_{split}.txt").write_text(text)
    report = check("msmt17", tmp_path, protocol="train")
    assert kinds(report) == {(DAMAGE, "counts"), (WARNING, "counts")}
    with open(tmp_path / "list_train.txt", "a") as file:
        file.write("0001/gone.jpg 1\n")
    report = check("msmt17", tmp_path, protocol="train")
    assert "gone.jpg" in report.find("misfit").examples[0]


def test_a_list_that_contradicts_the_names_is_damage(tmp_path: Path) -> None:
    written = LAYOUTS["msmt V2"]
    files = written.files()
    for wrong in (False, True):
        list_query = f"{written.below}/list_query.txt"
        if wrong:
            first, _, rest = files[list_query].decode().partition(" 0\n")
            files[list_query] = f"{first} 7\n{rest}".encode()
        root = write(tmp_path / str(wrong), files)
        report = check("msmt17", root, decode=False)
        found = report.find("misfit")
        assert (found is not None) is wrong
    assert "list_query.txt, line 1 gives" in found.examples[0]
    assert "the identity 7, but its name says 0" in found.examples[0]


def test_queries_without_a_match(tmp_path: Path) -> None:
    root = build(tmp_path, {**MARKET, "query": [*MARKET["query"], "0099_c1s1_000001_00.jpg"]})
    finding = check(NAME, root).find("skipped")
    assert finding.severity == WARNING
    assert finding.text.startswith("1 of 3 queries will be skipped, of 1 identity: 0 have")
    assert finding.examples == ["99"]


def test_one_camera_disables_the_evaluation(tmp_path: Path) -> None:
    folders = {
        folder: [name[:5] + name[5:].replace(name[5:7], "c1") for name in names]
        for folder, names in MARKET.items()
    }
    folders["bounding_box_test"] = [name for name in folders["bounding_box_test"] if name[0] != "-"]
    report = check(NAME, build(tmp_path, folders))
    assert (DAMAGE, "no-match") in kinds(report)
    assert "there is one camera only" in report.find("no-match").text
    assert not check(NAME, tmp_path, skip_bad=True).ok


def indexed(query: str, gallery: str) -> Subject:
    """Two identities, whose cameras are the digits."""
    lists = {
        split: [Record(f"{split}{pid}{n}", pid, int(c)) for pid in (1, 2) for n, c in enumerate(cs)]
        for split, cs in (("train", ""), ("query", query), ("gallery", gallery))
    }
    return Subject("x", "x", "x", lists)


@pytest.mark.parametrize(
    ("query", "gallery", "found"),
    [
        ("012", "01234", True),
        ("01234", "01234", True),
        ("123", "123", True),
        ("013", "01234", False),
        ("012", "01224", False),
        ("0112", "0012", False),
        ("01", "01", False),
    ],
)
def test_cameras_that_number_the_images(query: str, gallery: str, found: bool) -> None:
    subject = indexed(query, gallery)
    findings = [finding.kind for finding in camera_ids(subject)]
    assert findings == (["camera-is-index"] if found else [])
    assert not _index_like(subject, "train")


def test_imported_images_are_checked_too(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for number, name in enumerate(f"{p}/{c}/{n}.jpg" for p in "abcd" for c in "xy" for n in "12"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(number))
    import_images(from_folders(root), tmp_path / "set")
    assert check("imported", tmp_path / "set").findings == []
    (root / "a/x/1.jpg").unlink()
    report = check("imported", tmp_path / "set")
    assert kinds(report) == {(DAMAGE, "unreadable")}
    assert "a/x/1.jpg" in report.find("unreadable").examples[0]


def test_an_index_taken_for_a_camera_is_seen_in_imported_images(tmp_path: Path) -> None:
    root, seed = tmp_path / "in", 0
    for folder in ("query", "gallery"):
        (root / folder).mkdir(parents=True)
        for name in (f"{pid:03d}_{n:03d}.jpg" for pid in range(1, 5) for n in range(1, 6)):
            (root / folder / name).write_bytes(picture(seed := seed + 1))
    pattern = r"(?P<split>\w+)/(?P<pid>\d+)_(?P<camid>\d+)"
    import_images(from_pattern(root, pattern), tmp_path / "set")
    assert (WARNING, "camera-is-index") in kinds(check("imported", tmp_path / "set"))


def test_readable_divides_records(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b", "c", "d")):
        (tmp_path / f"{name}.jpg").write_bytes(picture(number))
    (tmp_path / "b.jpg").write_bytes(b"text")
    (tmp_path / "d.jpg").write_bytes(b"")
    good, bad = readable(folder_records(tmp_path))
    assert [Path(record.path).name for record in good] == ["a.jpg", "c.jpg"]
    assert [Path(line.split()[0]).name for line in bad] == ["b.jpg", "d.jpg"]


def test_nothing_to_check_is_bad_input(tmp_path: Path) -> None:
    for name in ("market", "market1501", "imported"):
        with pytest.raises(UserError):
            check(name, tmp_path)


def test_the_verb_prints_writes_and_exits(tmp_path: Path, capsys) -> None:
    root, out = build(tmp_path / "set"), tmp_path / "report.json"
    arguments = ["data", "check", NAME, "--root", str(root)]
    assert main(arguments) == 0
    assert "no damage; read 11 files" in capsys.readouterr().out
    broken = root / "query" / "0010_c1s1_000001_00.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    assert main([*arguments, "--json", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "damage: 1 image cannot be read" in printed
    written = json.loads(out.read_text())
    assert written["ok"] is False
    assert written["splits"]["query"]["images"] == 2
    assert [finding["kind"] for finding in written["findings"]] == ["unreadable"]
    assert main([*arguments, "--no-decode"]) == 0
    assert main([*arguments, "--skip-bad"]) == 0
    assert main(["data", "check", NAME, "--root", str(tmp_path / "absent")]) == 2
    assert main([*arguments, "--protocol", "nonsense"]) == 2
    capsys.readouterr()
    assert main([*arguments, "--json", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"--json {tmp_path} is a folder" in printed.err
