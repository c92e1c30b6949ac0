"""Keyed random numbers: strict ranges, purity, and independence by simple statistics."""

import math

import pytest
import torch

from sparse_vit import keyed_random as kr

KEYS = kr.fold(torch.arange(64), 7)


def splitmix64(z: int) -> int:
    mask = (1 << 64) - 1
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def hash32(key: int, stream: int, position: int) -> int:
    """The same hash with Python integers, which never overflow."""
    mask = (1 << 64) - 1
    folded = splitmix64((key & mask) ^ splitmix64((stream + 0x9E3779B97F4A7C15) & mask))
    m32 = 0xFFFFFFFF
    h = (position * 0x9E3779B9 & m32) ^ (folded & m32)
    h = (h ^ (h >> 16)) * 0x21F0AAAD & m32
    h = (h ^ (h >> 15)) * 0x735A2D97 & m32
    h = ((h ^ (h >> 15)) + (folded >> 32)) * 0x85EBCA6B & m32
    return (h ^ (h >> 13)) * 0xC2B2AE35 & m32


def test_uniform_equals_the_hash_in_exact_integers() -> None:
    keys = torch.tensor([0, 1, -1, 2**62 + 12345, -(2**63)])
    got = kr.uniform(keys, (3, 2), stream=5)
    for row, key in zip(got.tolist(), keys.tolist(), strict=True):
        want = [((hash32(key, 5, i) >> 9) + 0.5) / 2**23 for i in range(6)]
        assert [value for pair in row for value in pair] == want


def test_uniform_is_strictly_inside_the_unit_interval_and_flat() -> None:
    u = kr.uniform(KEYS, (4096,))
    assert u.dtype == torch.float32
    assert 0.0 < u.min().item() < 1e-4
    assert 1.0 - 1e-4 < u.max().item() < 1.0
    counts = torch.histc(u, bins=64, min=0.0, max=1.0)
    expected = u.numel() / 64
    chi2 = ((counts - expected) ** 2 / expected).sum().item()
    assert 63 - 5 * math.sqrt(126) < chi2 < 63 + 5 * math.sqrt(126)


def test_numbers_do_not_depend_on_the_batch_or_its_order() -> None:
    whole = kr.uniform(KEYS, (17, 2), stream=3)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kr.uniform(KEYS[order], (17, 2), stream=3), whole[order])
    assert torch.equal(kr.uniform(KEYS[5:6], (17, 2), stream=3), whole[5:6])
    # A longer draw starts with the numbers of a shorter one.
    assert torch.equal(kr.uniform(KEYS, (40,))[:, :7], kr.uniform(KEYS, (7,)))
    assert torch.equal(kr.normal(KEYS, (40,))[:, :7], kr.normal(KEYS, (7,)))


@pytest.mark.parametrize("axis", ["keys", "streams", "positions"])
def test_neighbours_are_uncorrelated(axis: str) -> None:
    n = 1 << 16
    if axis == "keys":
        a = kr.uniform(torch.arange(n), (2,))
        x, y = a[:-1, 0], a[1:, 0]
    elif axis == "streams":
        x = kr.uniform(torch.arange(n), stream=0)
        y = kr.uniform(torch.arange(n), stream=1)
    else:
        row = kr.uniform(torch.tensor([3]), (n,))[0]
        x, y = row[:-1], row[1:]
    for f in (lambda t: t, lambda t: (t * 1024) % 1.0):
        corr = torch.corrcoef(torch.stack((f(x), f(y))).double())[0, 1].item()
        assert abs(corr) < 5 / math.sqrt(n)


def test_similar_keys_flip_half_of_the_bits() -> None:
    keys = torch.arange(2048)
    a = kr._bits(keys, (8,), 0)
    for bit in (0, 1, 31, 32, 62):
        b = kr._bits(keys ^ (1 << bit), (8,), 0)
        # Only the high bits are used; the low ones of a product are poorly mixed.
        diff = (a ^ b) >> 9
        share = sum(((diff >> i) & 1).double().mean().item() for i in range(23)) / 23
        assert abs(share - 0.5) < 0.01


def test_normal_moments() -> None:
    z = kr.normal(KEYS, (4095,)).double()
    n = z.numel()
    assert abs(z.mean().item()) < 5 / math.sqrt(n)
    assert abs(z.var().item() - 1.0) < 5 * math.sqrt(2 / n)
    assert abs((z**3).mean().item()) < 5 * math.sqrt(15 / n)
    assert abs((z**4).mean().item() - 3.0) < 5 * math.sqrt(96 / n)
    assert kr.normal(KEYS, (3, 5)).shape == (64, 3, 5)


def test_gumbel_is_finite_with_the_euler_mean() -> None:
    g = kr.gumbel(KEYS, (4096,)).double()
    assert torch.isfinite(g).all()
    assert abs(g.mean().item() - 0.5772156649) < 5 * math.pi / math.sqrt(6 * g.numel())


def test_integers_cover_their_range_evenly() -> None:
    k = kr.integers(KEYS, -2, 5, (4096,))
    counts = torch.bincount(k.flatten() + 2, minlength=7).double()
    assert counts.numel() == 7
    expected = k.numel() / 7
    assert ((counts - expected) ** 2 / expected).sum().item() < 6 + 5 * math.sqrt(12)
    high = torch.arange(1, 65)[:, None]
    assert (kr.integers(KEYS, 0, high, (100,)) < high).all()
    with pytest.raises(ValueError, match="low=3, high=3"):
        kr.integers(KEYS, 3, 3)


def test_bernoulli_rate_and_shape() -> None:
    b = kr.bernoulli(KEYS, 0.3, (4096,))
    assert b.dtype == torch.bool
    assert abs(b.double().mean().item() - 0.3) < 5 * math.sqrt(0.21 / b.numel())
    assert kr.bernoulli(KEYS, 0.5).shape == (64,)


def test_folds_are_ordered_and_distinct() -> None:
    keys = torch.arange(1000)
    assert not torch.equal(kr.fold(kr.fold(keys, 1), 2), kr.fold(kr.fold(keys, 2), 1))
    folded = torch.cat([kr.fold(keys, value) for value in range(20)])
    assert folded.unique().numel() == folded.numel()
    assert torch.equal(kr.fold(keys, torch.full((1000,), 9)), kr.fold(keys, 9))
    assert torch.equal(kr.fold(keys, 2**64 - 1), kr.fold(keys, -1))


def test_malformed_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="int64"):
        kr.uniform(torch.zeros(3), (2,))
    with pytest.raises(ValueError, match="shape"):
        kr.fold(torch.zeros(3, 1, dtype=torch.int64), 1)
