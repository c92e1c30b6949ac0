"""The two files of an imported data set: what it is, and a row for each image."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reid.data.imported.division import SYNTHETIC
from reid.data.imported.rows import Row
from reid.data.imported.table import image_path
from reid.data.records import Record, ReidData
from reid.data.source import open_source
from reid.errors import UserError

IMPORTED = "imported"
MANIFEST = "imported.json"
ROWS = "imported.csv"
_FORMAT = 1
_KEYS = ("images", "identities", "cameras", "camera_rule", "rows_sha256")


def rows_text(rows: Sequence[Row], splits: Sequence[str]) -> bytes:
    """The rows as a CSV file that `reid data import --csv` takes again."""
    text = io.StringIO()
    with_camera = any(row.camera for row in rows)
    header = ["path", "pid", *(["camid"] if with_camera else []), "split"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row, split in zip(rows, splits, strict=True):
        writer.writerow([row.path, row.pid, *([row.camera] if with_camera else []), split])
    return text.getvalue().encode()


def manifest_text(
    rows_csv: bytes,
    *,
    images: str,
    identities: Sequence[str],
    cameras: Sequence[str],
    camera_rule: str,
    about: dict[str, Any],
) -> bytes:
    """The description as JSON; `about` holds what a reader does not need."""
    content = {
        "format": _FORMAT,
        "images": images,
        "camera_rule": camera_rule,
        "rows_sha256": hashlib.sha256(rows_csv).hexdigest(),
        **about,
        "identities": {str(pid): name for pid, name in enumerate(identities, start=1)},
        "cameras": {str(camid): name for camid, name in enumerate(cameras)},
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def read_imported(root: str | os.PathLike[str]) -> ReidData:
    """Read a data set that `reid data import` made.

    Identities are numbered from 1 and cameras from 0, in the order of the manifest.

    Args:
        root: The folder that holds imported.json.

    Returns:
        Its records. No identity is a distractor. Under the synthetic camera rule queries have
        camera 0 and the gallery camera 1.

    Raises:
        UserError: No such folder or files, files that do not belong together, or images that are
            no longer where they were.
    """
    base = Path(root)
    if base.is_file():
        raise UserError(f"{base} is a file; give the folder that reid data import wrote")
    manifest = _read_manifest(base)
    rows_csv = base / ROWS
    try:
        digest = hashlib.sha256(rows_csv.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{rows_csv} cannot be read ({error.strerror}); import again") from error
    if digest != manifest["rows_sha256"]:
        raise UserError(
            f"{rows_csv} was changed after the import; make a data set of it with: reid data "
            f"import --csv {rows_csv} --images {_images(base, manifest)} --out FOLDER"
        )
    images = _images(base, manifest)
    if not images.exists():
        raise UserError(
            f"the images of {base} are no longer at {images}; put them back, or write their new "
            f"place into {base / MANIFEST} as 'images'"
        )
    source = open_source(images)
    pids = {name: int(pid) for pid, name in manifest["identities"].items()}
    camids = {name: int(camid) for camid, name in manifest["cameras"].items()}
    synthetic = manifest["camera_rule"] == SYNTHETIC
    parts: dict[str, list[Record]] = {"train": [], "query": [], "gallery": []}
    with open(rows_csv, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            split = row["split"]
            camid = camids[row["camid"]] if camids else 0
            if synthetic and split != "train":
                camid = int(split == "gallery")
            path = image_path(source, row["path"])
            parts[split].append(Record(path, pids[row["pid"]], camid))
    cameras = 1 + max(record.camid for records in parts.values() for record in records)
    return ReidData(
        IMPORTED,
        str(base),
        train=parts["train"],
        query=parts["query"],
        gallery=parts["gallery"],
        num_cameras=cameras,
        protocol="holistic",
        distractor_pid=None,
        layout=str(manifest.get("origin", "")),
        camera_rule=manifest["camera_rule"],
    )


def _read_manifest(base: Path) -> dict[str, Any]:
    path = base / MANIFEST
    remedy = "make it with: reid data import --out FOLDER, with --folders, --pattern or --csv"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{base} is no imported data set (no {MANIFEST}); {remedy}") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(manifest, dict) or any(key not in manifest for key in _KEYS):
        raise UserError(f"{path} does not describe an imported data set; {remedy}")
    if manifest.get("format") != _FORMAT:
        raise UserError(f"{path} has the format {manifest.get('format')}, not {_FORMAT}; {remedy}")
    return manifest


def _images(base: Path, manifest: dict[str, Any]) -> Path:
    # joinpath keeps an absolute path as it is
    return base.joinpath(manifest["images"])
