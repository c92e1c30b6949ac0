"""Which layout of a data set lies where below a root."""

from dataclasses import dataclass

from reid.data.archives import is_archive
from reid.data.catalog.spec import Entry, Layout
from reid.data.catalog.tree import Tree, join
from reid.data.source import open_source
from reid.errors import UserError

_DEPTH = 4


@dataclass(frozen=True)
class Place:
    """A complete layout.

    Attributes:
        tree: Files of the folder or archive that holds it.
        layout: Which one.
        base: Its folder in the tree; "" is the root.
    """

    tree: Tree
    layout: Layout
    base: str

    def __str__(self) -> str:
        return f"{self.tree.shown(self.base)} ({self.layout.name})"


def find(tree: Tree, spec: Entry, protocol: str) -> Place:
    """The one layout below a root that has all that the protocol needs.

    Looks in the usual places, then in the only folder of a folder, then in the only archive.

    Raises:
        UserError: There is none, or there are several.
    """
    top, place = "", None
    for _ in range(_DEPTH):
        place = _complete(tree, spec, protocol, top)
        if place is not None:
            return place
        folders = tree.folders(top)
        if len(folders) != 1:
            break
        top = join(top, folders[0])
    archives = [name for name in tree.files("") if is_archive(tree.source.root / name)]
    if len(archives) == 1 and _nearest(tree, spec, protocol, "")[0] == 0:
        inner = Tree(open_source(tree.source.root / archives[0]))
        return find(inner, spec, protocol)
    raise _missing(tree, spec, protocol, archives)


def _complete(tree: Tree, spec: Entry, protocol: str, top: str) -> Place | None:
    places: dict[tuple[int, str], Place] = {}
    for number, layout in enumerate(_layouts(spec, protocol)):
        for folder in layout.places:
            base = tree.find_folder(top, folder)
            if base is None or _names_another(tree, spec, layout, base):
                continue
            if not lacks(tree, layout, protocol, base):
                places[number, base] = Place(tree, layout, base)
    found = [p for p in places.values() if not p.layout.derived] or list(places.values())
    if len(found) > 1:
        raise UserError(
            f"{tree.source.root} holds {spec.name} more than once: {', '.join(map(str, found))}; "
            "give the folder of the one that you mean, or move the other away"
        )
    return found[0] if found else None


def _layouts(spec: Entry, protocol: str) -> list[Layout]:
    return [n for n in spec.layouts if not n.protocols or protocol in n.protocols]


def _names_another(tree: Tree, spec: Entry, layout: Layout, base: str) -> bool:
    """Whether the folder is called after a protocol that this layout does not serve."""
    known = {protocol for other in spec.layouts for protocol in other.protocols}
    parts = [*tree.source.root.absolute().parts[-2:], *base.split("/")]
    named = [part.casefold() for part in parts if part.casefold() in known]
    return bool(layout.protocols and named) and named[-1] not in layout.protocols


def lacks(tree: Tree, layout: Layout, protocol: str, base: str) -> list[str]:
    """Folders and lists that a layout needs and that are not below `base`."""
    return [
        need
        for need in layout.needs(protocol)
        if (tree.find_folder(base, need[:-1]) if need.endswith("/") else tree.find_file(base, need))
        is None
    ]


def _nearest(
    tree: Tree, spec: Entry, protocol: str, top: str
) -> tuple[int, str, Layout, list[str]]:
    """How much is there of the layout that lacks least, where it is, and what it lacks."""
    layouts = _layouts(spec, protocol)
    best = (0, top, layouts[0], layouts[0].needs(protocol))
    for layout in layouts:
        for folder in layout.places:
            base = tree.find_folder(top, folder)
            if base is None or _names_another(tree, spec, layout, base):
                continue
            missing = lacks(tree, layout, protocol, base)
            score = len(layout.needs(protocol)) - len(missing)
            if score > best[0]:
                best = (score, base, layout, missing)
    return best


def _missing(tree: Tree, spec: Entry, protocol: str, archives: list[str]) -> UserError:
    for case in spec.incomplete:
        for file in case.files:
            if tree.find_file("", file) is not None:
                return UserError(f"{tree.source.root} {case.message}")
    score, base, layout, missing = _nearest(tree, spec, protocol, "")
    shown = tree.shown(base)
    other = _other_protocol(tree, spec, protocol)
    if other:
        return UserError(
            f"{other} does not serve the protocol {protocol!r} of {spec.name}, for which {shown} "
            f"lacks {', '.join(missing)}"
        )
    if score and all(not need.endswith("/") for need in missing):
        return UserError(
            f"{shown} lacks {', '.join(missing)}: without the lists nobody knows which image is a "
            f"query; they come with {spec.title}, often as files of their own: put them there"
        )
    kind, name = ("folder", missing[0][:-1]) if missing[0].endswith("/") else ("file", missing[0])
    several = f"; unpack one of {', '.join(archives)}" if len(archives) > 1 and not score else ""
    return UserError(
        f"{shown} has no {kind} {name!r}; {spec.name} needs {', '.join(layout.needs(protocol))} "
        f"there{several}"
    )


def _other_protocol(tree: Tree, spec: Entry, protocol: str) -> str:
    for other in spec.protocols:
        if other.name != protocol:
            place = _complete(tree, spec, other.name, "")
            if place is not None:
                return f"{place}, which serves {other.name!r},"
    return ""
