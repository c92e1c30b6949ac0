"""Random numbers that are pure functions of a key: the same for any batch, rank, order or device.

A key is one int64 per sample, derived with `fold` from, say, a seed, an epoch and a sample index.
Every function hashes (key, stream, position) with integer arithmetic that wraps around, so that
`uniform`, `integers` and `bernoulli` give the same bits on a CPU and on a GPU, and `normal` the
same values to float32 rounding. No state is read or written.

    keys = fold(fold(indices, epoch), seed)              # (B,) int64
    noise = uniform(keys, (128, 2), stream=3)            # (B, 128, 2) float32 in (0, 1)
"""

import math

import torch
from torch import Tensor

__all__ = ["bernoulli", "fold", "gumbel", "integers", "normal", "uniform"]

_MASK32 = 0xFFFFFFFF


def _signed64(value: int) -> int:
    """Wraps a Python integer into the range of int64."""
    value &= 0xFFFFFFFFFFFFFFFF
    return value - (1 << 64) if value >= 1 << 63 else value


def _signed32(value: int) -> int:
    """Wraps a Python integer into the range of int32."""
    value &= _MASK32
    return value - (1 << 32) if value >= 1 << 31 else value


_GOLDEN64 = _signed64(0x9E3779B97F4A7C15)
_SPLITMIX1 = _signed64(0xBF58476D1CE4E5B9)
_SPLITMIX2 = _signed64(0x94D049BB133111EB)
_GOLDEN32 = _signed32(0x9E3779B9)
_LOWBIAS1 = 0x21F0AAAD
_LOWBIAS2 = 0x735A2D97
_MURMUR1 = _signed32(0x85EBCA6B)
_MURMUR2 = _signed32(0xC2B2AE35)


def _shift_right(x: Tensor, bits: int, width: int) -> Tensor:
    """Logical right shift of a signed tensor of `width` bits (torch shifts arithmetically)."""
    return (x >> bits).bitwise_and_((1 << (width - bits)) - 1)


def _splitmix64(z: Tensor) -> Tensor:
    """Finaliser of SplitMix64 (Steele et al., 2014): a bijection of int64."""
    z = (z ^ _shift_right(z, 30, 64)) * _SPLITMIX1
    z = (z ^ _shift_right(z, 27, 64)) * _SPLITMIX2
    return z ^ _shift_right(z, 31, 64)


def _check_keys(keys: Tensor) -> None:
    if keys.dtype != torch.int64 or keys.ndim != 1:
        raise ValueError(
            f"keys must be an int64 tensor of shape (B,), got {keys.dtype} of shape "
            f"{tuple(keys.shape)}; build them with torch.arange(B) and fold()"
        )


def fold(keys: Tensor, value: int | Tensor) -> Tensor:
    """Derives new keys from keys and a value; the order of several folds matters.

    Args:
        keys: (B,) int64.
        value: integer, or (B,) int64 with one value per key.

    Returns:
        (B,) int64, statistically independent for different values.

    Raises:
        ValueError: if `keys` is not a one-dimensional int64 tensor.
    """
    _check_keys(keys)
    if isinstance(value, Tensor):
        salt = value.to(device=keys.device, dtype=torch.int64)
    else:
        salt = torch.full((1,), _signed64(value), dtype=torch.int64, device=keys.device)
    return _splitmix64(keys ^ _splitmix64(salt + _GOLDEN64))


def _bits(keys: Tensor, shape: tuple[int, ...], stream: int) -> Tensor:
    """Hashes every (key, stream, flat position) to an int32 whose high bits are the best mixed.

    One round of lowbias32 on the position offset by one half of the folded key, then one of
    the MurmurHash3 finaliser offset by the other half, in place to spare memory traffic.
    """
    folded = fold(keys, stream)
    low = (folded & _MASK32).to(torch.int32)[:, None]
    high = (folded >> 32).to(torch.int32)[:, None]
    count = math.prod(shape)
    position = torch.arange(count, dtype=torch.int32, device=keys.device).mul_(_GOLDEN32)
    h = position[None, :] ^ low
    h.bitwise_xor_(_shift_right(h, 16, 32)).mul_(_LOWBIAS1)
    h.bitwise_xor_(_shift_right(h, 15, 32)).mul_(_LOWBIAS2)
    h.bitwise_xor_(_shift_right(h, 15, 32)).add_(high).mul_(_MURMUR1)
    h.bitwise_xor_(_shift_right(h, 13, 32)).mul_(_MURMUR2)
    return h.view(keys.shape[0], *shape)


def uniform(keys: Tensor, shape: tuple[int, ...] = (), *, stream: int = 0) -> Tensor:
    """Uniform numbers strictly between 0 and 1.

    Args:
        keys: (B,) int64.
        shape: shape of the numbers of one sample.
        stream: distinguishes independent draws with the same keys.

    Returns:
        (B, *shape) float32: odd multiples of 2**-24, never 0 or 1.

    Raises:
        ValueError: if `keys` is not a one-dimensional int64 tensor.
    """
    h = _bits(keys, tuple(shape), stream)
    # 23 bits and a half are exact in float32, so that no rounding reaches 0 or 1.
    return _shift_right(h, 9, 32).to(torch.float32).add_(0.5).mul_(2.0**-23)


def normal(keys: Tensor, shape: tuple[int, ...] = (), *, stream: int = 0) -> Tensor:
    """Standard normal numbers by the Box-Muller transform; see `uniform` for the arguments.

    Returns:
        (B, *shape) float32, within 5.8 standard deviations.
    """
    count = math.prod(shape)
    pairs = (count + 1) // 2
    u = uniform(keys, (pairs, 2), stream=stream)
    radius = u[..., 0].log().mul_(-2.0).sqrt_()
    angle = u[..., 1] * (2.0 * math.pi)
    z = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1)
    return z.view(keys.shape[0], 2 * pairs)[:, :count].reshape(keys.shape[0], *shape)


def gumbel(keys: Tensor, shape: tuple[int, ...] = (), *, stream: int = 0) -> Tensor:
    """Standard Gumbel numbers -log(-log u), finite; see `uniform` for the arguments.

    Returns:
        (B, *shape) float32, between -2.9 and 16.7.
    """
    return uniform(keys, shape, stream=stream).log_().neg_().log_().neg_()


def integers(
    keys: Tensor,
    low: int | Tensor,
    high: int | Tensor,
    shape: tuple[int, ...] = (),
    *,
    stream: int = 0,
) -> Tensor:
    """Integers from low (included) to high (excluded).

    Args:
        keys: (B,) int64.
        low: smallest value, or a tensor that broadcasts to (B, *shape).
        high: one more than the largest value, or a tensor that broadcasts to (B, *shape).
            The caller ensures low < high for tensors; high - low is at most 2**31.
        shape: shape of the numbers of one sample.
        stream: distinguishes independent draws with the same keys.

    Returns:
        (B, *shape) int64; the bias of the multiply-shift method is below (high - low) / 2**32.

    Raises:
        ValueError: if `keys` is malformed, or for integer bounds that leave no value.
    """
    if isinstance(low, int) and isinstance(high, int) and not 0 < high - low <= 1 << 31:
        raise ValueError(
            f"low={low}, high={high}: expected low < high and at most 2**31 values between them"
        )
    h = _bits(keys, tuple(shape), stream).to(torch.int64).bitwise_and_(_MASK32)
    return ((h * (high - low)) >> 32) + low


def bernoulli(
    keys: Tensor, p: float | Tensor, shape: tuple[int, ...] = (), *, stream: int = 0
) -> Tensor:
    """True with probability p; see `uniform` for the arguments.

    Args:
        keys: (B,) int64.
        p: probability, or a tensor of probabilities that broadcasts to (B, *shape).
        shape: shape of the numbers of one sample.
        stream: distinguishes independent draws with the same keys.

    Returns:
        (B, *shape) bool.
    """
    return uniform(keys, shape, stream=stream) < p
