"""Rows from the places and names of image files."""

import os
import posixpath
import re
import shlex

from reid.data.catalog.recognise import entries_of, pattern_of
from reid.data.catalog.tree import Tree
from reid.data.folder import SUFFIXES
from reid.data.imported.rows import SPLITS, Listing, Row, finish, leave_out, some, split_of
from reid.data.source import Source, open_source
from reid.errors import UserError


def from_folders(
    root: str | os.PathLike[str], *, camera: str | None = None, skip_bad: bool = False
) -> Listing:
    """List a folder with one folder for each identity.

    `IDENTITY/image.jpg`, or `IDENTITY/CAMERA/image.jpg`; all of it may lie below folders called
    train, query, gallery or test, and the whole below one more folder.

    Args:
        root: Folder or archive.
        camera: Regular expression that finds the camera in a base name: its group `camid`, or its
            first group. None takes it from the sub-folders, if there are any.
        skip_bad: Leave out images whose name does not show a camera.

    Raises:
        UserError: No images, images outside of every identity's folder, or of unequal depth.
    """
    source = open_source(root)
    names, notes = _image_names(source)
    below = _without_wrapper(names)
    tops = {name.split("/")[0] for name in below if "/" in name}
    with_split = bool(tops) and all(top.lower() in SPLITS for top in tops)
    if not with_split:
        _refuse_catalog(source, names, below)
    if with_split:
        notes.append(f"the folders {some(sorted(tops))} give the split")
    finder = None if camera is None else _camera_finder(camera)
    rows, astray, unseen = [], [], []
    depths: dict[int, str] = {}
    for name, full in zip(below, names, strict=True):
        parts = name.split("/")
        split = SPLITS[parts.pop(0).lower()] if with_split and len(parts) > 1 else None
        if len(parts) < 2:
            astray.append(full)
            continue
        pid, *between, base = parts
        seen = None
        if finder is not None:
            found = finder.search(base)
            seen = found["camid"] if found and "camid" in finder.groupindex else None
            seen = found[1] if found and seen is None else seen
            if seen is None:
                unseen.append(full)
                continue
        else:
            depths.setdefault(len(between), full)
            seen = between[0] if between else None
        rows.append(Row(full, pid, seen, split))
    if astray:
        _refuse_catalog(source, names, below)
        pattern = pattern_of([posixpath.basename(name) for name in astray])
        listed = f"--pattern {shlex.quote(pattern)}" if pattern else "--pattern or --csv"
        raise UserError(
            f"{len(astray)} images lie in no identity's folder: {some(astray)}; expected "
            f"{source.root}/IDENTITY/image.jpg; move them, or list images by {listed}"
        )
    if len(depths) > 1 or max(depths, default=0) > 1:
        raise UserError(
            f"{source.root} has images at unequal depth: {some(depths.values())}; put all directly "
            "into the identity's folder, or all into one sub-folder for each camera"
        )
    left_out = leave_out(
        unseen,
        len(names),
        what=f"images show no camera by the pattern {camera!r}",
        reason="no camera in the name",
        remedy="mend the pattern given with --camera",
        skip_bad=skip_bad,
    )
    if depths.keys() == {1}:
        notes.append("the sub-folders of an identity are its cameras")
    return finish(source.root, rows, "a folder for each identity", left_out, notes)


def from_pattern(
    images: str | os.PathLike[str], pattern: str, *, skip_bad: bool = False
) -> Listing:
    """List images whose names hold identity, and perhaps camera and split.

    The pattern has to fit a whole base name, with or without its ending; one that holds a slash
    has to fit the whole path below `images`.

    Args:
        images: Folder or archive.
        pattern: Regular expression with the named groups pid, camid (optional), split (optional).
        skip_bad: Leave out images whose name does not fit.

    Raises:
        UserError: A pattern that is none or lacks a group, no images, or a name that does not fit.
    """
    expression = _compiled(pattern)
    unknown = sorted(expression.groupindex.keys() - {"pid", "camid", "split"})
    if "pid" not in expression.groupindex or unknown:
        wrong = f"has the unknown group {unknown[0]!r}" if unknown else "has no group named pid"
        raise UserError(
            f"the pattern {pattern!r} {wrong}; write (?P<pid>...) around the identity and, where "
            "there are any, (?P<camid>...) and (?P<split>...)"
        )
    source = open_source(images)
    names, notes = _image_names(source)
    rows, misfits = [], []
    for name in names:
        subject = name if "/" in pattern else posixpath.basename(name)
        found = expression.fullmatch(posixpath.splitext(subject)[0]) or expression.fullmatch(
            subject
        )
        if found is None or not found["pid"]:
            misfits.append(name)
            continue
        groups = found.groupdict()
        split = groups.get("split")
        rows.append(Row(name, found["pid"], groups.get("camid"), split and split_of(split, name)))
    left_out = leave_out(
        misfits,
        len(names),
        what=f"names do not fit the pattern {pattern!r}",
        reason="the name does not fit the pattern",
        remedy="mend the pattern",
        skip_bad=skip_bad,
    )
    return finish(source.root, rows, f"names by the pattern {pattern}", left_out, notes)


def _refuse_catalog(source: Source, names: list[str], below: list[str]) -> None:
    """Refuse the folders of a data set, which are called after splits and not identities."""
    base = names[0].removesuffix(below[0]).rstrip("/")
    fitting = entries_of(Tree(source), base, [posixpath.basename(name) for name in names])
    if fitting:
        raise UserError(
            f"{source.path(base) if base else source.root} has the folders and file names of "
            f"{' or '.join(fitting)}, not a folder for each identity; it needs no import: reid "
            f"data check {fitting[0]} --root {shlex.quote(str(source.root))}"
        )


def _image_names(source: Source) -> tuple[list[str], list[str]]:
    """Images of a source, and a note of what else lies there."""
    names = source.names()
    images = [
        name
        for name in names
        if name.lower().endswith(SUFFIXES)
        and not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    ]
    if not images:
        raise UserError(
            f"{source.root} holds no image; {len(names)} files lie there, none of them ends in "
            f"{', '.join(SUFFIXES)}"
        )
    others = len(names) - len(images)
    return images, [f"{others} files that are no images are passed over"] if others else []


def _without_wrapper(names: list[str]) -> list[str]:
    """Names below the one folder that holds everything, as archives often have it."""
    while True:
        tops = {name.partition("/")[0] for name in names}
        if len(tops) > 1 or any(name.count("/") < 2 for name in names) or tops & SPLITS.keys():
            return names
        names = [name.partition("/")[2] for name in names]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"{pattern!r} is no regular expression: {error}; mend it") from error


def _camera_finder(camera: str) -> re.Pattern[str]:
    finder = _compiled(camera)
    if finder.groups == 0:
        raise UserError(f"--camera {camera!r} has no group; write it as in 'c(\\d+)'")
    return finder
