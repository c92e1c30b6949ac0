"""The learning rate as a pure function of the step, so that resuming needs no state."""

import math

from reid.config import OptimConfig


def learning_rate(step: int, total: int, config: OptimConfig) -> float:
    """Linear warm-up, then cosine decay to a floor.

    Loshchilov and Hutter, SGDR (arXiv 1608.03983), one cycle.

    Args:
        step: Optimiser step, counted from 0.
        total: Optimiser steps of the whole run.
        config: Peak, warm-up and floor.

    Returns:
        The learning rate of this step.
    """
    warmup = round(config.warmup * total)
    if step < warmup:
        share = config.warmup_factor + (1.0 - config.warmup_factor) * step / warmup
        return config.lr * share
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.lr * (config.final_factor + (1.0 - config.final_factor) * cosine)
