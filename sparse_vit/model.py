"""`sparsify`: a timm vision transformer that drops patch tokens as it goes.

One class, two forwards that agree. Training keeps all tokens in place and hides dropped ones behind
a mask, so that the decision gets a gradient; inference gathers the kept tokens and goes on with
fewer. For the same decision both give the same kept tokens to rounding.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sparse_vit.checks import check_divisible, check_model, refuse_mask
from sparse_vit.decisions import Decision
from sparse_vit.encoder import Encoding, encode_compacted, encode_masked
from sparse_vit.intermediates import forward_intermediates, scatter_tokens, to_layout
from sparse_vit.pooling import masked_attention_pool, masked_pool
from sparse_vit.reductions import REDUCTIONS, check_halving, encode_reduced
from sparse_vit.schedule import PruningSchedule
from sparse_vit.selectors import TokenSelector, build_selectors

__all__ = ["SparseVisionTransformer", "SparseVisionTransformerDistilled", "sparsify"]

REWEIGHT_MODES = ("off", "literal_after_norm", "pooled")


def sparsify(
    model: nn.Module,
    stages: Sequence[int] = (3, 6, 9),
    keep_ratio: float | Sequence[float] = 0.7,
    selector: str | TokenSelector | Sequence[str | TokenSelector] = "predictor",
    reweight: str = "off",
    reduction: str = "prune",
) -> "SparseVisionTransformer":
    """Turns a timm vision transformer into one that goes on with fewer patch tokens.

    The result shares the parameters of the given model (the same Parameter objects) and none of
    its other state; the given model stays as it is. Prefix tokens (class, distillation, register)
    are never dropped.

    Args:
        model: timm VisionTransformer or VisionTransformerDistilled made of the standard Block.
        stages: indices (from 0) of the blocks before which tokens are dropped.
        keep_ratio: p leaves p, p^2, p^3, ... of the original patch tokens at successive stages; a
            sequence sets the fraction of the original patch tokens for each stage.
        selector: "predictor" (learned, needs training), "class_attention" or "random" (training
            free), a `TokenSelector`, or a sequence with one of these per stage.
        reweight: "off"; "literal_after_norm", in training the class token times 1 + lambda;
            "pooled", in training the class token plus lambda times the patch tokens averaged by
            the class token's attention in the last block. Lambda is learned from 0.5; inference
            ignores it. Inferred: SUReID (arXiv 2401.07469) Eq. 7-8 as printed changes nothing but
            the scale of the class token, hence "off" by default and the two readings beside it.
        reduction: what happens to the tokens that do not stay. "prune" drops them; "fuse" keeps
            those with the highest class attention and fuses the others into one (EViT, arXiv
            2202.07800); "merge" merges the most similar pairs (ToMe, arXiv 2210.09461), at most
            half of the tokens in a stage. The last two need no training, take no selector, reduce
            in the middle of the block of each stage, and do the same in training and inference.

    Returns:
        The sparse model, in training mode if the given one is.

    Raises:
        TypeError: for a model, block, attention or MLP that cannot be honoured, by class name.
        ValueError: for stages, ratios or options that do not fit the model.
    """
    if type(model) is VisionTransformer:
        return SparseVisionTransformer(model, stages, keep_ratio, selector, reweight, reduction)
    if type(model) is VisionTransformerDistilled:
        return SparseVisionTransformerDistilled(
            model, stages, keep_ratio, selector, reweight, reduction
        )
    raise TypeError(
        f"cannot sparsify a {type(model).__name__}; expected timm's VisionTransformer or "
        "VisionTransformerDistilled, e.g. timm.create_model('deit_small_patch16_224')"
    )


class SparseVisionTransformer(VisionTransformer):
    """A timm VisionTransformer with token selection; made by `sparsify`.

    All of timm's interface works; state dicts use timm's names for the shared weights, and
    `selectors.*` (and `reweight_scale`) for what is new.

    Attributes:
        schedule: stages and ratios.
        selectors: one selector per stage; none where tokens are fused or merged.
        reduction: "prune", "fuse" or "merge".
    """

    def __init__(
        self,
        model: VisionTransformer,
        stages: Sequence[int],
        keep_ratio: float | Sequence[float],
        selector: str | TokenSelector | Sequence[str | TokenSelector],
        reweight: str,
        reduction: str = "prune",
    ) -> None:
        nn.Module.__init__(self)
        check_model(model)
        schedule = PruningSchedule.build(stages, keep_ratio, len(model.blocks))
        # A deep copy whose memo holds the tensors: new modules around the same parameters.
        tensors = [*model.parameters(), *model.buffers()]
        twin = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
        for name, value in vars(twin).items():
            if name in ("_parameters", "_buffers", "_modules"):
                vars(self)[name].update(value)
            elif name not in vars(self) or name == "training":
                vars(self)[name] = value

        self.schedule = schedule
        weight = self.patch_embed.proj.weight
        self.reduction = reduction
        self._check_reduction(selector)
        self.selectors = nn.ModuleList()
        if reduction == "prune":
            self.selectors = build_selectors(selector, schedule.ratios, self.embed_dim)
        self.selectors.to(device=weight.device, dtype=weight.dtype)
        self.selectors.train(self.training)
        self._check_selectors()
        self.reweight = reweight
        self._check_reweight()
        if reweight != "off":
            self.reweight_scale = nn.Parameter(weight.new_tensor(0.5))

    def _check_reduction(self, selector: Any) -> None:
        if self.reduction not in REDUCTIONS:
            raise ValueError(
                f"reduction {self.reduction!r} is unknown; expected one of {REDUCTIONS}"
            )
        if self.reduction == "prune":
            return
        if selector != "predictor":
            raise ValueError(
                f"reduction={self.reduction!r} decides by itself and takes no selector, got "
                f"{selector!r}; leave selector out, or use reduction='prune'"
            )
        if self.reduction == "fuse" and not self.has_class_token:
            raise ValueError(
                "reduction='fuse' reads the class token's attention, but the model has no class "
                "token; use 'merge' or 'prune'"
            )
        if self.reduction == "merge" and self.patch_embed.img_size is not None:
            check_halving(self.patch_embed.num_patches, self.keep_counts)

    def _check_selectors(self) -> None:
        for s, stage in enumerate(self.schedule.stages if len(self.selectors) else ()):
            module = self.selector(s)
            if not module.needs_class_attention:
                continue
            name = type(module).__name__
            if not self.has_class_token:
                raise ValueError(
                    f"{name} reads the class token's attention, but the model has no class token; "
                    "use selector='predictor' or 'random'"
                )
            if stage == 0:
                raise ValueError(
                    f"{name} reads the attention of the previous block, but stage 0 has none; "
                    "start at stage 1 or use another selector there"
                )

    def _check_reweight(self) -> None:
        if self.reweight not in REWEIGHT_MODES:
            raise ValueError(
                f"reweight {self.reweight!r} is unknown; expected one of {REWEIGHT_MODES}"
            )
        if self.reweight == "pooled" and self.reduction != "prune":
            raise ValueError(
                f"reweight='pooled' needs reduction='prune', got {self.reduction!r}; use "
                "reweight='off'"
            )
        if self.reweight != "off" and (not self.has_class_token or self.global_pool != "token"):
            raise ValueError(
                f"reweight={self.reweight!r} scales the class token's feature, but the model pools "
                f"with global_pool={self.global_pool!r}; use reweight='off'"
            )

    def selector(self, ordinal: int) -> TokenSelector:
        """The selector of a stage, counted from 0."""
        selector = self.selectors[ordinal]
        assert isinstance(selector, TokenSelector)
        return selector

    @property
    def keep_counts(self) -> list[int]:
        """Patch tokens left after each stage at the model's own image size.

        With reduction "fuse" the fused token comes on top.
        """
        return self.schedule.counts(self.patch_embed.num_patches)

    def set_keep_ratio(self, keep_ratio: float | Sequence[float]) -> None:
        """Changes how many tokens stay from now on; see `sparsify`.

        Raises:
            ValueError: for a ratio outside (0, 1] or ratios that do not fit the stages.
        """
        stages = self.schedule.stages
        schedule = PruningSchedule.build(stages, keep_ratio, len(self.blocks))
        if self.reduction == "merge" and self.patch_embed.img_size is not None:
            patches = self.patch_embed.num_patches
            check_halving(patches, schedule.counts(patches))
        self.schedule = schedule

    def forward_features(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Encodes images.

        Args:
            x: (B, 3, H, W) images.
            attn_mask: must be None: there is no attention mask beside the selection.
            is_causal: must be False.

        Returns:
            Tokens after the final norm, prefix tokens first: (B, P + N, C) in training, with
            dropped tokens still in place, and (B, P + k, C) in inference.

        Raises:
            ValueError: for an attention mask, or an image size that the model does not take.
        """
        refuse_mask(attn_mask, is_causal)
        return self._encode(x).tokens

    def forward_head(
        self, x: Tensor, pre_logits: bool = False, *, keep: Tensor | None = None
    ) -> Tensor:
        """Pools kept tokens and classifies.

        Args:
            x: tokens from `forward_features`.
            pre_logits: whether to return the features that the classifier sees.
            keep: (B, P + N) 0/1, needed in training where a head pools tokens other than the
                class token: ones for the prefix, then `mask` of the last decision.

        Returns:
            (B, num_classes), or (B, C).

        Raises:
            ValueError: if the mask is needed and missing.
        """
        merges = self.reduction == "merge"
        masks = self.reduction == "prune" and self.training
        if not self._pools_patches or not self.schedule.stages or not (merges or masks):
            return super().forward_head(x, pre_logits)
        if keep is None and merges:
            return super().forward_head(x, pre_logits)
        if keep is None:
            raise ValueError(
                f"in training, global_pool={self.global_pool!r} pools kept tokens only: pass "
                "keep=, or call the model or forward_with_decisions instead"
            )
        x = self.head_drop(self.fc_norm(self._pool_kept(x, keep)))
        return x if pre_logits else self.head(x)

    @property
    def _pools_patches(self) -> bool:
        return self.global_pool not in ("token", "")

    def _pool_kept(self, x: Tensor, keep: Tensor) -> Tensor:
        # Earlier timm has no such option and gives all tokens to an attention pooling.
        if not getattr(self, "pool_include_prefix", self.attn_pool is not None):
            x, keep = x[:, self.num_prefix_tokens :], keep[:, self.num_prefix_tokens :]
        if self.attn_pool is not None:
            return masked_attention_pool(self.attn_pool, x, keep)
        return masked_pool(x, keep, self.global_pool)

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Classifies images as the timm model does; (B, 3, H, W) -> (B, num_classes).

        With num_classes=0 the result is the pooled feature (B, C). The other arguments are as of
        `forward_features`.
        """
        refuse_mask(attn_mask, is_causal)
        encoding = self._encode(x, pooled=True)
        return self.forward_head(encoding.tokens, keep=encoding.keep)

    def forward_with_decisions(
        self, x: Tensor, *, keys: Tensor | None = None
    ) -> tuple[Tensor, list[Decision]]:
        """Classifies images and says which tokens were kept.

        Args:
            x: (B, 3, H, W) images.
            keys: (B,) int64; makes random draws a pure function of (key, stage, token), the same
                for any batch, rank or device. None draws from torch's generator.

        Returns:
            What `model(x)` returns, and one `Decision` per stage.
        """
        encoding = self._encode(x, keys=keys, collect=True, pooled=True)
        return self.forward_head(encoding.tokens, keep=encoding.keep), encoding.decisions

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Any:
        """Features of inner blocks, as timm gives them; dropped tokens are zeros in inference.

        Args:
            x: (B, 3, H, W) images.
            indices: the last n blocks, a list of blocks, or None for all.
            return_prefix_tokens: whether to pair each feature with its prefix tokens.
            norm: whether to apply the final norm to each of them.
            stop_early: whether to skip blocks after the last one asked for.
            output_fmt: "NCHW" for (B, C, H', W') or "NLC" for (B, N, C), both on the full grid.
            intermediates_only: whether to leave out the final tokens.
            output_dict: whether to return a dictionary with timm's names.
            attn_mask: must be None.
            is_causal: must be False.

        Returns:
            (tokens, list of features), the list alone, or the dictionary.
        """
        refuse_mask(attn_mask, is_causal)
        return forward_intermediates(
            self,
            x,
            indices,
            return_prefix_tokens,
            norm,
            stop_early,
            output_fmt,
            intermediates_only,
            output_dict,
        )

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | list[int] | tuple[int] = 1,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        attn_mask: Tensor | None = None,
    ) -> list[Tensor]:
        """DINO's interface to `forward_intermediates`: (B, C, H', W') if `reshape`, else NLC."""
        return self.forward_intermediates(
            x,
            n if isinstance(n, int) else list(n),
            return_prefix_tokens=return_prefix_tokens,
            norm=norm,
            output_fmt="NCHW" if reshape else "NLC",
            intermediates_only=True,
            attn_mask=attn_mask,
        )

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes the blocks after the last one asked for, and their stages; as timm's."""
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        stages = tuple(stage for stage in self.schedule.stages if stage < len(self.blocks))
        self.schedule = PruningSchedule(stages, self.schedule.ratios[: len(stages)])
        self.selectors = self.selectors[: len(stages)]
        return taken

    def scatter_to_grid(
        self,
        tokens: Tensor,
        indices: Tensor,
        fill: float = 0.0,
        *,
        grid_size: tuple[int, int] | None = None,
        layout: str = "NCHW",
    ) -> Tensor:
        """Puts kept patch tokens back to their places, for dense heads and part features.

        Args:
            tokens: (B, k, C) patch tokens, without the prefix tokens.
            indices: (B, k) int64, `indices` of the last decision.
            fill: value at the places of dropped tokens.
            grid_size: rows and columns of patches; the model's own by default.
            layout: "NCHW" or "NLC".

        Returns:
            (B, C, H', W') or (B, N, C).
        """
        grid = grid_size or tuple(self.patch_embed.grid_size)
        full = scatter_tokens(tokens, indices, grid[0] * grid[1], fill)
        return to_layout(full, grid, layout)

    def _encode(
        self,
        x: Tensor,
        *,
        keys: Tensor | None = None,
        collect: bool = False,
        taps: Sequence[int] = (),
        last_block: int | None = None,
        pooled: bool = False,
    ) -> Encoding:
        """Runs the embedding, the blocks and the final norm; see `sparse_vit.encoder`."""
        if keys is not None and keys.shape != x.shape[:1]:
            raise ValueError(
                f"keys has shape {tuple(keys.shape)} for a batch of {x.shape[0]}; pass one int64 "
                "key per image"
            )
        grid = self._grid_size(x)
        tokens = self.norm_pre(self._pos_embed(self.patch_embed(x)))
        expected = self.num_prefix_tokens + grid[0] * grid[1]
        if tokens.shape[1] != expected:
            raise ValueError(
                f"the embedding gives {tokens.shape[1]} tokens, expected {expected} "
                f"({self.num_prefix_tokens} prefix tokens and a grid of {grid[0]}x{grid[1]}); "
                "sparsify needs one token per patch"
            )
        blocks = self.blocks if last_block is None else self.blocks[: last_block + 1]
        if self.reduction != "prune":
            encode = encode_reduced
        else:
            encode = encode_masked if self.training else encode_compacted
        pooled = pooled and self.global_pool == "token" and self.num_prefix_tokens > 0
        encoding = encode(self, blocks, tokens, grid, keys, collect, taps, pooled)
        encoding.tokens = self.norm(encoding.tokens)
        if self.training and self.reweight != "off":
            encoding.tokens = self._reweight(encoding)
        return encoding

    def _reweight(self, encoding: Encoding) -> Tensor:
        """Changes the class token in training as `reweight` says; see `sparsify`.

        Inferred: for "pooled", the attention is a softmax over all kept tokens, prefix included,
        of which the patches' share is used as it is.
        """
        x = encoding.tokens
        scale = self.reweight_scale.to(x.dtype)
        cls, rest = x[:, :1], x[:, 1:]
        if self.reweight == "literal_after_norm":
            return torch.cat((cls * (1 + scale), rest), dim=1)
        if encoding.class_attention is None:
            return x
        patches = x[:, self.num_prefix_tokens :]
        weights = encoding.class_attention[:, None].to(x.dtype)
        return torch.cat((cls + scale * (weights @ patches), rest), dim=1)

    def _grid_size(self, x: Tensor) -> tuple[int, int]:
        """Checks the image size and returns the grid of patches (rows, columns)."""
        embed = self.patch_embed
        size = tuple(x.shape[-2:])
        if x.ndim != 4:
            raise ValueError(f"images have shape {tuple(x.shape)}; expected (B, 3, H, W)")
        if getattr(embed, "strict_img_size", True) and size != tuple(embed.img_size):
            raise ValueError(
                f"images are {size[0]}x{size[1]} but the model takes {embed.img_size[0]}x"
                f"{embed.img_size[1]}; resize them, call model.set_input_size(img_size={size}), or "
                "build the timm model with dynamic_img_size=True"
            )
        check_divisible(embed, size)
        rows, columns = embed.dynamic_feat_size(size)
        return rows, columns

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay: timm's and the reweighting scale."""
        return {*super().no_weight_decay(), "reweight_scale"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layer groups for layer-wise learning rates: timm's, with selectors in the last."""
        groups = dict(super().group_matcher(coarse=coarse))
        blocks = groups["blocks"]
        groups["blocks"] = [*blocks, (r"^selectors|^reweight_scale", (99999,))]
        return groups


class SparseVisionTransformerDistilled(SparseVisionTransformer, VisionTransformerDistilled):
    """A sparse DeiT with a distillation token, which is never dropped, and its second head."""
