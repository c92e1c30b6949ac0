// Exponential and logarithm of vectors.
#pragma once

#include "simd.h"

namespace sparse_vit::SPARSE_VIT_ISA {

// 2^x for x <= 0 within 1.7e-7 of its value; 0 below -126.5 and for -infinity; NaN for NaN.
SPARSE_VIT_INLINE Vector power_of_two(Vector x) {
  // 1.5 * 2^23 + 127: adding it rounds x to an integer n and leaves n + 127 in the low bits.
  const Vector rounder = broadcast(12583039.0f);
  x = max(broadcast(-127.0f), x);
  const Vector shifted = add(x, rounder);
  const Vector rest = sub(x, sub(shifted, rounder));
  // Minimax polynomial on [-1/2, 1/2] with relative error 1.1e-7, exact at 0.
  Vector y = broadcast(0x1.5bba14p-10f);
  y = fma(y, rest, broadcast(0x1.3cea88p-7f));
  y = fma(y, rest, broadcast(0x1.c6b752p-5f));
  y = fma(y, rest, broadcast(0x1.ebf9bcp-3f));
  y = fma(y, rest, broadcast(0x1.62e42ap-1f));
  y = fma(y, rest, broadcast(1.0f));
  return mul(y, exponent_from_bits(shifted));
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
