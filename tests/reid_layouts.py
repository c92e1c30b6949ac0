"""Small copies of every public layout, with the traps that the real ones have.

`LAYOUTS` maps a name to a `Written`: the files, what `catalog.read` is to return, and what must be
passed over. Images are a few bytes; give `content` to `write` for real ones.
"""

import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Split = list[tuple[str, int, int]]  # file, pid, camid
NOISE = ("Thumbs.db", ".DS_Store", "._0001_c1s1_000001_00.jpg", "readme.txt")
ICME = "ICME2018_Occluded-Person-Reidentification_datasets"


@dataclass
class Written:
    """One layout.

    Attributes:
        entry: Name of the data set.
        layout: Name of the layout in the catalog.
        train: File, pid and camid of each image, in the order of (pid, camid, file).
        query: As train.
        gallery: As train.
        protocol: Protocol to read.
        version: Version that is to be found.
        dropped: Images of the layout that `read` drops: junk and misplaced distractors.
        others: Files that are no images of this protocol, with their content; None is an image.
        below: Folder that holds the layout; "" is the root.
    """

    entry: str
    layout: str
    train: Split
    query: Split
    gallery: Split
    protocol: str = ""
    version: str = ""
    dropped: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, bytes | None] = field(default_factory=dict)
    below: str = ""

    def images(self) -> list[str]:
        """Every image of the layout, dropped ones included."""
        kept = [file for split in (self.train, self.query, self.gallery) for file, _, _ in split]
        return sorted({*kept, *(file for files in self.dropped.values() for file in files)})

    def files(self, content: Callable[[str], bytes] = str.encode) -> dict[str, bytes]:
        """Every file with its bytes, below `below`."""
        found = {file: content(file) for file in self.images()}
        for folder in {file.rpartition("/")[0] for file in found}:
            found.update({f"{folder}/{name}": b"noise" for name in NOISE})
        found.update({k: content(k) if v is None else v for k, v in self.others.items()})
        prefix = f"{self.below}/" if self.below else ""
        files = {prefix + name: data for name, data in found.items()}
        # macOS adds a second tree with the same names
        return {**files, **{f"__MACOSX/{name}": b"mac" for name in list(files)[:3]}}


def write(root: Path, files: dict[str, bytes], kind: str = "folder", stem: str = "archive") -> Path:
    """Write files as a folder, or as an archive next to it; returns what to give as root."""
    if kind == "folder":
        for name, data in files.items():
            path = root.joinpath(*name.split("/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return root
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"{stem}.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def _at(folder: str, *images: tuple[str, int, int]) -> Split:
    return [(f"{folder}/{name}", pid, camid) for name, pid, camid in images]


def market(folders: tuple[str, str, str] = ("bounding_box_train", "query", "bounding_box_test"),
           nested: bool = False) -> dict[str, Split]:  # fmt: skip
    """Splits of Market-1501, flat or in folders per identity."""
    parts = {
        "train": [("0002_c1s1_000451_03.jpg", 2, 0), ("0002_c2s1_000452_01.jpg.jpg", 2, 1),
                  ("0007_c3s3_000453_02.jpg", 7, 2)],
        "query": [("0010_c1s1_000001_00.jpg", 10, 0), ("0011_c2s1_000002_00.jpg", 11, 1)],
        "gallery": [("0000_c5s1_000301_01.jpg", 0, 4), ("0010_c1s1_000003_01.jpg", 10, 0),
                    ("0010_c2s1_000004_01.png", 10, 1), ("0011_c6s1_000005_01.jpg", 11, 5)],
    }  # fmt: skip
    return {
        split: _at(folder, *((f"{n[:4]}/{n}" if nested else n, p, c) for n, p, c in parts[split]))
        for split, folder in zip(parts, folders, strict=True)
    }


_JUNK = {
    "train": ["bounding_box_train/-1_c1s1_000200_01.jpg", "bounding_box_train/0000_c1s1_1_1.jpg"],
    "query": ["query/-1_c2s1_000200_01.jpg"],
    "gallery": ["bounding_box_test/-1_c4s1_000300_01.jpg"],
}
_GT = {"gt_bbox/0002_c1s1_000451_03.jpg.jpg": None, "gt_query/0010_c1s1_000001_00_good.mat": b"x"}


def duke(base: str = "") -> dict[str, Split]:
    """Splits of DukeMTMC-reID."""
    parts = {
        "bounding_box_train": [("0001_c2_f0046182.jpg", 1, 1), ("0005_c8_f0000001.jpg", 5, 7)],
        "query": [("0003_c1_f0000001.jpg", 3, 0)],
        "bounding_box_test": [("0003_c1_f0000001.jpg", 3, 0), ("0003_c4_f0000002.jpg", 3, 3),
                              ("7139_c3_f0000003.jpg", 7139, 2)],
    }  # fmt: skip
    made = [_at(base + folder, *images) for folder, images in parts.items()]
    return dict(zip(("train", "query", "gallery"), made, strict=True))


def _msmt_names(folder: str, *images: tuple[int, int]) -> Split:
    stem = "{0:04d}/{0:04d}_{2:03d}_{1:02d}_0303morning_0008_{2}.jpg"
    return [
        (f"{folder}/" + stem.format(pid, camera, number), pid, camera - 1)
        for number, (pid, camera) in enumerate(images)
    ]


def msmt_lists(train: str, test: str, val: bool) -> Written:
    """MSMT17 with its four lists; pids count from 0 and cameras have two digits."""
    trained = _msmt_names(train, (0, 1), (0, 15), (1, 10))
    validated = _msmt_names(train, (0, 2), (2, 9))
    # numbers continue, so that no file is in both lists
    validated = [(f.replace("_0.jpg", "_7.jpg"), p, c) for f, p, c in validated]
    query = _msmt_names(test, (0, 1), (1, 12))
    gallery = _msmt_names(test, (0, 2), (1, 11), (3059, 15))
    lists = {"train": trained, "val": validated, "query": query, "gallery": gallery}
    others: dict[str, bytes | None] = {
        f"list_{name}.txt": "".join(
            f"{file.partition('/')[2]} {pid}\n" for file, pid, _ in rows
        ).encode()
        for name, rows in lists.items()
    }
    others.update({} if val else {file: None for file, _, _ in validated})
    key = lambda row: (row[1], row[2], row[0])  # noqa: E731
    return Written(
        "msmt17", "lists", sorted(trained + (validated if val else []), key=key), query, gallery,
        protocol="train+val" if val else "train", others=others,
    )  # fmt: skip


def bodies(name: str, query: str, gallery: str, ids: list[int], form: str, **more) -> Written:  # type: ignore[no-untyped-def]
    """A set without cameras: every identity twice, query camera 0 and gallery camera 1."""
    twice = 1 if more.pop("single", False) else 2
    return Written(
        name, more.pop("layout", "original"), [],
        [(f"{query}/" + form.format(pid, n + 1), pid, 0) for pid in ids for n in range(twice)],
        [(f"{gallery}/" + form.format(pid, n + 1), pid, 1) for pid in ids for n in range(twice)],
        **more,
    )  # fmt: skip


_NESTED, _FLAT = "{0:03d}/{0:03d}_{1:02d}", "{0:03d}_{1:02d}"
_OCC, _PART, _WHOLE = "occluded_body_images", "partial_body_images", "whole_body_images"


def p_duke() -> Written:
    """P-DukeMTMC-reID: training identity 9 is whole only, 4 occluded only."""
    occluded, whole = f"train/{_OCC}", f"train/{_WHOLE}"
    form = "{0:04d}/{0:04d}_c{1}_f0000{2:03d}.jpg"
    return Written(
        "p-duke", "original",
        [(f"{occluded}/" + form.format(4, 2, 1), 4, 0),
         (f"{occluded}/" + form.format(7, 3, 2), 7, 0),
         (f"{whole}/" + form.format(7, 5, 3), 7, 1), (f"{whole}/" + form.format(9, 1, 4), 9, 1)],
        [(f"test/{_OCC}/" + form.format(30, 1, 5), 30, 0)],
        [(f"test/{_WHOLE}/" + form.format(30, 1, 6), 30, 1),
         (f"test/{_WHOLE}/" + form.format(31, 2, 7), 31, 1)],
    )  # fmt: skip


def cuhk_np(kind: str, nested: bool = False) -> Written:
    """CUHK03 in Market-1501's layout."""
    name = "{0:04d}/{0:04d}_c{1}_{2:02d}.png" if nested else "{0:04d}_c{1}_{2:02d}.png"
    form = lambda folder, *rows: [  # noqa: E731
        (f"{folder}/" + name.format(p, c, n), p, c - 1) for p, c, n in rows
    ]
    return Written(
        "cuhk03", "market", form("bounding_box_train", (1, 1, 1), (1, 2, 6), (767, 2, 10)),
        form("query", (800, 1, 1)), form("bounding_box_test", (800, 1, 2), (800, 2, 7)),
        protocol=kind, below=f"cuhk03-np/{kind}",
    )  # fmt: skip


def cuhk_config(kind: str) -> Written:
    """CUHK03 as images and the published split file."""
    import scipy.io

    rows = [("1_001_1_01.png", 5, 0), ("1_001_2_06.png", 5, 1), ("2_012_1_02.png", 9, 0),
            ("3_004_1_01.png", 1200, 0), ("3_004_2_09.png", 1200, 1)]  # fmt: skip
    config = io.BytesIO()
    cells = np.empty((len(rows), 1), dtype=object)
    cells[:, 0] = [name for name, _, _ in rows]
    variables = {"train_idx": [1, 2, 3], "query_idx": [4], "gallery_idx": [5]}
    scipy.io.savemat(
        config,
        {
            "filelist": cells,
            "labels": np.array([[pid] for _, pid, _ in rows], dtype=np.uint16),
            "camId": np.array([[camid + 1] for _, _, camid in rows], dtype=np.uint8),
            **{key: np.array(value)[:, None] for key, value in variables.items()},
        },
    )
    made = [(f"images_{kind}/{name}", pid, camid) for name, pid, camid in rows]
    return Written(
        "cuhk03", "config", made[:3], made[3:4], made[4:], protocol=kind, below="cuhk03",
        others={f"cuhk03_new_protocol_config_{kind}.mat": config.getvalue(),
                f"images_{kind}/5_001_1_01.png": None},
    )  # fmt: skip


def _v(written: Written, **changes: object) -> Written:
    for key, value in changes.items():
        setattr(written, key, value)
    return written


def _market(entry: str = "market1501", **more) -> Written:  # type: ignore[no-untyped-def]
    return Written(entry, "market", **market(), dropped=_JUNK, others=dict(_GT), **more)


_PYTORCH = ("train_all", "query", "gallery")
_500K = ["images/0000_c3s1_000001_00.jpg", "images/0000_c1s1_000002_00.jpg"]


def _with_500k() -> Written:
    made = _market(protocol="500k")
    extra = [(_500K[1], 0, 0), (_500K[0], 0, 2)]
    made.gallery = sorted(made.gallery + extra, key=lambda row: (row[1], row[2], row[0]))
    return made


LAYOUTS: dict[str, Written] = {
    "market": _market(),
    "market below": _market(below="market1501/Market-1501-v15.09.15"),
    "market folder": _market(below="Market"),
    "market with 500k there": _v(_market(), others={**_GT, _500K[0]: None}),
    "market 500k": _with_500k(),
    "market pytorch": Written(
        "market1501", "pytorch", **market(_PYTORCH, nested=True), below="Market/pytorch",
        dropped={"gallery": ["gallery/-1/-1_c4s1_000300_01.jpg"]},
        others={"train/0002/0002_c1s1_000451_03.jpg": None,
                "val/0002/0002_c2s1_000452_01.jpg": None,
                "multi-query/0010/0010_c1s1_000001_00.jpg": None},
    ),
    "mannequins": _market("mannequins"),
    "duke": Written("dukemtmc-reid", "market", **duke(), below="DukeMTMC-reID"),
    "occluded-duke": Written("occluded-duke", "market", **duke(), below="Occluded_Duke",
                             others={"train.list": b"0001_c2_f0046182.jpg",
                                     "crop_backgrounds/a.jpg": None}),
    "occluded-duke CLIP": Written("occluded-duke", "market", **duke(),
                                  below="dukemtmcreid/Occluded_Duke"),
    "msmt V1": _v(msmt_lists("train", "test", True), below="MSMT17_V1", version="V1"),
    "msmt V1 train only": _v(msmt_lists("train", "test", False), below="MSMT17_V1", version="V1"),
    "msmt V2": _v(msmt_lists("mask_train_v2", "mask_test_v2", True), below="MSMT17_V2",
                  version="V2"),
    "msmt bare": _v(msmt_lists("train", "test", True), below="MSMT17", version="unknown"),
    "msmt market": Written(
        "msmt17", "market",
        _at("bounding_box_train", ("0000_c1_0000.jpg", 0, 0), ("0001_c15_0002.jpg", 1, 14)),
        _at("query", ("0000_c2_0000.jpg", 0, 1)),
        _at("bounding_box_test", ("0000_c10_0001.jpg", 0, 9), ("3059_c3_0001.jpg", 3059, 2)),
        version="V2", below="MSMT17_V2"),
    "msmt market, old names": Written(
        "msmt17", "market",
        _at("bounding_box_train", ("0000_000_01_0303morning_0008_0.jpg", 0, 0),
            ("1040_008_13_0302afternoon_0119_0.jpg", 1040, 12)),
        _at("query", ("0000_001_02_0303noon_0008_1.jpg", 0, 1)),
        _at("bounding_box_test", ("0000_001_04_0303noon_0008_1.jpg", 0, 3)),
        version="unknown", below="msmt17"),
    "cuhk detected": cuhk_np("detected"),
    "cuhk labeled in folders": cuhk_np("labeled", nested=True),
    "cuhk config": cuhk_config("labeled"),
    "veri": Written(
        "veri776", "veri",
        _at("image_train", ("0001_c001_00016450_0.jpg", 1, 0), ("0003_c020_00016450_0.jpg", 3, 19)),
        _at("image_query", ("0002_c002_00030600_0.jpg", 2, 1)),
        _at("image_test", ("0002_c002_00030600_0.jpg", 2, 1),
            ("0002_c011_00030605_1.jpg", 2, 10)),
        below="VeRi", others={"name_train.txt": b"0001_c001_00016450_0.jpg\n"}),
    "occluded-reid": bodies("occluded-reid", _OCC, _WHOLE, [1, 2, 200], _NESTED + ".tif",
                            below=f"{ICME}/Occluded_REID"),
    "occluded-reid jpg": bodies("occluded-reid", _OCC, _WHOLE, [1, 2], _NESTED + ".jpg",
                                below="Occluded_REID"),
    "occluded-reid flat": bodies("occluded-reid", "query", "gallery", [1, 2], _FLAT + ".jpg",
                                 layout="flat", below="OccludedREID"),
    "occluded-reid market": bodies("occluded-reid", "query", "bounding_box_test", [1, 2],
                                   "{0:04d}_c{1}s1_000050_00.tif", layout="market",
                                   below="Occluded_REID"),
    "occluded-reid renamed": bodies("occluded-reid", "occ_reid_query", "occ_reid_test", [1, 2],
                                    _FLAT + ".tif", layout="renamed"),
    "partial-reid": bodies("partial-reid", _PART, _WHOLE, [1, 60], "{0:03d}_{1:03d}.jpg",
                           below="Partial-REID_Dataset", others={f"{_OCC}/001_001.jpg": None}),
    "partial-reid occluded": bodies("partial-reid", _OCC, _WHOLE, [1, 60], "{0:03d}_{1:03d}.jpg",
                                    protocol="occluded-body", below="Partial_REID",
                                    others={f"{_PART}/001_001.jpg": None}),
    "partial-ilids": bodies("partial-ilids", "Probe", "Gallery", [1, 2, 119], "{0}.jpg",
                            single=True, below="Partial_iLIDS",
                            others={"Probe.txt": b"Probe/1.jpg\n",
                                    "partial_iLIDS_Probe_nocrop/001.jpg": None}),
    "partial-ilids bodies": bodies("partial-ilids", _PART, _WHOLE, [1, 2, 119], "{0:03d}.jpg",
                                   layout="body-images", single=True, below="Partial_iLIDS"),
    "partial-ilids flat": bodies("partial-ilids", "query", "gallery", [1, 2, 119],
                                 "{0:03d}_{1}.jpg",
                                 layout="flat", single=True, below="PartialiLIDS"),
    "p-duke": _v(p_duke(), below="P-DukeMTMC-reid"),
    "p-duke below": _v(p_duke(), below=f"{ICME}/P-DukeMTMC-reID"),
    "p-ethz": bodies("p-ethz", _OCC, _WHOLE, [1, 85], _NESTED + ".png", below="P_ETHZ"),
}  # fmt: skip
