"""`optimize`: a trained model as a callable that spends its time in matrix products.

Tokens of all images are rows of one (sum of lengths, C) matrix from the first block to the last:
every linear layer is one product, whatever each image has kept.
"""

import copy
import math
from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sparse_vit.engine.block import EngineBlock, check_blocks
from sparse_vit.engine.build import Builder
from sparse_vit.engine.describe import Description
from sparse_vit.engine.embed import Embedding
from sparse_vit.engine.gpu import LARGEST, Outputs, compiled
from sparse_vit.engine.head import Head
from sparse_vit.engine.lengths import Lengths
from sparse_vit.engine.quantized import int8_reasons
from sparse_vit.engine.reduced import ReducedBlocks
from sparse_vit.engine.stages import EngineStage, rules_of
from sparse_vit.model import SparseVisionTransformer, SparseVisionTransformerDistilled
from sparse_vit.schedule import AdaptiveSchedule, PruningSchedule
from sparse_vit.selectors import ClassAttention, KeepPredictor

__all__ = ["Engine", "optimize"]

MODELS = (
    VisionTransformer,
    VisionTransformerDistilled,
    SparseVisionTransformer,
    SparseVisionTransformerDistilled,
)
DTYPES = (torch.float32, torch.bfloat16)
DEFAULT_BATCH = 8
BYTES_OF_A_THREAD = 16 << 20
"""Of activations in flight."""


def optimize(
    model: nn.Module,
    dtype: torch.dtype | None = None,
    batch: int | None = None,
    adaptive: AdaptiveSchedule | None = None,
) -> "Engine":
    """Makes a fast inference callable of a model.

    The weights are copied: a later change of the model is not seen, so optimize it again. The
    result returns what the model returns in evaluation mode, in float32: in float32 to rounding,
    with the same kept tokens unless two scores are within rounding of each other; in bfloat16
    tokens near the cut may differ.

    Args:
        model: a `SparseVisionTransformer` or timm's VisionTransformer (dense), in evaluation mode.
        dtype: float32, bfloat16, int8 on the processor, float16 on a GPU; None for float32. With
            int8 the linear layers of the
            blocks multiply 8-bit integers where that is faster, all else stays float32: what it
            costs, `agreement` tells.
        batch: size of the batches to expect, for which the fastest linear operator is chosen by a
            short race; 8 by default. Every size works.
        adaptive: thresholds that make the number of kept tokens depend on the image; None for the
            schedule of the model.

    Returns:
        The engine, to be called with (B, 3, H, W) images.

    Raises:
        TypeError: for a model or a part of it that the engine cannot run, by class name.
        ValueError: for a model in training mode, or options that do not fit it.
    """
    if type(model) not in MODELS:
        raise TypeError(
            f"cannot optimize a {type(model).__name__}; expected a SparseVisionTransformer or "
            "timm's VisionTransformer"
        )
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() before optimize")
    device = next(model.parameters()).device
    dtypes = (*DTYPES, torch.float16 if device.type == "cuda" else torch.int8)
    if dtype is not None and dtype not in dtypes:
        raise ValueError(
            f"dtype {dtype} is not supported on {device.type}; choose one of "
            f"{', '.join(map(str, dtypes))}"
        )
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 1):
        raise ValueError(f"batch {batch!r} is no batch size; give a number of images of 1 or more")
    if adaptive is not None and not isinstance(model, SparseVisionTransformer):
        raise ValueError("adaptive chooses how many tokens stay, but the model is dense")
    if isinstance(model, SparseVisionTransformer) and model.reduction != "prune" and adaptive:
        raise ValueError(
            f"adaptive goes with reduction='prune', the model has {model.reduction!r}; leave "
            "adaptive out"
        )
    check_blocks(model.blocks)  # type: ignore[arg-type]
    why = int8_reasons() if dtype == torch.int8 else []
    if why:
        raise ValueError(f"dtype torch.int8 is not available: {'; '.join(why)}; use torch.float32")
    return Engine(model, dtype or torch.float32, batch or DEFAULT_BATCH, adaptive)


class Engine:
    """A model ready to run; made by `optimize`.

    Calls keep no state between them and may come from several threads.
    """

    def __init__(
        self, model: Any, dtype: torch.dtype, batch: int, adaptive: AdaptiveSchedule | None
    ) -> None:
        weight = model.patch_embed.proj.weight
        self.device, self.adaptive = weight.device, adaptive
        self.int8 = dtype == torch.int8
        self.dtype = torch.float32 if self.int8 else dtype
        # Everything but the blocks, which come as layers of the engine.
        shell: Any = copy.deepcopy(model, {id(model.blocks): nn.Sequential()})
        shell.requires_grad_(False)
        self.prefix = int(shell.num_prefix_tokens)
        self.schedule: PruningSchedule = getattr(shell, "schedule", PruningSchedule((), ()))
        self.reduction: str = getattr(shell, "reduction", "prune")
        self.notes = Description(str(self.device), str(dtype).removeprefix("torch."), self._says())
        build = Builder(self.dtype, self.int8, self.device, batch, self.notes)
        with torch.inference_mode():
            self.embedding = Embedding(shell, build)
            self.head = Head(shell, adaptive is not None, build)
            self._blocks(model, shell, build)
            build.compare_precisions(model.blocks[0].mlp)
        kinds = {type(selector) for selector in getattr(shell, "selectors", ())}
        self.independent = kinds <= {KeepPredictor, ClassAttention}
        self.patch_area = math.prod(shell.patch_embed.patch_size)
        # Residual stream, its norm, qkv, attention, and the hidden layer of an MLP.
        ratio = model.blocks[0].mlp.fc2.in_features / shell.embed_dim
        self.row_bytes = int((6 + ratio) * shell.embed_dim * self.dtype.itemsize)
        self._serve = compiled(self._run, self.notes) if self.device.type == "cuda" else self._run

    def _blocks(self, model: Any, shell: Any, build: Builder) -> None:
        patches = int(shell.patch_embed.num_patches or 196)
        counts = self.schedule.counts(patches)
        few = self.prefix if self.head.reads_prefix_only else None
        self.reduced: ReducedBlocks | None = None
        if self.reduction != "prune":
            arguments = self.reduction, self.schedule, patches, self.prefix, few
            self.reduced = ReducedBlocks(model.blocks, *arguments, build)
            return
        self.wanted = {
            stage - 1
            for s, stage in enumerate(self.schedule.stages)
            if shell.selector(s).needs_class_attention
        }
        rules_of(counts, self.adaptive, patches)
        self.blocks: list[EngineBlock] = []
        self.stages: dict[int, EngineStage] = {}
        tokens, last = self.prefix + patches, len(model.blocks) - 1
        for i, block in enumerate(model.blocks):
            entering = tokens
            ordinal = self.schedule.stages.index(i) if i in self.schedule.stages else None
            if ordinal is not None:
                tokens = self.prefix + counts[ordinal]
            alone = few if i == last else None
            made = EngineBlock(f"blocks.{i}", block, tokens, alone, build)
            self.blocks.append(made)
            if ordinal is not None:
                selector = shell.selector(ordinal)
                self.stages[i] = EngineStage(
                    ordinal, selector, entering, self.prefix, made.norm1, build
                )

    def __call__(self, images: Tensor) -> Tensor:
        """Runs the model.

        Args:
            images: (B, 3, H, W) float32 (or the dtype of the engine), B of 0 or more. An image with
                a NaN or infinity gives NaN, and changes nothing for the others. With int8 others do
                have a part in a result: the range of the integers is that of the batch.

        Returns:
            What `model(images)` returns, in float32.

        Raises:
            ValueError: for images of another type, shape, dtype or device.
        """
        return self.with_kept(images)[0]

    def with_kept(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same with what every stage kept.

        Returns:
            The output, and per stage a (B, N) bool mask over the original patches.
        """
        self.embedding.check(images, self.device)
        with torch.inference_mode():
            if not len(images):
                output, kept = self._run_empty(images)
            elif self.int8:
                output, kept = self._run_finite(images)
            else:
                output, kept = self._run_parts(images)
        # Ordinary tensors, with which autograd may go on.
        return output.clone(), [mask.clone() for mask in kept]

    def describe(self) -> Description:
        """Which path every part takes, and why."""
        return self.notes

    def _run_empty(self, images: Tensor) -> Outputs:
        output, kept = self._run(images.new_zeros(1, *images.shape[1:]))
        return output[:0], [mask[:0] for mask in kept]

    def _run_finite(self, images: Tensor) -> Outputs:
        """Keeps images that are not finite away from the others, with which they share a range."""
        finite = images.flatten(1).sum(dim=1, dtype=torch.float64).isfinite()
        if finite.all():
            return self._run_parts(images)
        output, kept = self._run_parts(images.where(finite[:, None, None, None], 0.0))
        output[~finite] = torch.nan
        return output, kept

    def _run_parts(self, images: Tensor) -> Outputs:
        parts = torch.split(images, self._images_at_once(images))
        if len(parts) == 1:
            return self._serve(images)
        outputs, kept = zip(*(self._serve(part) for part in parts), strict=True)
        return torch.cat(outputs), [torch.cat(masks) for masks in zip(*kept, strict=True)]

    def _images_at_once(self, images: Tensor) -> int:
        """As many images as the caches hold the activations of, or as a graph takes.

        Large temporaries are given back to the system and touched anew at every call; smaller
        ones are not.
        """
        if self.device.type == "cuda":
            return LARGEST
        if not self.independent:
            return len(images)
        rows = self.prefix + math.prod(images.shape[-2:]) // self.patch_area
        wanted = rows * self.row_bytes
        most = max(1, torch.get_num_threads() * BYTES_OF_A_THREAD // wanted)
        # Parts of about the same size.
        return math.ceil(len(images) / math.ceil(len(images) / most))

    def scores_at(self, images: Tensor, ordinal: int) -> list[Tensor]:
        """Scores of the patch tokens that reach a stage, by which `calibrate` finds thresholds.

        Args:
            images: as of a call, one or more.
            ordinal: number of the stage, from 0.

        Returns:
            Per image, (n,) float32.
        """
        self.embedding.check(images, self.device)
        with torch.inference_mode():
            scores, (present,) = self._run(images, ordinal)
            return [row[there] for row, there in zip(scores, present, strict=True)]

    def _run(self, images: Tensor, until: int | None = None) -> Outputs:
        """The output and what each stage kept; with `until`, what the stage of that number gets.

        Returns:
            As `with_kept`; or padded (B, n) scores and, as the only mask, where there is a token.
        """
        x = self.embedding(images)
        batch = images.shape[0]
        grid = x.shape[0] // batch - self.prefix
        lengths = Lengths.of(batch, self.prefix + grid, x.device)
        if self.reduced is not None:
            reduced = self.reduced(x, lengths, grid)
            return self.head(reduced.x, reduced.lengths, reduced.sizes), reduced.kept
        rules = rules_of(self.schedule.counts(grid), self.adaptive, grid)
        places: Tensor | None = None
        attention: Tensor | None = None
        kept: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            normed = None
            if i in self.stages:
                rule = rules[len(kept)]
                if until == len(kept):
                    found = self.stages[i].scores(x, lengths, places, attention, rule, grid)
                    return found[:, self.prefix :], [lengths.present()[:, self.prefix :]]
                x, normed, lengths, places = self.stages[i](
                    x, lengths, places, attention, rule, grid
                )
                kept.append(self._mask(places, lengths, grid))
            x, attention = block(x, normed, lengths, i in self.wanted)
        return self.head(x, lengths), kept

    def _mask(self, places: Tensor, lengths: Lengths, grid: int) -> Tensor:
        """(B, N) bool: the original patches among the rows."""
        total = self.prefix + grid
        # The column behind the last one takes what is padding.
        mask = places.new_zeros(lengths.images, total + 1, dtype=torch.bool)
        mask.scatter_(1, lengths.pad(places, total), True)
        return mask[:, self.prefix : total]

    def _says(self) -> str:
        if not self.schedule.stages:
            return "dense"
        if self.adaptive is not None:
            return f"adaptive before blocks {self.schedule.stages}: {self.adaptive}"
        kept = ", ".join(f"{ratio:.3g}" for ratio in self.schedule.ratios)
        if self.reduction != "prune":
            return f"{self.reduction}s to {kept} of the patches in blocks {self.schedule.stages}"
        return f"keeps {kept} of the patches before blocks {self.schedule.stages}"
