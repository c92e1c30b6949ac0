"""What a data set is to the rest of the package: lists of images with identity and camera."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Record:
    """One image of one person seen by one camera.

    Attributes:
        path: Image file.
        pid: Identity as written in the file name; 0 is a distractor.
        camid: Camera, counted from 0.
    """

    path: str
    pid: int
    camid: int


@dataclass
class ReidData:
    """The three lists of a re-identification protocol."""

    name: str
    root: str
    train: list[Record] = field(default_factory=list)
    query: list[Record] = field(default_factory=list)
    gallery: list[Record] = field(default_factory=list)
    num_cameras: int = 0
    protocol: str = ""
