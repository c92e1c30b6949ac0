"""Rows from a CSV file."""

import csv
import io
import os
import posixpath
from collections.abc import Callable
from pathlib import Path

from reid.data.imported.rows import Listing, Row, finish, leave_out, some, split_of
from reid.data.source import FolderSource, Source, open_source
from reid.data.text import decode_text
from reid.errors import UserError

_COLUMNS = ("path", "pid", "camid", "split")


def from_csv(
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    skip_bad: bool = False,
) -> Listing:
    """List the rows of a CSV file with the columns path, pid and, optionally, camid and split.

    Commas, semicolons or tabs separate the columns; other columns are passed over.

    Args:
        path: The CSV file, UTF-8.
        images: Folder or archive that the paths are relative to; None takes the file's folder.
        skip_bad: Leave out rows whose image does not exist.

    Raises:
        UserError: No such file, not UTF-8, a column or a value is missing, a path is listed twice,
            or an image does not exist.
    """
    file = Path(path)
    source = open_source(file.parent if images is None else images)
    table = _table(file)
    rows: list[Row] = []
    lines: dict[str, int] = {}
    twice, absent = [], []
    exists = _existence(source)
    for line, cells in table:
        where = f"{file}, line {line}"
        if not cells["path"] or not cells["pid"]:
            empty = "path" if not cells["path"] else "pid"
            raise UserError(f"{where}: the column {empty} is empty; fill it or remove the row")
        name = posixpath.normpath(cells["path"].replace("\\", "/"))
        if name in lines:
            twice.append(f"{name} (lines {lines[name]} and {line})")
            continue
        lines[name] = line
        if not exists(name):
            absent.append(name)
            continue
        split = cells.get("split")
        rows.append(Row(name, cells["pid"], cells.get("camid"), split and split_of(split, where)))
    if twice:
        raise UserError(
            f"{file} lists {len(twice)} images twice: {some(twice)}; keep one row for each image"
        )
    left_out = leave_out(
        absent,
        len(table),
        what=f"images of {file} are not below {source.root}",
        reason="no such file",
        remedy="mend the paths, which are relative to that place",
        skip_bad=skip_bad,
    )
    return finish(source.root, rows, f"the rows of {file.name}", left_out, [])


def image_path(source: Source, name: str) -> str:
    """What `Record.path` holds for a listed image; an absolute path of a CSV row stays as it is."""
    if isinstance(source, FolderSource) and os.path.isabs(name):
        return os.path.normpath(name)
    return source.path(name)


def _existence(source: Source) -> Callable[[str], bool]:
    if isinstance(source, FolderSource):
        return lambda name: os.path.isfile(image_path(source, name))
    return frozenset(source.names()).__contains__


def _table(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells by column of each row that is not blank."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); give a CSV file") from error
    text = decode_text(content, str(file), "save the file as CSV UTF-8")
    if "\0" in text:
        raise UserError(f"{file} is no text; save the file as CSV UTF-8")
    header, _, _ = text.partition("\n")
    separator = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        for needed in ("path", "pid"):
            if needed not in columns:
                raise UserError(
                    f"{file} has no column {needed!r}; its first line holds "
                    f"{some(columns) or 'nothing'}, expected path,pid and optionally camid,split"
                )
        double = [name for name in _COLUMNS if columns.count(name) > 1]
        if double:
            raise UserError(f"{file} has the column {double[0]!r} twice; remove one")
        table = []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) < len(columns):
                raise UserError(
                    f"{file}, line {reader.line_num}: {len(cells)} cells for {len(columns)} "
                    "columns; complete the row or remove it"
                )
            named = zip(columns, cells, strict=False)
            row = {name: cell.strip() for name, cell in named if name in _COLUMNS}
            table.append((reader.line_num, row))
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: {error}; mend the row") from error
    if not table:
        raise UserError(f"{file} has no rows; list one image in each, with its path and its pid")
    return table
