// Exponential and logarithm of vectors.
#pragma once

#include "simd.h"

namespace sparse_vit::SPARSE_VIT_ISA {

// Parts x = n + rest with n the nearest integer; `power` holds n for `scaled`, which multiplies by
// 2^n.
SPARSE_VIT_INLINE void split(Vector x, Vector& rest, Vector& power) {
#if defined(SPARSE_VIT_AVX512)
  rest = distance_from_nearest(x);
  power = sub(x, rest);
#else
  // 1.5 * 2^23 + 127: adding it rounds x to n and leaves n + 127 in the low bits.
  const Vector rounder = broadcast(12583039.0f), bounded = max(broadcast(-127.0f), x);
  power = add(bounded, rounder);
  rest = sub(bounded, sub(power, rounder));
#endif
}

SPARSE_VIT_INLINE Vector scaled(Vector x, Vector power) {
#if defined(SPARSE_VIT_AVX512)
  return times_power_of_two(x, power);
#else
  return mul(x, exponent_from_bits(power));
#endif
}

// y = 2^x within 1.7e-7 of its value, for x up to 126; 1 for 0, 0 for -infinity, NaN for NaN.
// Several vectors at a time, so that the processor need not wait for one of them.
template <int Count>
SPARSE_VIT_INLINE void powers_of_two(const Vector (&x)[Count], Vector (&y)[Count]) {
  // Minimax polynomial of 2^r on [-1/2, 1/2], exact at 0, relative error 1.1e-7.
  constexpr float coefficients[] = {0x1.5bba14p-10f, 0x1.3cea88p-7f, 0x1.c6b752p-5f,
                                    0x1.ebf9bcp-3f,  0x1.62e42ap-1f, 1.0f};
  Vector rest[Count], power[Count];
#pragma GCC unroll 8
  for (int i = 0; i < Count; ++i) split(x[i], rest[i], power[i]);
#pragma GCC unroll 8
  for (int i = 0; i < Count; ++i) y[i] = broadcast(coefficients[0]);
#pragma GCC unroll 8
  for (int k = 1; k < 6; ++k) {
#pragma GCC unroll 8
    for (int i = 0; i < Count; ++i) y[i] = fma(y[i], rest[i], broadcast(coefficients[k]));
  }
#pragma GCC unroll 8
  for (int i = 0; i < Count; ++i) y[i] = scaled(y[i], power[i]);
}

SPARSE_VIT_INLINE Vector power_of_two(Vector x) {
  const Vector exponents[1] = {x};
  Vector powers[1];
  powers_of_two(exponents, powers);
  return powers[0];
}

// ln x of a positive normal number, within 2e-7 absolutely.
SPARSE_VIT_INLINE Vector natural_logarithm(Vector x) {
  const Vector mantissa = select_bits(x, broadcast(1.0f), 0x007fffffu);
  // ln m = ln(2) / 2 + 2 artanh((m - sqrt 2) / (m + sqrt 2)), whose argument is below 0.172.
  const Vector root = broadcast(1.41421356f);
  const Vector s = div(sub(mantissa, root), add(mantissa, root));
  const Vector square = mul(s, s);
  Vector y = broadcast(2.0f / 9.0f);
  y = fma(y, square, broadcast(2.0f / 7.0f));
  y = fma(y, square, broadcast(2.0f / 5.0f));
  y = fma(y, square, broadcast(2.0f / 3.0f));
  y = fma(y, square, broadcast(2.0f));
  const Vector exponent = sub(biased_exponent(x), broadcast(126.5f));
  return fma(exponent, broadcast(0.693147181f), mul(y, s));
}

}  // namespace sparse_vit::SPARSE_VIT_ISA
