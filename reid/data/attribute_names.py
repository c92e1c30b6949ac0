"""What the columns of the attribute files are called, what their values mean, which are colours.

Y. Lin et al., "Improving Person Re-identification by Attribute and Identity Learning",
arXiv:1703.07220: 27 attributes for Market-1501 and 23 for DukeMTMC-reID, one row per identity.
"""

from collections.abc import Iterable

MARKET_ROOT = "market_attribute"
DUKE_ROOT = "duke_attribute"
ROOTS = {
    "market1501": MARKET_ROOT,
    "mannequins": MARKET_ROOT,
    "occluded-mannequins": MARKET_ROOT,
    "partial-mannequins": MARKET_ROOT,
    "dukemtmc-reid": DUKE_ROOT,
    "occluded-duke": DUKE_ROOT,
}

_NO_YES = ("no", "yes")
_SHARED = {
    "gender": ("male", "female"),
    "backpack": _NO_YES,
    "bag": _NO_YES,
    "handbag": _NO_YES,
    "hat": _NO_YES,
}
_NAMED: dict[str, dict[str, tuple[str, ...]]] = {
    MARKET_ROOT: {
        **_SHARED,
        "age": ("child", "teenager", "adult", "old"),
        "hair": ("short", "long"),
        "up": ("long sleeve", "short sleeve"),
        "down": ("long", "short"),
        "clothes": ("dress", "pants"),
    },
    DUKE_ROOT: {
        **_SHARED,
        "boots": _NO_YES,
        "shoes": ("dark", "light"),
        "top": ("short", "long"),
    },
}
_COLOURS = {
    MARKET_ROOT: {
        "up": ("black", "white", "red", "purple", "yellow", "gray", "blue", "green"),
        "down": (
            "black", "white", "pink", "purple", "yellow", "gray", "blue", "green", "brown",
        ),
    },
    DUKE_ROOT: {
        "up": ("black", "white", "red", "purple", "gray", "blue", "green", "brown"),
        "down": ("black", "white", "red", "gray", "blue", "green", "brown"),
    },
}  # fmt: skip
_EVERY_COLOUR = frozenset(
    colour for groups in _COLOURS.values() for colours in groups.values() for colour in colours
)
_GROUPS = {"up": "upper colour", "down": "lower colour"}


def _fields(root: str) -> tuple[str, ...]:
    colours = [part + colour for part, names in _COLOURS[root].items() for colour in names]
    return tuple(sorted([*_NAMED[root], *colours]))


MARKET_ATTRIBUTES = _fields(MARKET_ROOT)
DUKE_ATTRIBUTES = _fields(DUKE_ROOT)


def value_names(root: str, attribute: str) -> tuple[str, ...]:
    """What the values 1, 2, ... of an attribute mean.

    Args:
        root: "market_attribute" or "duke_attribute".
        attribute: Name of the field.

    Returns:
        One word for each value; no and yes for a colour and for a field that is not known.
    """
    return _NAMED.get(root, {}).get(attribute, _NO_YES)


def colour_groups(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The columns that together say one thing: which colours the clothes have.

    Args:
        names: Columns of a table.

    Returns:
        "upper colour" and "lower colour" to their columns, in the order of `names`; a group
        without a column is left out. An identity may have several colours of a group.
    """
    names = tuple(names)
    members = {
        title: tuple(
            name
            for name in names
            if name.startswith(part) and name.removeprefix(part) in _EVERY_COLOUR
        )
        for part, title in _GROUPS.items()
    }
    return {title: columns for title, columns in members.items() if columns}
