"""Random numbers that depend only on what is drawn, never on the order of drawing."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

IDENTITY, POSE, CAMERA, FRAME, OCCLUSION, PLAN, NOISE = range(1, 8)


class Stream:
    """A sequence of numbers that belongs to one key.

    Args:
        key: Non-negative integers; a purpose, a seed and whatever numbers say what is drawn.
    """

    def __init__(self, *key: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
        self._values: list[float] = self._generator.random(96).tolist()
        self._next = 0

    def random(self) -> float:
        """The next number in [0, 1)."""
        if self._next == len(self._values):
            self._values = self._generator.random(96).tolist()
            self._next = 0
        self._next += 1
        return self._values[self._next - 1]

    def uniform(self, low: float, high: float) -> float:
        """The next number in [low, high)."""
        return low + (high - low) * self.random()

    def normal(self) -> float:
        """A bell-shaped number of variance one, at most three in magnitude."""
        return 2.0 * (self.random() + self.random() + self.random()) - 3.0

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.random() < probability

    def integer(self, count: int) -> int:
        """An integer in [0, count)."""
        return int(self.random() * count)

    def choice(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[self.integer(len(options))]

    def weighted(self, options: Sequence[tuple[T, float]]) -> T:
        """One of the (option, weight) pairs; the weights need not sum to one."""
        left = self.random() * sum(weight for _, weight in options)
        for option, weight in options:
            left -= weight
            if left < 0:
                return option
        return options[-1][0]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """The options in random order."""
        order = list(options)
        for index in range(len(order) - 1, 0, -1):
            other = self.integer(index + 1)
            order[index], order[other] = order[other], order[index]
        return order
