"""`reid report`: the page about one evaluation; apart from reid.report, which loads torch."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from reid._evaluate_options import add_ranking_options
from reid._verbs import add_verb, root_of
from reid.errors import UserError


def add_report_verb(verbs: Any) -> None:
    """Add `reid report`."""
    parser = add_verb(
        verbs,
        "report",
        _run_report,
        "write a page about features: scores, slices, cameras, a threshold, ranked lists",
    )
    parser.add_argument(
        "--features",
        type=Path,
        nargs=2,
        required=True,
        metavar=("QUERY", "GALLERY"),
        help=".npz files with features, pids and camids",
    )
    parser.add_argument("--data", metavar="NAME", help="data set the features are of")
    parser.add_argument(
        "--root", metavar="PATH", help="its folder; generated sets default to data/NAME"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="PATH",
        help="folder or archive with the images that the files name, instead of a data set",
    )
    parser.add_argument(
        "--attributes", type=Path, metavar="FILE", help="market_attribute.mat or duke_attribute.mat"
    )
    parser.add_argument(
        "--slices", type=Path, metavar="FILE", help="CSV: headings, then one line per query"
    )
    add_ranking_options(parser)
    parser.add_argument(
        "--distractor-pid",
        type=_pid,
        metavar="PID",
        help="identity that marks distractors, or none; default: as --data has it, else none",
    )
    parser.add_argument(
        "--fpr",
        type=float,
        default=1e-3,
        metavar="SHARE",
        help="wrong matches that the threshold may accept; default 0.001",
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=12,
        metavar="N",
        help="ranked lists of each kind, 0 for none; default 12",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")


def _pid(text: str) -> int | None:
    return None if text == "none" else int(text)


def _run_report(arguments: argparse.Namespace) -> None:
    from reid.report.from_files import report_files

    if arguments.data is None and arguments.root is not None:
        raise UserError("--root belongs to --data; give the images of other features as --images")
    if arguments.data is not None and arguments.distractor_pid is not None:
        raise UserError(
            f"--distractor-pid {arguments.distractor_pid} goes without --data: {arguments.data} "
            "says itself which identity marks distractors; leave it out"
        )
    root = None if arguments.data is None else root_of(arguments.data, arguments.root)
    query, gallery = arguments.features
    path = report_files(
        query,
        gallery,
        arguments.out,
        data=arguments.data,
        root=root,
        images=arguments.images,
        attributes=arguments.attributes,
        slices=arguments.slices,
        metric=arguments.metric,
        ties=arguments.ties,
        distractor_pid=arguments.distractor_pid,
        fpr=arguments.fpr,
        examples=arguments.examples,
        command=shlex.join(["reid", *sys.argv[1:]]),
    )
    print(f"wrote {path}")
