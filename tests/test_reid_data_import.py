"""One's own images: folders, patterns and CSV files become a data set that every verb reads."""

import csv
import json
import zipfile
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from reid_layouts import LAYOUTS

from reid.cli import main
from reid.data.imported import (
    MANIFEST,
    ROWS,
    Row,
    from_csv,
    from_folders,
    from_pattern,
    import_images,
    read_imported,
)
from reid.data.imported.division import CROSS_CAMERA, SYNTHETIC, camera_rule, divide
from reid.data.imported.writing import natural
from reid.errors import UserError

PATTERN = r"(?P<pid>[a-z]+)_(?P<camid>\w+)_\d+"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def write_csv(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


def of(listing) -> list[tuple[str, str, str | None, str | None]]:
    return [(row.path, row.pid, row.camera, row.split) for row in listing.rows]


def people(root: Path) -> Path:
    """Four people, two cameras, three images of each."""
    names = [
        f"{person}/{camera}/{number}.jpg"
        for person in ("anna", "bert", "cleo", "dora")
        for camera in ("door", "yard")
        for number in range(3)
    ]
    return touch(root, *names)


def test_folders_hold_identities_and_cameras(tmp_path: Path) -> None:
    root = touch(tmp_path, "b/cam2/x.JPG", "b/cam10/y.png", "a/cam2/z.jpg", "Thumbs.db")
    listing = from_folders(root)
    assert of(listing) == [
        ("a/cam2/z.jpg", "a", "cam2", None),
        ("b/cam10/y.png", "b", "cam10", None),
        ("b/cam2/x.JPG", "b", "cam2", None),
    ]
    assert any("no images are passed over" in note for note in listing.notes)


def test_folders_without_cameras_and_cameras_in_the_name(tmp_path: Path) -> None:
    root = touch(tmp_path / "p", "a/c1_7.jpg", "a/c2_8.jpg", "b/c1_9.jpg")
    assert {row.camera for row in from_folders(root).rows} == {None}
    assert [row.camera for row in from_folders(root, camera=r"c(\d)").rows] == ["1", "2", "1"]
    named = from_folders(root, camera=r"(c)(?P<camid>\d)_")
    assert [row.camera for row in named.rows] == ["1", "2", "1"]
    with pytest.raises(UserError, match=r"1 of 3 .*a/c1_7.jpg.*--skip-bad"):
        from_folders(root, camera=r"_([89])")
    kept = from_folders(root, camera=r"_([89])", skip_bad=True)
    assert len(kept.rows) == 2
    assert kept.left_out == ["a/c1_7.jpg: no camera in the name"]
    with pytest.raises(UserError, match="no group"):
        from_folders(root, camera=r"c\d")


def test_split_folders_and_one_folder_around_all(tmp_path: Path) -> None:
    touch(tmp_path, "set/Train/a/1.jpg", "set/query/b/1.jpg", "set/gallery/b/2.jpg")
    listing = from_folders(tmp_path)
    assert [(pid, split) for _, pid, _, split in of(listing)] == [
        ("a", "train"),
        ("b", "gallery"),
        ("b", "query"),
    ]


def test_folders_read_from_an_archive(tmp_path: Path) -> None:
    archive = tmp_path / "people.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("people/a/1.jpg", "people/a/2.jpg", "people/b/1.jpg", "__MACOSX/a/._1.jpg"):
            file.writestr(name, name)
    import_images(from_folders(archive), tmp_path / "out", test_share=0)
    data = read_imported(tmp_path / "out")
    assert [record.path for record in data.train] == [
        f"{archive}!/people/{name}" for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg")
    ]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["x.jpg", "a/1.jpg", "b/1.jpg"], "1 images lie in no identity's folder: x.jpg"),
        (["a/1.jpg", "b/c/1.jpg"], "unequal depth"),
        (["a/c/d/1.jpg", "b/c/d/1.jpg"], "unequal depth"),
        (["a/1.jpg", "a/2.jpg"], r"one identity \('a'\)"),
        (["a/1.txt"], "holds no image; 1 files"),
        ([], "holds no image; 0 files"),
        (["01/1.jpg", "1/1.jpg"], "'01' and '1' differ only in leading zeros"),
        (["-1/1.jpg"], "no image is left"),
    ],
)
def test_folders_that_cannot_be_listed(tmp_path: Path, names: list[str], words: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=words):
        from_folders(touch(tmp_path / "in", *names))


def test_patterns_fit_the_whole_name_or_the_path(tmp_path: Path) -> None:
    root = touch(tmp_path, "0099_c1_run/anna_2_1.jpg", "0099_c1_run/bert_10_2.jpg.jpg")
    names = from_pattern(root, PATTERN + r"(\.jpg)?")
    assert [(row.pid, row.camera) for row in names.rows] == [("anna", "2"), ("bert", "10")]
    whole = from_pattern(root, r"(?P<camid>\d+)_.*/(?P<pid>[a-z]+).*")
    assert [(row.pid, row.camera) for row in whole.rows] == [("anna", "0099"), ("bert", "0099")]


def test_junk_is_left_out_and_counted(tmp_path: Path) -> None:
    root = touch(tmp_path / "in", "-1_c1.jpg", "7_c1.jpg", "0_c1.jpg")
    listing = from_pattern(root, r"(?P<pid>-?\d+)_c(?P<camid>\d)")
    assert ([row.pid for row in listing.rows], listing.junk) == (["0", "7"], 1)
    made = import_images(listing, tmp_path / "out", test_share=0)
    assert "1 images of identity -1 are junk" in str(made)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"\d+", "no group named pid"),
        (r"(?P<pid>\d+)_(?P<cam>\d+)", "unknown group 'cam'"),
        (r"(?P<pid>\d+", "no regular expression"),
        (r"(?P<pid>\d+)", r"2 of 2 names do not fit"),
        (r"(?P<pid>[a-z]+)_(?P<split>\w+)_\d", "the split 'door' is unknown"),
    ],
)
def test_patterns_that_cannot_work(tmp_path: Path, pattern: str, words: str) -> None:
    touch(tmp_path, "anna_door_1.jpg", "bert_door_1.jpg")
    with pytest.raises(UserError, match=words):
        from_pattern(tmp_path, pattern)


def test_csv_with_every_column(tmp_path: Path) -> None:
    touch(tmp_path, "a b/x.jpg", "y.jpg", "z.jpg")
    path = write_csv(
        tmp_path / "list.csv",
        "\ufeffPID; Path ;age;camid;split\r",
        "anna;.\\a b\\x.jpg;3;door;train\r",
        "\r",
        f"bert;{tmp_path / 'y.jpg'};4;door;query\r",
        "bert;z.jpg;;yard;gallery",
    )
    assert of(from_csv(path)) == [
        (str(tmp_path / "y.jpg"), "bert", "door", "query"),
        ("a b/x.jpg", "anna", "door", "train"),
        ("z.jpg", "bert", "yard", "gallery"),
    ]


def test_csv_of_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as file:
        file.writestr("a.jpg", "a")
        file.writestr("b.jpg", "b")
    path = write_csv(tmp_path / "list.csv", "path,pid", "a.jpg,1", "./b.jpg,2")
    rows = from_csv(path, images=tmp_path / "in.zip").rows
    assert [row.path for row in rows] == ["a.jpg", "b.jpg"]
    write_csv(path, "path,pid", "a.jpg,1", "../b.jpg,2")
    with pytest.raises(UserError, match=r"1 of 2 images .*\.\./b.jpg"):
        from_csv(path, images=tmp_path / "in.zip")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["path,id", "a.jpg,1"], "no column 'pid'; its first line holds path, id"),
        (["a.jpg,1"], "no column 'path'"),
        ([""], "no column 'path'; its first line holds nothing"),
        (["path,pid,pid", "a.jpg,1,2"], "column 'pid' twice"),
        (["path,pid"], "has no rows"),
        (["path,pid", "a.jpg"], "line 2: 1 cells for 2 columns"),
        (["path,pid", "a.jpg,"], "line 2: the column pid is empty"),
        (["path,pid", "a.jpg,1", "b.jpg,2", "./a.jpg,2"], r"1 images twice: a.jpg \(lines 2 and 4"),
        (["path,pid", "a.jpg,1", "nowhere.jpg,2"], r"1 of 2 .*nowhere.jpg.*--skip-bad"),
        (["path,pid,camid", "a.jpg,1,1", "b.jpg,2,"], "1 of 2 images have no camera"),
        (["path,pid,split", "a.jpg,1,train", "b.jpg,2,"], "1 of 2 images have no split"),
        (["path,pid,split", "a.jpg,1,tran", "b.jpg,2,"], "line 2: the split 'tran' is unknown"),
        (["path,pid", "a.jpg,1", "b.jpg,1"], r"one identity \('1'\)"),
    ],
)
def test_csv_files_that_cannot_be_read(tmp_path: Path, lines: list[str], words: str) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    with pytest.raises(UserError, match=words) as caught:
        from_csv(write_csv(tmp_path / "list.csv", *lines))
    assert "\n" not in str(caught.value)


def test_csv_of_another_encoding_and_no_csv(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    path = write_csv(tmp_path / "l.csv", "path,pid", "a.jpg,Jos\xe9", encoding="latin-1")
    with pytest.raises(UserError, match=r"line 2: byte 0xe9 is not UTF-8"):
        from_csv(path)
    with pytest.raises(UserError, match=r"absent.csv cannot be read"):
        from_csv(tmp_path / "absent.csv")
    (tmp_path / "l.csv").write_bytes(b"path,pid\n\0\0,1")
    with pytest.raises(UserError, match="is no text"):
        from_csv(path)


def test_rows_without_a_file_are_left_out_on_request(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    path = write_csv(tmp_path / "l.csv", "path,pid", "a.jpg,1", "b.jpg,2", "gone.jpg,2")
    listing = from_csv(path, skip_bad=True)
    assert listing.left_out == ["gone.jpg: no such file"]
    made = import_images(listing, tmp_path / "out", test_share=0)
    assert "1 images are left out: gone.jpg" in str(made)
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["left_out"] == listing.left_out


def test_labels_that_look_alike_are_alike(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    path = write_csv(
        tmp_path / "l.csv", "path,pid", "a.jpg,Jos\u00e9", "b.jpg,Jose\u0301 ", "c.jpg,Eva"
    )
    assert len({row.pid for row in from_csv(path).rows}) == 2


def test_natural_order_of_labels() -> None:
    labels = ["cam10", "cam2", "10", "9", "a", "cam", "7b"]
    assert sorted(labels, key=natural) == ["7b", "9", "10", "a", "cam", "cam2", "cam10"]


rows_of_people = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=60
).map(lambda pairs: [Row(f"{n}.jpg", str(p), str(c)) for n, (p, c) in enumerate(pairs)])


@settings(max_examples=150, deadline=None)
@given(rows_of_people, st.integers(0, 3), st.floats(0, 1), st.booleans())
def test_every_query_that_is_chosen_has_a_match(rows, seed, share, synthetic) -> None:
    rule = SYNTHETIC if synthetic else CROSS_CAMERA
    try:
        splits = divide(rows, rule=rule, seed=seed, test_share=share)
    except UserError:
        reject()
    assert splits == divide(rows, rule=rule, seed=seed, test_share=share)
    parts = {
        name: [row for row, split in zip(rows, splits, strict=True) if split == name]
        for name in ("train", "query", "gallery")
    }
    assert sum(map(len, parts.values())) == len(rows)
    train = {row.pid for row in parts["train"]}
    assert not train & {row.pid for row in parts["query"] + parts["gallery"]}
    assert share == 1 or len(train) >= 2 or share == 0
    per_camera = defaultdict(int)
    for query in parts["query"]:
        matches = [row for row in parts["gallery"] if row.pid == query.pid]
        if not synthetic:
            matches = [row for row in matches if row.camera != query.camera]
        assert matches
        per_camera[query.pid, "" if synthetic else query.camera] += 1
    assert max(per_camera.values(), default=1) == 1


def test_division_takes_the_share_and_a_query_of_each_camera() -> None:
    rows = [
        Row(f"{pid}/{camera}/{number}.jpg", str(pid), str(camera))
        for pid in range(20)
        for camera in range(3)
        for number in range(4)
    ]
    splits = divide(rows, rule=CROSS_CAMERA, test_share=0.25)
    assert (splits.count("train"), splits.count("query"), splits.count("gallery")) == (180, 15, 45)
    assert splits != divide(rows, rule=CROSS_CAMERA, test_share=0.25, seed=1)
    synthetic = divide(rows, rule=SYNTHETIC, test_share=0.25)
    assert (synthetic.count("query"), synthetic.count("gallery")) == (5, 55)


def test_choices_stay_when_images_of_others_are_added() -> None:
    rows = [Row(f"{p}{c}{n}.jpg", str(p), str(c)) for p in range(4) for c in "ab" for n in range(3)]
    more = [Row(f"9{n}.jpg", "9", "a") for n in range(3)]
    before = dict(zip(rows, divide(rows, rule=CROSS_CAMERA), strict=True))
    after = dict(zip(rows + more, divide(rows + more, rule=CROSS_CAMERA), strict=True))
    assert {row: after[row] for row in rows} == before


def test_cameras_that_no_identity_crosses() -> None:
    rows = [Row(f"{n}.jpg", str(n // 2), str(n // 2)) for n in range(8)]
    assert camera_rule(rows) == SYNTHETIC
    with pytest.raises(UserError, match="no identity is seen by two cameras"):
        camera_rule(rows, CROSS_CAMERA)
    with pytest.raises(UserError, match="'both' is unknown"):
        camera_rule(rows, "both")
    assert camera_rule([*rows, Row("x.jpg", "0", "7")]) == CROSS_CAMERA


def test_test_rows_are_divided_and_named_splits_stay() -> None:
    rows = [Row(f"{n}.jpg", "ab"[n % 2], str(n // 4), "test") for n in range(8)]
    rows.append(Row("t.jpg", "c", "0", "train"))
    splits = divide(rows, rule=CROSS_CAMERA)
    assert sorted(splits) == ["gallery"] * 4 + ["query"] * 4 + ["train"]
    assert splits[-1] == "train"


def test_reading_gives_numbers_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.jpg" for n in range(5)))
    path = write_csv(
        tmp_path / "l.csv",
        "path,pid,camid,split",
        "0.jpg,p10,cam10,train",
        "1.jpg,p9,cam2,train",
        "2.jpg,p2,cam2,query",
        "3.jpg,p2,cam10,gallery",
        "4.jpg,p3,cam10,gallery",
    )
    import_images(from_csv(path), tmp_path / "out")
    data = read_imported(tmp_path / "out")
    triples = [
        [(Path(r.path).name, r.pid, r.camid) for r in part]
        for part in (data.train, data.query, data.gallery)
    ]
    assert triples == [
        [("0.jpg", 4, 1), ("1.jpg", 3, 0)],
        [("2.jpg", 1, 0)],
        [("3.jpg", 1, 1), ("4.jpg", 2, 1)],
    ]
    assert (data.distractor_pid, data.camera_rule, data.num_cameras) == (None, CROSS_CAMERA, 2)
    assert all(Path(r.path).is_file() for r in data.train + data.query + data.gallery)
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["identities"] == {"1": "p2", "2": "p3", "3": "p9", "4": "p10"}
    assert manifest["cameras"] == {"0": "cam2", "1": "cam10"}


def test_one_camera_gets_synthetic_cameras_and_says_what_is_lost(tmp_path: Path) -> None:
    root = touch(tmp_path / "in", *(f"{pid}/{n}.jpg" for pid in "abcd" for n in range(3)))
    made = import_images(from_folders(root), tmp_path / "out")
    assert "what is lost" in str(made)
    data = read_imported(tmp_path / "out")
    assert data.camera_rule == SYNTHETIC
    assert {r.camid for r in data.query} == {0}
    assert {r.camid for r in data.gallery} == {1}
    assert (len(data.query), len(data.gallery), len(data.train)) == (2, 4, 6)


def test_the_written_list_can_be_imported_again(tmp_path: Path) -> None:
    root = people(tmp_path / "in")
    import_images(from_folders(root), tmp_path / "one")
    again = from_csv(tmp_path / "one" / ROWS, images=root)
    import_images(again, tmp_path / "two")
    first, second = (read_imported(tmp_path / name) for name in ("one", "two"))
    assert (first.train, first.query, first.gallery) == (
        second.train,
        second.query,
        second.gallery,
    )


def test_copies_have_names_of_market_and_the_same_labels(tmp_path: Path) -> None:
    root = people(tmp_path / "in")
    import_images(from_folders(root), tmp_path / "stay")
    import_images(from_folders(root), tmp_path / "copy", copy=True)
    (tmp_path / "copy").rename(tmp_path / "moved")
    stay, moved = read_imported(tmp_path / "stay"), read_imported(tmp_path / "moved")
    for split in ("train", "query", "gallery"):
        before, after = getattr(stay, split), getattr(moved, split)
        assert sorted((r.pid, r.camid, Path(r.path).read_bytes()) for r in before) == sorted(
            (r.pid, r.camid, Path(r.path).read_bytes()) for r in after
        )
        for record in after:
            assert Path(record.path).name.startswith(f"{record.pid:04d}_c{record.camid + 1}s1_")


def test_a_failed_copy_leaves_nothing(tmp_path: Path) -> None:
    listing = from_folders(people(tmp_path / "in"))
    (tmp_path / "in" / listing.rows[20].path).unlink()
    with pytest.raises(UserError, match=r"cannot be read"):
        import_images(listing, tmp_path / "out", copy=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    listing = from_folders(people(tmp_path / "in"))
    import_images(listing, tmp_path / "out")
    before = (tmp_path / "out" / ROWS).read_bytes()
    for copy in (False, True):
        with pytest.raises(UserError, match="exists already"):
            import_images(listing, tmp_path / "out", copy=copy, seed=1)
    with pytest.raises(UserError, match="exists already"):
        import_images(listing, tmp_path / "in", copy=True)
    assert (tmp_path / "out" / ROWS).read_bytes() == before
    # the list may lie beside the images, and moves along with them
    import_images(listing, tmp_path / "in")
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    assert all(
        Path(record.path).is_file() for record in read_imported(tmp_path / "elsewhere").train
    )


def test_a_manifest_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    listing = from_folders(people(tmp_path / "in"))
    import_images(listing, tmp_path / "out")
    with pytest.raises(UserError, match="no imported data set"):
        read_imported(tmp_path / "nowhere")
    (tmp_path / "in").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="no longer at"):
        read_imported(tmp_path / "out")
    (tmp_path / "moved").rename(tmp_path / "in")
    table = tmp_path / "out" / ROWS
    table.write_text(table.read_text().replace("query", "train", 1))
    with pytest.raises(UserError, match="was changed after the import"):
        read_imported(tmp_path / "out")
    (tmp_path / "out" / MANIFEST).write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_imported(tmp_path / "out")
    (tmp_path / "out" / MANIFEST).write_text("[]")
    with pytest.raises(UserError, match="does not describe"):
        read_imported(tmp_path / "out")


def test_queries_without_a_gallery_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    path = write_csv(tmp_path / "l.csv", "path,pid,split", "a.jpg,1,query", "b.jpg,2,query")
    with pytest.raises(UserError, match="query images but no gallery images"):
        import_images(from_csv(path), tmp_path / "out")


def test_notes_name_what_a_user_should_know(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.jpg" for n in range(5)))
    path = write_csv(
        tmp_path / "l.csv",
        "path,pid,camid,split",
        "0.jpg,1,1,train",
        "1.jpg,1,1,query",
        "2.jpg,1,2,gallery",
        "3.jpg,2,2,query",
        "4.jpg,2,2,gallery",
    )
    text = str(import_images(from_csv(path), tmp_path / "out"))
    assert "1 identities are in training and in the test (1)" in text
    assert "1 of 2 query identities" in text


def test_the_verb_prints_the_counts_and_the_next_step(tmp_path: Path, capsys) -> None:
    root, out = people(tmp_path / "in"), tmp_path / "out"
    assert main(["data", "import", "--folders", str(root), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"reid data check imported --root {out}" in printed
    with open(out / ROWS, newline="") as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    assert (splits.count("train"), splits.count("query"), splits.count("gallery")) == (12, 4, 8)
    assert main(["data", "import", "--pattern", PATTERN, "--out", str(out)]) == 2
    assert "--images is missing" in capsys.readouterr().err
    assert main(["data", "import", "--csv", "x", "--camera", "(x)", "--out", str(out)]) == 2
    assert "--camera belongs to --folders" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["market", "market folder", "market pytorch", "veri"])
def test_a_data_set_of_the_catalog_is_no_folder_for_each_identity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    written = LAYOUTS[name]
    root = touch(tmp_path / "the set", *written.images())
    assert main(["data", "import", "--folders", str(root), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert f"has the folders and file names of {written.entry}, not a folder for each" in message
    assert f"reid data check {written.entry} --root '{root}'" in message
    assert not (tmp_path / "out").exists()


def test_names_of_the_catalog_in_one_folder_get_their_pattern(tmp_path: Path) -> None:
    names = ["0002_c1s1_000451_03.jpg", "0002_c2s1_000452_01.jpg", "0007_c3s3_000453_02.jpg"]
    root = touch(tmp_path, *names)
    with pytest.raises(UserError, match=r"list images by --pattern '(.*)'$") as caught:
        from_folders(root)
    pattern = str(caught.value).partition("--pattern '")[2].removesuffix("'")
    assert [(row.pid, row.camera) for row in from_pattern(root, pattern).rows] == [
        ("0002", "1"), ("0002", "2"), ("0007", "3"),
    ]  # fmt: skip


def test_folders_that_only_look_like_a_data_set_are_imported(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{s}/{p}/{p}_0{n}.jpg" for s in ("query", "gallery")
                             for p in ("001", "002") for n in (1, 2)))  # fmt: skip
    assert len(from_folders(root).rows) == 8
    assert {row.split for row in from_folders(root).rows} == {"query", "gallery"}


def test_the_next_command_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my set"
    people(tmp_path / "in")
    assert main(["data", "import", "--folders", str(tmp_path / "in"), "--out", str(out)]) == 0
    assert f"next: reid data check imported --root '{out}'" in capsys.readouterr().out
