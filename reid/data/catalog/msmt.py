"""MSMT17, whose pids are in lists and count from 0."""

from reid.data.catalog.spec import Count, Entry, Layout, Part, Protocol, below, naming

_NAMES = naming(
    "0000_000_01_0303morning_0008_0.jpg",
    r"(?P<pid>\d{4})_\d{3}_(?P<camera>\d{2})_\d{4}(?:morning|noon|afternoon)_\d{4}_\d+",
    r"(?P<pid>\d{4})_c(?P<camera>\d{1,2})(?:[s_]\w*)?",
)
_PLACES = ("MSMT17", "MSMT17_V1", "MSMT17_V2", "msmt17/MSMT17_V1", "msmt17/MSMT17_V2")
_TEST = {"query": Count(11_659, 3_060, 15), "gallery": Count(82_161, 3_060, 15)}


def _lists(version: str, train: str, test: str) -> Layout:
    return Layout(
        name="lists",
        naming=_NAMES,
        train=(
            Part(train, list="list_train.txt"),
            Part(train, list="list_val.txt", protocols=("train+val",)),
        ),
        query=(Part(test, list="list_query.txt"),),
        gallery=(Part(test, list="list_gallery.txt"),),
        places=below(*_PLACES),
        version=version,
    )


MSMT17 = Entry(
    name="msmt17",
    title="MSMT17",
    kind="holistic",
    layouts=(
        _lists("", "train", "test"),
        _lists("V2", "mask_train_v2", "mask_test_v2"),
        Layout(
            name="market",
            naming=_NAMES,
            train=(Part("bounding_box_train"),),
            query=(Part("query"),),
            gallery=(Part("bounding_box_test"),),
            places=below(*_PLACES),
            protocols=("train+val",),
            derived=True,
        ),
    ),
    protocols=(
        Protocol(
            "train+val",
            "list_train.txt and list_val.txt",
            {"train": Count(32_621, 1_041, 15), **_TEST},
        ),
        Protocol(
            "train",
            "list_train.txt only",
            {"train": Count(30_248, 1_041, 15, unverified=True), **_TEST},
        ),
    ),
    citation=(
        "Wei et al., Person Transfer GAN to Bridge Domain Gap for Person Re-Identification, CVPR "
        "2018"
    ),
    terms="Academic, non-commercial, after signing a release agreement; not to be passed on.",
    traps=(
        "pids count from 0, in training and in test anew, so pid 0 is a person and no distractor. "
        "V1 shows faces, V2 blurs them: they are two benchmarks, and a bare train/ and test/ does "
        "not tell which it is. Training on list_train.txt alone is another protocol than with "
        "list_val.txt. Cameras have two digits. The Market-style copies do not tell validation "
        "images from training images."
    ),
    pids_restart=True,
)
ENTRIES = (MSMT17,)
