"""Every layout of the catalog, written small with its traps, is read back exactly."""

from pathlib import Path

import pytest
import reid_layouts as layouts
from reid_layouts import LAYOUTS, Written

from reid.data import catalog
from reid.data.catalog.spec import SPLITS, Entry
from reid.data.records import Record, ReidData
from reid.data.source import read_bytes

KINDS = ["folder", "zip", "tar", "tar.gz"]


def rows(root: Path, records: list[Record], below: str) -> list[tuple[str, int, int]]:
    """File below the layout, pid and camid of each record."""
    found = []
    for record in records:
        assert record.path.startswith(str(root))
        inside = record.path[len(str(root)) :].replace("\\", "/").removeprefix("!").strip("/")
        assert inside.startswith(f"{below}/" if below else "")
        found.append((inside.removeprefix(below).strip("/"), record.pid, record.camid))
    return found


def check(written: Written, data: ReidData, root: Path, below: str | None = None) -> None:
    below = written.below if below is None else below
    for split in SPLITS:
        assert rows(root, getattr(data, split), below) == getattr(written, split), split
    entry = catalog.entry(written.entry)
    assert (data.name, data.layout, data.version) == (entry.name, written.layout, written.version)
    assert data.variant == (written.protocol or entry.protocols[0].name)
    assert data.protocol == entry.kind
    assert data.camera_rule == entry.camera_rule
    assert data.distractor_pid == entry.distractor_pid
    images = [*data.train, *data.query, *data.gallery]
    assert data.num_cameras == max(record.camid for record in images) + 1
    for record in images:
        assert read_bytes(record.path).decode() in record.path.replace("\\", "/")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(tmp_path: Path, name: str, kind: str) -> None:
    written = LAYOUTS[name]
    # a parent that looks like the name of an image
    top = tmp_path / "2024_c1_run" / "0099_c5s1_000001_01.jpg"
    root = layouts.write(top, written.files(), kind)
    check(written, catalog.read(written.entry, root, protocol=written.protocol), root)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_folder_of_the_layout_itself(tmp_path: Path, name: str) -> None:
    written = LAYOUTS[name]
    layouts.write(tmp_path, written.files())
    root = tmp_path.joinpath(*written.below.split("/"))
    check(written, catalog.read(written.entry, root, protocol=written.protocol), root, "")


@pytest.mark.parametrize("name", LAYOUTS)
def test_everything_is_located_before_junk_is_dropped(tmp_path: Path, name: str) -> None:
    written = LAYOUTS[name]
    found = catalog.locate(
        written.entry, layouts.write(tmp_path, written.files()), written.protocol
    )
    for split in SPLITS:
        kept = [file for file, _, _ in getattr(written, split)]
        got = [file for file, _, _ in rows(tmp_path, found.splits[split], written.below)]
        assert sorted(got) == sorted(kept + written.dropped.get(split, []))
        assert found.bad[split] == []
    assert found.unmatched == []
    assert Path(found.root) == tmp_path.joinpath(*written.below.split("/"))


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["market below", "msmt V2", "p-duke below"])
def test_a_folder_with_nothing_but_the_archive(tmp_path: Path, name: str, kind: str) -> None:
    written = LAYOUTS[name]
    archive = layouts.write(tmp_path / "download", written.files(), kind)
    (tmp_path / "download" / "readme.txt").write_text("x")
    data = catalog.read(written.entry, tmp_path / "download", protocol=written.protocol)
    check(written, data, archive)


@pytest.mark.parametrize("depth", [1, 2])
def test_folders_that_hold_one_folder(tmp_path: Path, depth: int) -> None:
    written = LAYOUTS["market below"]
    top = "/".join(["unpacked", "here"][:depth])
    layouts.write(tmp_path, {f"{top}/{n}": c for n, c in written.files().items()})
    check(written, catalog.read("market1501", tmp_path), tmp_path, f"{top}/{written.below}")


def test_folders_are_found_whatever_their_case(tmp_path: Path) -> None:
    written = LAYOUTS["msmt V1"]
    lists = {n.replace("list_", "List_"): c for n, c in written.files().items()}
    files = {n.replace("MSMT17_V1/test/", "msmt17_v1/Test/"): c for n, c in lists.items()}
    files = {n.replace("MSMT17_V1/", "msmt17_v1/"): c for n, c in files.items()}
    data = catalog.read("msmt17", layouts.write(tmp_path, files))
    assert [r.pid for r in data.gallery] == [0, 1, 3059]
    assert "Test" in data.gallery[0].path
    assert data.version == "V1"


def test_the_original_goes_before_the_copy_that_a_tool_made(tmp_path: Path) -> None:
    copy = LAYOUTS["market pytorch"].files()
    files = {n.replace("Market/pytorch", "pytorch"): c for n, c in copy.items()}
    data = catalog.read("market1501", layouts.write(tmp_path, {**files, **_market()}))
    assert data.layout == "market"


def _market() -> dict[str, bytes]:
    return LAYOUTS["market"].files()


@pytest.mark.parametrize(
    ("name", "version"),
    [("MSMT17_V1.tar", "V1"), ("msmt17-v2.tar", "V2"), ("MSMT17.tar", "unknown")],
)
def test_the_name_of_an_archive_tells_the_version(tmp_path: Path, name: str, version: str) -> None:
    written = layouts.msmt_lists("train", "test", True)
    path = layouts.write(tmp_path, written.files(), "tar")
    assert catalog.read("msmt17", path.rename(tmp_path / name)).version == version


def test_labels_run_over_both_training_folders(tmp_path: Path) -> None:
    from reid.data.store import relabel

    data = catalog.read("p-duke", layouts.write(tmp_path, LAYOUTS["p-duke"].files()))
    assert relabel(data.train) == ([0, 1, 1, 2], {4: 0, 7: 1, 9: 2})


@pytest.mark.parametrize("entry", catalog.ENTRIES.values(), ids=lambda entry: entry.name)
def test_every_layout_of_the_catalog_is_written_here(entry: Entry) -> None:
    generated = entry.name.endswith("mannequins")
    wanted = {(n.name, n.version) for n in entry.layouts if not (generated or _duke_copy(entry, n))}
    written = [w for w in LAYOUTS.values() if w.entry == entry.name]
    versions = {layout.version for layout in entry.layouts}
    found = {(w.layout, w.version if w.version in versions else "") for w in written}
    if entry.name == "msmt17":
        found |= {(name, "") for name, _ in found}
    if entry.name == "cuhk03":
        found.add(("pytorch", ""))
    assert wanted <= found


def _duke_copy(entry: Entry, layout: catalog.Layout) -> bool:
    return entry.name == "dukemtmc-reid" and layout.name == "pytorch"


def test_a_split_may_have_the_same_names_as_another(tmp_path: Path) -> None:
    """Queries of Occluded-DukeMTMC are in its gallery as well."""
    files = LAYOUTS["occluded-duke"].files()
    data = catalog.read("occluded-duke", layouts.write(tmp_path, files))
    assert Path(data.query[0].path).name == Path(data.gallery[0].path).name
