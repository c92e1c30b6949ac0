"""The count of operations against torch's counter of what the plain model runs."""

from typing import Any

import pytest
import torch
from test_sparse_vit_engine import STAGES, VARIANTS, build, images
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sparse_vit import constant_merging, flops, sparsify

REDUCED: dict[str, dict[str, Any]] = {
    "predictor": {"selector": "predictor"},
    "class_attention": {"selector": "class_attention"},
    "random": {"selector": "random"},
    "mixed": {"selector": ("predictor", "class_attention", "random")},
    "fuse": {"reduction": "fuse"},
    "merge": {"reduction": "merge"},
}
SAME_SIZE = [name for name in VARIANTS if name not in ("padded", "all_tokens")]


def counted(model: Any) -> int:
    """What torch counts of all blocks, the final norm and the head."""
    model.eval()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        encoding = model._encode(images(1)) if hasattr(model, "_encode") else None
        if encoding is None:
            model(images(1))
        else:
            model.forward_head(encoding.tokens, keep=encoding.keep)
    return counter.get_total_flops()


@pytest.mark.parametrize("variant", SAME_SIZE)
def test_equals_the_counter_on_dense_models(variant: str) -> None:
    model = build(**VARIANTS[variant])
    assert flops(model) == counted(model)


@pytest.mark.parametrize("included", [False, True])
def test_attention_pooling_reads_registers_if_told_to(included: bool) -> None:
    options = {"global_pool": "map", "class_token": False, "reg_tokens": 2}
    model = build(**options, pool_include_prefix=included)
    assert model.pool_include_prefix is included
    assert flops(model) == counted(model)


@pytest.mark.parametrize("variant", ["plain", "registers", "attention_pool", "rms_norm_and_glu"])
@pytest.mark.parametrize("reduction", REDUCED)
def test_equals_the_counter_on_sparse_models(reduction: str, variant: str) -> None:
    vit = build(**VARIANTS[variant])
    if not vit.has_class_token and reduction in ("class_attention", "mixed", "fuse"):
        pytest.skip("reads the class token's attention, sparsify says so")
    model = sparsify(vit, STAGES, 0.8, **REDUCED[reduction])
    assert flops(model) == counted(model)
    assert flops(model) < flops(sparsify(vit, STAGES, 0.9, **REDUCED[reduction]))


def test_equals_the_counter_when_merging_in_every_block() -> None:
    model = sparsify(build(), *constant_merging(18, 4, 3), reduction="merge")
    assert flops(model) == counted(model)


def test_the_last_block_for_the_prefix_alone() -> None:
    model = build(reg_tokens=2)
    whole, few, width, hidden = 21, 3, 32, 128
    # Queries, projection and MLP of 18 tokens less, and their rows of both attention products.
    saved = 18 * 2 * (2 * width * width + 2 * width * hidden) + 4 * 18 * whole * width
    assert flops(model) - flops(model, pooled=True) == saved
    assert few + 18 == whole
    pooling = build(global_pool="avg")
    assert flops(pooling, pooled=True) == flops(pooling)


def test_counts_of_ones_own() -> None:
    model = sparsify(build(), STAGES, (0.8, 0.5, 0.3), selector="random")
    assert flops(model, counts=model.keep_counts) == flops(model)
    assert flops(model, counts=(18, 18, 18)) == flops(build())
    with pytest.raises(ValueError, match="2 values for 3 stages"):
        flops(model, counts=(3, 2))
    with pytest.raises(ValueError, match="dense"):
        flops(build(), counts=(3, 2, 1))


def test_models_that_are_not_known() -> None:
    with pytest.raises(TypeError, match="Linear"):
        flops(nn.Linear(2, 2))
    vit = build()
    vit.blocks[1] = nn.Identity()
    with pytest.raises(TypeError, match=r"blocks\.1 is a Identity"):
        flops(vit)


def test_deit_small_is_as_published() -> None:
    import timm

    with torch.device("meta"):
        model = timm.create_model("deit_small_patch16_224")
    # Touvron et al. (arXiv 2012.12877), Table 5, print 4.6 G multiply-adds.
    assert round(flops(model) / 2e9, 1) == 4.6
