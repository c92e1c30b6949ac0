"""torch's fused attention with one backend pinned at a time."""

from functools import partial
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


def pin(backend: str) -> Any:
    """Return a context factory in which torch may use that backend and no other."""
    return partial(sdpa_kernel, BACKENDS[backend])
