"""Folders of a source, found whatever the case of their names, and listed once."""

from reid.data.source import Source
from reid.errors import UserError

_FOREIGN = ("__MACOSX",)


class Tree:
    """The visible files and folders of a source.

    Folder names are compared without regard to case, as some file systems do, so that the same
    data set is found on every one of them.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._files: dict[str, list[str]] = {}
        self._folders: dict[str, list[str]] = {}
        self._names: dict[str, frozenset[str]] = {}

    def files(self, folder: str) -> list[str]:
        """Sorted base names of the files in a folder, hidden ones left out."""
        if folder not in self._files:
            self._files[folder] = [n for n in self.source.files(folder) if not n.startswith(".")]
        return self._files[folder]

    def folders(self, folder: str) -> list[str]:
        """Sorted base names of the folders in a folder, hidden ones left out."""
        if folder not in self._folders:
            self._folders[folder] = [
                name
                for name in self.source.folders(folder)
                if not name.startswith(".") and name not in _FOREIGN
            ]
        return self._folders[folder]

    def has_folder(self, folder: str) -> bool:
        """Whether there is a folder of exactly this path."""
        parent, _, name = folder.rpartition("/")
        if parent not in self._names:
            visible = self.folders(parent) if not parent or self.has_folder(parent) else ()
            self._names[parent] = frozenset(visible)
        return name in self._names[parent]

    def find_folder(self, base: str, folder: str) -> str | None:
        """The folder as it is written, or None.

        Raises:
            UserError: Two folders differ in case only.
        """
        current = base
        for part in folder.split("/"):
            if part == ".":
                continue
            name = self._pick(part, self.folders(current), current)
            if name is None:
                return None
            current = join(current, name)
        return current

    def find_file(self, base: str, file: str) -> str | None:
        """The file as it is written, or None.

        Raises:
            UserError: Two files or folders differ in case only.
        """
        folder, _, name = file.rpartition("/")
        parent = self.find_folder(base, folder) if folder else base
        if parent is None:
            return None
        found = self._pick(name, self.files(parent), parent)
        return None if found is None else join(parent, found)

    def shown(self, folder: str) -> str:
        """How a folder is named to the user."""
        return self.source.path(folder) if folder else str(self.source.root)

    def _pick(self, wanted: str, names: list[str], folder: str) -> str | None:
        same = [name for name in names if name.casefold() == wanted.casefold()]
        if len(same) > 1:
            raise UserError(
                f"{self.shown(folder)} holds {' and '.join(map(repr, same))}, which are one name "
                "to some file systems; remove or rename one"
            )
        return same[0] if same else None


def join(folder: str, name: str) -> str:
    """A posix path below the root, "" being the root."""
    return f"{folder}/{name}" if folder else name
