"""How often each attribute is set, and for how many identities it is not known."""

import shlex
from collections.abc import Mapping

from reid.data.attribute_names import ROOTS, value_names
from reid.data.attributes import SPLITS, AttributeTable
from reid.errors import UserError


def root_of_attributes(name: str) -> str:
    """Outer structure of the attribute file that belongs to a data set.

    Args:
        name: Data set of the catalog; Occluded-DukeMTMC has the identities of DukeMTMC-reID.

    Raises:
        UserError: The data set has no attributes.
    """
    if name.lower().endswith(".mat"):
        raise UserError(
            f"expected the name of a data set, got the file {name}; give both, such as: reid data "
            f"attributes market1501 --mat {shlex.quote(name)}"
        )
    if name not in ROOTS:
        raise UserError(f"{name!r} has no attribute file; choose one of {', '.join(ROOTS)}")
    return ROOTS[name]


def summarize(tables: Mapping[str, AttributeTable]) -> str:
    """Table of attributes: values, share of each split that is positive, undefined identities.

    Args:
        tables: What `read_attributes` returns.

    Returns:
        Lines of text. The share is that of the second value, or of the value named after "=",
        among the identities for which the attribute is defined.
    """
    counts = ", ".join(f"{len(tables[split].pids)} identities in {split}" for split in SPLITS)
    names = tables[SPLITS[0]].binary()[2]
    rows = [("attribute", "values", *(f"{split} %" for split in SPLITS), "undefined train / test")]
    shares, missing = {}, {}
    for split in SPLITS:
        binary, mask, _ = tables[split].binary()
        known = mask.sum(0)
        shares[split] = [
            f"{100 * positive / total:.1f}" if total else "-"
            for positive, total in zip(binary.sum(0), known, strict=True)
        ]
        missing[split] = len(binary) - known
    for number, name in enumerate(names):
        words = value_names(tables[SPLITS[0]].root, name.partition("=")[0])
        rows.append(
            (
                name,
                ", ".join(words) if len(words) == 2 else "no, yes",
                *(shares[split][number] for split in SPLITS),
                " / ".join(str(missing[split][number]) for split in SPLITS),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            text.ljust(width) if column < 2 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, counts])
