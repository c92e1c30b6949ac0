"""The part of docs/data.md that follows from the entries: `python -m reid.data.catalog.page FILE`.

What lies between the two marks of the file is replaced.
"""

import sys
import textwrap
from pathlib import Path

from reid.data.catalog.entries import ENTRIES
from reid.data.catalog.spec import SPLITS, Count, Entry, Layout, Protocol

START, END = "<!-- catalog: start -->", "<!-- catalog: end -->"
_WIDTH = 110


def table() -> str:
    """One row per data set and protocol: counts, layouts and camera rule."""
    lines = [
        "| name | protocol | train | query | gallery | layouts | cameras |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in ENTRIES.values():
        for protocol in entry.protocols:
            layouts = [n for n in entry.layouts if not n.protocols or protocol.name in n.protocols]
            cells = [
                f"`{entry.name}`",
                protocol.name if len(entry.protocols) > 1 else "-",
                *(_count(entry, protocol, split) for split in SPLITS),
                ", ".join(dict.fromkeys(layout.name for layout in layouts)),
                entry.camera_rule,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sections() -> str:
    """One section per data set: protocols, terms, citation, traps, layouts."""
    return "\n\n".join(_section(entry) for entry in ENTRIES.values())


def text() -> str:
    """All that stands between the two marks."""
    note = (
        "Counts are images / identities / cameras as published, without junk; identities without "
        "distractors. A star marks numbers that somebody stated and that disagree elsewhere or "
        "could not be confirmed."
    )
    return f"{table()}\n\n{_fill(note)}\n\n{sections()}"


def write(path: str | Path) -> None:
    """Replace what lies between the two marks of a page."""
    page = Path(path).read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    Path(path).write_text(
        f"{before}{START}\n\n{text()}\n\n{END}{after}", encoding="utf-8", newline="\n"
    )


def _count(entry: Entry, protocol: Protocol, split: str) -> str:
    count: Count | None = protocol.counts.get(split)
    if count is None:
        has = any(layout.parts(split, protocol.name) for layout in entry.layouts)
        unknown = "not stated" if entry.citation else "any"
        return unknown if has else "-"
    star = "*" if count.unverified else ""
    return f"{count.images:,} / {count.ids:,} / {count.cams}{star}".replace("*", r"\*")


def _section(entry: Entry) -> str:
    withdrawn = " (withdrawn)" if entry.withdrawn else ""
    parts = [f"### {entry.name}: {entry.title}{withdrawn}"]
    words = []
    if len(entry.protocols) > 1:
        named = [f"`{p.name}` ({p.text})" for p in entry.protocols]
        words.append(f"Protocols: {', '.join(named)}; the first is the default.")
    else:
        words.append(f"Protocol: {entry.protocols[0].text}.")
    junk = entry.protocols[0].counts.get("gallery")
    if junk is not None and junk.junk:
        words.append(f"The gallery folder holds {junk.junk:,} images of junk more.")
    words.append(f"Terms: {entry.terms}")
    words += [f"Traps: {entry.traps}"] if entry.traps else []
    words += [f"Cite {entry.citation}."] if entry.citation else []
    parts.append(_fill(" ".join(words)))
    parts.append("\n".join(_layout(layout) for layout in entry.layouts))
    return "\n\n".join(parts)


def _layout(layout: Layout) -> str:
    needs = [f"`{need}`" for need in _all_needs(layout)]
    places = [f"`{place}/`" for place in layout.places if place != "."]
    serves = f" ({', '.join(layout.protocols)})" if layout.protocols else ""
    where = f"; in the root, or below it in {', '.join(places)}" if places else ""
    version = f" {layout.version}" if layout.version else ""
    words = f"* {layout.name}{version}{serves}: {', '.join(needs)}{where}; "
    return textwrap.fill(
        f"{words}files as `{layout.naming.example}`.",
        _WIDTH,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _all_needs(layout: Layout) -> list[str]:
    parts = [part for split in SPLITS for part in getattr(layout, split)]
    folders = [f"{part.folder}/" for part in parts]
    return list(dict.fromkeys(folders + [part.list for part in parts if part.list]))


def _fill(words: str) -> str:
    return textwrap.fill(words, _WIDTH, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    write(sys.argv[1])
