"""Each function looks for one kind of trouble in a subject."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from reid.data.check.files import FileSeen
from reid.data.check.findings import DAMAGE, NOTE, WARNING, Finding, plural
from reid.data.check.subject import SPLITS, Subject
from reid.data.records import Record

CROSS_CAMERA = "cross-camera"
# Share of the identities that must look like it before cameras are taken for image indices.
_INDEX_LIKE = 0.95
_INDEX_IMAGES = 3
_COUNTED = ("images", "identities", "cameras", "junk", "distractors")


def unreadable(
    subject: Subject, seen: Mapping[str, FileSeen], skip_bad: bool = False
) -> Iterator[Finding]:
    """Files that are empty, truncated, no image, or far too large."""
    problems = [subject.short(found.problem) for found in seen.values() if found.problem]
    if problems:
        yield _bad(
            "unreadable", f"{plural(len(problems), 'image')} cannot be read", problems, skip_bad
        )


def misfits(subject: Subject, skip_bad: bool = False) -> Iterator[Finding]:
    """Names that do not fit, doubles, and lines of lists without a file."""
    lines = [subject.short(line) for line in subject.misfits]
    if lines:
        many = plural(len(lines), "file or list line", "files or list lines")
        yield _bad("misfit", f"{many} cannot be taken", lines, skip_bad)
    if subject.others:
        text = f"{plural(len(subject.others), 'other file')} among the images, passed over"
        yield Finding(NOTE, "other", text, subject.others)


def _bad(kind: str, what: str, lines: list[str], skip_bad: bool) -> Finding:
    if skip_bad:
        return Finding(WARNING, kind, f"{what} and left out", lines)
    remedy = "mend this, or leave them out with --skip-bad (data.skip_bad=true in training)"
    return Finding(DAMAGE, kind, f"{what}; {remedy}", lines)


def counts(subject: Subject, skip_bad: bool = False) -> Iterator[Finding]:
    """Splits that are not as large as expected.

    Damage, unless nobody verified what is expected, or a split lacks just as many images as were
    left out of it.
    """
    differ: dict[str, list[str]] = {"damage": [], "left out": [], "unverified": []}
    for split, expected in subject.expected.items():
        found = subject.count(split)
        lines = [
            f"{split}: {have:,} {name}, expected {want:,}"
            for name in _COUNTED
            if (want := getattr(expected, name)) is not None
            and (have := getattr(found, name)) != want
        ]
        explained = skip_bad and _lacks_what_was_left_out(subject, split)
        how = "unverified" if not expected.verified else "left out" if explained else "damage"
        differ[how] += lines
    by = subject.expected_by
    texts = {
        "damage": f"the counts are not those of {by}: the copy is incomplete or another version, "
        "and its scores cannot be compared",
        "left out": f"the counts are those of {by} without what was left out: scores cannot be "
        "compared",
        "unverified": f"the counts are not those stated for {by}, which nobody has verified",
    }
    for how, lines in differ.items():
        if lines:
            yield Finding(DAMAGE if how == "damage" else WARNING, "counts", texts[how], lines)


def _lacks_what_was_left_out(subject: Subject, split: str) -> bool:
    found, expected = subject.count(split), subject.expected[split]
    pairs = [(getattr(found, name), getattr(expected, name)) for name in _COUNTED]
    # junk and images together: the name of a file that was left out may not tell which it is
    lacking = expected.images + (expected.junk or 0) - found.images - (found.junk or 0)
    return 0 < lacking == subject.left_out.get(split, 0) and not any(
        want is not None and have > want for have, want in pairs
    )


def duplicates(subject: Subject, seen: Mapping[str, FileSeen]) -> Iterator[Finding]:
    """The same bytes more than once, within a split and across."""
    groups: dict[bytes, list[tuple[str, Record]]] = defaultdict(list)
    for split in SPLITS:
        for record in subject.used(split):
            if seen[record.path].size:
                groups[seen[record.path].digest].append((split, record))
    repeated = [group for group in groups.values() if len(group) > 1]
    yield from _within(subject, repeated)
    yield from _labels(subject, repeated)
    yield from _train_and_test(subject, repeated)
    yield from _query_and_gallery(subject, repeated)


def _within(subject: Subject, repeated: list[list[tuple[str, Record]]]) -> Iterator[Finding]:
    for split in SPLITS:
        copies = [[record for of, record in group if of == split] for group in repeated]
        copies = [group for group in copies if len(group) > 1]
        if copies:
            extra = sum(len(group) - 1 for group in copies)
            effect = {
                "train": "they weigh more in training",
                "query": "they count more than once",
                "gallery": "their ranks are tied",
            }[split]
            text = f"{plural(extra, 'image')} of {split} copy another one of it: {effect}"
            names = [" = ".join(subject.short(r.path) for r in group) for group in copies]
            yield Finding(WARNING, f"duplicates-{split}", text, names)


def _labels(subject: Subject, repeated: list[list[tuple[str, Record]]]) -> Iterator[Finding]:
    wrong = []
    for group in repeated:
        sides = [group]
        if not subject.shared_pids:
            sides = [
                [pair for pair in group if (pair[0] == "train") is side] for side in (True, False)
            ]
        for side in sides:
            if len({record.pid for _, record in side}) > 1:
                wrong.append(" = ".join(subject.short(record.path) for _, record in side))
    if wrong:
        text = f"{plural(len(wrong), 'picture')} under more than one identity: labels are wrong"
        yield Finding(WARNING, "labels", text, wrong)


def _train_and_test(
    subject: Subject, repeated: list[list[tuple[str, Record]]]
) -> Iterator[Finding]:
    leaks = [
        " = ".join(subject.short(record.path) for _, record in group)
        for group in repeated
        if len({split == "train" for split, _ in group}) > 1
    ]
    if leaks:
        text = f"{plural(len(leaks), 'picture')} in training and in the test: scores are too high"
        yield Finding(WARNING, "leak", text, leaks)


def _query_and_gallery(
    subject: Subject, repeated: list[list[tuple[str, Record]]]
) -> Iterator[Finding]:
    removed: list[str] = []
    found_itself: list[str] = []
    for group in repeated:
        gallery = [record for split, record in group if split == "gallery"]
        for query in (record for split, record in group if split == "query"):
            if not gallery:
                continue
            # made-up cameras differ between query and gallery, so none of them is safe
            safe = all((r.pid, r.camid) == (query.pid, query.camid) for r in gallery)
            (removed if safe else found_itself).append(subject.short(query.path))
    total = len(subject.used("query"))
    if removed:
        text = (
            f"{len(removed):,} of {total:,} query images are in the gallery too, with the same "
            "identity and camera: the same-camera rule removes these copies; an evaluation "
            "without the rule, or with made-up cameras, finds them at rank 1"
        )
        yield Finding(NOTE, "query-in-gallery", text, removed)
    if found_itself:
        text = (
            f"{len(found_itself):,} of {total:,} query images are in the gallery too, and no rule "
            "removes them: they find themselves at rank 1"
        )
        yield Finding(WARNING, "query-finds-itself", text, found_itself)


def overlap(subject: Subject) -> Iterator[Finding]:
    """Identities in training and in the test."""
    if not subject.shared_pids:
        return
    both = subject.identities("train") & (
        subject.identities("query") | subject.identities("gallery")
    )
    if both:
        text = (
            f"{plural(len(both), 'identity', 'identities')} in training and in the test: scores "
            "say nothing of people who were never seen"
        )
        yield Finding(WARNING, "overlap", text, [str(pid) for pid in sorted(both)])


def matches(subject: Subject) -> Iterator[Finding]:
    """Queries that no gallery image can match."""
    queries = subject.used("query")
    cameras: dict[int, set[int]] = defaultdict(set)
    for record in subject.used("gallery"):
        cameras[record.pid].add(record.camid)
    lone = [record for record in queries if not cameras[record.pid] - {record.camid}]
    if not lone:
        return
    same = sum(bool(cameras[record.pid]) for record in lone)
    reasons = f"{same:,} have matches of their own camera only, {len(lone) - same:,} none at all"
    if len(lone) == len(queries):
        everything = {r.camid for r in queries} | set().union(*cameras.values())
        only = " (there is one camera only)" if len(everything) == 1 else ""
        text = (
            f"no query can be evaluated: {reasons}{only}; check the camera ids, and that query "
            "and gallery belong together"
        )
        yield Finding(DAMAGE, "no-match", text)
        return
    ids = sorted({record.pid for record in lone})
    text = (
        f"{len(lone):,} of {plural(len(queries), 'query', 'queries')} will be skipped, of "
        f"{plural(len(ids), 'identity', 'identities')}: {reasons}"
    )
    yield Finding(WARNING, "skipped", text, [str(pid) for pid in ids])


def camera_ids(subject: Subject) -> Iterator[Finding]:
    """Camera ids that are made up or that number the images."""
    if not subject.used("query"):
        return
    if subject.camera_rule != CROSS_CAMERA:
        text = "camera ids are made up (queries 0, gallery 1): every image of an identity counts"
        yield Finding(NOTE, "synthetic-cameras", text)
        return
    if _index_like(subject, "query") and _index_like(subject, "gallery"):
        text = (
            "cameras look like the index of the image: in query and gallery each identity has one "
            "image for each, without a gap; if they are, the rule drops true matches and scores "
            "cannot be compared: import the images without cameras"
        )
        yield Finding(WARNING, "camera-is-index", text)


def _index_like(subject: Subject, split: str) -> bool:
    """Whether nearly all identities have several images, whose cameras count up by one."""
    taken: dict[int, list[int]] = defaultdict(list)
    for record in subject.used(split):
        if record.pid != subject.distractor_pid:
            taken[record.pid].append(record.camid)
    many = [sorted(cams) for cams in taken.values() if len(cams) >= _INDEX_IMAGES]
    alike = sum(cams == list(range(cams[0], cams[0] + len(cams))) for cams in many)
    return len(many) > len(taken) / 2 and alike >= _INDEX_LIKE * len(many)
