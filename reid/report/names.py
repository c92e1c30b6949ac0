"""What to call the images of an evaluation, and their thumbnails."""

import os
from collections.abc import Sequence
from pathlib import Path

from reid.errors import UserError
from reid.report.thumbnails import locate, thumbnail


class ImageSet:
    """Names and pictures of the query or the gallery set.

    Args:
        kind: `query` or `gallery`.
        count: Number of feature rows.
        names: (N) names in the features, or None.
        paths: (N) image files, or None to take the names as paths.
        root: Folder or archive in which the images are looked up by the ends of their names.

    Raises:
        UserError: Not one path per row, or a root that is neither folder nor archive.
    """

    def __init__(
        self,
        kind: str,
        count: int,
        names: Sequence[str] | None,
        paths: Sequence[str] | None,
        root: str | os.PathLike[str] | None,
    ) -> None:
        if paths is not None and len(paths) != count:
            raise UserError(
                f"{len(paths)} {kind} paths were given for {count} {kind} features; pass the list "
                "that the features were extracted from"
            )
        given = names if paths is None else paths
        self._paths: Sequence[str | None] = [None] * count
        if given is None:
            self.names = [f"{kind} {row}" for row in range(count)]
        else:
            self.names = short_names(given)
            self._paths = given if root is None else locate(given, Path(root))
        self._made: dict[int, str | None] = {}

    def picture(self, row: int) -> str | None:
        """Return the thumbnail of an image as a data URI, None without one."""
        if row not in self._made:
            self._made[row] = thumbnail(self._paths[row])
        return self._made[row]

    @property
    def missing(self) -> int:
        """Number of images asked for that could not be shown."""
        return sum(uri is None for uri in self._made.values())


def short_names(names: Sequence[str]) -> list[str]:
    """Return names without the folders that all of them share.

    Args:
        names: Paths with `/` or `\\\\`.
    """
    split = [name.replace("\\", "/").split("/") for name in names]
    shared = min((len(parts) for parts in split), default=1) - 1
    for level in range(shared):
        if len({parts[level] for parts in split}) > 1:
            shared = level
            break
    return ["/".join(parts[shared:]) for parts in split]
