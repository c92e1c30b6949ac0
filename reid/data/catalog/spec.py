"""What an entry of the catalog consists of: plain data, read by `locate` and `reading`."""

import re
from dataclasses import dataclass, field

SPLITS = ("train", "query", "gallery")
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
JUNK = -1
_ENDING = r"(?:\.jpg)?\.(?i:jpg|jpeg|png|bmp|tif|tiff)$"


@dataclass(frozen=True, slots=True)
class Naming:
    """How a base name says who was seen where.

    Attributes:
        example: A name that fits.
        patterns: Anchored expressions, tried in order, with the group `pid`, unless a list says who
            it is and names hold another number, and, where the names hold one, `camera` (from 1).
        stems: The expressions without anchors and ending.
    """

    example: str
    patterns: tuple[re.Pattern[str], ...]
    stems: tuple[str, ...]

    @property
    def holds_pid(self) -> bool:
        """Whether every name says who was seen."""
        return all("pid" in pattern.groupindex for pattern in self.patterns)

    def parse(self, name: str) -> tuple[int, int | None] | None:
        """pid and camid (from 0; None where names hold no camera), or None for another name."""
        for pattern in self.patterns:
            match = pattern.match(name)
            if match is None:
                continue
            found = match.groupdict()
            pid, camera = found.get("pid"), found.get("camera")
            if camera is not None and int(camera) < 1:
                return None
            return int(pid or 0), None if camera is None else int(camera) - 1
        return None


def naming(example: str, *stems: str) -> Naming:
    """Names with one of these stems (regular expressions) and the ending of an image."""
    return Naming(example, tuple(re.compile(f"^{stem}{_ENDING}") for stem in stems), stems)


@dataclass(frozen=True, slots=True)
class Part:
    """Some images of a split.

    Attributes:
        folder: Below the base of the layout; images lie in it or in a folder per identity.
        list: A text file of lines "path pid", or a .mat file; empty takes the whole folder.
        key: Variable of the .mat file that holds the rows of this part.
        camid: Camera of every image where names hold none; None reads it from the name.
        protocols: Protocols that this part belongs to; empty is every one.
    """

    folder: str
    list: str = ""
    key: str = ""
    camid: int | None = None
    protocols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which a data set is laid out.

    Attributes:
        name: Such as 'market' or 'lists'.
        naming: Of the images.
        train: Parts of the training set; empty where there is none.
        query: Parts of the queries.
        gallery: Parts of the gallery.
        places: Folders below the root where these parts may lie.
        protocols: Protocols that this layout can serve; empty is every one.
        version: Version of the set that this layout has; empty where it does not tell.
        derived: A copy that a tool made of another layout, which goes first where both are there.
    """

    name: str
    naming: Naming
    query: tuple[Part, ...]
    gallery: tuple[Part, ...]
    train: tuple[Part, ...] = ()
    places: tuple[str, ...] = (".",)
    protocols: tuple[str, ...] = ()
    version: str = ""
    derived: bool = False

    def parts(self, split: str, protocol: str) -> tuple[Part, ...]:
        """The parts of a split under a protocol."""
        parts: tuple[Part, ...] = getattr(self, split)
        return tuple(p for p in parts if not p.protocols or protocol in p.protocols)

    def needs(self, protocol: str) -> list[str]:
        """Folders (with a slash at the end) and lists that must be there."""
        parts = [part for split in SPLITS for part in self.parts(split, protocol)]
        folders = [f"{part.folder}/" for part in parts]
        return list(dict.fromkeys(folders + [part.list for part in parts if part.list]))


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A download that lacks something, told by what is there.

    Attributes:
        files: Files or folders (with a slash at the end), one of which tells.
        message: What it is and what to do, after the path.
    """

    files: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Count:
    """What one split of the published set holds.

    Attributes:
        images: Without junk.
        ids: Identities, without distractors.
        cams: Cameras.
        junk: Further files of pid -1.
        unverified: Whether a number was stated by somebody but not counted in the published files.
    """

    images: int
    ids: int
    cams: int
    junk: int = 0
    unverified: bool = False


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way to use a data set.

    Attributes:
        name: What a user calls it.
        text: What it takes.
        counts: Published counts by split; empty for generated sets.
    """

    name: str
    text: str
    counts: dict[str, Count] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One data set.

    Attributes:
        name: What a user calls it.
        title: What its authors call it.
        kind: What the queries are: 'holistic', 'occluded' or 'partial'.
        layouts: Where files lie and how they are called.
        protocols: The first one is the default.
        citation: Paper that introduced it.
        terms: Terms of use.
        traps: What goes wrong with it.
        distractor_pid: Identity of images that match nobody; None where there is none.
        camera_rule: 'cross-camera', or 'synthetic': queries 0 and gallery 1.
        pids_restart: Whether training and test count their identities each from the start.
        withdrawn: Whether its authors have withdrawn it.
        generated: Whether `reid data generate` draws it.
        incomplete: Downloads that cannot be read, with the remedy.
    """

    name: str
    title: str
    kind: str
    layouts: tuple[Layout, ...]
    protocols: tuple[Protocol, ...]
    citation: str = ""
    terms: str = ""
    traps: str = ""
    distractor_pid: int | None = None
    camera_rule: str = "cross-camera"
    pids_restart: bool = False
    withdrawn: bool = False
    generated: bool = False
    incomplete: tuple[Incomplete, ...] = ()

    @property
    def example(self) -> str:
        """A file name of the first layout."""
        return self.layouts[0].naming.example


def below(*places: str) -> tuple[str, ...]:
    """The root itself, then these folders below it."""
    return (".", *places)
