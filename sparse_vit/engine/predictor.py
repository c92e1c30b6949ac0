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
        linear = partial(build.linear, tokens=tokens, gelu="none", exact=True)
        self.local = linear(f"{name}.project (local)", weight[:half], bias[:half])
        self.context = linear(f"{name}.project (global)", weight[half:], bias[half:])
        weight = module.expand.weight
        self.expand = build.linear(f"{name}.expand", weight[:, :half], None, tokens, exact=True)
        build.notes.add(f"{name}.reduce, classify", "torch, float32", "cheap; scores stay exact")
        # The narrow end is cheap, and rounding scores there would tie tokens at the cut.
        narrow = module.reduce.weight, module.reduce.bias
        ends = module.classify.weight, module.classify.bias
        parts = weight[:, half:], module.expand.bias, *narrow, *ends
        self.narrow = [part.detach().to(torch.float32, copy=True) for part in parts]

    def __call__(self, x: Tensor, lengths: Lengths) -> Tensor:
        """(T, C) tokens to (T,) float32 log keep probabilities."""
        x = self.norm(x)
        mean = self._mean(self.context(x), lengths)
        hidden = self.expand(self.local(x))
        expand, expand_bias, reduce, reduce_bias, classify, classify_bias = self.narrow
        hidden = hidden.float()
        shift = F.linear(mean, expand, expand_bias)
        if lengths.uniform:
            hidden.view(lengths.images, lengths.longest, -1).add_(shift[:, None])
        else:
            hidden += shift[lengths.image_of_row()]
        torch.ops.aten.gelu_(hidden)
        hidden = torch.ops.aten.gelu_(F.linear(hidden, reduce, reduce_bias))
        return F.linear(hidden, classify, classify_bias).log_softmax(dim=-1)[:, KEEP]

    def _mean(self, z: Tensor, lengths: Lengths) -> Tensor:
        """(T, C) to the mean of every image's patch tokens (B, C)."""
        if lengths.uniform:
            patches = z.view(lengths.images, lengths.longest, -1)[:, self.prefix :]
            return patches.mean(dim=1, dtype=torch.float32)
        padded = lengths.pad(z, 0.0)[:, self.prefix :].sum(dim=1, dtype=torch.float32)
        counts = lengths.cu_seqlens.diff() - self.prefix
        return padded / counts[:, None]
