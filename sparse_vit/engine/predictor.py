"""The keep predictor on packed rows."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse_vit.engine.build import Builder
from sparse_vit.engine.lengths import Lengths
from sparse_vit.selectors import KEEP, KeepPredictor

__all__ = ["EnginePredictor"]


class EnginePredictor:
    """`KeepPredictor.score` of every row.

    Prefix tokens are scored as well, which costs less than packing the others without them; their
    scores mean nothing, and they are left out of the mean.

    Args:
        name: of the predictor, for the description.
        module: the predictor.
        tokens: tokens of an image in this stage, prefix included.
        prefix: P.
        build: maker of layers.
    """

    def __init__(
        self, name: str, module: KeepPredictor, tokens: int, prefix: int, build: Builder
    ) -> None:
        self.prefix = prefix
        self.norm = build.norm(module.norm)
        weight, bias = module.project.weight, module.project.bias
        half = weight.shape[0] // 2
        linear = partial(build.linear, tokens=tokens, gelu="none")
        self.local = linear(f"{name}.project (local)", weight[:half], bias[:half])
        self.context = linear(f"{name}.project (global)", weight[half:], bias[half:])
        weight = module.expand.weight
        self.expand = build.linear(f"{name}.expand", weight[:, :half], None, tokens)
        self.expand_context = weight[:, half:].detach().to(build.dtype, copy=True)
        self.expand_bias = module.expand.bias.detach().to(build.dtype, copy=True)
        self.reduce = linear(f"{name}.reduce", module.reduce.weight, module.reduce.bias)
        self.classify = module.classify.weight.detach().to(build.dtype, copy=True)
        self.classify_bias = module.classify.bias.detach().to(build.dtype, copy=True)

    def __call__(self, x: Tensor, lengths: Lengths) -> Tensor:
        """(T, C) tokens to (T,) float32 log keep probabilities."""
        x = self.norm(x)
        mean = self._mean(self.context(x), lengths)
        hidden = self.expand(self.local(x))
        shift = F.linear(mean, self.expand_context, self.expand_bias)
        if lengths.uniform:
            hidden.view(lengths.images, lengths.longest, -1).add_(shift[:, None])
        else:
            hidden += shift[lengths.image_of_row()]
        torch.ops.aten.gelu_(hidden)
        logits = F.linear(self.reduce(hidden), self.classify, self.classify_bias)
        return logits.float().log_softmax(dim=-1)[:, KEEP]

    def _mean(self, z: Tensor, lengths: Lengths) -> Tensor:
        """(T, C) to the mean of every image's patch tokens (B, C)."""
        if lengths.uniform:
            return z.view(lengths.images, lengths.longest, -1)[:, self.prefix :].mean(dim=1)
        padded = lengths.pad(z, 0.0)[:, self.prefix :].sum(dim=1, dtype=torch.float32)
        counts = lengths.cu_seqlens.diff() - self.prefix
        return (padded / counts[:, None]).to(z.dtype)
