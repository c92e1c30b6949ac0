"""The data sets known by name."""

from reid.data.catalog import cameraless, cameras, msmt
from reid.data.catalog.spec import Entry, Protocol
from reid.errors import UserError

# Describes a generated set, in its folder.
MANIFEST = "mannequins.json"
ENTRIES: dict[str, Entry] = {
    entry.name: entry for entry in (*cameras.ENTRIES, *msmt.ENTRIES, *cameraless.ENTRIES)
}


def entry(name: str) -> Entry:
    """The entry of this name.

    Raises:
        UserError: Unknown name.
    """
    if name not in ENTRIES:
        raise UserError(f"unknown data set {name!r}; choose one of {', '.join(ENTRIES)}, imported")
    return ENTRIES[name]


def protocol_of(spec: Entry, name: str | None) -> Protocol:
    """The protocol of this name; the default one for None and "".

    Raises:
        UserError: The data set has no such protocol.
    """
    if not name:
        return spec.protocols[0]
    for protocol in spec.protocols:
        if protocol.name == name:
            return protocol
    known = ", ".join(protocol.name for protocol in spec.protocols)
    raise UserError(f"{spec.name} has no protocol {name!r}; choose one of {known}")
