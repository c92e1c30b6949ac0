"""Optimisers with the field's parameter groups."""

import torch
from torch import nn

from reid.config import OptimConfig

EMBEDDINGS = (".cls_token", ".pos_embed", ".reg_token", ".dist_token")


def build_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Group the trainable parameters and build the optimiser.

    Biases learn at `bias_lr_factor` times the rate (TransReID), token selectors at
    `selector_lr_factor` times, the identity classifier at `head_lr_factor` times. AdamW
    decays matrices only, no embedding of a token or position.

    Args:
        module: The module to train; frozen parameters are left out.
        config: Name, rates and decay.

    Returns:
        The optimiser; each group carries `lr_scale`, its multiple of the schedule.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = config.bias_lr_factor if name.endswith("bias") else 1.0
        if ".selectors." in name:
            scale *= config.selector_lr_factor
        elif "classifier." in name:
            scale *= config.head_lr_factor
        decays = config.name == "sgd" or (parameter.ndim > 1 and not name.endswith(EMBEDDINGS))
        key = (scale, config.weight_decay if decays else 0.0)
        groups.setdefault(key, []).append(parameter)
    parameters = [
        {"params": members, "weight_decay": decay, "lr": config.lr * scale, "lr_scale": scale}
        for (scale, decay), members in groups.items()
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr)
    return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum)
