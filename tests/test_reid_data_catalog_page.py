"""docs/data.md says what the catalog says, and the entries are complete."""

import re
from pathlib import Path

import pytest

from reid.data import catalog
from reid.data.catalog import page
from reid.data.catalog.spec import SPLITS, Entry

PAGE = Path(__file__).parent.parent / "docs" / "data.md"
ALL = pytest.mark.parametrize("entry", catalog.ENTRIES.values(), ids=lambda entry: entry.name)


def test_the_page_is_written_from_the_entries(tmp_path: Path) -> None:
    current = PAGE.read_text(encoding="utf-8")
    again = tmp_path / "data.md"
    again.write_text(current, encoding="utf-8")
    page.write(again)
    assert again.read_text(encoding="utf-8") == current, (
        "run: python -m reid.data.catalog.page docs/data.md"
    )


@ALL
def test_the_table_has_the_counts(entry: Entry) -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `{entry.name}` |")
    ]
    assert len(rows) == len(entry.protocols)
    for row, protocol in zip(rows, entry.protocols, strict=True):
        assert row[1] == (protocol.name if len(rows) > 1 else "-")
        for split, cell in zip(SPLITS, row[2:5], strict=True):
            count = protocol.counts.get(split)
            if count is not None:
                numbers = [int(n) for n in re.findall(r"\d+", cell.replace(",", ""))]
                assert numbers == [count.images, count.ids, count.cams]
                assert cell.endswith(r"\*") == count.unverified
        assert row[6] == entry.camera_rule


@ALL
def test_entries_are_complete(entry: Entry) -> None:
    generated = entry.name.endswith("mannequins")
    assert entry.terms.endswith(".")
    assert bool(entry.citation) != generated
    assert not re.search(r"https?://|www\.", f"{entry.terms}{entry.traps}{entry.citation}")
    for protocol in entry.protocols:
        assert any(not n.protocols or protocol.name in n.protocols for n in entry.layouts)
        for split in protocol.counts:
            assert any(layout.parts(split, protocol.name) for layout in entry.layouts)
    for layout in entry.layouts:
        assert layout.naming.parse(layout.naming.example) is not None
        assert set(layout.protocols) <= {protocol.name for protocol in entry.protocols}
        for pattern in layout.naming.patterns:
            assert pattern.pattern.startswith("^")
            assert pattern.pattern.endswith("$")


@ALL
def test_sets_cut_from_duke_are_marked_withdrawn(entry: Entry) -> None:
    assert entry.withdrawn == ("Duke" in entry.title)
    assert ("withdrawn" in entry.terms.lower()) == entry.withdrawn


def test_published_counts() -> None:
    """The numbers of the papers and of the public loaders, once more."""
    counts = {
        (name, protocol.name, split): (c.images, c.ids, c.cams)
        for name, entry in catalog.ENTRIES.items()
        for protocol in entry.protocols
        for split, c in protocol.counts.items()
    }
    assert counts["market1501", "standard", "gallery"] == (19_732 - 3_819, 750, 6)
    assert counts["market1501", "500k", "gallery"] == (515_913, 750, 6)
    assert counts["occluded-duke", "standard", "query"] == (2_210, 519, 8)
    gallery = counts["dukemtmc-reid", "standard", "gallery"]
    assert counts["occluded-duke", "standard", "gallery"] == gallery == (17_661, 702 + 408, 8)
    assert counts["msmt17", "train+val", "train"] == (30_248 + 2_373, 1_041, 15)
    p_duke = [counts["p-duke", "standard", split] for split in SPLITS]
    assert sum(images for images, _, _ in p_duke) == 24_143
    assert p_duke[0][1] + p_duke[1][1] == 1_299
    assert counts["occluded-reid", "standard", "query"] == (200 * 5, 200, 1)
    assert counts["partial-reid", "occluded-body", "query"] == (60 * 5, 60, 1)
