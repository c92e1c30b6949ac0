"""Occluded and partial sets: no camera ids, so queries get camera 0 and the gallery camera 1."""

from reid.data.catalog.spec import Count, Entry, Layout, Naming, Part, Protocol, below, naming

_ICME = "ICME2018_Occluded-Person-Reidentification_datasets"
_OCCLUDED, _PARTIAL, _WHOLE = "occluded_body_images", "partial_body_images", "whole_body_images"
_INDEX_TRAP = (
    "The second number of a name is the index of the image, not a camera: code that takes it for "
    "one drops the match of the same index, and its scores cannot be compared."
)
_INDEXED = naming("001_01.tif", r"(?P<pid>\d{3})_\d{2,3}")
_RENAMED = naming("0001_c1s1_000050_00.tif", r"(?P<pid>\d{4})_c\d{1,2}s\d+_\d+_\d+")
_NUMBERED = naming("1.jpg", r"(?P<pid>\d{1,3})(?:_\d+)?")
_LEADING = naming("0001_c2_f0046182.jpg", r"(?P<pid>\d{1,4})(?:_[\w-]+)?")


def _layout(
    name: str,
    names: Naming,
    query: str | tuple[Part, ...],
    gallery: str,
    *places: str,
    train: tuple[Part, ...] = (),
    derived: bool = False,
) -> Layout:
    queries = (Part(query, camid=0),) if isinstance(query, str) else query
    return Layout(
        name=name,
        naming=names,
        train=train,
        query=queries,
        gallery=(Part(gallery, camid=1),),
        places=below(*places),
        derived=derived,
    )


def _counts(images: int, ids: int) -> dict[str, Count]:
    return {"query": Count(images, ids, 1), "gallery": Count(images, ids, 1)}


OCCLUDED_REID = Entry(
    name="occluded-reid",
    title="Occluded-REID",
    kind="occluded",
    layouts=(
        _layout("original", _INDEXED, _OCCLUDED, _WHOLE, "Occluded_REID", f"{_ICME}/Occluded_REID"),
        _layout("flat", _INDEXED, "query", "gallery", "OccludedREID", "Occluded_REID"),
        _layout("market", _RENAMED, "query", "bounding_box_test", "Occluded_REID", "OccludedREID"),
        _layout("renamed", _INDEXED, "occ_reid_query", "occ_reid_test", "Occluded_REID"),
    ),
    protocols=(Protocol("standard", "occluded against whole bodies", _counts(1_000, 200)),),
    citation="Zhuo et al., Occluded Person Re-identification, ICME 2018",
    terms="Academic, non-commercial, by agreement with its authors.",
    traps=(
        f"{_INDEX_TRAP} Some copies are .tif, some .jpg. The camera in renamed copies is made up."
    ),
    camera_rule="synthetic",
)
PARTIAL_REID = Entry(
    name="partial-reid",
    title="Partial-REID",
    kind="partial",
    layouts=(
        _layout(
            "original",
            naming("001_001.jpg", r"(?P<pid>\d{3})_\d{2,3}"),
            (
                Part(_PARTIAL, camid=0, protocols=("partial-body",)),
                Part(_OCCLUDED, camid=0, protocols=("occluded-body",)),
            ),
            _WHOLE,
            "Partial-REID_Dataset",
            "Partial_REID",
            "PartialREID",
        ),
    ),
    protocols=(
        Protocol("partial-body", "visible part, cut out by hand, against whole", _counts(300, 60)),
        Protocol("occluded-body", "uncut occluded images against whole", _counts(300, 60)),
    ),
    citation="Zheng et al., Partial Person Re-identification, ICCV 2015",
    terms="No licence comes with it; take it as for academic use only.",
    traps=(
        f"{_INDEX_TRAP} Both query folders are in use under the same name of the set. Cut-outs are "
        "0.7 to 7.3 times as high as wide, so resizing distorts them. Rank-1 and rank-3 are usual."
    ),
    camera_rule="synthetic",
)
PARTIAL_ILIDS = Entry(
    name="partial-ilids",
    title="Partial-iLIDS",
    kind="partial",
    layouts=(
        _layout("original", _NUMBERED, "Probe", "Gallery", "Partial_iLIDS"),
        _layout("body-images", _NUMBERED, _PARTIAL, _WHOLE, "Partial_iLIDS"),
        _layout("flat", _NUMBERED, "query", "gallery", "PartialiLIDS", "Partial_iLIDS"),
    ),
    protocols=(Protocol("standard", "one query and one match per person", _counts(119, 119)),),
    citation=(
        "Zheng et al., Person Re-identification by Probabilistic Relative Distance Comparison, "
        "CVPR 2011; He et al., Deep Spatial Feature Reconstruction for Partial Person "
        "Re-identification, CVPR 2018"
    ),
    terms="Academic use; cut from i-LIDS, whose terms are those of the UK Home Office.",
    traps="One match per query, so mAP is the mean reciprocal rank. Rank-1 and rank-3 are usual.",
    camera_rule="synthetic",
)
P_DUKE = Entry(
    name="p-duke",
    title="P-DukeMTMC-reID",
    kind="occluded",
    layouts=(
        _layout(
            "original",
            _LEADING,
            f"test/{_OCCLUDED}",
            f"test/{_WHOLE}",
            "P-DukeMTMC-reID",
            f"{_ICME}/P-DukeMTMC-reID",
            train=(Part(f"train/{_OCCLUDED}", camid=0), Part(f"train/{_WHOLE}", camid=1)),
        ),
    ),
    protocols=(
        Protocol(
            "standard",
            "occluded against whole bodies",
            {
                "train": Count(12_927, 665, 2),
                "query": Count(2_163, 634, 1),
                "gallery": Count(9_053, 634, 1),
            },
        ),
    ),
    citation="Zhuo et al., Occluded Person Re-identification, ICME 2018",
    terms=(
        "Academic, non-commercial, by agreement with its authors; cut from DukeMTMC-reID, which "
        "Duke University has withdrawn. No place to download it is given here."
    ),
    traps=(
        "Some training identities are in one of the two training folders only: labels must be "
        "given over both."
    ),
    camera_rule="synthetic",
    withdrawn=True,
)
P_ETHZ = Entry(
    name="p-ethz",
    title="P-ETHZ",
    kind="occluded",
    layouts=(_layout("original", _LEADING, _OCCLUDED, _WHOLE, "P_ETHZ", f"{_ICME}/P_ETHZ"),),
    protocols=(Protocol("standard", "occluded against whole bodies"),),
    citation="Zhuo et al., Occluded Person Re-identification, ICME 2018",
    terms="Academic, non-commercial, by agreement with its authors.",
    traps=(
        "Its readme states 85 identities and 3,897 images in all, not how many are queries, so "
        "counts cannot be verified. Images are .png."
    ),
    camera_rule="synthetic",
)
ENTRIES = (OCCLUDED_REID, PARTIAL_REID, PARTIAL_ILIDS, P_DUKE, P_ETHZ)
