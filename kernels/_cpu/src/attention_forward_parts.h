// Pieces of the forward: how queries are cut into tiles, scratch memory, prefetch, exponentials.
#pragma once

#include "attention_item.h"
#include "attention_kernels.h"
#include "functions.h"
#include "product.h"

namespace sparse_vit::SPARSE_VIT_ISA {

// Queries of a tile: its scores against some two hundred keys fit the first-level cache.
constexpr std::int64_t tile_queries = 48;
constexpr std::int64_t most_singles = lanes / 4;
constexpr std::int64_t tile_width = tile_queries + lanes;
constexpr float log2_of_e = 1.44269504f, ln_2 = 0.693147181f;

// How the queries of a sequence are cut into tiles of whole vectors. Too few queries at the end to
// fill a vector at a profit are `singles`, which the last tile takes one by one. A function of the
// length alone, so that results do not depend on how tiles are spread over threads.
struct Tiles {
  std::int64_t length, singles, vectors, count;

  explicit Tiles(std::int64_t length)
      : length(length),
        singles(length % lanes <= most_singles ? length % lanes : 0),
        vectors((length - singles + lanes - 1) / lanes),
        count(std::max<std::int64_t>((vectors * lanes + tile_queries - 1) / tile_queries,
                                     length > 0)) {}

  // Vectors before a tile.
  std::int64_t before(std::int64_t tile) const { return vectors * tile / count; }
};

struct ForwardScratch {
  float *keys, *values, *queries, *scores, *row;
  std::int32_t* tokens;
  // Per query of a tile: the logit of a dropped token with itself and its weight, the largest
  // logit times the factor, the sum of the weights, and one over it.
  alignas(64) float own[tile_width], weight[tile_width], peak[tile_width], total[tile_width],
      inverse[tile_width];

  // Floats of memory that a sequence of `length` tokens takes.
  static std::int64_t size(std::int64_t length, std::int64_t dim) {
    const std::int64_t width = round_up(dim), keys = round_up(length);
    return (2 * keys + tile_width) * width + (tile_width + 2) * keys;
  }

  ForwardScratch(float* memory, std::int64_t length, std::int64_t dim) {
    const std::int64_t width = round_up(dim), size = round_up(length);
    keys = memory;
    values = keys + size * width;
    queries = values + size * width;
    scores = queries + tile_width * width;
    row = scores + tile_width * size;
    tokens = reinterpret_cast<std::int32_t*>(row + size);
  }
};

// A head whose rows of q and k are read as lanes of a product: as they are, or, with pairs, as rows
// of half as many float32 elements, which are moved but never computed with.
struct InLanes {
  Sequences sequences;
  Item item;

  explicit InLanes(const Item& whole)
      : sequences(whole.sequences), item(sequences, whole.image, whole.head) {
    if constexpr (per_lane == 2) {
      sequences.type = Type::float32;
      sequences.dim /= 2;
    }
  }

  InLanes(const InLanes&) = delete;

  static Operand operand(const Operand& x) {
    return {x.data, x.image / per_lane, x.head / per_lane, x.token / per_lane};
  }
};

#if defined(SPARSE_VIT_PAIRS)
inline float float_of(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float negated(float lane) { return float_of(bits_of(lane) ^ 0x80008000u); }
// Two weights, which are no NaN or make one of the sum anyway, in one lane.
inline float in_a_lane(const float* weights) {
  const auto rounded = [](float x) {
    return (bits_of(x) + 0x7fffu + (bits_of(x) >> 16 & 1u)) >> 16;
  };
  return float_of(rounded(weights[0]) | rounded(weights[1]) << 16);
}
#else
inline float negated(float lane) { return -lane; }
inline float in_a_lane(const float* weights) { return *weights; }
#endif

// Fetches, a few rows at every step, what the next unit reads and where this tile writes.
struct Prefetch {
  const ForwardOperands& x;
  const Item *now, *next;  // next may be null: then nothing is fetched
  std::int64_t reads = 0, reads_per_step = 0;
  std::int64_t writes = 0, writes_end = 0, writes_per_step = 0;

  SPARSE_VIT_INLINE void step() {
    if (next == nullptr) return;
    const std::int64_t bytes = now->sequences.dim * now->size();
    for (const auto end = std::min(writes + writes_per_step, writes_end); writes < end; ++writes) {
      const auto* row = static_cast<const char*>(now->target(x.out, writes));
      for (std::int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at, 1, 3);
    }
    for (const auto end = std::min(reads + reads_per_step, next->length); reads < end; ++reads) {
      for (const Operand* operand : {&x.k, &x.v, &x.q}) {
        const auto* row = static_cast<const char*>(next->source(*operand, reads));
        for (std::int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at, 0, 2);
      }
    }
  }
};

// Stores scores and keeps the maximum of every column.
struct ScoresOutput {
  float *scores, *peak;
  std::int64_t stride;
  Prefetch& prefetch;

  template <int Rows, int Vectors>
  SPARSE_VIT_INLINE void operator()(std::int64_t row, std::int64_t vector,
                                    const Sums<Rows, Vectors>& sums) {
    float *place = scores + row * stride + vector * lanes, *tops = peak + vector * lanes;
    Vector top[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) top[j] = load(tops + j * lanes);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i, place += stride) {
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) {
        store(place + j * lanes, sums[i][j]);
        top[j] = max(top[j], sums[i][j]);
      }
      keep_in_register(place);
    }
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) store(tops + j * lanes, top[j]);
    prefetch.step();
  }
};

// Turns scores (keys, Vectors * lanes) into exp2(factor * score - shift), packed as products take
// them, and returns column sums.
template <int Vectors>
void exponentials(float* scores, std::int64_t stride, std::int64_t keys, Vector factor,
                  const float* shift, float* total) {
  Vector minus[Vectors], sums[Vectors];
#pragma GCC unroll 4
  for (int j = 0; j < Vectors; ++j) {
    minus[j] = sub(broadcast(0.0f), load(shift + j * lanes));
    sums[j] = broadcast(0.0f);
  }
  for (std::int64_t key = 0; key < keys; key += per_lane) {
    Vector weight[per_lane][Vectors] = {};
#pragma GCC unroll 2
    for (int p = 0; p < per_lane; ++p) {
      if (key + p == keys) break;
      Vector x[Vectors];
      const float* row = scores + (key + p) * stride;
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) x[j] = fma(load(row + j * lanes), factor, minus[j]);
      powers_of_two(x, weight[p]);
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sums[j] = add(sums[j], weight[p][j]);
    }
    float* row = scores + key / per_lane * stride;
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      if constexpr (per_lane == 1) store(row + j * lanes, weight[0][j]);
#if defined(SPARSE_VIT_PAIRS)
      store(row + j * lanes, joined(weight[0][j], weight[1][j]));
#endif
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < Vectors; ++j) store(total + j * lanes, sums[j]);
}

}  // namespace sparse_vit::SPARSE_VIT_ISA
