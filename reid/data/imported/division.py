"""Which of one's own images train, which are queries and which the gallery."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from reid.data.imported.rows import Row
from reid.errors import UserError

CROSS_CAMERA = "cross-camera"
SYNTHETIC = "synthetic"
RULES = ("auto", CROSS_CAMERA, SYNTHETIC)


def camera_rule(rows: Sequence[Row], wanted: str = "auto") -> str:
    """Whether matches of the query's own camera can be left out.

    Args:
        rows: All images.
        wanted: cross-camera, synthetic, or auto: cross-camera where at least one identity is seen
            by two cameras.

    Raises:
        UserError: An unknown rule, or cross-camera where no identity is seen by two cameras.
    """
    if wanted not in RULES:
        raise UserError(f"the camera rule {wanted!r} is unknown; choose one of {', '.join(RULES)}")
    cameras: dict[str, set[str | None]] = defaultdict(set)
    for row in rows:
        cameras[row.pid].add(row.camera)
    across = any(len(seen) > 1 for seen in cameras.values())
    if wanted == CROSS_CAMERA and not across:
        raise UserError(
            "no identity is seen by two cameras, so every match would be of the query's own camera "
            "and none would count; name the cameras, or use the camera rule synthetic"
        )
    if wanted == "auto":
        return CROSS_CAMERA if across else SYNTHETIC
    return wanted


def divide(rows: Sequence[Row], *, rule: str, seed: int = 0, test_share: float = 0.5) -> list[str]:
    """Give every image a split.

    Rows that name train, query or gallery keep it. Rows of `test` are divided into queries and
    gallery. Rows without a split are first divided by identity, `test_share` of the identities
    into the test set. Choices follow a hash of seed and name, so they stay when images are added.

    Args:
        rows: All images.
        rule: cross-camera or synthetic.
        seed: Of the choices.
        test_share: Share of the identities held out, 0 to 1.

    Returns:
        train, query or gallery for each row.

    Raises:
        UserError: A share out of range, or too few identities that can be tested.
    """
    if not 0 <= test_share <= 1:
        raise UserError(f"the test share {test_share} is out of range; give a number from 0 to 1")
    groups: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[row.pid].append(index)
    splits = [row.split or "" for row in rows]
    held_out = set(groups)
    if not any(splits):
        held_out = _held_out(rows, groups, rule, seed, test_share)
        splits = ["test" if row.pid in held_out else "train" for row in rows]
    for pid in sorted(held_out):
        tested = [index for index in groups[pid] if splits[index] == "test"]
        queries = _queries([rows[index] for index in tested], rule, seed)
        for index in tested:
            splits[index] = "query" if rows[index].path in queries else "gallery"
    return splits


def _held_out(
    rows: Sequence[Row], groups: dict[str, list[int]], rule: str, seed: int, share: float
) -> set[str]:
    testable = [
        pid
        for pid, indices in groups.items()
        if _queries([rows[index] for index in indices], rule, seed)
    ]
    wanted = round(share * len(groups))
    if share > 0:
        wanted = max(wanted, 1)
    if share < 1:
        wanted = min(wanted, len(groups) - 2)
    if share > 0 and (wanted < 1 or not testable):
        what = "two cameras" if rule == CROSS_CAMERA else "two images"
        raise UserError(
            f"{len(groups)} identities, {len(testable)} of them with {what}: too few to hold some "
            "out and train on at least two; name the splits yourself, or give --test-share 0 to "
            "train on all, 1 to test on all"
        )
    if share == 1:
        return set(groups)
    return set(sorted(testable, key=lambda pid: _draw(seed, pid))[:wanted])


def _queries(rows: Sequence[Row], rule: str, seed: int) -> set[str]:
    """Paths of one identity's queries: one of each camera that has another image.

    Without such a camera one image is the query; every query keeps a match in the gallery.
    """
    order = sorted(rows, key=lambda row: _draw(seed, row.path))
    if rule == SYNTHETIC:
        return {order[0].path} if len(order) > 1 else set()
    cameras: dict[str | None, list[Row]] = {}
    for row in order:
        cameras.setdefault(row.camera, []).append(row)
    if len(cameras) < 2:
        return set()
    # a camera with one image would leave the gallery with its query
    lasting = [camera for camera, seen in cameras.items() if len(seen) > 1]
    chosen = lasting or list(cameras)[:1]
    return {cameras[camera][0].path for camera in chosen}


def _draw(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
