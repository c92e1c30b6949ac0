"""The images of one part of a split: those of a folder, or those that a list names."""

import io
import posixpath
import re
import zlib
from dataclasses import dataclass

from reid._optional import require
from reid.data.catalog.spec import IMAGES, Naming, Part
from reid.data.catalog.tree import Tree, join
from reid.errors import UserError


@dataclass(frozen=True, slots=True)
class File:
    """One image: posix path in its source, identity and camera (from 0)."""

    name: str
    pid: int
    camid: int


@dataclass(frozen=True, slots=True)
class Bad:
    """A file, or a line of a list, that cannot be taken.

    Attributes:
        path: As `Record.path`; of the list for a line.
        reason: 'name' (fits no pattern), 'folder' (another identity than its folder), 'double' (the
            same image twice) or 'list' (a line that names no image, or one of another identity).
        message: One line that names it and the remedy.
    """

    path: str
    reason: str
    message: str


def read_part(
    tree: Tree, base: str, part: Part, naming: Naming, title: str
) -> tuple[list[File], list[Bad]]:
    """List the images of a part.

    Args:
        tree: Where they are.
        base: Folder of the layout.
        part: Which ones.
        naming: Of the images.
        title: Name of the data set, for messages.

    Returns:
        The images in the order of their names or of the list, and what cannot be taken.

    Raises:
        UserError: No image at all, or a list of another format.
    """
    folder = tree.find_folder(base, part.folder)
    assert folder is not None
    if not part.list:
        files, bad = _read_folder(tree, folder, part, naming, title)
    else:
        found = tree.find_file(base, part.list)
        assert found is not None
        lines = _mat_lines if part.list.endswith(".mat") else _text_lines
        files, bad = _read_list(tree, folder, found, lines(tree, found, part), part, naming, title)
    if not files and not bad:
        where = tree.shown(folder)
        raise UserError(f"{where} holds no images; expected files like {naming.example}")
    return files, bad


def is_image(name: str) -> bool:
    """Whether a base name ends as that of an image."""
    return name.lower().endswith(IMAGES)


def _read_folder(
    tree: Tree, folder: str, part: Part, naming: Naming, title: str
) -> tuple[list[File], list[Bad]]:
    files, bad = [], []
    stems: dict[tuple[str, str], str] = {}
    for name in _images_below(tree, folder):
        parent, base = posixpath.split(name)
        shown = tree.source.path(name)
        parsed = naming.parse(base)
        if parsed is None:
            text = (
                f"{shown}: the name does not fit {title}, whose files are called like "
                f"{naming.example}; rename or remove it"
            )
            bad.append(Bad(shown, "name", text))
            continue
        pid, camid = parsed
        identity = posixpath.basename(parent)
        if parent != folder and re.fullmatch(r"-?\d+", identity) and int(identity) != pid:
            text = f"{shown} lies in the folder of {identity}, but its name says {pid}; move it"
            bad.append(Bad(shown, "folder", text))
            continue
        first = stems.setdefault((parent, _stem(base)), base)
        if first != base:
            text = f"{shown} is there as {first} as well; remove one of the two"
            bad.append(Bad(shown, "double", text))
            continue
        files.append(File(name, pid, _camera(camid, part)))
    return files, bad


def _images_below(tree: Tree, folder: str) -> list[str]:
    """Images of a folder or, where it has none, of its folders per identity."""
    direct = [join(folder, name) for name in tree.files(folder) if is_image(name)]
    if direct and not any(re.fullmatch(r"-?\d+", name) for name in tree.folders(folder)):
        return direct
    nested = [
        join(f"{folder}/{inner}", name)
        for inner in tree.folders(folder)
        for name in tree.files(f"{folder}/{inner}")
        if is_image(name)
    ]
    if direct and nested:
        raise UserError(
            f"{tree.shown(folder)} holds images itself and in folders per identity, such as "
            f"{tree.source.path(direct[0])} and {tree.source.path(nested[0])}; remove one of the "
            "two copies"
        )
    return direct or nested


def _stem(base: str) -> str:
    """The name without the endings of images, of which copies may have two."""
    while is_image(base):
        base = posixpath.splitext(base)[0]
    return base


def _camera(camid: int | None, part: Part) -> int:
    return part.camid if part.camid is not None else camid or 0


@dataclass(frozen=True, slots=True)
class _Line:
    place: str
    text: str
    path: str | None
    pid: int


def _read_list(
    tree: Tree,
    folder: str,
    found: str,
    lines: list[_Line],
    part: Part,
    naming: Naming,
    title: str,
) -> tuple[list[File], list[Bad]]:
    shown = tree.source.path(found)
    files: list[File] = []
    bad: list[Bad] = []
    known: dict[str, frozenset[str]] = {}
    seen: dict[str, str] = {}
    for line in lines:
        where = f"{shown}, {line.place}"
        if line.path is None:
            bad.append(Bad(shown, "list", f"{where}: {line.text!r} is not a path and a pid"))
            continue
        parts = [p for p in line.path.replace("\\", "/").split("/") if p not in ("", ".")]
        if ".." in parts or line.path[:1] in "/\\" or ":" in line.path:
            bad.append(Bad(shown, "list", f"{where}: {line.path!r} leaves {tree.shown(folder)}"))
            continue
        name = join(folder, "/".join(parts))
        parent, base = posixpath.split(name)
        if parent not in known:
            known[parent] = frozenset(tree.files(parent) if tree.has_folder(parent) else ())
        if base not in known[parent]:
            text = f"{where} names {tree.source.path(name)}, which does not exist"
            bad.append(Bad(shown, "list", text))
            continue
        parsed = naming.parse(base)
        if parsed is None:
            path = tree.source.path(name)
            text = (
                f"{where} names {path}, which does not fit {title}, whose files are called like "
                f"{naming.example}"
            )
            bad.append(Bad(path, "name", text))
            continue
        if naming.holds_pid and parsed[0] != line.pid:
            text = (
                f"{where} gives {tree.source.path(name)} the identity {line.pid}, but its name "
                f"says {parsed[0]}; take the list that belongs to these images"
            )
            bad.append(Bad(shown, "list", text))
            continue
        first = seen.setdefault(name, line.place)
        if first != line.place:
            text = f"{where} names {tree.source.path(name)}, as {first} does"
            bad.append(Bad(shown, "double", text))
            continue
        files.append(File(name, line.pid, _camera(parsed[1], part)))
    return files, bad


def _text_lines(tree: Tree, found: str, part: Part) -> list[_Line]:
    shown = tree.source.path(found)
    try:
        text = tree.source.read(found).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown} is not a text file ({error.reason}); copy it again") from error
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        path, _, pid = line.strip().rpartition(" ")
        if not line.strip():
            continue
        fits = bool(path) and re.fullmatch(r"\d+", pid) is not None
        place = f"line {number}"
        lines.append(_Line(place, line, path.strip() if fits else None, int(pid) if fits else 0))
    if not lines:
        raise UserError(f"{shown} is empty; copy it again")
    return lines


def _mat_lines(tree: Tree, found: str, part: Part) -> list[_Line]:
    shown = tree.source.path(found)
    content = tree.source.read(found)
    scipy_io = require("scipy.io")
    damage = (LookupError, ValueError, TypeError, OSError, NotImplementedError, zlib.error)
    try:
        variables = scipy_io.loadmat(io.BytesIO(content))
        names = [str(cell[0]) for cell in variables["filelist"].flatten()]
        labels = [int(label) for label in variables["labels"].flatten()]
        rows = [int(row) for row in variables[part.key].flatten()]
        if min(rows) < 1:
            raise ValueError("rows count from 1")
        return [
            _Line(f"{part.key} {row}", names[row - 1], names[row - 1], labels[row - 1])
            for row in rows
        ]
    except (*damage, scipy_io.matlab.MatReadError) as error:
        raise UserError(
            f"{shown} is not the split file of CUHK03 with filelist, labels and {part.key} "
            f"({error}); copy it again"
        ) from error
