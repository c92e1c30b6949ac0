"""Which data set of the catalog some folders and file names are those of."""

import json
from collections.abc import Sequence

from reid.data.catalog.entries import ENTRIES, MANIFEST
from reid.data.catalog.find import lacks
from reid.data.catalog.tree import Tree
from reid.errors import UserError


def generated_as(tree: Tree, base: str) -> str:
    """Name of the generated set that lies in a folder; empty for any other set."""
    path = tree.find_file(base, MANIFEST)
    if path is None:
        return ""
    try:
        manifest = json.loads(tree.source.read(path))
    except (UserError, ValueError):
        return ""
    name = manifest.get("protocol") if isinstance(manifest, dict) else None
    return name if isinstance(name, str) else ""


def entries_of(tree: Tree, base: str, names: Sequence[str]) -> list[str]:
    """Data sets that have a layout in a folder, and whose files are called like these.

    Args:
        tree: Where the folder is.
        base: The folder.
        names: Base names, all of which have to fit.
    """
    generated = generated_as(tree, base)
    if generated in ENTRIES:
        return [generated]
    return [
        entry.name
        for entry in ENTRIES.values()
        if not entry.generated
        and any(
            not lacks(tree, layout, entry.protocols[0].name, base)
            and all(layout.naming.parse(name) for name in names)
            for layout in entry.layouts
        )
    ]


def pattern_of(names: Sequence[str]) -> str:
    """Expression of the catalog that all names fit without their ending, or "".

    Its groups are `pid` and `camid`, as `reid.data.imported.from_pattern` takes them.
    """
    for entry in ENTRIES.values():
        for naming in (layout.naming for layout in entry.layouts):
            for stem, pattern in zip(naming.stems, naming.patterns, strict=True):
                if pattern.groupindex.keys() == {"pid", "camera"} and all(
                    map(pattern.match, names)
                ):
                    return stem.replace("(?P<camera>", "(?P<camid>")
    return ""
