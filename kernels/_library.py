"""Registration with torch.library: one schema, one implementation and one fake per operator."""

from collections.abc import Callable
from typing import Any

import torch

NAMESPACE = "sparse_vit_kernels"

_LIBRARY: Any = torch.library.Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]


def register(
    schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]
) -> Callable[..., Any]:
    """Define an operator and return it.

    Args:
        schema: Schema without the namespace, as `name(Tensor x) -> Tensor`.
        implementation: Called with real tensors of any device, below autograd.
        fake: Called with fake tensors: same shapes, dtypes and strides, no data.

    Returns:
        The overload, to be called with the arguments of the schema.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_LIBRARY)
    return getattr(getattr(torch.ops, NAMESPACE), name).default


def register_gradient(
    operator: Any, backward: Callable[..., Any], setup_context: Callable[..., Any]
) -> None:
    """Give an operator returned by `register` its backward formula."""
    torch.library.register_autograd(operator, backward, setup_context=setup_context, lib=_LIBRARY)
