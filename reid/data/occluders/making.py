"""Make an occluder bank: read annotations, cut objects out, write the folder."""

import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from reid._optional import require
from reid.data.occluders.bank import CONTACT_SHEET
from reid.data.occluders.coco import read_coco
from reid.data.occluders.contact import contact_sheet
from reid.data.occluders.cutting import Cuts, Rules, cut
from reid.data.occluders.instances import Annotated, Instance, Pixels, choose
from reid.data.occluders.photos import read_photos
from reid.data.occluders.voc import read_voc
from reid.errors import UserError

MANIFEST = "manifest.json"
# Inferred: the paper does not say how many; this many fit any memory and leave room for variety.
DEFAULT_MOST = 300
_LISTED = 5


@dataclass(frozen=True)
class BankReport:
    """What `make_bank` did; `str` is the text a user reads.

    Attributes:
        folder: Where the bank lies.
        kept: Cut-outs by category.
        found: Objects of the wanted categories.
        left_out: Objects by reason, crowds among them.
        unseen: Objects not looked at because there were enough.
        problems: What could not be read.
    """

    folder: Path
    kept: dict[str, int]
    found: dict[str, int]
    left_out: dict[str, int]
    unseen: int
    problems: list[str]

    def __str__(self) -> str:
        width = max(len("category"), *map(len, self.found))
        lines = [f"{'category':{width}}  cut out  objects"]
        lines += [
            f"{category:{width}}  {self.kept.get(category, 0):7}  {count:7}"
            for category, count in self.found.items()
        ]
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        lines.append(f"left out: {reasons or 'none'}")
        if self.unseen:
            lines.append(f"not looked at, enough found: {self.unseen} (see --max)")
        if self.problems:
            lines.append(f"skipped as bad: {len(self.problems)}")
            lines += [f"  {problem}" for problem in self.problems[:_LISTED]]
            if len(self.problems) > _LISTED:
                lines.append(f"  and {len(self.problems) - _LISTED} more, in {MANIFEST}")
        total = sum(self.kept.values())
        lines.append(f"wrote {total} cut-outs to {self.folder}; look at {CONTACT_SHEET} there")
        lines.append(f"train with them: augment.occluders={self.folder}")
        return "\n".join(lines)


def make_bank(
    out: str | os.PathLike[str],
    *,
    coco: str | None = None,
    images: str | None = None,
    voc: str | None = None,
    folder: str | None = None,
    categories: Sequence[str] | None = None,
    rules: Rules | None = None,
    most: int = DEFAULT_MOST,
    seed: int = 0,
    skip_bad: bool = False,
) -> BankReport:
    """Cut an occluder bank from instance masks.

    Args:
        out: Folder to write; must be missing or empty. It gets CATEGORY/NUMBER.png, a manifest
            that says where each cut-out comes from, and a contact sheet.
        coco: COCO instances file, with `images`; or
        images: Folder or archive of the images of `coco`.
        voc: Folder or archive in the layout of Pascal VOC; or
        folder: Folder or archive of photographs with masks, with alpha, or plain.
        categories: What to cut out; None prefers what stands in streets; people only if named.
        rules: Which objects to leave out; None is the default ones.
        most: Largest number of cut-outs, spread over the categories; 0 takes all.
        seed: Of the choice.
        skip_bad: Count and list what cannot be read instead of refusing it.

    Returns:
        Counts.

    Raises:
        UserError: Bad input, nothing to cut out, or a folder that is in use.
    """
    rules = rules or Rules()
    for name, value, least in (
        ("--min-size", rules.min_size, 1),
        ("--max", most, 0),
        ("--seed", seed, 0),
    ):
        if value < least:
            raise UserError(f"{name} {value} must be at least {least}")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not an empty folder; give another --out")
    annotated, source = _read(coco, images, voc, folder)
    if annotated.problems and not skip_bad:
        raise UserError(
            f"{annotated.problems[0]}; repair it, or leave such objects out with --skip-bad"
        )
    chosen = choose(annotated, categories)
    cuts = cut(chosen, rules, most=most, seed=seed, skip_bad=skip_bad)
    left_out = dict(sorted(cuts.left_out.items()))
    if annotated.crowds:
        left_out["crowd"] = annotated.crowds
    kept = Counter(cutout.instance.category for cutout in cuts.cutouts)
    found = Counter(instance.category for instance in chosen)
    report = BankReport(
        out,
        dict(sorted(kept.items())),
        dict(sorted(found.items())),
        left_out,
        cuts.unseen,
        annotated.problems + cuts.problems,
    )
    about = {
        "source": source,
        "rules": asdict(rules),
        "max": most,
        "seed": seed,
        "categories": report.kept,
        "left_out": report.left_out,
        "problems": report.problems,
    }
    _write(out, cuts, about)
    return report


def _read(
    coco: str | None, images: str | None, voc: str | None, folder: str | None
) -> tuple[Annotated, dict[str, str]]:
    if sum(source is not None for source in (coco, voc, folder)) != 1:
        raise UserError("give one of --coco, --voc and --folder")
    if (coco is None) != (images is None):
        raise UserError("--coco and --images belong together: annotations and their images")
    if coco is not None and images is not None:
        return read_coco(coco, images), {"coco": coco, "images": images}
    if voc is not None:
        return read_voc(voc), {"voc": voc}
    return read_photos(str(folder)), {"folder": str(folder)}


def _write(out: Path, cuts: Cuts, about: dict[str, object]) -> None:
    """Write everything to a folder beside its final place, then move it there."""
    image = require("PIL.Image")
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=out, prefix=".unfinished-"))
    try:
        entries = []
        pages: dict[str, list[tuple[str, Pixels]]] = {}
        counts: Counter[str] = Counter()
        for cutout in cuts.cutouts:
            place = _file_name(cutout.instance.category)
            counts[place] += 1
            name = f"{place}/{counts[place]:04d}.png"
            (unfinished / place).mkdir(exist_ok=True)
            image.fromarray(cutout.rgba).save(unfinished / name)
            entries.append(_entry(name, cutout.rgba.shape, cutout.instance))
            pages.setdefault(cutout.instance.category, []).append((name, cutout.rgba))
        image.fromarray(contact_sheet(pages)).save(unfinished / CONTACT_SHEET, optimize=True)
        text = json.dumps({**about, "cutouts": entries}, indent=1)
        (unfinished / MANIFEST).write_text(text + "\n", encoding="utf-8")
        for path in sorted(unfinished.iterdir()):
            os.replace(path, out / path.name)
        unfinished.rmdir()
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        if made:
            shutil.rmtree(out, ignore_errors=True)
        raise


def _entry(name: str, shape: tuple[int, ...], instance: Instance) -> dict[str, object]:
    entry: dict[str, object] = {
        "file": name,
        "category": instance.category,
        "image": instance.image,
        "object": instance.key,
        "height": shape[0],
        "width": shape[1],
    }
    if instance.licence:
        entry["licence"] = instance.licence
    return entry


def _file_name(category: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", category.lower()).strip("-") or "object"
