"""`reid data ACTION`: generate, check, build and import data sets."""

import argparse
import json
from pathlib import Path
from typing import Any

from reid._verbs import add_verb, refuse_folder, root_of
from reid.data.cli_making import add_build, add_import
from reid.errors import UserError


def add_data_verbs(verbs: Any) -> None:
    """Add `reid data` and its actions."""
    text = "generate, check, build or import a data set"
    parser = verbs.add_parser("data", help=text, description=text)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for add in (_generate, _check, _report, _attributes, _occluders, add_build, add_import):
        add(actions)


def _generate(actions: Any) -> None:
    parser = add_verb(actions, "generate", _run_generate, "draw a Mannequins data set")
    parser.add_argument("name", help="mannequins, occluded-mannequins or partial-mannequins")
    parser.add_argument("--root", metavar="PATH", help="folder to write; default data/NAME")
    parser.add_argument("--size", default="demo", help="tiny, demo or market")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--image-size", type=int, nargs=2, default=(256, 128), metavar=("H", "W"), help="pixels"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes")


def _check(actions: Any) -> None:
    parser = add_verb(
        actions,
        "check",
        _run_check,
        "count images, identities and cameras; find damage, duplicates and leaks; exit 1 on damage",
    )
    parser.add_argument("name", help="such as market1501, occluded-duke or imported")
    parser.add_argument("--root", metavar="PATH", help="its folder or archive; default data/NAME")
    parser.add_argument("--protocol", metavar="NAME", help="such as train+val or occluded-body")
    parser.add_argument(
        "--no-decode", action="store_true", help="hash the files, but do not decode them"
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="check what is left when files that cannot be read or taken are left out",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all findings there")


def _report(actions: Any) -> None:
    parser = add_verb(
        actions,
        "report",
        _run_report,
        "print how hard a generated set is: chance, colour histogram, untrained network",
    )
    parser.add_argument("name")
    parser.add_argument("--root", metavar="PATH", help="its folder; default data/NAME")


def _attributes(actions: Any) -> None:
    parser = add_verb(
        actions, "attributes", _run_attributes, "print how often each person attribute is set"
    )
    parser.add_argument("name", help="data set, such as market1501 or occluded-duke")
    parser.add_argument(
        "--mat", metavar="FILE", help="attribute file; generated sets have their own"
    )
    parser.add_argument("--root", metavar="PATH", help="folder of a generated set")


def _occluders(actions: Any) -> None:
    parser = add_verb(
        actions, "occluders", _run_occluders, "cut objects out of images, to occlude people with"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--coco", metavar="FILE", help="COCO instances_*.json, with --images")
    source.add_argument("--voc", metavar="PATH", help="Pascal VOC folder or archive")
    source.add_argument("--folder", metavar="PATH", help="photographs with masks or alpha")
    parser.add_argument("--images", metavar="PATH", help="folder or archive of --coco's images")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="bank to write")
    parser.add_argument(
        "--categories", nargs="+", metavar="NAME", help="what to cut out; default street objects"
    )
    parser.add_argument(
        "--min-size", type=int, default=64, metavar="PX", help="least longer side; default 64"
    )
    parser.add_argument(
        "--max", type=int, default=300, metavar="N", help="most cut-outs, 0 for all; default 300"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice")
    parser.add_argument(
        "--skip-bad", action="store_true", help="count and list what cannot be read"
    )


def _run_generate(arguments: argparse.Namespace) -> None:
    from reid.data import GENERATED, mannequins

    if arguments.name not in GENERATED:
        raise UserError(
            f"{arguments.name!r} is not generated; choose one of {', '.join(GENERATED)}"
        )
    root = mannequins.generate(
        root_of(arguments.name, arguments.root),
        protocol=arguments.name,
        size=arguments.size,
        seed=arguments.seed,
        image_size=tuple(arguments.image_size),
        workers=arguments.workers,
    )
    print(f"wrote {root}")


def _run_check(arguments: argparse.Namespace) -> int:
    from reid.data.check import check

    refuse_folder("--json", arguments.json)
    report = check(
        arguments.name,
        root_of(arguments.name, arguments.root),
        protocol=arguments.protocol,
        decode=not arguments.no_decode,
        skip_bad=arguments.skip_bad,
    )
    print(report)
    if arguments.json:
        from reid.engine.checkpoint import write_atomic

        write_atomic(arguments.json, json.dumps(report.as_dict(), indent=1).encode())
    return 0 if report.ok else 1


def _run_report(arguments: argparse.Namespace) -> None:
    from reid.difficulty import difficulty

    print(json.dumps(difficulty(arguments.name, root_of(arguments.name, arguments.root)), indent=2))


def _run_attributes(arguments: argparse.Namespace) -> None:
    from reid.data import GENERATED
    from reid.data.attribute_summary import root_of_attributes, summarize
    from reid.data.attributes import read_attributes

    root = root_of_attributes(arguments.name)
    if arguments.mat is None and arguments.root is None and arguments.name not in GENERATED:
        raise UserError(f"--mat is missing: give {root}.mat")
    mat = arguments.mat or f"{root_of(arguments.name, arguments.root)}/attribute/{root}.mat"
    print(summarize(read_attributes(mat, root=root)))


def _run_occluders(arguments: argparse.Namespace) -> None:
    from reid.data.occluders.cutting import Rules
    from reid.data.occluders.making import make_bank

    report = make_bank(
        arguments.out,
        coco=arguments.coco,
        images=arguments.images,
        voc=arguments.voc,
        folder=arguments.folder,
        categories=arguments.categories,
        rules=Rules(min_size=arguments.min_size),
        most=arguments.max,
        seed=arguments.seed,
        skip_bad=arguments.skip_bad,
    )
    print(report)
