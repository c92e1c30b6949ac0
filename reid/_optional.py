"""Imports that only some commands need."""

import importlib
from types import ModuleType
from typing import Any

from reid.errors import UserError


def require(module: str, extra: str = "reid") -> Any:
    """Import `module`, or say which extra of the distribution brings it.

    Args:
        module: Dotted module name.
        extra: Extra of `sparse-vit` that depends on it.

    Returns:
        The imported module.

    Raises:
        UserError: The module is not installed.
    """
    try:
        imported: ModuleType = importlib.import_module(module)
    except ModuleNotFoundError as error:
        top_level = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top_level:
            raise
        raise UserError(
            f"this command needs {top_level!r}, which is not installed; "
            f"install it with: pip install 'sparse-vit[{extra}]'"
        ) from error
    return imported
