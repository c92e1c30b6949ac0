"""The figures that the SUReID paper prints (arXiv 2401.07469, tables I to VII), in percent.

Throughput is images per second on an RTX 2080 Ti at batch 32, as the paper states.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PaperRow:
    """One printed line.

    Attributes:
        key: Name of the row in `reid reproduce`; empty where only the paper has it.
        label: What the paper prints.
        values: One per column of the table; None where the paper prints a dash.
    """

    key: str
    label: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class PaperTable:
    """One printed table.

    Attributes:
        number: Roman number.
        title: What it compares.
        data: Data sets it is on.
        columns: Names of the columns, with units.
        rows: Its lines.
        note: What a reader must know that the table does not say.
        speed: Index of the throughput column; None where the table has none.
        aliases: Catalog names of the data sets it is on.
    """

    number: str
    title: str
    data: str
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    note: str = ""
    speed: int | None = None
    aliases: frozenset[str] = field(default_factory=frozenset)


_SPEED = ("img/s", "rank-1", "mAP")
_OCCLUDED_DUKE = frozenset({"occludedduke", "occludeddukemtmc", "occludeddukemtmcreid"})

PAPER_TABLES: Mapping[str, PaperTable] = {
    "table1": PaperTable(
        "I",
        "comparison on Occluded-DukeMTMC",
        "Occluded-DukeMTMC",
        _SPEED,
        (
            PaperRow("", "PFD", (119, 67.7, 60.1)),
            PaperRow("", "PFD*", (95, 69.5, 61.8)),
            PaperRow("", "PGFA", (744, 51.4, 37.3)),
            PaperRow("", "POS", (137, 65.0, 54.0)),
            PaperRow("", "PVPM", (630, 47.0, 37.7)),
            PaperRow("", "HOReID", (141, 55.1, 43.8)),
            PaperRow("", "ISP", (554, 62.8, 52.3)),
            PaperRow("", "TransReID", (379, 64.2, 55.7)),
            PaperRow("", "TransReID*", (169, 66.4, 59.2)),
            PaperRow("", "PAT", (849, 64.5, 53.6)),
            PaperRow("", "FED", (411, 68.1, 56.4)),
            PaperRow("", "SRFR", (55, 71.4, 60.6)),
            PaperRow("sureid", "SUReID", (1585, 65.8, 54.9)),
        ),
        "An asterisk marks overlapping patches. PGFA and PVPM use 384x128 pixels, the others "
        "256x128. SUReID is the fastest row; PFD, TransReID*, FED and SRFR are more accurate.",
        speed=0,
        aliases=_OCCLUDED_DUKE,
    ),
    "table2": PaperTable(
        "II",
        "Occluded-REID and Partial-REID, trained on Market-1501",
        "Occluded-REID and Partial-REID",
        (
            "Occluded-REID rank-1",
            "Occluded-REID mAP",
            "Partial-REID rank-1",
            "Partial-REID rank-3",
        ),
        (
            PaperRow("", "PGFA", (None, None, 68.0, 80.0)),
            PaperRow("", "PVPM", (70.4, 61.2, 78.3, 87.7)),
            PaperRow("", "HOReID", (80.3, 70.2, 85.3, 91.0)),
            PaperRow("", "POS", (None, None, 86.1, 91.3)),
            PaperRow("", "PAT", (81.6, 72.1, 88.0, 92.3)),
            PaperRow("", "FED", (87.0, 79.4, 84.6, None)),
            PaperRow("", "PFD", (79.8, 81.3, None, None)),
            PaperRow("", "PFD*", (81.5, 83.0, None, None)),
            PaperRow("", "SRFR", (86.8, 82.0, 86.0, 92.0)),
            PaperRow("sureid", "SUReID", (86.8, 80.7, 85.3, 90.7)),
        ),
        "The student is a ViT-B here. The model never sees the test data set while training.",
        aliases=frozenset({"occludedreid", "partialreid"}),
    ),
    "table3": PaperTable(
        "III",
        "holistic data sets",
        "Market-1501 and DukeMTMC-reID",
        ("Market-1501 rank-1", "Market-1501 mAP", "DukeMTMC-reID rank-1", "DukeMTMC-reID mAP"),
        (
            PaperRow("", "PGFA", (91.2, 76.8, 82.6, 65.5)),
            PaperRow("", "HOReID", (94.2, 84.9, 86.9, 75.6)),
            PaperRow("", "ISP", (95.3, 88.6, 89.6, 80.0)),
            PaperRow("", "POS", (95.0, 86.2, 88.7, 76.7)),
            PaperRow("", "TransReID", (95.2, 88.9, 89.6, 80.6)),
            PaperRow("", "TransReID*", (95.0, 88.2, 90.7, 82.0)),
            PaperRow("", "PAT", (95.4, 88.0, 88.8, 78.2)),
            PaperRow("", "FED", (95.0, 86.3, 89.4, 78.0)),
            PaperRow("", "PFD", (95.5, 89.6, 90.6, 82.2)),
            PaperRow("", "PFD*", (95.5, 89.7, 91.2, 83.2)),
            PaperRow("", "SRFR", (95.9, 90.2, 90.9, 82.0)),
            PaperRow("sureid", "SUReID", (94.5, 87.2, 89.1, 79.7)),
        ),
        aliases=frozenset({"market", "market1501", "duke", "dukemtmc", "dukemtmcreid"}),
    ),
    "table4": PaperTable(
        "IV",
        "components of SUReID",
        "Occluded-DukeMTMC",
        _SPEED,
        (
            PaperRow("dense", "1 (vanilla DeiT-S)", (1074, 57.6, 49.2)),
            PaperRow("hts", "2 (+ HTS)", (1585, 55.6, 46.7)),
            PaperRow("hts+npkd", "3 (+ NPKD)", (1585, 64.8, 53.2)),
            PaperRow("hts+npkd+noda", "4 (+ NODA)", (1585, 65.8, 54.9)),
        ),
        speed=0,
        aliases=_OCCLUDED_DUKE,
    ),
    "table5": PaperTable(
        "V",
        "effect of the keep ratio",
        "Occluded-DukeMTMC",
        _SPEED,
        (
            PaperRow("p0.5", "p = 0.5", (2269, 64.2, 53.2)),
            PaperRow("p0.6", "p = 0.6", (1843, 65.6, 54.2)),
            PaperRow("p0.7", "p = 0.7", (1585, 65.8, 54.9)),
            PaperRow("p0.8", "p = 0.8", (1392, 65.5, 55.3)),
            PaperRow("p0.9", "p = 0.9", (1279, 65.9, 55.7)),
        ),
        speed=0,
        aliases=_OCCLUDED_DUKE,
    ),
    "table6": PaperTable(
        "VI",
        "feature alignment",
        "Occluded-DukeMTMC",
        ("rank-1", "mAP"),
        (
            PaperRow("st_linear", "S-T (Linear)", (56.6, 46.7)),
            PaperRow("ts_linear", "T-S (Linear)", (57.2, 47.1)),
            PaperRow("st_interpolate", "S-T (Interpolation)", (64.3, 53.3)),
            PaperRow("ts_interpolate", "T-S (Interpolation)", (65.8, 54.9)),
        ),
        "S-T brings the student's feature to the teacher's width, T-S the teacher's to the "
        "student's.",
        aliases=_OCCLUDED_DUKE,
    ),
    "table7": PaperTable(
        "VII",
        "effect of NODA",
        "Occluded-DukeMTMC",
        ("rank-1", "mAP"),
        (
            PaperRow("vit", "Vanilla ViT", (61.9, 54.0)),
            PaperRow("vit+noda", "Vanilla ViT + NODA", (61.1, 51.6)),
            PaperRow("hts+npkd", "SUViT w/o NODA", (64.8, 53.2)),
            PaperRow("hts+npkd+noda", "SUReID", (65.8, 54.9)),
        ),
        "The last two lines equal lines 3 and 4 of Table IV, which are DeiT-S students, so the "
        "table mixes two backbones.",
        aliases=_OCCLUDED_DUKE,
    ),
}
