"""Person re-identification with token-sparsified vision transformers.

`reid.Embedder` turns images into features. Each verb of the command line is one call:
`reid.run.train`, `reid.run.evaluate_model`, `reid.run.extract_features`,
`reid.visualize.visualize`, `reid.reproduce.reproduce` and `reid.demo.demo`.
"""

from typing import TYPE_CHECKING, Any

from reid.errors import UserError

if TYPE_CHECKING:
    from reid.inference import Embedder

__all__ = ["Embedder", "UserError"]


def __getattr__(name: str) -> Any:
    # imported on demand: the command line answers --help without torch
    if name == "Embedder":
        from reid.inference import Embedder

        return Embedder
    raise AttributeError(f"module 'reid' has no attribute {name!r}")
