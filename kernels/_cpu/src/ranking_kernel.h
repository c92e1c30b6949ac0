// Defines the kernel for ranking of the instruction set that the including file is compiled for.
#include "product.h"
#include "ranking_kernels.h"

namespace sparse_vit::SPARSE_VIT_ISA {

// A tile: its sums, part of a row of a panel and a factor fit the registers, 32 with AVX-512.
constexpr int tile_height = 6;
#if defined(SPARSE_VIT_AVX512)
constexpr int tile_vectors = 4;
#else
constexpr int tile_vectors = 2;
#endif

// Adds `depth` products to a tile of scores. Both operands are streams: what `product` of the
// attention kernels, whose rows lie apart, spends on addresses is saved.
static void add_tile(const float* rows, const float* panel, std::int64_t depth, float* scores,
                     bool first) {
  Sums<tile_height, tile_vectors> sums;
#pragma GCC unroll 6
  for (int i = 0; i < tile_height; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < tile_vectors; ++j) sums[i][j] = broadcast(0.0f);
  }
  for (std::int64_t k = 0; k < depth; ++k, rows += tile_height, panel += panel_columns) {
    Vector right[tile_vectors];
#pragma GCC unroll 4
    for (int j = 0; j < tile_vectors; ++j) right[j] = load(panel + j * lanes);
#pragma GCC unroll 6
    for (int i = 0; i < tile_height; ++i) {
      const Vector left = broadcast(rows[i]);
#pragma GCC unroll 4
      for (int j = 0; j < tile_vectors; ++j) sums[i][j] = fma(left, right[j], sums[i][j]);
    }
  }
  Store{scores, strip_columns, !first}(0, 0, sums);
}

static void products(const float* tiles, const float* panels, std::int64_t rows,
                     std::int64_t width, std::int64_t columns, float* scores) {
  for (std::int64_t column = 0; column < columns; column += panel_columns) {
    const float* panel = panels + column * width;
    // What the tiles share of a panel stays in the first cache.
    for (std::int64_t k = 0; k < width; k += product_depth) {
      const std::int64_t depth = std::min(product_depth, width - k);
      for (std::int64_t part = 0; part < panel_columns; part += tile_vectors * lanes) {
        for (std::int64_t row = 0; row < rows; row += tile_height) {
          add_tile(tiles + row * width + k * tile_height, panel + k * panel_columns + part, depth,
                   scores + row * strip_columns + column + part, k == 0);
        }
      }
    }
  }
}

// Eight doubles, in as many registers as the instruction set needs; the sum of a product of floats,
// which is exact, rounds the same with and without a fused multiply-add.
using Doubles = double __attribute__((vector_size(64)));
using Floats = float __attribute__((vector_size(32)));

SPARSE_VIT_INLINE void add_products(const float* a, const float* b, Doubles& sum) {
  Floats x, y;
  std::memcpy(&x, a, sizeof x);
  std::memcpy(&y, b, sizeof y);
  sum += __builtin_convertvector(x, Doubles) * __builtin_convertvector(y, Doubles);
}

static double dot(const float* a, const float* b, std::int64_t width) {
  Doubles sums[4] = {};
  std::int64_t k = 0;
  for (; k + 32 <= width; k += 32) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) add_products(a + k + 8 * i, b + k + 8 * i, sums[i]);
  }
  Doubles sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  for (; k + 8 <= width; k += 8) add_products(a + k, b + k, sum);
  double total = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
  for (; k < width; ++k) total += static_cast<double>(a[k]) * static_cast<double>(b[k]);
  return total;
}

static std::int64_t survivors(const float* scores, const float* bias, std::int64_t count,
                              float least, float* values, std::int32_t* places) {
  std::int64_t found = 0;
  std::int64_t i = 0;
#if defined(SPARSE_VIT_AVX512)
  const Vector bound = broadcast(least);
  __m512i place = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (; i + lanes <= count; i += lanes) {
    Vector x = load(scores + i);
    if (bias != nullptr) x = add(x, load(bias + i));
    const __mmask16 reached = _mm512_cmp_ps_mask(x, bound, _CMP_GE_OQ);
    if (reached != 0) {
      store(values + found, _mm512_maskz_compress_ps(reached, x));
      _mm512_storeu_si512(places + found, _mm512_maskz_compress_epi32(reached, place));
      found += __builtin_popcount(reached);
    }
    place = _mm512_add_epi32(place, _mm512_set1_epi32(lanes));
  }
#elif defined(SPARSE_VIT_AVX2)
  const Vector bound = broadcast(least);
  for (; i + lanes <= count; i += lanes) {
    Vector x = load(scores + i);
    if (bias != nullptr) x = add(x, load(bias + i));
    int reached = _mm256_movemask_ps(_mm256_cmp_ps(x, bound, _CMP_GE_OQ));
    if (reached == 0) continue;
    float whole[lanes];
    store(whole, x);
    for (; reached != 0; reached &= reached - 1) {
      const int lane = __builtin_ctz(reached);
      values[found] = whole[lane];
      places[found++] = static_cast<std::int32_t>(i) + lane;
    }
  }
#endif
  for (; i < count; ++i) {
    const float x = bias == nullptr ? scores[i] : scores[i] + bias[i];
    values[found] = x;
    places[found] = static_cast<std::int32_t>(i);
    found += x >= least;
  }
  return found;
}

static void agreements(const std::uint64_t* row, const std::uint64_t* others, std::int64_t count,
                       std::int64_t words, float* scores) {
  for (std::int64_t i = 0; i < count; ++i, others += words) {
    std::int64_t bits = 0;
    for (std::int64_t w = 0; w < words; ++w) {
      bits += __builtin_popcountll(row[w] ^ others[w]);
    }
    scores[i] = -static_cast<float>(bits);
  }
}

const RankingKernel ranking_kernel{tile_height, products, survivors, dot, agreements};

}  // namespace sparse_vit::SPARSE_VIT_ISA
