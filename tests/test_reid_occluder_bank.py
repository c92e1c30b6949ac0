"""Occluder banks from COCO, Pascal VOC and plain folders: which pixels, which objects, errors."""

import copy
import json
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reid.cli import main
from reid.data.augment.noda import noda
from reid.data.occluders import OccluderBank
from reid.data.occluders.bank import CONTACT_SHEET
from reid.data.occluders.cutting import Rules
from reid.data.occluders.making import MANIFEST, make_bank
from reid.errors import UserError

HEIGHT, WIDTH = 100, 120


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Noise, so that a pixel in the wrong place shows."""
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), np.uint8)


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def column_runs(mask: np.ndarray) -> list[int]:
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate(([0], changes, [flat.size]))).tolist()
    return [0, *runs] if flat[0] else runs


def cut_of(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What a cut-out must be: the image inside the mask, nothing outside, cropped."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    rgba = np.dstack((image, mask * np.uint8(255)))
    rgba[~mask] = 0
    return rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGBA"
        return np.array(image)


BENCH = box(10, 20, 40, 100) | box(40, 30, 80, 40)
BICYCLE = box(5, 10, 95, 60)
BICYCLE[20:30, 20:30] = False
L_SHAPE = [[20, 10, 100, 10, 100, 40, 20, 40], [30, 40, 40, 40, 40, 80, 30, 80]]


def polygon(top: int, left: int, bottom: int, right: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two images with a bench, a bicycle, people, and objects that the rules leave out."""
    folder = tmp_path / "coco"
    (folder / "val2017").mkdir(parents=True)
    for number in (1, 2):
        Image.fromarray(picture(number)).save(folder / "val2017" / f"00{number}.png")
    size = [HEIGHT, WIDTH]
    annotations: list[dict[str, Any]] = [
        {"image_id": 1, "category_id": 15, "segmentation": L_SHAPE},
        {
            "image_id": 2,
            "category_id": 2,
            "segmentation": {"size": size, "counts": column_runs(BICYCLE)},
        },
        {"image_id": 1, "category_id": 1, "segmentation": polygon(10, 10, 90, 90)},
        {"image_id": 1, "category_id": 15, "segmentation": polygon(10, 10, 73, 70)},
        {"image_id": 1, "category_id": 15, "segmentation": polygon(10, 10, 90, 19)},
        {"image_id": 1, "category_id": 15, "segmentation": polygon(0, 10, 90, 70)},
        {"image_id": 2, "category_id": 15, "segmentation": polygon(10, 50, 90, 120)},
        {
            "image_id": 2,
            "category_id": 15,
            "segmentation": polygon(2, 2, 92, 8) + polygon(86, 2, 92, 92),
        },
        {
            "image_id": 1,
            "category_id": 15,
            "iscrowd": 1,
            "segmentation": {"size": size, "counts": column_runs(BICYCLE)},
        },
        {"image_id": 2, "category_id": 17, "segmentation": polygon(10, 10, 90, 90)},
    ]
    tree = {
        "licenses": [{"id": 4, "name": "Attribution", "url": "https://example.org/by"}],
        "images": [
            {"id": n, "file_name": f"00{n}.png", "height": HEIGHT, "width": WIDTH, "license": 4}
            for n in (1, 2)
        ],
        "categories": [
            {"id": 1, "name": "person"},
            {"id": 2, "name": "bicycle"},
            {"id": 15, "name": "bench"},
            {"id": 17, "name": "cat"},
            {"id": 88, "name": "potted plant"},
        ],
        "annotations": [{"id": 100 + n, **entry} for n, entry in enumerate(annotations)],
    }
    (folder / "instances.json").write_text(json.dumps(tree))
    return folder


def edit(coco: Path, change: Any) -> None:
    path = coco / "instances.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def make_coco(coco: Path, out: str = "bank", **options: Any) -> Any:
    return make_bank(
        coco / out, coco=str(coco / "instances.json"), images=str(coco / "val2017"), **options
    )


def test_coco_cutouts_are_the_masks(coco: Path) -> None:
    report = make_coco(coco)
    bank = coco / "bank"
    np.testing.assert_array_equal(read(bank / "bench/0001.png"), cut_of(picture(1), BENCH))
    np.testing.assert_array_equal(read(bank / "bicycle/0001.png"), cut_of(picture(2), BICYCLE))
    assert report.kept == {"bench": 1, "bicycle": 1}
    assert report.found == {"bench": 6, "bicycle": 1}
    assert report.left_out == {"border": 2, "small": 1, "sparse": 1, "thin": 1, "crowd": 1}
    assert sorted(p.name for p in bank.iterdir()) == ["bench", "bicycle", CONTACT_SHEET, MANIFEST]

    manifest = json.loads((bank / MANIFEST).read_text())
    assert manifest["categories"] == report.kept
    assert manifest["rules"] == {
        "min_size": 64,
        "min_aspect": 0.125,
        "min_fill": 0.2,
        "border": True,
    }
    assert manifest["cutouts"][0] == {
        "file": "bench/0001.png",
        "category": "bench",
        "image": "001.png",
        "object": "100",
        "height": 70,
        "width": 80,
        "licence": "https://example.org/by",
    }
    assert manifest["cutouts"][1]["image"] == "002.png"


def test_what_is_cut_out_is_a_matter_of_categories(coco: Path) -> None:
    assert make_coco(coco, "named", categories=["Cat", "person"]).kept == {"cat": 1, "person": 1}
    every = make_coco(coco, "all", categories=["all"])
    assert every.kept == {"bench": 1, "bicycle": 1, "cat": 1}

    def only_animals(tree: dict[str, Any]) -> None:
        tree["annotations"] = [a for a in tree["annotations"] if a["category_id"] in (1, 17)]

    edit(coco, only_animals)
    assert make_coco(coco, "unlike").kept == {"cat": 1}

    def rename(tree: dict[str, Any]) -> None:
        names = {1: "seated person", 17: "cabin"}
        for category in tree["categories"]:
            category["name"] = names.get(category["id"], category["name"])

    edit(coco, rename)
    assert make_coco(coco, "words").kept == {"cabin": 1}
    edit(coco, lambda tree: tree["categories"][0].update(name="Wheelie_Bin"))
    assert make_coco(coco, "bins").kept == {"Wheelie_Bin": 1}
    with pytest.raises(UserError, match="unknown category 'bycicle'; did you mean 'bicycle'"):
        make_coco(coco, "none", categories=["bycicle"])
    with pytest.raises(
        UserError, match="unknown category 'zzz'; known: Wheelie_Bin, bench, bicycle"
    ):
        make_coco(coco, "none", categories=["zzz"])
    with pytest.raises(UserError, match="no object of pottedplant; categories there: Wheelie_Bin"):
        make_coco(coco, "none", categories=["pottedplant"])
    assert not (coco / "none").exists()


def test_images_in_an_archive_and_annotations_in_another(coco: Path) -> None:
    make_coco(coco)
    with zipfile.ZipFile(coco / "val2017.zip", "w") as archive:
        for path in sorted((coco / "val2017").iterdir()):
            archive.write(path, f"val2017/{path.name}")
    with zipfile.ZipFile(coco / "annotations.zip", "w") as archive:
        archive.write(coco / "instances.json", "annotations/instances.json")
    make_bank(
        coco / "zipped",
        coco=f"{coco / 'annotations.zip'}!/annotations/instances.json",
        images=str(coco / "val2017.zip"),
    )
    for name in ("bench/0001.png", "bicycle/0001.png"):
        np.testing.assert_array_equal(read(coco / "bank" / name), read(coco / "zipped" / name))


def test_most_is_spread_over_the_categories_by_seed(coco: Path) -> None:
    def many(tree: dict[str, Any]) -> None:
        bench, bicycle, *_ = tree["annotations"]
        tree["annotations"] = [{**bench, "id": n} for n in range(9)]
        tree["annotations"] += [{**bicycle, "id": n} for n in range(20, 22)]

    edit(coco, many)
    report = make_coco(coco, "some", most=6)
    assert report.kept == {"bench": 4, "bicycle": 2}
    assert report.unseen == 5
    assert make_coco(coco, "every", most=0).kept == {"bench": 9, "bicycle": 2}
    chosen = {}
    for out, seed in (("some", None), ("same", 0), ("other", 1)):
        if seed is not None:
            make_coco(coco, out, most=6, seed=seed)
        cutouts = json.loads((coco / out / MANIFEST).read_text())["cutouts"]
        chosen[out] = [entry["object"] for entry in cutouts]
    assert chosen["some"] == chosen["same"] != chosen["other"]


def test_rules_have_exact_limits() -> None:
    rules = Rules(min_size=40)

    def reason(mask: np.ndarray, rules: Rules = rules, whole: bool = False) -> str:
        return rules.reason(mask.astype(np.uint8) * 255, whole=whole)

    assert reason(box(0, 0, 0, 0)) == "empty"
    assert reason(box(5, 5, 44, 44)) == "small"
    assert reason(box(5, 5, 45, 10)) == ""
    assert reason(box(5, 5, 46, 10)) == "thin"
    frame = box(10, 10, 60, 60)
    frame[10:60, 20:60] = False
    frame[10, 10:60] = True
    assert frame.sum() == 540
    assert reason(frame) == ""
    assert reason(frame & ~box(30, 10, 35, 20)) == "sparse"
    for edge in (box(0, 9, 50, 50), box(9, 0, 50, 50), box(50, 9, 100, 50), box(9, 70, 50, 120)):
        assert reason(edge) == "border"
        assert reason(edge, whole=True) == ""
        assert reason(edge, Rules(40, border=False)) == ""
    assert rules.reason(box(5, 5, 60, 60).astype(np.uint8) * 127) == "empty"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOC2012 with one image: a chair, a person beside it, and an object without a mask."""
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationObject", "Annotations"):
        (base / folder).mkdir(parents=True)
    Image.fromarray(picture(3)).save(base / "JPEGImages" / "2007_000032.png")
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[9:91, 9:61] = 255
    labels[10:90, 10:60] = 2
    labels[30:40, 20:50] = 1
    labels[5:95, 65:110] = 1
    save_labels(base, labels)
    boxes = {"person": (21, 6, 110, 95), "chair": (11, 11, 60, 90), "tvmonitor": (1, 1, 9, 9)}
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, b in boxes.items()
    )
    sheet = f"<annotation><filename>2007_000032.jpg</filename>{objects}</annotation>"
    (base / "Annotations" / "2007_000032.xml").write_text(sheet)
    return base


def save_labels(base: Path, labels: np.ndarray) -> None:
    image = Image.fromarray(labels, mode="P")
    image.putpalette([value for number in range(256) for value in (number, 255 - number, 7)])
    image.save(base / "SegmentationObject" / "2007_000032.png")


def chair() -> np.ndarray:
    mask = box(10, 10, 90, 60)
    mask[30:40, 20:50] = False
    return mask


def test_voc_takes_numbers_not_colours_and_leaves_the_void_out(voc: Path, tmp_path: Path) -> None:
    report = make_bank(tmp_path / "bank", voc=str(tmp_path / "VOCdevkit"))
    assert report.kept == {"chair": 1}
    np.testing.assert_array_equal(
        read(tmp_path / "bank/chair/0001.png"), cut_of(picture(3), chair())
    )
    everything = make_bank(
        tmp_path / "every", voc=str(voc), categories=["chair", "person", "TV monitor"]
    )
    assert everything.kept == {"chair": 1, "person": 1}
    assert everything.left_out == {"empty": 1}
    archive = shutil.make_archive(str(tmp_path / "voc"), "tar", tmp_path, "VOCdevkit")
    make_bank(tmp_path / "tarred", voc=archive)
    np.testing.assert_array_equal(
        read(tmp_path / "tarred/chair/0001.png"), cut_of(picture(3), chair())
    )


def test_voc_object_away_from_its_box_is_left_out(voc: Path, tmp_path: Path) -> None:
    path = voc / "Annotations" / "2007_000032.xml"
    path.write_text(path.read_text().replace("<xmin>11<", "<xmin>56<"))
    with pytest.raises(UserError, match="none of 1 objects is left: 1 empty"):
        make_bank(tmp_path / "bank", voc=str(voc))


def test_voc_damage(voc: Path, tmp_path: Path) -> None:
    def refused(message: str, source: Path = voc) -> None:
        with pytest.raises(UserError, match=message):
            make_bank(tmp_path / "bank", voc=str(source))
        assert not (tmp_path / "bank").exists()

    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[10:90, 10:60] = 2
    labels[0, 0] = 4
    save_labels(voc, labels)
    refused("has an object 4, its annotation only 3")
    Image.fromarray(picture(0)).save(voc / "SegmentationObject" / "2007_000032.png")
    refused(r"has colours \(RGB\) where the numbers")
    save_labels(voc, box(10, 10, 90, 60)[:, :80].astype(np.uint8) * 2)
    refused("2007_000032.png is 120 x 100, but its mask 80 x 100")
    (voc / "SegmentationObject" / "2007_000032.png").write_bytes(b"")
    refused("cannot be read as an image")
    sheet = voc / "Annotations" / "2007_000032.xml"
    sheet.write_text("<annotation><object>")
    refused("is not a VOC annotation")
    sheet.unlink()
    refused("2007_000032.xml is missing")
    refused("has no SegmentationObject", voc / "JPEGImages")


def test_folder_with_alpha_masks_and_plain_images(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    (source / "bin").mkdir(parents=True)
    (source / "masks" / "tree").mkdir(parents=True)
    (source / "tree").mkdir()
    (source / "people").mkdir()
    soft = np.dstack((picture(1, 80, 70), np.zeros((80, 70), np.uint8)))
    soft[4:76, 5:68, 3] = 255
    soft[4, 5:68, 3] = 130
    Image.fromarray(soft).save(source / "bin" / "alpha.png")
    Image.fromarray(picture(2)).save(source / "bin" / "masked.png")
    mask = box(10, 10, 90, 60)
    Image.fromarray(mask.astype(np.uint8)).save(source / "bin" / "masked_mask.png")
    Image.fromarray(picture(3)).save(source / "tree" / "oak.png")
    Image.fromarray(chair()).save(source / "masks" / "tree" / "oak.png")
    Image.fromarray(picture(4, 64, 64)).save(source / "plain.png")
    Image.fromarray(picture(5)).save(source / "people" / "someone.png")
    report = make_bank(tmp_path / "bank", folder=str(source), categories=["all"])
    assert report.kept == {"bin": 2, "object": 1, "tree": 1}
    bank = tmp_path / "bank"
    entries = json.loads((bank / MANIFEST).read_text())["cutouts"]
    files = {entry["image"]: bank / entry["file"] for entry in entries}
    expected = soft[4:76, 5:68]
    np.testing.assert_array_equal(read(files["bin/alpha.png"]), expected)
    np.testing.assert_array_equal(read(files["bin/masked.png"]), cut_of(picture(2), mask))
    np.testing.assert_array_equal(read(files["tree/oak.png"]), cut_of(picture(3), chair()))
    plain = read(files["plain.png"])
    assert (plain[..., 3] == 255).all()
    np.testing.assert_array_equal(plain[..., :3], picture(4, 64, 64))

    (source / "bin" / "masked.png").unlink()
    with pytest.raises(
        UserError, match=r"masked_mask\.png is the mask of an image that is missing"
    ):
        make_bank(tmp_path / "other", folder=str(source))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        make_bank(tmp_path / "other", folder=str(tmp_path / "nothing"))


def test_images_and_masks_in_two_folders(tmp_path: Path) -> None:
    for folder in ("images/bin", "masks/bin"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    Image.fromarray(picture(1)).save(tmp_path / "set/images/bin/a.png")
    Image.fromarray(chair()).save(tmp_path / "set/masks/bin/a.png")
    make_bank(tmp_path / "bank", folder=str(tmp_path / "set"))
    np.testing.assert_array_equal(read(tmp_path / "bank/bin/0001.png"), cut_of(picture(1), chair()))


def test_a_rotated_photograph_is_cut_as_it_is_seen(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    exif = Image.Exif()
    exif[274] = 6
    stored = picture(1, 80, 100)
    Image.fromarray(stored).save(tmp_path / "photos" / "turned.png", exif=exif)
    make_bank(tmp_path / "bank", folder=str(tmp_path / "photos"))
    seen = read(tmp_path / "bank/object/0001.png")[..., :3]
    np.testing.assert_array_equal(seen, np.rot90(stored, -1))


def test_bank_feeds_noda(coco: Path) -> None:
    make_coco(coco)
    bank = OccluderBank.from_folder(coco / "bank")
    assert bank.names == ["bench/0001", "bicycle/0001"]
    np.testing.assert_array_equal(bank.cutouts[0], cut_of(picture(1), BENCH))
    occluders, aspects = bank.tensors((64, 32))
    assert aspects.tolist() == pytest.approx([70 / 80, 90 / 50])
    images = torch.zeros(8, 3, 64, 32)
    out = noda(images, torch.arange(8), occluders, aspects, jitter=0.0)
    covered = (out > 0).any(1).flatten(1).float().mean(1)
    assert (covered > 0.05).all()
    assert (covered <= 0.5).all()
    (coco / "bank" / "bench" / "0001.png").unlink()
    assert OccluderBank.from_folder(coco / "bank").names == ["bicycle/0001"]


def test_contact_sheet_shows_every_cutout(coco: Path) -> None:
    make_coco(coco, categories=["bench", "bicycle", "cat"])
    with Image.open(coco / "bank" / CONTACT_SHEET) as opened:
        sheet = np.array(opened.convert("RGB"))
    colours = Counter(map(tuple, sheet.reshape(-1, 3).tolist()))
    drawn = sum(count for colour, count in colours.items() if len(set(colour)) > 1)
    thumbnails = [(BENCH, 112 / 80), (BICYCLE, 112 / 90), (box(10, 10, 90, 90), 112 / 80)]
    most = sum(mask.sum() * max(scale, 1) ** 2 for mask, scale in thumbnails)
    least = sum(mask.sum() for mask, _ in thumbnails) * 0.9
    paper = colours[(246, 246, 244)]
    assert least < drawn - paper < most


def refused(
    capsys: pytest.CaptureFixture[str], coco: Path, *more: object, out: str = "bank"
) -> str:
    """Run the verb on the COCO set, which must fail with one line and leave no folder."""
    arguments = ["--coco", coco / "instances.json", "--images", coco / "val2017"]
    arguments += ["--out", coco / out, *more]
    assert main(["data", "occluders", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("reid: error: ")
    assert error.count("\n") == 1
    assert not (coco / "bank").exists()
    return error


def test_bad_annotations_are_named(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = json.loads((coco / "instances.json").read_text())

    def error_of(change: Any, *more: str) -> str:
        tree = copy.deepcopy(original)
        change(tree)
        (coco / "instances.json").write_text(json.dumps(tree))
        return refused(capsys, coco, *more)

    assert "001.png, object 100: its polygon reaches" in error_of(
        lambda t: t["annotations"][0].update(segmentation=polygon(5, 5, 102, 90))
    )
    assert "002.png, object 101: its mask is [120, 100]" in error_of(
        lambda t: t["annotations"][1]["segmentation"].update(size=[WIDTH, HEIGHT])
    )
    assert "is 120 x 100, but its mask 240 x 200" in error_of(
        lambda t: t["images"][0].update(height=200, width=240)
    )
    assert "1 of 2 images named in the annotations are missing, such as gone.png" in error_of(
        lambda t: t["images"][0].update(file_name="gone.png")
    )
    assert "has none of the images of" in error_of(
        lambda t: [image.update(file_name="gone.png") for image in t["images"]]
    )
    assert "annotation 100 names image 77, which is not listed" in error_of(
        lambda t: t["annotations"][0].update(image_id=77)
    )
    assert "annotation 100 names category 77" in error_of(
        lambda t: t["annotations"][0].update(category_id=77)
    )
    assert "is not a COCO instances file (KeyError: 'segmentation')" in error_of(
        lambda t: t["annotations"][0].pop("segmentation")
    )
    assert "has no list 'categories'; give an instances file" in error_of(
        lambda t: t.pop("categories")
    )
    assert "none of 7 objects is left: " in error_of(lambda t: None, "--min-size", "1000")
    assert "lower --min-size (1000)" in error_of(lambda t: None, "--min-size", "1000")
    assert "--min-size 0 must be at least 1" in error_of(lambda t: None, "--min-size", "0")
    assert "--max -1 must be at least 0" in error_of(lambda t: None, "--max", "-1")
    assert "there is no object other than people; categories there: bench" in error_of(
        lambda t: t.update(annotations=t["annotations"][2:3])
    )
    content = (coco / "val2017" / "001.png").read_bytes()
    (coco / "val2017" / "001.png").write_bytes(content[:1000])
    assert "001.png cannot be read as an image" in error_of(lambda t: None)
    (coco / "instances.json").write_text('{"images": [')
    assert "instances.json is not valid JSON" in refused(capsys, coco)
    (coco / "instances.json").unlink()
    assert "no annotation file" in refused(capsys, coco)


def test_skip_bad_counts_and_lists(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def damage(tree: dict[str, Any]) -> None:
        bench = tree["annotations"][0]
        tree["annotations"] += [
            {**bench, "id": 200, "segmentation": [[1, 2]]},
            {**bench, "id": 201, "image_id": 77},
            {**bench, "id": 202, "image_id": 3},
        ]
        tree["images"].append({"id": 3, "file_name": "gone.png", "height": 9, "width": 9})

    edit(coco, damage)
    arguments = ["--coco", coco / "instances.json", "--images", coco / "val2017"]
    arguments += ["--out", coco / "bank", "--skip-bad"]
    assert main(["data", "occluders", *map(str, arguments)]) == 0
    out = capsys.readouterr().out
    assert "skipped as bad: 3\n" in out
    assert "annotation 201 names image 77" in out
    assert "1 of 3 images named in the annotations are missing, such as gone.png" in out
    assert "001.png, object 200: its polygon has fewer than three points" in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["bench"] == ["1", "8"]
    assert rows["bicycle"] == ["1", "1"]
    assert "left out: 2 border, 1 small, 1 sparse, 1 thin, 1 crowd" in out
    assert f"augment.occluders={coco / 'bank'}" in out
    assert len(json.loads((coco / "bank" / MANIFEST).read_text())["problems"]) == 3


def test_a_folder_in_use_is_left_alone(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (coco / "used").mkdir()
    (coco / "used" / "mine.txt").write_text("mine")
    assert "exists and is not an empty folder" in refused(capsys, coco, out="used")
    assert [path.name for path in (coco / "used").iterdir()] == ["mine.txt"]
    (coco / "file").write_text("")
    assert "exists and is not an empty folder" in refused(capsys, coco, out="file")
    (coco / "empty").mkdir()
    assert make_coco(coco, "empty").kept == {"bench": 1, "bicycle": 1}


def test_sources_that_do_not_go_together(coco: Path, tmp_path: Path) -> None:
    for options in (
        {},
        {"coco": "a.json"},
        {"voc": "a", "images": "b"},
        {"voc": "a", "folder": "b"},
    ):
        with pytest.raises(UserError, match=r"give one of|belong together"):
            make_bank(tmp_path / "bank", **options)


def test_an_image_that_two_folders_have_is_refused(coco: Path) -> None:
    (coco / "val2017" / "copy").mkdir()
    (coco / "val2017" / "other").mkdir()
    image = coco / "val2017" / "001.png"
    shutil.copy(image, coco / "val2017" / "copy" / "001.png")
    assert make_coco(coco, "exact").kept == {"bench": 1, "bicycle": 1}
    image.rename(coco / "val2017" / "other" / "001.png")
    with pytest.raises(UserError, match=r"several images 001\.png: copy/001\.png, other/001\.png"):
        make_coco(coco)
    edit(coco, lambda tree: tree["images"][0].update(file_name="other\\001.png"))
    assert make_coco(coco).kept == {"bench": 1, "bicycle": 1}
