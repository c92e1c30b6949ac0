// A vector of floats and what kernels do with it, for the instruction set of the including file.
#pragma once

#include "attention.h"

#define SPARSE_VIT_INLINE inline __attribute__((always_inline))

namespace sparse_vit::SPARSE_VIT_ISA {

// Stops the compiler from computing the addresses of all rows in advance and spilling them.
template <typename T>
SPARSE_VIT_INLINE void keep_in_register(T*& pointer) {
  asm volatile("" : "+r"(pointer));
}

#if defined(SPARSE_VIT_AVX512)

using Vector = __m512;
constexpr int lanes = 16;

SPARSE_VIT_INLINE __mmask16 first(std::int64_t count) {
  return static_cast<__mmask16>((1u << count) - 1u);
}
SPARSE_VIT_INLINE Vector broadcast(float x) { return _mm512_set1_ps(x); }
SPARSE_VIT_INLINE Vector load(const float* p) { return _mm512_loadu_ps(p); }
SPARSE_VIT_INLINE Vector load(const float* p, std::int64_t count) {
  return _mm512_maskz_loadu_ps(first(count), p);
}
SPARSE_VIT_INLINE void store(float* p, Vector x) { _mm512_storeu_ps(p, x); }
SPARSE_VIT_INLINE void store(float* p, Vector x, std::int64_t count) {
  _mm512_mask_storeu_ps(p, first(count), x);
}
SPARSE_VIT_INLINE Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
SPARSE_VIT_INLINE Vector sub(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
SPARSE_VIT_INLINE Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
SPARSE_VIT_INLINE Vector div(Vector a, Vector b) { return _mm512_div_ps(a, b); }
// a * b + c
SPARSE_VIT_INLINE Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
// The larger one; b where either is not a number.
SPARSE_VIT_INLINE Vector max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
// The smaller one; b where either is not a number.
SPARSE_VIT_INLINE Vector min(Vector a, Vector b) { return _mm512_min_ps(a, b); }
SPARSE_VIT_INLINE float sum(Vector x) { return _mm512_reduce_add_ps(x); }
SPARSE_VIT_INLINE float largest(Vector x) { return _mm512_reduce_max_ps(x); }
// x - n for the nearest integer n; 0 for the infinities.
SPARSE_VIT_INLINE Vector distance_from_nearest(Vector x) {
  return _mm512_reduce_ps(x, _MM_FROUND_TO_NEAREST_INT);
}
// x 2^n of an integer n.
SPARSE_VIT_INLINE Vector times_power_of_two(Vector x, Vector n) { return _mm512_scalef_ps(x, n); }
// The float whose bits are those of x where `mask` has them and those of y elsewhere.
SPARSE_VIT_INLINE Vector select_bits(Vector x, Vector y, std::uint32_t mask) {
  const __m512i m = _mm512_set1_epi32(static_cast<int>(mask));
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(m, _mm512_castps_si512(x),
                                                       _mm512_castps_si512(y), 0xca));
}
// The biased exponent of x, as a float.
SPARSE_VIT_INLINE Vector biased_exponent(Vector x) {
  return _mm512_cvtepi32_ps(_mm512_srli_epi32(_mm512_castps_si512(x), 23));
}
SPARSE_VIT_INLINE Vector from_bfloat16(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
SPARSE_VIT_INLINE __m256i to_bfloat16(Vector x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i nan = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(
      _mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, is_nan, nan), 16));
}
SPARSE_VIT_INLINE Vector load_bfloat16(const std::uint16_t* p) {
  return from_bfloat16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
SPARSE_VIT_INLINE Vector load_bfloat16(const std::uint16_t* p, std::int64_t count) {
  return from_bfloat16(_mm256_maskz_loadu_epi16(first(count), p));
}
SPARSE_VIT_INLINE Vector load_float16(const std::uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
SPARSE_VIT_INLINE Vector load_float16(const std::uint16_t* p, std::int64_t count) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(count), p));
}
SPARSE_VIT_INLINE void store_bfloat16(std::uint16_t* p, Vector x, std::int64_t count) {
  _mm256_mask_storeu_epi16(p, first(count), to_bfloat16(x));
}
SPARSE_VIT_INLINE void store_float16(std::uint16_t* p, Vector x, std::int64_t count) {
  _mm256_mask_storeu_epi16(p, first(count), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

// The sum of every vector, one in each lane.
SPARSE_VIT_INLINE Vector sums_of(const Vector (&x)[16]) {
  Vector a[8], b[4];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const Vector low = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
    a[i] = add(low, _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512d low = _mm512_castps_pd(a[2 * i]), high = _mm512_castps_pd(a[2 * i + 1]);
    b[i] = add(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)),
               _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
  }
  const Vector c =
      add(_mm512_shuffle_f32x4(b[0], b[1], 0x88), _mm512_shuffle_f32x4(b[0], b[1], 0xdd));
  const Vector d =
      add(_mm512_shuffle_f32x4(b[2], b[3], 0x88), _mm512_shuffle_f32x4(b[2], b[3], 0xdd));
  return add(_mm512_shuffle_f32x4(c, d, 0x88), _mm512_shuffle_f32x4(c, d, 0xdd));
}

// out[j * stride + i] = rows[i][j]
SPARSE_VIT_INLINE void store_transposed(float* out, std::int64_t stride, const Vector (&rows)[16]) {
  Vector a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 4) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m512d low = _mm512_castps_pd(a[i + j]), high = _mm512_castps_pd(a[i + 2 + j]);
      b[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      b[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const Vector x = _mm512_shuffle_f32x4(b[j], b[4 + j], 0x88);
    const Vector y = _mm512_shuffle_f32x4(b[j], b[4 + j], 0xdd);
    const Vector z = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0x88);
    const Vector w = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0xdd);
    store(out + j * stride, _mm512_shuffle_f32x4(x, z, 0x88));
    store(out + (4 + j) * stride, _mm512_shuffle_f32x4(y, w, 0x88));
    store(out + (8 + j) * stride, _mm512_shuffle_f32x4(x, z, 0xdd));
    store(out + (12 + j) * stride, _mm512_shuffle_f32x4(y, w, 0xdd));
  }
}

// out[j * stride + i] = rows[i][j] of sixteen floats each, read by fours to save shuffles.
SPARSE_VIT_INLINE void transpose(float* out, std::int64_t stride, const float* const (&rows)[16]) {
#pragma GCC unroll 4
  for (int j = 0; j < 16; j += 4) {
    Vector quarters[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      Vector x = _mm512_castps128_ps512(_mm_loadu_ps(rows[i] + j));
      x = _mm512_insertf32x4(x, _mm_loadu_ps(rows[4 + i] + j), 1);
      x = _mm512_insertf32x4(x, _mm_loadu_ps(rows[8 + i] + j), 2);
      quarters[i] = _mm512_insertf32x4(x, _mm_loadu_ps(rows[12 + i] + j), 3);
    }
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(quarters[0], quarters[1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(quarters[0], quarters[1]));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(quarters[2], quarters[3]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(quarters[2], quarters[3]));
    store(out + j * stride, _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)));
    store(out + (j + 1) * stride, _mm512_castpd_ps(_mm512_unpackhi_pd(a, c)));
    store(out + (j + 2) * stride, _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)));
    store(out + (j + 3) * stride, _mm512_castpd_ps(_mm512_unpackhi_pd(b, d)));
  }
}

#elif defined(SPARSE_VIT_AVX2)

using Vector = __m256;
constexpr int lanes = 8;

SPARSE_VIT_INLINE __m256i first(std::int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
SPARSE_VIT_INLINE Vector broadcast(float x) { return _mm256_set1_ps(x); }
SPARSE_VIT_INLINE Vector load(const float* p) { return _mm256_loadu_ps(p); }
SPARSE_VIT_INLINE Vector load(const float* p, std::int64_t count) {
  return _mm256_maskload_ps(p, first(count));
}
SPARSE_VIT_INLINE void store(float* p, Vector x) { _mm256_storeu_ps(p, x); }
SPARSE_VIT_INLINE void store(float* p, Vector x, std::int64_t count) {
  _mm256_maskstore_ps(p, first(count), x);
}
SPARSE_VIT_INLINE Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
SPARSE_VIT_INLINE Vector sub(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
SPARSE_VIT_INLINE Vector mul(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
SPARSE_VIT_INLINE Vector div(Vector a, Vector b) { return _mm256_div_ps(a, b); }
// a * b + c
SPARSE_VIT_INLINE Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
// The larger one; b where either is not a number.
SPARSE_VIT_INLINE Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
// The smaller one; b where either is not a number.
SPARSE_VIT_INLINE Vector min(Vector a, Vector b) { return _mm256_min_ps(a, b); }
SPARSE_VIT_INLINE float sum(Vector x) {
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
SPARSE_VIT_INLINE float largest(Vector x) {
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}
// 2^n of the integer n = low bits of x - 127.
SPARSE_VIT_INLINE Vector exponent_from_bits(Vector x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 23));
}
// The float whose bits are those of x where `mask` has them and those of y elsewhere.
SPARSE_VIT_INLINE Vector select_bits(Vector x, Vector y, std::uint32_t mask) {
  const Vector m = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(mask)));
  return _mm256_or_ps(_mm256_and_ps(m, x), _mm256_andnot_ps(m, y));
}
// The biased exponent of x, as a float.
SPARSE_VIT_INLINE Vector biased_exponent(Vector x) {
  return _mm256_cvtepi32_ps(_mm256_srli_epi32(_mm256_castps_si256(x), 23));
}
SPARSE_VIT_INLINE __m128i load_half(const std::uint16_t* p, std::int64_t count) {
  std::uint16_t whole[8] = {};
  for (std::int64_t i = 0; i < count; ++i) whole[i] = p[i];
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(whole));
}
SPARSE_VIT_INLINE void store_half(std::uint16_t* p, __m128i x, std::int64_t count) {
  if (count == 8) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), x);
  std::uint16_t whole[8];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(whole), x);
  for (std::int64_t i = 0; i < count; ++i) p[i] = whole[i];
}
SPARSE_VIT_INLINE Vector from_bfloat16(__m128i x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
SPARSE_VIT_INLINE __m128i to_bfloat16(Vector x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i wide = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, nan, is_nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
}
SPARSE_VIT_INLINE Vector load_bfloat16(const std::uint16_t* p) {
  return from_bfloat16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
SPARSE_VIT_INLINE Vector load_bfloat16(const std::uint16_t* p, std::int64_t count) {
  return from_bfloat16(load_half(p, count));
}
SPARSE_VIT_INLINE Vector load_float16(const std::uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
SPARSE_VIT_INLINE Vector load_float16(const std::uint16_t* p, std::int64_t count) {
  return _mm256_cvtph_ps(load_half(p, count));
}
SPARSE_VIT_INLINE void store_bfloat16(std::uint16_t* p, Vector x, std::int64_t count) {
  store_half(p, to_bfloat16(x), count);
}
SPARSE_VIT_INLINE void store_float16(std::uint16_t* p, Vector x, std::int64_t count) {
  store_half(p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT), count);
}

// The sum of every vector, one in each lane.
SPARSE_VIT_INLINE Vector sums_of(const Vector (&x)[8]) {
  const Vector a = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
  const Vector b = _mm256_hadd_ps(_mm256_hadd_ps(x[4], x[5]), _mm256_hadd_ps(x[6], x[7]));
  return add(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

// out[j * stride + i] = rows[i][j]
SPARSE_VIT_INLINE void store_transposed(float* out, std::int64_t stride, const Vector (&rows)[8]) {
  Vector a[8], b[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; i += 4) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m256d low = _mm256_castps_pd(a[i + j]), high = _mm256_castps_pd(a[i + 2 + j]);
      b[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
      b[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    store(out + j * stride, _mm256_permute2f128_ps(b[j], b[4 + j], 0x20));
    store(out + (4 + j) * stride, _mm256_permute2f128_ps(b[j], b[4 + j], 0x31));
  }
}

// out[j * stride + i] = rows[i][j] of eight floats each, read by fours to save shuffles.
SPARSE_VIT_INLINE void transpose(float* out, std::int64_t stride, const float* const (&rows)[8]) {
#pragma GCC unroll 2
  for (int j = 0; j < 8; j += 4) {
    Vector halves[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      halves[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows[i] + j)),
                                       _mm_loadu_ps(rows[4 + i] + j), 1);
    }
    const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(halves[0], halves[1]));
    const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(halves[0], halves[1]));
    const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(halves[2], halves[3]));
    const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(halves[2], halves[3]));
    store(out + j * stride, _mm256_castpd_ps(_mm256_unpacklo_pd(a, c)));
    store(out + (j + 1) * stride, _mm256_castpd_ps(_mm256_unpackhi_pd(a, c)));
    store(out + (j + 2) * stride, _mm256_castpd_ps(_mm256_unpacklo_pd(b, d)));
    store(out + (j + 3) * stride, _mm256_castpd_ps(_mm256_unpackhi_pd(b, d)));
  }
}

#else

// The vectors of GCC and clang: SSE2, NEON, or plain code, as the processor's base has it.
using Vector = float __attribute__((vector_size(16)));
using Integers = std::int32_t __attribute__((vector_size(16)));
constexpr int lanes = 4;

SPARSE_VIT_INLINE Vector broadcast(float x) { return Vector{x, x, x, x}; }
SPARSE_VIT_INLINE Vector load(const float* p) {
  Vector x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
SPARSE_VIT_INLINE Vector load(const float* p, std::int64_t count) {
  Vector x{};
  for (std::int64_t i = 0; i < count; ++i) x[i] = p[i];
  return x;
}
SPARSE_VIT_INLINE void store(float* p, Vector x) { std::memcpy(p, &x, sizeof x); }
SPARSE_VIT_INLINE void store(float* p, Vector x, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) p[i] = x[i];
}
SPARSE_VIT_INLINE Vector add(Vector a, Vector b) { return a + b; }
SPARSE_VIT_INLINE Vector sub(Vector a, Vector b) { return a - b; }
SPARSE_VIT_INLINE Vector mul(Vector a, Vector b) { return a * b; }
SPARSE_VIT_INLINE Vector div(Vector a, Vector b) { return a / b; }
// a * b + c
SPARSE_VIT_INLINE Vector fma(Vector a, Vector b, Vector c) { return a * b + c; }
// The larger one; b where either is not a number.
SPARSE_VIT_INLINE Vector max(Vector a, Vector b) { return a > b ? a : b; }
// The smaller one; b where either is not a number.
SPARSE_VIT_INLINE Vector min(Vector a, Vector b) { return a < b ? a : b; }
SPARSE_VIT_INLINE float sum(Vector x) { return (x[0] + x[2]) + (x[1] + x[3]); }
SPARSE_VIT_INLINE float largest(Vector x) {
  return std::max(std::max(x[0], x[2]), std::max(x[1], x[3]));
}
// 2^n of the integer n = low bits of x - 127.
SPARSE_VIT_INLINE Vector exponent_from_bits(Vector x) {
  return reinterpret_cast<Vector>(reinterpret_cast<Integers>(x) << 23);
}
// The float whose bits are those of x where `mask` has them and those of y elsewhere.
SPARSE_VIT_INLINE Vector select_bits(Vector x, Vector y, std::uint32_t mask) {
  const auto m = static_cast<std::int32_t>(mask);
  return reinterpret_cast<Vector>((reinterpret_cast<Integers>(x) & m) |
                                  (reinterpret_cast<Integers>(y) & ~m));
}
// The biased exponent of x, as a float.
SPARSE_VIT_INLINE Vector biased_exponent(Vector x) {
  return __builtin_convertvector(reinterpret_cast<Integers>(x) >> 23, Vector);
}
SPARSE_VIT_INLINE float float_of(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
SPARSE_VIT_INLINE std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
SPARSE_VIT_INLINE Vector load_bfloat16(const std::uint16_t* p, std::int64_t count = lanes) {
  Vector x{};
  for (std::int64_t i = 0; i < count; ++i) x[i] = float_of(static_cast<std::uint32_t>(p[i]) << 16);
  return x;
}
SPARSE_VIT_INLINE float float16_to_float(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
  // Exponents of zero and of all ones apart, moving the bits and the bias is all.
  if (magnitude >= 0x7c00u) return float_of(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  return float_of(sign | bits_of(float_of(magnitude << 13) * 0x1p112f));
}
SPARSE_VIT_INLINE std::uint16_t float_to_float16(float x) {
  const std::uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  std::uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  } else if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    // Below 2^-14: let an addition round to a multiple of 2^-24.
    half = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  }
  return static_cast<std::uint16_t>(sign | half);
}
SPARSE_VIT_INLINE Vector load_float16(const std::uint16_t* p, std::int64_t count = lanes) {
  Vector x{};
  for (std::int64_t i = 0; i < count; ++i) x[i] = float16_to_float(p[i]);
  return x;
}
SPARSE_VIT_INLINE void store_bfloat16(std::uint16_t* p, Vector x, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t bits = bits_of(x[i]);
    const bool nan = x[i] != x[i];
    const std::uint32_t rounded = nan ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u);
    p[i] = static_cast<std::uint16_t>(rounded >> 16);
  }
}
SPARSE_VIT_INLINE void store_float16(std::uint16_t* p, Vector x, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) p[i] = float_to_float16(x[i]);
}

// The sum of every vector, one in each lane.
SPARSE_VIT_INLINE Vector sums_of(const Vector (&x)[4]) {
  return Vector{sum(x[0]), sum(x[1]), sum(x[2]), sum(x[3])};
}

// out[j * stride + i] = rows[i][j]
SPARSE_VIT_INLINE void store_transposed(float* out, std::int64_t stride, const Vector (&rows)[4]) {
  for (int j = 0; j < 4; ++j) {
    store(out + j * stride, Vector{rows[0][j], rows[1][j], rows[2][j], rows[3][j]});
  }
}

// out[j * stride + i] = rows[i][j] of four floats each.
SPARSE_VIT_INLINE void transpose(float* out, std::int64_t stride, const float* const (&rows)[4]) {
  const Vector x[4] = {load(rows[0]), load(rows[1]), load(rows[2]), load(rows[3])};
  store_transposed(out, stride, x);
}

#endif

// What a product does with a lane of each operand: multiplies two floats, or, with pairs, two pairs
// of bfloat16, and adds to c.
#if defined(SPARSE_VIT_PAIRS)
constexpr int per_lane = 2;
SPARSE_VIT_INLINE Vector multiply_add(Vector a, Vector b, Vector c) {
  return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}
// Pairs of two vectors' elements, rounded to bfloat16; not for NaN.
SPARSE_VIT_INLINE Vector joined(Vector low, Vector high) {
  return _mm512_castsi512_ps(_mm512_or_si512(
      _mm512_cvtepu16_epi32(to_bfloat16(low)),
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(to_bfloat16(high)), 16)));
}
#else
constexpr int per_lane = 1;
SPARSE_VIT_INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return fma(a, b, c); }
#endif

// Element `offset` onwards of a row of any type, as floats; zeros beyond `count`.
SPARSE_VIT_INLINE Vector load_as(Type type, const void* row, std::int64_t offset,
                                 std::int64_t count) {
  const auto* half = static_cast<const std::uint16_t*>(row) + offset;
  const auto* whole = static_cast<const float*>(row) + offset;
  if (count >= lanes) {
    if (type == Type::float32) return load(whole);
    return type == Type::bfloat16 ? load_bfloat16(half) : load_float16(half);
  }
  if (type == Type::float32) return load(whole, count);
  return type == Type::bfloat16 ? load_bfloat16(half, count) : load_float16(half, count);
}

// Rounds to the type; leaves what lies beyond `count` elements alone.
SPARSE_VIT_INLINE void store_as(Type type, void* row, std::int64_t offset, Vector x,
                                std::int64_t count) {
  auto* half = static_cast<std::uint16_t*>(row) + offset;
  auto* whole = static_cast<float*>(row) + offset;
  count = count < lanes ? count : lanes;
  if (type == Type::bfloat16) return store_bfloat16(half, x, count);
  if (type == Type::float16) return store_float16(half, x, count);
  return count == lanes ? store(whole, x) : store(whole, x, count);
}

SPARSE_VIT_INLINE std::int64_t round_up(std::int64_t count) {
  return (count + lanes - 1) / lanes * lanes;
}

}  // namespace sparse_vit::SPARSE_VIT_ISA
