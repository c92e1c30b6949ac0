"""Operators under a default device that is not that of their tensors."""

import pytest
import torch

from kernels import (
    gather_layer_norm,
    gather_rows,
    masked_attention,
    ragged_attention,
    scatter_rows,
    select_tokens,
)

CALLS = {
    "masked_attention": lambda x, impl: masked_attention(
        *(x.view(1, 6, 2, 4).transpose(1, 2),) * 3, (x[None, :, 0] > 0).float(), impl=impl
    ),
    "ragged_attention": lambda x, impl: ragged_attention(
        *(x.view(6, 2, 4),) * 3, CU_SEQLENS, 4, rows=ROWS, impl=impl
    ),
    "select_tokens": lambda x, impl: select_tokens(x.half(), threshold=0.1, impl=impl).indices,
    "gather_rows": lambda x, impl: gather_rows(x, ROWS, impl=impl),
    "gather_layer_norm": lambda x, impl: gather_layer_norm(x, ROWS, impl=impl)[1],
    "scatter_rows": lambda x, impl: scatter_rows(x, ROWS, 9, 1.5, impl=impl),
}
CU_SEQLENS = torch.tensor([0, 2, 6], dtype=torch.int32)
ROWS = torch.tensor([5, 0, 3, 1, 4, 2])


@pytest.mark.parametrize("impl", ["reference", "triton", None], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_the_default_device_does_not_matter(name: str, impl: str | None) -> None:
    x = torch.randn(6, 8)
    expected = CALLS[name](x, impl)
    with torch.device("meta"):
        assert torch.equal(CALLS[name](x, impl), expected)
