"""Descriptors that know nothing: what a trained network has to beat."""

import numpy as np


def colour_histogram(images: np.ndarray, *, stripes: int = 6, bins: int = 4) -> np.ndarray:
    """Joint colour histograms of horizontal stripes of the box's middle half.

    The square roots of normalised histograms, so that the Euclidean or cosine distance between
    two descriptors is the usual Hellinger distance between histograms. The outer quarters are
    left out because they mostly show the camera's background: this makes the baseline stronger.

    Args:
        images: (N, 3, H, W) uint8, RGB.
        stripes: Number of horizontal stripes.
        bins: Bins per channel; a stripe's histogram has `bins ** 3` cells.

    Returns:
        (N, stripes * bins ** 3) float32 of unit length.
    """
    count, _, height, width = images.shape
    cells = bins**3
    middle = images[..., width // 4 : width - width // 4]
    level = middle.astype(np.int32) * bins // 256
    index = (level[:, 0] * bins + level[:, 1]) * bins + level[:, 2]
    index += (np.arange(count, dtype=np.int32) * cells)[:, None, None]
    edges = np.linspace(0, height, stripes + 1).astype(int)
    features = np.empty((count, stripes, cells), np.float32)
    for stripe in range(stripes):
        part = index[:, edges[stripe] : edges[stripe + 1]]
        found = np.bincount(part.ravel(), minlength=count * cells)
        features[:, stripe] = found.reshape(count, cells) / part[0].size
    flat = np.sqrt(features).reshape(count, -1)
    return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True), np.float32)


def chance(count: int, *, dim: int = 64, seed: int = 0) -> np.ndarray:
    """Random descriptors.

    Args:
        count: Number of images N.
        dim: Length of a descriptor.
        seed: Seed of the draw; query and gallery need different ones.

    Returns:
        (N, dim) float32 of unit length.
    """
    features = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True), np.float32)
