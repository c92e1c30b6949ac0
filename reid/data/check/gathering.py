"""Turn a data set on disk into a subject of the checks."""

import json
import os

from reid.data import GENERATED
from reid.data.catalog.entries import MANIFEST
from reid.data.catalog.files import is_image
from reid.data.catalog.locate import LayoutFound, locate
from reid.data.catalog.tree import Tree, join
from reid.data.check.subject import SPLITS, Numbers, Subject
from reid.data.imported.manifest import IMPORTED, read_imported
from reid.errors import UserError


def gather(name: str, root: str | os.PathLike[str], protocol: str | None = None) -> Subject:
    """List a data set before anything is dropped.

    Args:
        name: Catalog name, or 'imported'.
        root: Folder or archive.
        protocol: Named protocol; None takes the default.

    Raises:
        UserError: As `locate` and `read_imported`.
    """
    if name == IMPORTED:
        return _imported(root)
    found = locate(name, root, protocol)
    entry = found.entry
    about = f"{entry.title}, protocol {found.protocol.name}, layout {found.layout.name}"
    if found.version:
        about += f", version {found.version}"
    expected, by = _expected(found)
    return Subject(
        name=name,
        about=about,
        root=found.root,
        lists={split: found.splits[split] for split in SPLITS},
        misfits=[bad.message for split in SPLITS for bad in found.bad[split]],
        left_out={split: len(found.bad[split]) for split in SPLITS},
        others=_others(found),
        expected=expected,
        expected_by=by,
        camera_rule=entry.camera_rule,
        distractor_pid=entry.distractor_pid,
        shared_pids=not entry.pids_restart,
    )


def _imported(root: str | os.PathLike[str]) -> Subject:
    data = read_imported(root)
    return Subject(
        name=data.name,
        about=f"imported images, {data.layout}",
        root=data.root,
        lists={split: getattr(data, split) for split in SPLITS},
        camera_rule=data.camera_rule,
        distractor_pid=data.distractor_pid,
    )


def _expected(found: LayoutFound) -> tuple[dict[str, Numbers], str]:
    if found.entry.name in GENERATED:
        return _manifest_counts(found), f"its {MANIFEST}"
    numbers = {
        split: Numbers(count.images, count.ids, count.cams, count.junk, None, not count.unverified)
        for split, count in found.protocol.counts.items()
    }
    return numbers, f"{found.entry.title}"


def _manifest_counts(found: LayoutFound) -> dict[str, Numbers]:
    path = join(found.base, MANIFEST)
    try:
        counts = json.loads(found.source.read(path))["counts"]
        junk, distractors = counts["junk"], counts["distractors"]
        return {
            "train": Numbers(counts["train_images"], counts["train_ids"], None),
            "query": Numbers(counts["query_images"], counts["query_ids"], None),
            "gallery": Numbers(
                counts["gallery_images"] - junk, counts["gallery_ids"], None, junk, distractors
            ),
        }
    except (UserError, ValueError, KeyError, TypeError):
        return {}


def _others(found: LayoutFound) -> list[str]:
    """Files among the images that are no images."""
    tree = Tree(found.source)
    parts = [part for split in SPLITS for part in found.layout.parts(split, found.protocol.name)]
    others = []
    for folder in dict.fromkeys(tree.find_folder(found.base, part.folder) for part in parts):
        if folder is None:
            continue
        for below in (folder, *(join(folder, name) for name in tree.folders(folder))):
            others += [join(below, name) for name in tree.files(below) if not is_image(name)]
    return sorted(others)
