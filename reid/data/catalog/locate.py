"""Find which layout of a data set lies below a root, and list every image of it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from reid.data.archives import SUFFIXES, is_archive
from reid.data.catalog.entries import ENTRIES, MANIFEST, entry, protocol_of
from reid.data.catalog.files import Bad, read_part
from reid.data.catalog.find import Place, find
from reid.data.catalog.recognise import entries_of, generated_as
from reid.data.catalog.spec import SPLITS, Entry, Layout, Protocol
from reid.data.catalog.tree import Tree
from reid.data.records import Record
from reid.data.source import Source, open_source
from reid.errors import UserError


@dataclass
class LayoutFound:
    """A data set as it lies on disk.

    Attributes:
        entry: What was looked for.
        protocol: Under which protocol.
        layout: Which layout was found.
        source: Folder or archive that holds it.
        base: Posix path of the layout's folder in the source; "" is the source itself.
        version: Version of the set; "unknown" where there are several and nothing tells.
        splits: All records by split, junk included, sorted by pid, camera and name.
        bad: What is not in `splits`: images whose name does not fit, doubles, and lines of lists
            that name no image.
    """

    entry: Entry
    protocol: Protocol
    layout: Layout
    source: Source
    base: str
    version: str = ""
    splits: dict[str, list[Record]] = field(default_factory=dict)
    bad: dict[str, list[Bad]] = field(default_factory=dict)

    @property
    def root(self) -> str:
        """The layout's folder, as `Record.path` writes it."""
        return self.source.path(self.base) if self.base else str(self.source.root)

    @property
    def unmatched(self) -> list[str]:
        """Paths of images whose name does not fit the layout's pattern."""
        return [bad.path for split in self.bad.values() for bad in split if bad.reason == "name"]

    def where(self, split: str) -> str:
        """The folder or list of a split, for messages."""
        part = self.layout.parts(split, self.protocol.name)[0]
        name = part.list or part.folder
        return self.source.path(f"{self.base}/{name}" if self.base else name)


def locate(name: str, root: str | os.PathLike[str], protocol: str | None = None) -> LayoutFound:
    """Find a data set and list its images, junk included.

    Args:
        name: Name of the data set.
        root: Its folder, a folder above it, an archive, or a folder with nothing but the archive.
        protocol: One of the entry's protocols; None or "" takes the default.

    Returns:
        Layout and records; what does not fit is in `bad` and raises no error.

    Raises:
        UserError: Unknown name or protocol; no layout, or several, below the root; an empty
            folder; a list that cannot be read.
    """
    spec = entry(name)
    chosen = protocol_of(spec, protocol)
    top = Path(root)
    needs = ", ".join(spec.layouts[0].needs(chosen.name))
    if not top.exists():
        raise UserError(f"{top} does not exist; give the folder or archive that holds {needs}")
    if not top.is_dir() and not is_archive(top):
        raise UserError(f"{top} is a file; give the folder or archive that holds {needs}")
    place = find(Tree(open_source(top)), spec, chosen.name)
    _refuse_other(spec, place)
    _refuse_other_generated(spec, place)
    tree = place.tree
    found = LayoutFound(spec, chosen, place.layout, tree.source, place.base, _version(spec, place))
    for split in SPLITS:
        keyed = []
        found.bad[split] = []
        for part in place.layout.parts(split, chosen.name):
            files, bad = read_part(tree, place.base, part, place.layout.naming, spec.name)
            keyed += [(file.pid, file.camid, file.name) for file in files]
            found.bad[split] += bad
        found.splits[split] = [
            Record(tree.source.path(file), pid, camid) for pid, camid, file in sorted(keyed)
        ]
    if not any(found.splits.values()):
        _refuse_foreign(found, place)
    return found


def _folder_name(place: Place) -> str:
    """Name of the folder of the layout, or of its archive without the ending."""
    root = place.tree.source.root.absolute().name
    if place.base:
        return place.base.rpartition("/")[2]
    ending = next((suffix for suffix in SUFFIXES if root.lower().endswith(suffix)), "")
    return root.removesuffix(root[len(root) - len(ending) :]) if ending else root


def _refuse_other(spec: Entry, place: Place) -> None:
    """Refuse a folder that is called like another data set, whose files may look the same."""
    called = _folder_name(place)
    owners = [
        other.name
        for other in ENTRIES.values()
        for layout in other.layouts
        for usual in layout.places
        if usual.rpartition("/")[2].casefold() == called.casefold()
    ]
    if owners and spec.name not in owners:
        raise UserError(
            f"{place} is called like {owners[0]}, which looks the same to a reader of {spec.name}; "
            f"ask for {owners[0]}, or rename the folder if it is {spec.name}"
        )


def _refuse_other_generated(spec: Entry, place: Place) -> None:
    """Refuse a generated set under the name of another one, whose files look the same."""
    name = generated_as(place.tree, place.base)
    if name and spec.generated and name != spec.name:
        raise UserError(
            f"{place.tree.shown(place.base)} holds {name}, says its {MANIFEST}; ask for {name} "
            f"instead of {spec.name}"
        )


def _refuse_foreign(found: LayoutFound, place: Place) -> None:
    """Refuse files of which no name fits, and name the set whose folders and names they have."""
    bad = found.unmatched
    if not bad or len(bad) < sum(map(len, found.bad.values())):
        return
    names = [path.replace("\\", "/").rpartition("/")[2] for path in bad]
    fitting = entries_of(place.tree, place.base, names)
    remedy = f"ask for {' or '.join(fitting)}" if fitting else "give the folder of the data set"
    raise UserError(
        f"{found.root} holds no file of {found.entry.title}: none of the {len(bad):,} names, such "
        f"as {names[0]}, is like {found.layout.naming.example}; {remedy}"
    )


def _version(spec: Entry, place: Place) -> str:
    known = {layout.version for layout in spec.layouts} - {""}
    if not known or place.layout.version:
        return place.layout.version
    # the folder is often called MSMT17_V1, the archive as well
    called = _folder_name(place).upper()
    return next((n for n in ("V1", "V2") if called.endswith((f"_{n}", f"-{n}"))), "unknown")
