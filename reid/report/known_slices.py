"""Groups of queries that a data set itself knows: how occluded they are, and who they show."""

import json
from collections.abc import Sequence
from pathlib import Path

from reid.data.attribute_names import value_names
from reid.data.attributes import AttributeTable, read_attributes

_MANIFEST = "mannequins.json"
_ATTRIBUTES = "attribute/market_attribute.mat"
_LEVELS = ((0.0, "0%"), (0.25, "0 to 25%"), (0.5, "25 to 50%"), (1.0, "50 to 100%"))
_TITLES = {"up": "sleeves", "down": "lower length", "clothes": "lower garment"}


def occlusion_levels(shares: Sequence[float | None]) -> list[str]:
    """Return in words how much of each body is covered.

    Args:
        shares: (Q) covered share of the body in fractions of 1; None where unknown.

    Returns:
        (Q) `0%`, `0 to 25%`, `25 to 50%` or `50 to 100%`, upper ends included; empty where
        unknown.
    """
    return [
        "" if share is None else next(name for end, name in _LEVELS if min(share, 1.0) <= end)
        for share in shares
    ]


def attribute_slices(table: AttributeTable, pids: Sequence[int]) -> dict[str, list[str]]:
    """Return the attributes of queries as groups; the colours of a part become one group.

    Args:
        table: Attributes by identity.
        pids: (Q) identities of the queries.

    Returns:
        Name of the group -> (Q) label, empty where the attribute is not defined. Several colours
        of a part are joined by `and`.
    """
    row_of = {int(pid): row for row, pid in enumerate(table.pids)}
    rows = [row_of.get(int(pid)) for pid in pids]
    column_of = {name: column for column, name in enumerate(table.names)}
    coloured = {name for columns in table.groups.values() for name in columns}
    found = {}
    for name, column in column_of.items():
        if name not in coloured:
            words = value_names(table.root, name)
            found[_TITLES.get(name, name)] = [
                words[table.values[row, column] - 1]
                if row is not None and table.defined[row, column]
                else ""
                for row in rows
            ]
    for title, columns in table.groups.items():
        found[title] = [
            " and ".join(
                name.removeprefix("up").removeprefix("down")
                for name in columns
                if row is not None and table.values[row, column_of[name]] == 2
            )
            for row in rows
        ]
    return found


def known_slices(
    root: str | Path, query_paths: Sequence[str], pids: Sequence[int]
) -> dict[str, list[str]]:
    """Return what the folder of a data set says about its queries.

    Args:
        root: Folder of the data set; an archive or a missing one knows nothing.
        query_paths: (Q) images of the queries.
        pids: (Q) their identities.

    Returns:
        Name of the group -> (Q) label. Occlusion comes from the manifest of a generated set,
        attributes from attribute/market_attribute.mat; without both it is empty.
    """
    found: dict[str, list[str]] = {}
    manifest, attributes = Path(root) / _MANIFEST, Path(root) / _ATTRIBUTES
    if manifest.is_file():
        shares = json.loads(manifest.read_text(encoding="utf-8"))["occlusion"]["query"]
        names = [path.replace("\\", "/").rsplit("/", 1)[-1] for path in query_paths]
        found["occlusion"] = occlusion_levels([shares.get(name) for name in names])
    if attributes.is_file():
        found.update(attribute_slices(read_attributes(attributes)["test"], pids))
    return found
