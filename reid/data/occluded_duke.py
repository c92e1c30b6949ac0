"""`reid data build occluded-duke`: Occluded-DukeMTMC out of DukeMTMC-reID and three lists.

Miao et al., "Pose-Guided Feature Alignment for Occluded Person Re-Identification", ICCV 2019. An
image comes from the folder of Duke that its list is named after or, failing that, from Duke's
gallery folder.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reid.data.placing import new_folder, put
from reid.data.source import Source, open_source
from reid.data.text import decode_text
from reid.errors import UserError

MANIFEST = "occluded_duke.json"
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
COUNTS = {"train": 15_618, "query": 2_210, "gallery": 17_661}
_NAME = re.compile(r"\d{4}_c\d_f\d{7}\.jpg")


@dataclass(frozen=True)
class SplitBuilt:
    """One split.

    Attributes:
        images: Images placed.
        identities: Identities among them.
        from_gallery: How many came from Duke's gallery folder because the split's own lacks them.
        sha256: Of the list file.
    """

    images: int
    identities: int
    from_gallery: int
    sha256: str


@dataclass(frozen=True)
class Built:
    """What was built.

    Attributes:
        out: The folder.
        splits: By 'train', 'query' and 'gallery'.
        copies: Queries that are in the gallery too.
    """

    out: Path
    splits: dict[str, SplitBuilt]
    copies: int

    @property
    def published(self) -> bool:
        """Whether every split has the published number of images."""
        return all(found.images == COUNTS[split] for split, found in self.splits.items())

    def __str__(self) -> str:
        lines = [f"{'split':<8}{'images':>8}{'published':>11}{'ids':>7}  sha256 of the list"]
        for split, found in self.splits.items():
            lines.append(
                f"{split:<8}{found.images:>8}{COUNTS[split]:>11}{found.identities:>7}  "
                f"{found.sha256}"
            )
        if not self.published:
            lines.append(
                "* warning: the lists are not as long as the published ones; scores on this set "
                "cannot be compared with published scores"
            )
        if self.splits["train"].from_gallery:
            lines.append(
                f"* warning: {self.splits['train'].from_gallery} training images come from "
                "Duke's gallery folder"
            )
        lines.append(
            f"* {self.copies} queries are in the gallery too, with the same identity and camera: "
            "the same-camera rule leaves these matches out; without the rule they would be found "
            "at rank 1"
        )
        return "\n".join(lines)


def build_occluded_duke(
    duke: str | os.PathLike[str],
    lists: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    copy: bool = False,
) -> Built:
    """Build Occluded-DukeMTMC in Market-1501's folders.

    Args:
        duke: Folder or archive that holds, at any depth, Duke's three image folders.
        lists: Folder or archive that holds train.list, query.list and gallery.list (or .txt).
        out: Folder to write; it must not exist or be empty.
        copy: Copy the images; otherwise they share their bytes with Duke's by hard links, where
            the file system has them and Duke is no archive.

    Returns:
        What was built. Lists of another length than the published ones are no error.

    Raises:
        UserError: A list or a folder is missing, a line is no file name of Duke, a name is listed
            twice or is not in Duke, or `out` exists.
    """
    target = Path(out)
    named = _read_lists(open_source(lists))
    source = open_source(duke)
    base = _base_of(source)
    there = {folder: frozenset(source.files(f"{base}{folder}")) for folder in FOLDERS.values()}
    found, missing = _find(named, there)
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise UserError(
            f"{source.root} lacks {len(missing)} images of the lists: {', '.join(missing[:5])}"
            f"{more}; they belong into the folder of their list or into bounding_box_test; get a "
            "complete DukeMTMC-reID"
        )
    gallery = frozenset(named["gallery"][0])
    built = Built(
        target,
        {
            split: SplitBuilt(
                len(names),
                len({name[:4] for name in names}),
                sum(folder != FOLDERS[split] for folder in found[split].values()),
                sha256,
            )
            for split, (names, sha256) in named.items()
        },
        sum(name in gallery for name in named["query"][0]),
    )
    with new_folder(target) as building:
        for split, folder in FOLDERS.items():
            (building / folder).mkdir()
            for name, origin in found[split].items():
                put(source.path(f"{base}{origin}/{name}"), building / folder / name, link=not copy)
        (building / MANIFEST).write_text(_manifest(built, source, lists), encoding="utf-8")
    return built


def _read_lists(source: Source) -> dict[str, tuple[list[str], str]]:
    """Names and sha256 of each list."""
    paths = {split: _list_path(source, split) for split in FOLDERS}
    missing = [f"{split}.list" for split, path in paths.items() if path is None]
    if missing:
        raise UserError(
            f"{source.root} has no {', '.join(missing)}; give the folder Occluded_Duke with the "
            "three lists of the authors"
        )
    named = {}
    for split, path in paths.items():
        content = source.read(str(path))
        names = _parse(content, source.path(str(path)))
        named[split] = (names, hashlib.sha256(content).hexdigest())
    return named


def _list_path(source: Source, split: str) -> str | None:
    found = [
        name
        for name in source.names()
        if name.rpartition("/")[2].lower() in (f"{split}.list", f"{split}.txt")
    ]
    return min(found, key=lambda name: (name.count("/"), name.endswith(".txt"), name), default=None)


def _parse(content: bytes, where: str) -> list[str]:
    text = decode_text(content, where, "get the list again")
    names: dict[str, int] = {}
    for number, written in enumerate(text.splitlines(), start=1):
        name = written.strip()
        if not name:
            continue
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{where}, line {number}: {name!r} is no file name of Duke such as "
                "0001_c2_f0046182.jpg; get the list again"
            )
        if name in names:
            raise UserError(
                f"{where}: {name} is listed twice, in lines {names[name]} and {number}; get the "
                "list again"
            )
        names[name] = number
    if not names:
        raise UserError(f"{where} is empty; get the list again")
    return list(names)


def _base_of(source: Source) -> str:
    """Path, with a slash at its end, of what holds Duke's three folders."""
    wanted = set(FOLDERS.values())
    level = [""]
    while level:
        below = []
        for folder in level:
            inside = source.folders(folder)
            prefix = f"{folder}/" if folder else ""
            if wanted <= set(inside):
                return prefix
            below += [prefix + name for name in inside]
        level = below
    raise UserError(
        f"{source.root} holds no folder with {', '.join(FOLDERS.values())}; give the folder or "
        "archive of DukeMTMC-reID"
    )


def _find(
    named: dict[str, tuple[list[str], str]], there: dict[str, frozenset[str]]
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The folder that each name comes from, by split, and the names that are nowhere."""
    found: dict[str, dict[str, str]] = {}
    missing = []
    for split, (names, _) in named.items():
        found[split] = {}
        for name in names:
            origin = _first((FOLDERS[split], FOLDERS["gallery"]), name, there)
            if origin is None:
                missing.append(f"{name} ({split}.list)")
            else:
                found[split][name] = origin
    return found, missing


def _first(folders: Iterable[str], name: str, there: dict[str, frozenset[str]]) -> str | None:
    return next((folder for folder in folders if name in there[folder]), None)


def _manifest(built: Built, source: Source, lists: str | os.PathLike[str]) -> str:
    content = {
        "name": "occluded-duke",
        "duke": str(source.root.resolve()),
        "lists": str(Path(lists).resolve()),
        "splits": {
            split: {
                "images": found.images,
                "published": COUNTS[split],
                "identities": found.identities,
                "from_gallery_folder": found.from_gallery,
                "list_sha256": found.sha256,
            }
            for split, found in built.splits.items()
        },
        "queries_in_gallery": built.copies,
    }
    return json.dumps(content, indent=1) + "\n"
