"""What a data set is to the rest of the package: lists of images with identity and camera."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Record:
    """One image of one person seen by one camera.

    Attributes:
        path: Image file, or "<archive>!/<member>" for one inside an archive.
        pid: Identity as written in the file name or the list.
        camid: Camera, counted from 0.
    """

    path: str
    pid: int
    camid: int


@dataclass
class ReidData:
    """The three lists of a re-identification protocol.

    Attributes:
        name: Catalog name.
        root: Folder or archive that holds the files.
        train: Training images.
        query: Queries.
        gallery: Gallery, distractors included.
        num_cameras: Cameras, counted from 0 to the highest that occurs.
        protocol: What the queries are: 'holistic', 'occluded' or 'partial'.
        distractor_pid: Identity of images that match no query; None where 0 is a person too.
        layout: How the folders and names were laid out, such as 'market'.
        version: Version of the set where there are several, such as 'V2'.
        camera_rule: 'cross-camera' where matches of the query's camera do not count; 'synthetic'
            where the set has no camera ids: queries get camera 0, the gallery camera 1.
        variant: The named protocol that was read, such as 'train+val' or 'partial-body'.
        left_out: A line for each file or list line that was left out on request.
    """

    name: str
    root: str
    train: list[Record] = field(default_factory=list)
    query: list[Record] = field(default_factory=list)
    gallery: list[Record] = field(default_factory=list)
    num_cameras: int = 0
    protocol: str = ""
    distractor_pid: int | None = 0
    layout: str = ""
    version: str = ""
    camera_rule: str = "cross-camera"
    variant: str = ""
    left_out: list[str] = field(default_factory=list)
