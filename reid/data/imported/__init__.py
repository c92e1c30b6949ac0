"""One's own images as a data set: listed once by `reid data import`, read by every verb."""

from reid.data.imported.manifest import MANIFEST, ROWS, read_imported
from reid.data.imported.names import from_folders, from_pattern
from reid.data.imported.rows import Listing, Row
from reid.data.imported.table import from_csv
from reid.data.imported.writing import Imported, import_images

__all__ = [
    "MANIFEST",
    "ROWS",
    "Imported",
    "Listing",
    "Row",
    "from_csv",
    "from_folders",
    "from_pattern",
    "import_images",
    "read_imported",
]
