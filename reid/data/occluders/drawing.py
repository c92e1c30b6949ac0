"""The default occluders: every kind in three variants."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from reid.data.occluders import plants, street, things
from reid.data.occluders.canvas import Canvas

VARIANTS = 3

KINDS: tuple[Callable[[np.random.Generator], Canvas], ...] = (
    plants.broadleaf,
    plants.conifer,
    plants.shrub,
    plants.hedge,
    plants.potted_plant,
    plants.trunk,
    plants.boulder,
    street.wheelie_bin,
    street.litter_bin,
    street.bollard,
    street.lamp_post,
    street.sign_post,
    street.fence,
    street.barrier,
    street.cone,
    street.mailbox,
    things.bicycle,
    things.crates,
    things.parcel,
    things.suitcase,
    things.trolley,
    things.barrel,
    things.ladder,
    things.bench,
)


def draw_all(seed: int) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Draw the default bank.

    Args:
        seed: Same seed, same drawings.

    Yields:
        name and (h, w, 4) uint8 RGBA cut-out.
    """
    for number, kind in enumerate(KINDS):
        for variant in range(VARIANTS):
            rng = np.random.default_rng([seed, number, variant])
            yield f"{kind.__name__}_{variant}", kind(rng).finish(rng)
