"""Descriptors that know nothing: what a trained network has to beat."""

import numpy as np


def colour_histogram(images: np.ndarray, *, stripes: int = 8, bins: int = 8) -> np.ndarray:
    """Colour histograms in horizontal stripes.

    The square roots of normalised histograms, so that the Euclidean or cosine distance between
    two descriptors is the usual Hellinger distance between histograms.

    Args:
        images: (N, 3, H, W) uint8, RGB.
        stripes: Number of horizontal stripes.
        bins: Bins per channel; each channel has its own histogram in each stripe.

    Returns:
        (N, stripes * 3 * bins) float32 of unit length.
    """
    count, _, height, _ = images.shape
    edges = np.linspace(0, height, stripes + 1).astype(int)
    features = np.empty((count, stripes, 3, bins), np.float32)
    rows = np.arange(count * 3)[:, None] * bins
    for stripe in range(stripes):
        part = images[:, :, edges[stripe] : edges[stripe + 1]].reshape(count * 3, -1)
        index = part.astype(np.int64) * bins // 256 + rows
        found = np.bincount(index.ravel(), minlength=count * 3 * bins)
        features[:, stripe] = found.reshape(count, 3, bins) / part.shape[1]
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
