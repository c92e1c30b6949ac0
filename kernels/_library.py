"""How operators meet torch: registration, the way around the dispatcher, autocast."""

import contextlib
from collections.abc import Callable
from operator import index
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

NAMESPACE = "sparse_vit_kernels"

_ORDINARY = (Tensor, torch.nn.Parameter)

_HERE = contextlib.nullcontext()

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


def is_plain(*tensors: Tensor) -> bool:
    """Tell whether a call may run its implementation at once, without torch's dispatcher.

    That is so in eager mode with ordinary tensors, where nothing looks at the operators called: no
    compilation, export or trace, no fake or meta tensor, no mode, functional transform or forward
    gradient. It saves several microseconds of host time.
    """
    for x in tensors:
        if type(x) not in _ORDINARY or not (x.is_cuda or x.is_cpu):
            return False
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._is_tracing()
    )


def refuse_forward_gradients(operator: str, *tensors: Tensor) -> None:
    """Raise where a tensor carries a tangent, which the operators would lose without a word.

    Raises:
        RuntimeError: One does: this is forward-mode differentiation.
    """
    if forward_ad._current_level < 0 or torch.compiler.is_compiling():
        return
    duals: list[Any] = [forward_ad.unpack_dual(x) for x in tensors]  # type: ignore[no-untyped-call]
    if any(x.tangent is not None for x in duals):
        raise RuntimeError(
            f"{operator}: forward-mode differentiation (torch.func.jvp, dual tensors) is not "
            f"supported; differentiate backwards, or use kernels.reference.{operator}"
        )


def register_gradient(
    operator: Any, backward: Callable[..., Any], setup_context: Callable[..., Any]
) -> None:
    """Give an operator returned by `register` its backward formula."""
    torch.library.register_autograd(operator, backward, setup_context=setup_context, lib=_LIBRARY)


def refuse_second_derivatives(gradient: Any, operator: str) -> None:
    """Let a second derivative through the gradient of an operator raise instead of vanish."""

    def refuse(*_: Any) -> None:
        raise RuntimeError(
            f"{operator} is differentiable once: for second derivatives use "
            f"kernels.reference.{operator}"
        )

    torch.library.register_autograd(gradient, refuse, lib=_LIBRARY)


def whole_number(operator: str, name: str, value: Any) -> int:
    """Return an integer known on the host, NumPy's and symbolic ones included.

    Raises:
        ValueError: It is something else: a bool, a float or a tensor, which may lie on a device.
    """
    if isinstance(value, torch.SymInt):
        return value  # type: ignore[return-value]
    if not isinstance(value, (bool, Tensor)) and hasattr(value, "__index__"):
        return index(value)
    raise ValueError(
        f"{operator}: {name} must be an int known on the host, got {type(value).__name__}"
    )


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast the operands of a product as torch casts those of its own, float64 excepted."""
    device = tensors[0].device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensors
    lowered = (torch.float16, torch.bfloat16, torch.float32)
    dtype = torch.get_autocast_dtype(device)
    return tuple(x.to(dtype) if x.dtype in lowered else x for x in tensors)


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Switch autocast off for the device of x, at no cost where it is off already."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return _HERE
