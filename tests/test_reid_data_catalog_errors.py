"""What the catalog refuses: one line that names what was found and what to do."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import reid_layouts as layouts
import scipy.io
from reid_layouts import LAYOUTS

from reid.data import catalog
from reid.errors import UserError


def fails(entry: str, root: Path, protocol: str = "") -> str:
    with pytest.raises(UserError) as caught:
        catalog.read(entry, root, protocol=protocol)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(tmp_path: Path, name: str, **files: bytes | None) -> Path:
    """A layout at the root, with files replaced, added, or (None) left out."""
    made = LAYOUTS[name].files()
    below = LAYOUTS[name].below
    made = {n.removeprefix(f"{below}/"): c for n, c in made.items() if "__MACOSX" not in n}
    made.update({n: c for n, c in files.items() if c is not None})
    return layouts.write(tmp_path / "set", {n: c for n, c in made.items() if files.get(n, b"")
                                            is not None})  # fmt: skip


def msmt(tmp_path: Path, **lists: bytes | None) -> Path:
    return written(tmp_path, "msmt V1", **{f"list_{n}.txt": c for n, c in lists.items()})


def test_unknown_protocol_lists_the_known(tmp_path: Path) -> None:
    text = fails("partial-reid", tmp_path, "occluded")
    assert text == (
        "partial-reid has no protocol 'occluded'; choose one of partial-body, occluded-body"
    )


def test_missing_lists_are_named_with_the_remedy(tmp_path: Path) -> None:
    root = msmt(tmp_path, query=None, gallery=None)
    text = fails("msmt17", root)
    assert f"{root} lacks list_query.txt, list_gallery.txt: without the lists" in text
    assert "put them there" in text


def test_the_list_of_validation_images_is_needed_for_its_protocol_only(tmp_path: Path) -> None:
    root = msmt(tmp_path, val=None)
    assert "lacks list_val.txt" in fails("msmt17", root)
    assert len(catalog.read("msmt17", root, protocol="train").train) == 3


def test_a_list_that_names_missing_files(tmp_path: Path) -> None:
    lines = b"0000/0000_000_01_0303morning_0008_0.jpg 0\n\n0007/a_b_01.jpg 7\r\n0008/x.jpg 8\n"
    root = msmt(tmp_path, query=lines)
    text = fails("msmt17", root)
    missing = root / "test" / "0007" / "a_b_01.jpg"
    assert f"{root / 'list_query.txt'}, line 3 names {missing}, which does not exist" in text
    assert "(2 such files or lines in all)" in text
    assert "--skip-bad" in text


def test_bad_lines_are_left_out_counted_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [f"0000/lost_{n}.jpg 0" for n in range(7)]
    good = "0000/0000_000_01_0303morning_0008_0.jpg 0"
    root = msmt(tmp_path, query="\n".join([good, *bad]).encode())
    data = catalog.read("msmt17", root, skip_bad=True)
    assert [(r.pid, r.camid) for r in data.query] == [(0, 0)]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "reid: msmt17: left out 7 files or lines"
    assert "line 2 names" in said[1]
    assert said[-1] == "reid:   and 2 more"
    assert len(said) == 7


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0000/0000_000_01_0303morning_0008_0.jpg", "is not a path and a pid"),
        ("0000/0000_000_01_0303morning_0008_0.jpg -1", "is not a path and a pid"),
        ("42", "is not a path and a pid"),
        ("../train/0000/0000_000_01_0303morning_0008_0.jpg 0", "leaves "),
        ("/etc/passwd 0", "'/etc/passwd' leaves "),
        ("C:/x.jpg 0", "leaves "),
    ],
)
def test_lines_that_are_no_entry(tmp_path: Path, line: str, message: str) -> None:
    root = msmt(tmp_path, query=f"{line}\n".encode())
    text = fails("msmt17", root)
    assert f"{root / 'list_query.txt'}, line 1: " in text
    assert message in text


def test_a_line_that_is_there_twice(tmp_path: Path) -> None:
    line = b"0000/0000_000_01_0303morning_0008_0.jpg 0\n"
    text = fails("msmt17", msmt(tmp_path, query=line + line))
    assert "line 2 names" in text
    assert "as line 1 does" in text


def test_a_name_in_a_list_that_does_not_fit(tmp_path: Path) -> None:
    root = msmt(tmp_path, query=b"0000/odd.jpg 0\n")
    (root / "test" / "0000" / "odd.jpg").write_bytes(b"x")
    assert "odd.jpg, which does not fit msmt17" in fails("msmt17", root)


@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b"\xff\xfe\x00", "no")])
def test_lists_that_are_no_lists(tmp_path: Path, content: bytes, message: str) -> None:
    text = fails("msmt17", msmt(tmp_path, gallery=content))
    assert "list_gallery.txt" in text
    assert "is empty" in text if message == "is empty" else "is not a text file" in text


def test_a_list_with_the_mark_and_line_ends_of_windows(tmp_path: Path) -> None:
    line = b"\xef\xbb\xbf0000\\0000_000_01_0303morning_0008_0.jpg 0\r\n"
    data = catalog.read("msmt17", msmt(tmp_path, query=line))
    assert [(r.pid, r.camid) for r in data.query] == [(0, 0)]


def test_two_versions_below_one_root(tmp_path: Path) -> None:
    for name in ("msmt V1", "msmt V2"):
        layouts.write(tmp_path, LAYOUTS[name].files())
    text = fails("msmt17", tmp_path)
    assert "holds msmt17 more than once" in text
    assert f"{tmp_path / 'MSMT17_V1'} (lists), {tmp_path / 'MSMT17_V2'} (lists)" in text
    assert catalog.read("msmt17", tmp_path / "MSMT17_V2").version == "V2"


def test_two_versions_in_one_folder(tmp_path: Path) -> None:
    for version in ("msmt V1", "msmt V2"):
        made = LAYOUTS[version].files()
        layouts.write(tmp_path, {n.replace("MSMT17_V2", "MSMT17_V1"): c for n, c in made.items()})
    assert "more than once" in fails("msmt17", tmp_path)


def test_two_layouts_in_one_folder(tmp_path: Path) -> None:
    for name in ("partial-ilids", "partial-ilids bodies"):
        layouts.write(tmp_path, LAYOUTS[name].files())
    text = fails("partial-ilids", tmp_path)
    assert "(original)" in text
    assert "(body-images)" in text


def test_a_layout_that_cannot_serve_the_protocol(tmp_path: Path) -> None:
    layouts.write(tmp_path, LAYOUTS["msmt market"].files())
    text = fails("msmt17", tmp_path, "train")
    assert "(market), which serves 'train+val', does not serve the protocol 'train' of" in text
    layouts.write(tmp_path / "c", LAYOUTS["cuhk detected"].files())
    assert "which serves 'detected'" in fails("cuhk03", tmp_path / "c", "labeled")
    root = layouts.write(tmp_path / "m", LAYOUTS["market"].files())
    assert "lacks images/" in fails("market1501", root, "500k")


@pytest.mark.parametrize("below", ["", "pytorch"])
def test_boxes_of_cuhk03_are_not_taken_for_the_other_kind(tmp_path: Path, below: str) -> None:
    folders = ("train_all", "query", "gallery") if below else ("bounding_box_train", "query",
                                                               "bounding_box_test")  # fmt: skip
    files = {f"{folder}/{pid:04d}_c{camera}_01.png": b"x" for folder in folders
             for pid in (1, 2) for camera in (1, 2)}  # fmt: skip
    root = layouts.write(tmp_path / "labeled" / below, files)
    assert catalog.read("cuhk03", root, protocol="labeled").variant == "labeled"
    text = fails("cuhk03", root, "detected")
    assert "which serves 'labeled', does not serve the protocol 'detected' of cuhk03" in text


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    ("entry", "name", "called", "owner"),
    [
        ("occluded-duke", "duke", "DukeMTMC-reID", "dukemtmc-reid"),
        ("dukemtmc-reid", "occluded-duke", "Occluded_Duke", "occluded-duke"),
        ("occluded-reid", "partial-reid occluded", "Partial-REID_Dataset", "partial-reid"),
        ("market1501", "mannequins", "mannequins", "mannequins"),
    ],
)
def test_a_folder_called_like_another_set(
    tmp_path: Path, entry: str, name: str, called: str, owner: str, kind: str
) -> None:
    made = LAYOUTS[name].files()
    below = f"{LAYOUTS[name].below}/"
    files = {n.removeprefix(below): c for n, c in made.items() if "__MACOSX" not in n}
    at = tmp_path / called if kind == "folder" else tmp_path
    root = layouts.write(at, files, kind, called)
    assert f"is called like {owner}, which looks the same" in fails(entry, root)
    assert catalog.read(owner, root, protocol=LAYOUTS[name].protocol).query


def test_cuhk03_inside_its_mat_file(tmp_path: Path) -> None:
    layouts.write(tmp_path, {"cuhk03_release/cuhk-03.mat": b"x"})
    text = fails("cuhk03", tmp_path)
    assert "holds the images inside cuhk-03.mat; write them as images_detected/" in text


def test_lists_of_occluded_duke_without_images(tmp_path: Path) -> None:
    layouts.write(tmp_path, {"Occluded_Duke/train.list": b"x", "Occluded_Duke/query.list": b"x"})
    assert "reid data build occluded-duke" in fails("occluded-duke", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_idx": [[9]]}, "out of range"),
        ({"query_idx": [[0]]}, "rows count from 1"),
        ({"query_idx": None}, "query_idx"),
        ({"labels": [["a"]]}, "invalid literal"),
    ],
)
def test_split_files_of_cuhk03_that_are_none(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    kind = "cuhk03_new_protocol_config_labeled.mat"
    made = LAYOUTS["cuhk config"]
    config = scipy.io.loadmat(io.BytesIO(made.others[kind] or b""))
    variables = {n: v for n, v in {**config, **change}.items() if n[0] != "_" and v is not None}
    content = io.BytesIO()
    scipy.io.savemat(content, {n: np.asarray(v) for n, v in variables.items()})
    root = written(tmp_path, "cuhk config", **{kind: content.getvalue()})
    text = fails("cuhk03", root, "labeled")
    assert f"{root / kind} is not the split file of CUHK03" in text
    assert message in text


@pytest.mark.parametrize(
    "content", [b"", b"no mat file at all", b"MATLAB 7.3 MAT-file" + bytes(200)]
)
def test_a_split_file_that_is_no_mat_file(tmp_path: Path, content: bytes) -> None:
    kind = "cuhk03_new_protocol_config_labeled.mat"
    text = fails("cuhk03", written(tmp_path, "cuhk config", **{kind: content}), "labeled")
    assert "is not the split file of CUHK03" in text


def test_an_image_that_the_split_file_names_is_missing(tmp_path: Path) -> None:
    root = written(tmp_path, "cuhk config", **{"images_labeled/1_001_2_06.png": None})
    text = fails("cuhk03", root, "labeled")
    assert "train_idx 2 names" in text
    assert "1_001_2_06.png, which does not exist" in text


def test_the_same_image_in_two_formats(tmp_path: Path) -> None:
    name = "occluded_body_images/001/001_01"
    root = written(tmp_path, "occluded-reid", **{f"{name}.jpg": b"x"})
    text = fails("occluded-reid", root)
    assert f"{root.joinpath(*name.split('/'))}.tif is there as 001_01.jpg as well" in text
    assert len(catalog.read("occluded-reid", root, skip_bad=True).query) == 6


def test_a_copy_with_two_endings(tmp_path: Path) -> None:
    root = written(tmp_path, "market", **{"query/0010_c1s1_000001_00.jpg.jpg": b"x"})
    assert "is there as 0010_c1s1_000001_00.jpg as well" in fails("market1501", root)


def test_an_image_in_the_folder_of_another_identity(tmp_path: Path) -> None:
    root = written(tmp_path, "p-duke", **{"test/whole_body_images/0031/0030_c2_f0000008.jpg": b"x"})
    text = fails("p-duke", root)
    assert "0030_c2_f0000008.jpg lies in the folder of 0031, but its name says 30; move it" in text


def test_images_both_flat_and_in_folders(tmp_path: Path) -> None:
    root = written(tmp_path, "cuhk detected", **{"query/0800/0800_c2_09.png": b"x"})
    text = fails("cuhk03", root, "detected")
    assert f"{root / 'query'} holds images itself and in folders per identity" in text


def test_a_camera_of_number_zero_does_not_fit(tmp_path: Path) -> None:
    root = written(tmp_path, "veri", **{"image_test/0002_c000_00030605_1.jpg": b"x"})
    assert "0002_c000_00030605_1.jpg: the name does not fit veri776" in fails("veri776", root)
    found = catalog.locate("veri776", root)
    assert found.unmatched == [str(root / "image_test" / "0002_c000_00030605_1.jpg")]


def test_names_that_do_not_fit_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"query/person.jpg": b"x", "query/1_c1s1_1_1.jpg": b"x"}
    root = written(tmp_path, "market", **more)
    assert "(2 such files or lines in all)" in fails("market1501", root)
    assert len(catalog.read("market1501", root, skip_bad=True).query) == 2
    said = capsys.readouterr().err
    assert "left out 2 files" in said
    assert "person.jpg" in said


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("one", "other"),
    [("query/", "Query/"), ("MSMT17_V1/", "msmt17_v1/"), ("list_val.txt", "List_Val.txt")],
)
def test_names_that_differ_in_case_only(tmp_path: Path, kind: str, one: str, other: str) -> None:
    name = "market" if one == "query/" else "msmt V1"
    files = LAYOUTS[name].files()
    files.update({n.replace(one, other): c for n, c in files.items()})
    text = fails(LAYOUTS[name].entry, layouts.write(tmp_path, files, kind))
    assert "which are one name to some file systems" in text
    assert repr(one.rstrip("/")) in text


def test_several_archives_are_named(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        layouts.write(tmp_path, LAYOUTS["market"].files(), "zip", stem)
    text = fails("market1501", tmp_path)
    assert text.endswith("unpack one of a.zip, b.zip")


def test_another_set_in_the_archive(tmp_path: Path) -> None:
    path = layouts.write(tmp_path, LAYOUTS["veri"].files(), "zip")
    text = fails("market1501", path)
    assert f"{path} has no folder 'bounding_box_train'" in text
    assert "market1501 needs bounding_box_train/, query/, bounding_box_test/ there" in text


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_an_empty_root(tmp_path: Path, kind: str) -> None:
    root = layouts.write(tmp_path / "x", {"notes.txt": b"x"}, kind)
    assert "has no folder 'train'" in fails("msmt17", root)


def test_a_damaged_archive_is_named_by_every_entry(tmp_path: Path) -> None:
    path = tmp_path / "Market.zip"
    path.write_bytes(b"PK\x03\x04 cut off")
    for name in catalog.names():
        wanted = "is a file; give the folder" if name == "imported" else "is no complete archive"
        assert f"{path} {wanted}" in fails(name, path)


def test_sets_without_training_images(tmp_path: Path) -> None:
    data = catalog.read("p-ethz", written(tmp_path, "p-ethz"))
    assert data.train == []
    assert {r.camid for r in data.query} == {0}
    assert {r.camid for r in data.gallery} == {1}


def test_an_empty_gallery(tmp_path: Path) -> None:
    root = written(tmp_path, "occluded-reid flat")
    for path in (root / "gallery").iterdir():
        path.unlink()
    assert re.search(r"gallery holds no images; expected files like", fails("occluded-reid", root))


def test_pid_zero_is_a_person_of_msmt17(tmp_path: Path) -> None:
    data = catalog.read("msmt17", written(tmp_path, "msmt V1"))
    assert data.distractor_pid is None
    assert {r.pid for r in data.query} == {0, 1}
    assert 0 in {r.pid for r in data.train}
