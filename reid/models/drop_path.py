"""Stochastic depth whose draws belong to the sample, not to its place in a batch."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from sparse_vit import keyed_random

_KEYS: ContextVar[Tensor | None] = ContextVar("drop_path_keys", default=None)


@contextlib.contextmanager
def sample_keys(keys: Tensor | None) -> Iterator[None]:
    """Give the modules inside the block the keys of the samples of this batch.

    Args:
        keys: (B,) int64, one for each sample, or None for torch's own generator.
    """
    token = _KEYS.set(keys)
    try:
        yield
    finally:
        _KEYS.reset(token)


class KeyedDropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016, arXiv 1603.09382) with draws keyed by sample.

    With keys given by `sample_keys`, the decision for a sample is a function of its key and of
    this module's place in the model, so it is the same on one process and on several.

    Args:
        rate: Probability of dropping the residual branch of a sample.
        stream: Distinguishes the modules of a model.
    """

    def __init__(self, rate: float, stream: int) -> None:
        super().__init__()
        self.rate = rate
        self.stream = stream

    def forward(self, x: Tensor) -> Tensor:
        """Drop or rescale (B, ...) per sample in training; identity in evaluation."""
        if not self.training or self.rate == 0.0:
            return x
        keys = _KEYS.get()
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        if keys is None:
            uniform = torch.rand(shape, device=x.device)
        else:
            uniform = keyed_random.uniform(keys, (), stream=self.stream).reshape(shape)
        keep = (uniform >= self.rate).to(x.dtype)
        return x * keep / (1.0 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, stream={self.stream}"


def key_drop_paths(model: nn.Module) -> None:
    """Replace timm's DropPath modules of `model` by keyed ones of the same rate."""
    from timm.layers.drop import DropPath

    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, DropPath)
    ]
    for number, (parent, name, child) in enumerate(places):
        setattr(parent, name, KeyedDropPath(float(child.drop_prob or 0.0), stream=1000 + number))
