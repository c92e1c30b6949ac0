"""Who decides which patch tokens stay.

A selector scores the tokens that are present. In inference the `count` best stay. In training
`sample` turns scores into a 0/1 decision per token: the learned predictor draws it, every other
selector takes the `count` best. A selector of one's own needs one method:

    class Brightest(TokenSelector):
        def score(self, stage: StageInput) -> Tensor:
            return stage.tokens.norm(dim=-1).float()

    sparsify(vit, selector=Brightest())
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse_vit import keyed_random
from sparse_vit._kernels import select_tokens

__all__ = [
    "ClassAttention",
    "FixedDecisions",
    "KeepPredictor",
    "RandomSelector",
    "StageInput",
    "TokenSelector",
    "build_selectors",
    "top_k_decision",
]

DROP, KEEP = 0, 1
"""Which of the two outputs of a predictor means what. Inferred: DynamicViT's code keeps at index 0,
SUReID writes pi_{i,1}; only a matter of labelling."""


@dataclass
class StageInput:
    """What a selector may look at.

    Attributes:
        ordinal: number of the stage, from 0.
        tokens: (B, n, C) patch tokens that enter the stage: all N in training, those still
            present in inference.
        keep: (B, n) float, 1 where a token is still kept; None when all are.
        indices: (B, n) int64 original indices of the tokens; None when n = N.
        count: how many tokens the schedule leaves.
        grid_tokens: N, the number of original patches.
        class_attention: (B, n) attention of the class token in the previous block, averaged over
            heads; None unless the selector sets `needs_class_attention`.
        keys: (B,) int64 keys of `sparse_vit.keyed_random`; None for torch's global generator.
    """

    ordinal: int
    tokens: Tensor
    keep: Tensor | None
    indices: Tensor | None
    count: int
    grid_tokens: int
    class_attention: Tensor | None = None
    keys: Tensor | None = None


class TokenSelector(nn.Module):
    """Base of all selectors.

    Attributes:
        needs_class_attention: whether `score` reads `StageInput.class_attention`.
    """

    needs_class_attention = False

    def score(self, stage: StageInput) -> Tensor:
        """Scores the tokens of a stage.

        Args:
            stage: the tokens and what is known about them.

        Returns:
            (B, n) floating, finite; the highest scores are kept first.
        """
        raise TypeError(f"{type(self).__name__} must define score(stage)")

    def sample(self, stage: StageInput) -> tuple[Tensor, Tensor]:
        """Decides in training.

        Args:
            stage: the tokens, with n = N.

        Returns:
            scores (B, N) as of `score`, and the decision (B, N): 1 keep, 0 drop. The model
            multiplies the decision by `stage.keep`.
        """
        scores = self.score(stage)
        return scores, top_k_decision(scores, stage.keep, stage.count)


def top_k_decision(scores: Tensor, keep: Tensor | None, count: int) -> Tensor:
    """Marks the best tokens among those still kept.

    Args:
        scores: (B, N) floating.
        keep: (B, N) 0/1 or None when all tokens are kept.
        count: number of tokens to mark; ties go to the lower index.

    Returns:
        (B, N) in the dtype of the scores, 1 for marked tokens.
    """
    if keep is not None:
        scores = scores.masked_fill(keep < 0.5, torch.finfo(scores.dtype).min)
    return select_tokens(scores, count).mask.to(scores.dtype)


class KeepPredictor(TokenSelector):
    """Learned keep probability from a token and the mean of all kept tokens.

    z = GELU(Linear(LN(x))); half of z stays local, half is averaged over the kept tokens;
    log pi = LogSoftmax(MLP([local; global])), C -> C/2 -> C/4 -> 2. Training draws a hard decision
    with Gumbel-softmax on log pi and a straight-through gradient (DynamicViT, arXiv 2106.02034,
    Sec. 3.2; SUReID, arXiv 2401.07469, Eq. 1-2).

    Args:
        dim: channels of a token.
        tau: temperature of the Gumbel-softmax.
        keep_probability: initial keep probability; DynamicViT's one half by default.
    """

    def __init__(self, dim: int, *, tau: float = 1.0, keep_probability: float = 0.5) -> None:
        super().__init__()
        if tau <= 0.0:
            raise ValueError(f"tau {tau} must be positive; DynamicViT uses 1.0")
        if not 0.0 < keep_probability < 1.0:
            raise ValueError(f"keep_probability {keep_probability} is outside (0, 1); try 0.5")
        self.tau = tau
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, dim)
        self.expand = nn.Linear(dim, dim // 2)
        self.reduce = nn.Linear(dim // 2, dim // 4)
        self.classify = nn.Linear(dim // 4, 2)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        log_odds = math.log(keep_probability / (1.0 - keep_probability))
        with torch.no_grad():
            self.classify.bias[KEEP] = log_odds / 2
            self.classify.bias[DROP] = -log_odds / 2

    def log_probabilities(self, stage: StageInput) -> Tensor:
        """Log probabilities of dropping and keeping.

        Args:
            stage: the tokens and the mask over which the global half is averaged.

        Returns:
            (B, n, 2) float32 (float64 for float64 tokens), indexed by `DROP` and `KEEP`.
        """
        x = self.norm(stage.tokens)
        half = self.project.out_features // 2
        # Each half by a product of its own, so that neither is a strided view that gets copied.
        weight, bias = self.project.weight, self.project.bias
        local = F.gelu(F.linear(x, weight[:half], bias[:half]))
        context = _masked_mean(F.gelu(F.linear(x, weight[half:], bias[half:])), stage.keep)
        # A linear on [local; global] is a sum of two, and the global one costs one row an image.
        weight, bias = self.expand.weight, self.expand.bias
        hidden = F.linear(local, weight[:, :half])
        hidden = F.gelu(hidden + F.linear(context, weight[:, half:], bias))
        logits = self.classify(F.gelu(self.reduce(hidden)))
        return logits.to(_accumulator(logits.dtype)).log_softmax(dim=-1)

    def score(self, stage: StageInput) -> Tensor:
        """Log keep probability (B, n); see `TokenSelector.score`."""
        return self.log_probabilities(stage)[..., KEEP]

    def sample(self, stage: StageInput) -> tuple[Tensor, Tensor]:
        """Hard Gumbel-softmax decision with a straight-through gradient, never all dropped."""
        log_pi = self.log_probabilities(stage)
        perturbed = (log_pi + _gumbel(tuple(log_pi.shape), stage)) / self.tau
        # The softmax over two classes is the sigmoid of their difference.
        margin = perturbed[..., KEEP] - perturbed[..., DROP]
        soft = margin.sigmoid()
        hard = (margin > 0).to(soft.dtype)
        scores = log_pi[..., KEEP]
        hard = _keep_one(hard, scores.detach(), stage.keep)
        # soft - soft.detach() is exactly zero, so the value stays exactly 0 or 1.
        return scores, hard + (soft - soft.detach())


class ClassAttention(TokenSelector):
    """Keeps the tokens that the class token attends to most; no training needed.

    The score is the log of the attention in the previous block, averaged over heads (EViT, arXiv
    2202.07800, Sec. 3.2). Inferred: EViT drops tokens between the attention and the MLP of a
    block; dropping them before the next block keeps timm's blocks whole.
    """

    needs_class_attention = True

    def score(self, stage: StageInput) -> Tensor:
        """Log attention (B, n); see `TokenSelector.score`."""
        if stage.class_attention is None:
            raise ValueError("class_attention is missing; sparsify() provides it to this selector")
        # The smallest normal number keeps the score of a token without attention finite.
        return stage.class_attention.clamp_min(torch.finfo(torch.float32).tiny).log()


class RandomSelector(TokenSelector):
    """Keeps tokens at random: the baseline of every other selector.

    With keys the draw depends on (key, stage, original token) alone, else on torch's generator.
    """

    def score(self, stage: StageInput) -> Tensor:
        """Log of a uniform number (B, n); see `TokenSelector.score`."""
        batch, present = stage.tokens.shape[:2]
        if stage.keys is None:
            return _uniform(batch, (present,), stage.tokens.device).log_()
        u = keyed_random.uniform(stage.keys, (stage.grid_tokens,), stream=stage.ordinal)
        return (u if stage.indices is None else u.gather(1, stage.indices)).log()


class FixedDecisions(TokenSelector):
    """Keeps given tokens: to force a decision, as tests and oracles do.

    Args:
        mask: (B, N) 0/1 over the original patches for the batches that follow. Inference needs
            the same number of ones in every image, and that number equal to the schedule's.
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.kept = {int(count) for count in mask.sum(dim=1)}
        self.register_buffer("mask", mask.float(), persistent=False)

    def score(self, stage: StageInput) -> Tensor:
        """The mask of the tokens present (B, n); see `TokenSelector.score`."""
        if self.kept != {stage.count}:
            raise ValueError(
                f"FixedDecisions keeps {sorted(self.kept)} tokens per image but the schedule "
                f"keeps {stage.count}; give masks with exactly that many ones"
            )
        mask = self.get_buffer("mask")
        return mask if stage.indices is None else mask.gather(1, stage.indices)

    def sample(self, stage: StageInput) -> tuple[Tensor, Tensor]:
        """The mask, twice: as scores and as decision."""
        mask = self.get_buffer("mask")
        return mask, mask


# A stage that keeps everything has no finite log-odds.
LARGEST_START = 0.99

SELECTORS = {
    "predictor": KeepPredictor,
    "class_attention": ClassAttention,
    "random": RandomSelector,
}


def build_selectors(
    selector: str | TokenSelector | Sequence[str | TokenSelector],
    ratios: Sequence[float],
    dim: int,
) -> nn.ModuleList:
    """Makes one selector per stage.

    Args:
        selector: a name, which makes a new selector for every stage; a selector, which serves
            every stage; or a sequence with one of these per stage.
        ratios: fraction of the original patches that each stage leaves.
        dim: channels of a token.

    Returns:
        One module per stage. Predictors made by name start at the keep probability that meets
        the schedule. Inferred: the sources do not say where to start; DynamicViT's one half
        drops more than the target at first, and short trainings never recover from it.

    Raises:
        ValueError: for an unknown name or a sequence of another length.
        TypeError: for an object that is no `TokenSelector`.
    """
    stages = len(ratios)
    if isinstance(selector, (str, TokenSelector)):
        choices: Sequence[str | TokenSelector] = [selector] * stages
    elif isinstance(selector, Sequence):
        choices = selector
    else:
        choices = [selector]
    if len(choices) != stages and isinstance(selector, Sequence):
        raise ValueError(
            f"selector has {len(choices)} entries for {stages} stages; pass one per stage, or one "
            "name for all"
        )
    before = (1.0, *ratios)[:stages]
    shares = [min(now / then, LARGEST_START) for now, then in zip(ratios, before, strict=True)]
    return nn.ModuleList(
        _build(choice, dim, share) for choice, share in zip(choices, shares, strict=True)
    )


def _build(choice: str | TokenSelector, dim: int, share: float) -> TokenSelector:
    if isinstance(choice, TokenSelector):
        return choice
    if not isinstance(choice, str):
        raise TypeError(
            f"selector {choice!r} of type {type(choice).__name__} is neither a name nor a "
            f"TokenSelector; use one of {sorted(SELECTORS)} or subclass TokenSelector"
        )
    if choice not in SELECTORS:
        near = difflib.get_close_matches(choice, SELECTORS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown selector {choice!r}, expected one of {sorted(SELECTORS)}{hint}")
    if choice == "predictor":
        return KeepPredictor(dim, keep_probability=share)
    return SELECTORS[choice]()


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _masked_mean(z: Tensor, keep: Tensor | None) -> Tensor:
    """Mean of (B, n, C) over the kept tokens as (B, 1, C); at least one is kept."""
    if keep is None:
        return z.mean(dim=1, keepdim=True)
    weights = keep / keep.sum(dim=1, keepdim=True).clamp_min(1.0)
    return weights[:, None, :].to(z.dtype) @ z


def _uniform(batch: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Float32 numbers in (0, 1) from torch's generator, whatever the dtype of the model."""
    u = torch.rand(batch, *shape, device=device, dtype=torch.float32)
    return u.clamp_(2.0**-24, 1.0 - 2.0**-24)


def _gumbel(shape: tuple[int, ...], stage: StageInput) -> Tensor:
    """Float32 Gumbel noise: in half precision -log(-log u) overflows now and then."""
    if stage.keys is not None:
        return keyed_random.gumbel(stage.keys, shape[1:], stream=stage.ordinal)
    return _uniform(shape[0], shape[1:], stage.tokens.device).log_().neg_().log_().neg_()


def _keep_one(decision: Tensor, scores: Tensor, keep: Tensor | None) -> Tensor:
    """Keeps the most probable token of an image that a draw would leave without any.

    Inferred: the papers do not say what happens then; an image without patches has no mean and
    nothing for the class token to look at, and inference always keeps at least one.
    """
    if keep is None:
        kept, candidates = decision, scores
    else:
        kept = decision * keep
        candidates = scores.masked_fill(keep < 0.5, -math.inf)
    best = torch.zeros_like(decision).scatter(1, candidates.argmax(dim=1, keepdim=True), 1.0)
    return torch.where(kept.amax(dim=1, keepdim=True) < 0.5, best, decision)
