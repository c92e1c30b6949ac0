"""`reid data ACTION`: generate, check, build and import data sets."""

import argparse
import json
from typing import Any

from reid._verbs import add_verb, root_of
from reid.errors import UserError


def add_data_verbs(verbs: Any) -> None:
    """Add `reid data` and its actions."""
    text = "generate, check, build or import a data set"
    parser = verbs.add_parser("data", help=text, description=text)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for add in (_generate, _check, _report):
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
        actions, "check", _run_check, "count images, identities and cameras; find damage"
    )
    parser.add_argument("name")
    parser.add_argument("--root", metavar="PATH", help="its folder; default data/NAME")


def _report(actions: Any) -> None:
    parser = add_verb(
        actions,
        "report",
        _run_report,
        "print how hard a generated set is: chance, colour histogram, untrained network",
    )
    parser.add_argument("name")
    parser.add_argument("--root", metavar="PATH", help="its folder; default data/NAME")


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
    from reid.data import catalog

    report = catalog.check(arguments.name, root_of(arguments.name, arguments.root))
    print(report)
    return 0 if report.ok else 1


def _run_report(arguments: argparse.Namespace) -> None:
    from reid.difficulty import difficulty

    print(json.dumps(difficulty(arguments.name, root_of(arguments.name, arguments.root)), indent=2))
