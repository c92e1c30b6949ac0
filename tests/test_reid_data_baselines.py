"""Descriptors without knowledge."""

import itertools

import numpy as np

from reid.data.mannequins import Spec, render_many
from reid.data.mannequins.baselines import chance, colour_histogram


def test_colour_histogram_equals_a_plain_count() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 18, 10), dtype=np.uint8)
    features = colour_histogram(images, stripes=4, bins=3)
    assert features.dtype == np.float32
    for n in range(3):
        expected = []
        for stripe in range(4):
            rows = range(stripe * 18 // 4, (stripe + 1) * 18 // 4)
            counts = dict.fromkeys(itertools.product(range(3), repeat=3), 0)
            for y in rows:
                for x in range(2, 8):
                    red, green, blue = (int(images[n, c, y, x]) * 3 // 256 for c in range(3))
                    counts[red, green, blue] += 1
            expected += [(value / (len(rows) * 6)) ** 0.5 for value in counts.values()]
        vector = np.array(expected) / np.linalg.norm(expected)
        np.testing.assert_allclose(features[n], vector, atol=8 * np.finfo(np.float32).eps)


def test_chance_depends_on_its_seed_only() -> None:
    np.testing.assert_array_equal(chance(5, seed=1), chance(5, seed=1))
    assert not np.array_equal(chance(5, seed=1), chance(5, seed=2))
    np.testing.assert_allclose(np.linalg.norm(chance(5), axis=1), 1, rtol=1e-6)


def test_colour_alone_does_not_identify() -> None:
    size = (128, 64)
    query = [Spec(0, n, n % 6, 0, True) for n in range(150)]
    gallery = [Spec(0, n, (n + 1 + k) % 6, 1 + k) for n in range(150) for k in range(2)]
    drawn = [render_many(specs, image_size=size) for specs in (query, gallery)]
    first, second = (colour_histogram(part.images) for part in drawn)
    nearest = drawn[1].pids[np.argmax(first @ second.T, axis=1)]
    assert np.mean(nearest == drawn[0].pids) < 0.4
