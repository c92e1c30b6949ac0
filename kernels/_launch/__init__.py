"""How kernels are launched: pure functions from the problem to tile sizes, warps and stages."""

from kernels._launch.architecture import ARCHITECTURES, Architecture, architecture, limits
from kernels._launch.attention import (
    attention_forward,
    attention_grad,
    attention_grad_keys,
    attention_grad_queries,
    ragged_forward,
    ragged_grad,
    ragged_grad_keys,
    ragged_grad_queries,
)
from kernels._launch.choice import KERNELS, candidates, choose, explain, override
from kernels._launch.config import (
    MAX_HEAD_DIM,
    LaunchConfig,
    Problem,
    padded_head_dim,
    power_of_two,
    tail,
)

__all__ = [
    "ARCHITECTURES",
    "KERNELS",
    "MAX_HEAD_DIM",
    "Architecture",
    "LaunchConfig",
    "Problem",
    "architecture",
    "attention_forward",
    "attention_grad",
    "attention_grad_keys",
    "attention_grad_queries",
    "candidates",
    "choose",
    "explain",
    "limits",
    "override",
    "padded_head_dim",
    "power_of_two",
    "ragged_forward",
    "ragged_grad",
    "ragged_grad_keys",
    "ragged_grad_queries",
    "tail",
]
