"""The report of two feature files: what `reid report` does."""

import csv
import os
from pathlib import Path

import numpy as np

from reid.errors import UserError
from reid.evaluation.distances import Metric, fitting
from reid.evaluation.features import Features
from reid.evaluation.ranking import evaluate
from reid.evaluation.ties import Ties
from reid.report.evaluation import Origin, evaluation_report
from reid.report.known_slices import attribute_slices, known_slices

_KEPT = 20


def report_files(
    query_file: str | os.PathLike[str],
    gallery_file: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    data: str | None = None,
    root: str | Path | None = None,
    images: str | os.PathLike[str] | None = None,
    attributes: str | os.PathLike[str] | None = None,
    slices: str | os.PathLike[str] | None = None,
    metric: Metric | None = None,
    ties: Ties = "stable",
    distractor_pid: int | None = None,
    fpr: float = 1e-3,
    examples: int = 12,
    command: str = "",
) -> Path:
    """Evaluate features and write the report.

    Args:
        query_file: .npz file with `features`, `pids`, `camids` and, if there are, `names`.
        gallery_file: The same of the gallery.
        out: Folder; made when missing.
        data: Data set of the catalog that the features were extracted from. It gives the images,
            the identity of distractors, and what is known of the queries.
        root: Its folder or archive.
        images: Folder or archive with the images, looked up by the names in the files.
        attributes: Attribute file of Market-1501 or DukeMTMC-reID.
        slices: CSV file with a line per query after the headings; each column is a group.
        metric: As in `evaluate`; None takes hamming for codes, visible where a visibility is given,
            else cosine.
        ties: As in `evaluate`.
        distractor_pid: As in `evaluate`, but None by default; a data set overrules it.
        fpr: Share of wrong pairs that the threshold may accept, in fractions of 1.
        examples: Queries in each choice of ranked lists.
        command: Printed on the page.

    Returns:
        The HTML file.

    Raises:
        UserError: A file is missing, damaged or does not belong to the others.
    """
    query, gallery = Features.load(query_file), Features.load(gallery_file)
    groups: dict[str, list[str]] = {}
    paths: list[list[str] | None] = [None, None]
    title = ""
    if data is not None:
        from reid.data import load

        if root is None:
            raise UserError(f"the folder of {data} is missing; give it as root (--root)")
        found = load(data, root)
        distractor_pid, title = found.distractor_pid, found.name
        for number, (kind, features, records) in enumerate(
            (("query", query, found.query), ("gallery", gallery, found.gallery))
        ):
            pids = np.array([record.pid for record in records], dtype=np.int64)
            if not np.array_equal(features.pids, pids):
                raise UserError(
                    f"the {kind} features are not those of {data} at {root}: {len(features)} rows "
                    f"against {len(pids)} images, or other identities; extract them again, or "
                    "leave --data out"
                )
            paths[number] = [record.path for record in records]
        groups.update(known_slices(root, paths[0] or [], query.pids.tolist()))
    if attributes is not None:
        from reid.data.attributes import read_attributes

        groups.update(attribute_slices(read_attributes(attributes)["test"], query.pids.tolist()))
    if slices is not None:
        groups.update(read_slices(slices))
    chosen: Metric = metric or fitting(query)
    result = evaluate(
        query, gallery, metric=chosen, ties=ties, distractor_pid=distractor_pid, keep_top=_KEPT
    )
    files = {"query features": str(query_file), "gallery features": str(gallery_file)}
    return evaluation_report(
        query,
        gallery,
        result,
        out,
        images=images if data is None else None,
        query_paths=paths[0],
        gallery_paths=paths[1],
        slices=groups,
        distractor_pid=distractor_pid,
        fpr=fpr,
        examples=examples,
        origin=Origin(data=title, command=command, settings=files),
    )


def read_slices(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Read groups of queries from a CSV file.

    Args:
        path: The headings are the names of the groups; then one line per query, in the order of
            the query features, with empty cells where a label is unknown.

    Returns:
        Name of the group -> (Q) labels.

    Raises:
        UserError: No such file, no heading, or a line with more or fewer cells than headings.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            lines = [line for line in csv.reader(handle) if line]
    except FileNotFoundError as error:
        raise UserError(
            f"no file {path}; give a CSV file with one line per query, after a line of headings"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a readable CSV file ({error}); save it as UTF-8") from error
    if not lines:
        raise UserError(f"{path} is empty; it needs a line of headings and one line per query")
    names, rows = lines[0], lines[1:]
    for number, row in enumerate(rows, 2):
        if len(row) != len(names):
            raise UserError(
                f"{path}, line {number}: {len(row)} cells under {len(names)} headings; "
                "leave unknown cells empty, but keep the commas"
            )
    return {name: [row[column].strip() for row in rows] for column, name in enumerate(names)}
