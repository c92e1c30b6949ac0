"""`reid data import` and `reid data build`: data sets of one's own images and of lists."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from reid._verbs import add_verb
from reid.errors import UserError


def add_import(actions: Any) -> None:
    """Add `import`."""
    parser = add_verb(
        actions, "import", _run_import, "make a data set of your own images, which stay in place"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--folders",
        type=Path,
        metavar="PATH",
        help="folder or archive with IDENTITY/image.jpg or IDENTITY/CAMERA/image.jpg, perhaps "
        "below train, query, gallery or test",
    )
    source.add_argument(
        "--pattern",
        metavar="REGEX",
        help="of file names below --images, with the groups (?P<pid>...) and, optionally, "
        "(?P<camid>...) and (?P<split>...); with a slash it has to fit the path",
    )
    source.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="with the columns path,pid and, optionally, camid,split; paths are relative to "
        "--images, or to the file",
    )
    parser.add_argument(
        "--images", type=Path, metavar="PATH", help="folder or archive, for --pattern and --csv"
    )
    parser.add_argument(
        "--camera",
        metavar="REGEX",
        help="for --folders: finds the camera in the file name, such as 'c([0-9]+)'",
    )
    parser.add_argument(
        "--camera-rule",
        default="auto",
        help="cross-camera (matches of the query's camera do not count), synthetic (all count), "
        "or auto: the first where an identity is seen by two cameras",
    )
    parser.add_argument(
        "--test-share",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="identities held out when no split is given; default 0.5",
    )
    parser.add_argument("--seed", type=int, default=0, help="of that division")
    parser.add_argument(
        "--copy", action="store_true", help="copy the images, named as those of Market-1501"
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out names that do not fit and rows without a file",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")


def add_build(actions: Any) -> None:
    """Add `build`."""
    parser = add_verb(
        actions, "build", _run_build, "build a data set that is given out as lists of another"
    )
    parser.add_argument("name", help="occluded-duke")
    parser.add_argument(
        "--duke", required=True, metavar="PATH", help="folder or archive of DukeMTMC-reID"
    )
    parser.add_argument(
        "--lists",
        required=True,
        metavar="PATH",
        help="folder or archive with train.list, query.list and gallery.list",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder to write")
    parser.add_argument(
        "--copy", action="store_true", help="copy the images instead of linking to Duke's"
    )


def _run_build(arguments: argparse.Namespace) -> None:
    from reid.data.occluded_duke import build_occluded_duke

    if arguments.name != "occluded-duke":
        raise UserError(f"{arguments.name!r} cannot be built; occluded-duke can")
    built = build_occluded_duke(arguments.duke, arguments.lists, arguments.out, copy=arguments.copy)
    print(built)
    print(f"wrote {built.out}; next: {_check('occluded-duke', built.out)}")


def _check(name: str, root: Path) -> str:
    return f"reid data check {name} --root {shlex.quote(str(root))}"


def _run_import(arguments: argparse.Namespace) -> None:
    from reid.data import imported

    given = arguments
    if given.camera is not None and given.folders is None:
        raise UserError("--camera belongs to --folders; name the camera in --pattern or --csv")
    if given.folders is not None:
        if given.images is not None:
            raise UserError("--images belongs to --pattern or --csv; --folders names the place")
        listing = imported.from_folders(given.folders, camera=given.camera, skip_bad=given.skip_bad)
    elif given.pattern is not None:
        if given.images is None:
            raise UserError("--images is missing: give the folder or archive of the images")
        listing = imported.from_pattern(given.images, given.pattern, skip_bad=given.skip_bad)
    else:
        listing = imported.from_csv(given.csv, images=given.images, skip_bad=given.skip_bad)
    made = imported.import_images(
        listing,
        given.out,
        copy=given.copy,
        seed=given.seed,
        test_share=given.test_share,
        rule=given.camera_rule,
    )
    print(made)
    print(f"wrote {given.out}; next: {_check('imported', given.out)}")
