// Forward of attention for one head of one sequence, some of its query tiles.
//
// Scores are held with queries along the lanes, `S^T = K Q^T`, so that maximum, exponential and sum
// run down the columns without a horizontal step and `O = P V` reads `P^T` as it lies. Keys and
// values of dropped tokens are left out of the packed copies: exact, and less work.
#pragma once

#include "attention_item.h"
#include "attention_kernels.h"
#include "functions.h"
#include "product.h"

namespace sparse_vit::SPARSE_VIT_ISA {

// Queries of a tile: its scores against some two hundred keys fit the first-level cache.
constexpr std::int64_t tile_queries = 48;
constexpr float log2_of_e = 1.44269504f, ln_2 = 0.693147181f;

// How the queries of a sequence are cut into tiles: `count` of whole vectors, then a last one of
// `singles` queries where they are too few to fill a vector at a profit. A function of the length
// alone, so that results do not depend on how tiles are spread over threads.
struct Tiles {
  std::int64_t length, singles, vectors, blocks, count;

  explicit Tiles(std::int64_t length)
      : length(length),
        singles(length % lanes <= lanes / 4 ? length % lanes : 0),
        vectors((length - singles + lanes - 1) / lanes),
        blocks((vectors * lanes + tile_queries - 1) / tile_queries),
        count(blocks + (singles > 0)) {}

  std::int64_t begin(std::int64_t tile) const {
    return tile < blocks ? vectors * tile / blocks * lanes
           : tile == blocks ? length - singles
                            : length;
  }
};

struct ForwardScratch {
  float *keys, *values, *queries, *scores;
  std::int32_t* tokens;
  // Per query of a tile: the logit of a dropped token with itself and its weight, the largest
  // logit, and one over the sum of the weights.
  alignas(64) float own[tile_queries], weight[tile_queries], peak[tile_queries],
      inverse[tile_queries];

  // Floats of memory that a sequence of `length` tokens takes.
  static std::int64_t size(std::int64_t length, std::int64_t dim) {
    const std::int64_t width = round_up(dim);
    return (2 * round_up(length) + tile_queries) * width + (tile_queries + 1) * round_up(length);
  }

  ForwardScratch(float* memory, std::int64_t length, std::int64_t dim) {
    const std::int64_t width = round_up(dim);
    keys = memory;
    values = keys + round_up(length) * width;
    queries = values + round_up(length) * width;
    scores = queries + tile_queries * width;
    tokens = reinterpret_cast<std::int32_t*>(scores + tile_queries * round_up(length));
  }
};

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

// Turns scores (keys, Vectors * lanes) into exp2(factor * score - shift) and returns column sums.
template <int Vectors>
void exponentials(float* scores, std::int64_t stride, std::int64_t keys, Vector factor,
                  const float* shift, float* total) {
  Vector minus[Vectors], sums[Vectors];
#pragma GCC unroll 4
  for (int j = 0; j < Vectors; ++j) {
    minus[j] = sub(broadcast(0.0f), load(shift + j * lanes));
    sums[j] = broadcast(0.0f);
  }
  for (std::int64_t key = 0; key < keys; ++key, scores += stride) {
    Vector x[Vectors], weight[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) x[j] = fma(load(scores + j * lanes), factor, minus[j]);
    powers_of_two(x, weight);
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      store(scores + j * lanes, weight[j]);
      sums[j] = add(sums[j], weight[j]);
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < Vectors; ++j) store(total + j * lanes, sums[j]);
}

class Forward {
 public:
  Forward(const Item& item, const ForwardOperands& x, float* memory)
      : x(x),
        item(item),
        scratch(memory, item.length, item.sequences.dim),
        dim(item.sequences.dim),
        width(round_up(dim)),
        keys(0),
        sign(item.sequences.scale < 0.0f ? -1.0f : 1.0f),
        factor(sign * item.sequences.scale * log2_of_e) {
    for (std::int64_t token = 0; token < item.length; ++token) {
      scratch.tokens[keys] = static_cast<std::int32_t>(token);
      keys += item.kept(token);
    }
    any_dropped = keys < item.length;
    pack_rows(scratch.values, item, x.v, scratch.tokens, keys);
    if (!any_dropped && item.sequences.rows == nullptr && item.sequences.type == Type::float32 &&
        width == dim && sign > 0.0f) {
      key_rows = static_cast<const float*>(item.source(x.k, 0));
      key_stride = x.k.token;
      return;
    }
    pack_rows(scratch.keys, item, x.k, scratch.tokens, keys);
    if (sign < 0.0f) {
      for (std::int64_t i = 0; i < keys * width; ++i) scratch.keys[i] = -scratch.keys[i];
    }
    key_rows = scratch.keys;
    key_stride = width;
  }

  void run(const ForwardUnit& unit, const Item* next) {
    const Tiles tiles(item.length);
    const std::int64_t steps = keys / tile_rows(3) + 1;
    Prefetch prefetch{x, &item, next};
    if (next != nullptr) prefetch.reads_per_step = next->length / (tiles.count * steps) + 1;
    prefetch.writes_per_step = tile_queries / steps + 1;
    for (std::int64_t tile = unit.first; tile < std::min(unit.last, tiles.count); ++tile) {
      begin = tiles.begin(tile);
      count = tiles.begin(tile + 1) - begin;
      prefetch.writes = begin;
      prefetch.writes_end = begin + count;
      if (any_dropped) own_scores();
      tile < tiles.blocks ? vectors_of_queries(prefetch) : single_queries();
    }
  }

 private:
  // Scales a tile of the sums of values, adds what a dropped token adds to itself, and stores it.
  struct ValuesOutput {
    Forward& f;

    template <int Rows, int Vectors>
    SPARSE_VIT_INLINE void operator()(std::int64_t row, std::int64_t vector,
                                      const Sums<Rows, Vectors>& sums) {
      const std::int64_t column = vector * lanes;
      if (f.item.sequences.type == Type::float32 && !f.any_dropped &&
          column + Vectors * lanes <= f.dim) {
        float* place = static_cast<float*>(f.item.target(f.x.out, f.begin + row)) + column;
#pragma GCC unroll 16
        for (int i = 0; i < Rows; ++i, place += f.x.out.token) {
          const Vector inverse = broadcast(f.scratch.inverse[row + i]);
#pragma GCC unroll 4
          for (int j = 0; j < Vectors; ++j) store(place + j * lanes, mul(sums[i][j], inverse));
          keep_in_register(place);
        }
        return;
      }
      alignas(64) float copy[Rows][Vectors * lanes];
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
        for (int j = 0; j < Vectors; ++j) store(copy[i] + j * lanes, sums[i][j]);
      }
      for (int i = 0; i < Rows; ++i) f.finish(row + i, column, copy[i], Vectors * lanes);
    }
  };

  void vectors_of_queries(Prefetch& prefetch) {
    const std::int64_t stride = round_up(count), vectors = stride / lanes;
    pack_columns(scratch.queries, item, x.q, count,
                 [this](std::int64_t i) { return begin + i; });
    if (!any_dropped) std::fill_n(scratch.peak, tile_queries, -INFINITY);
    ScoresOutput scores{scratch.scores, scratch.peak, stride, prefetch};
    product({key_rows, key_stride, 1}, scratch.queries, stride, keys, vectors, dim, scores);
    normalise_vectors(stride, vectors);
    ValuesOutput values{*this};
    product({scratch.scores, 1, stride}, scratch.values, width, count, width / lanes, keys, values);
  }

  void normalise_vectors(std::int64_t stride, std::int64_t vectors) {
    const Vector scale = broadcast(factor);
    alignas(64) float total[tile_queries];
    for (std::int64_t i = 0; i < stride; i += lanes) {
      store(scratch.peak + i, mul(load(scratch.peak + i), scale));
    }
    for (std::int64_t j = 0; j < vectors; j += 3) {
      float *scores = scratch.scores + j * lanes, *shift = scratch.peak + j * lanes;
      switch (vectors - j) {
        case 1: exponentials<1>(scores, stride, keys, scale, shift, total + j * lanes); break;
        case 2: exponentials<2>(scores, stride, keys, scale, shift, total + j * lanes); break;
        default: exponentials<3>(scores, stride, keys, scale, shift, total + j * lanes);
      }
    }
    complete(total, stride);
  }

  // Adds the weight of a dropped token to its own sum, inverts the sums and stores their logarithms.
  void complete(float* total, std::int64_t queries) {
    for (std::int64_t i = 0; i < queries; i += lanes) {
      const Vector shift = load(scratch.peak + i);
      Vector sum = load(total + i);
      if (any_dropped) {
        const Vector weight =
            power_of_two(sub(mul(load(scratch.own + i), broadcast(factor)), shift));
        store(scratch.weight + i, weight);
        sum = add(sum, weight);
      }
      store(scratch.inverse + i, div(broadcast(1.0f), sum));
      store(total + i, fma(shift, broadcast(ln_2), natural_logarithm(sum)));
    }
    if (x.lse.data == nullptr) return;
    for (std::int64_t i = 0; i < count; ++i) *item.statistic(x.lse, begin + i) = total[i];
  }

  // Few queries, with their scores in rows; a dot product has an element of q and k in a lane.
  void single_queries() {
    const std::int64_t stride = round_up(keys);
    std::int32_t tokens[lanes];
    alignas(64) float total[tile_queries] = {};
    for (std::int64_t i = 0; i < count; ++i) tokens[i] = static_cast<std::int32_t>(begin + i);
    pack_rows(scratch.queries, item, x.q, tokens, count);
    for (std::int64_t i = 0; i < count; ++i) {
      float* scores = scratch.scores + i * stride;
      const float* query = scratch.queries + i * width;
      for (std::int64_t key = 0; key < keys; key += lanes) {
        Vector dots[lanes];
#pragma GCC unroll 16
        for (int j = 0; j < lanes; ++j) dots[j] = mul(load(query), load(row_of(key + j)));
        for (std::int64_t d = lanes; d < dim; d += lanes) {
          const Vector part = load(query + d);
#pragma GCC unroll 16
          for (int j = 0; j < lanes; ++j) dots[j] = fma(part, load(row_of(key + j) + d), dots[j]);
        }
        store(scores + key, sums_of(dots));
      }
      for (std::int64_t key = keys; key < stride; ++key) scores[key] = -INFINITY;
      Vector top = broadcast(any_dropped ? scratch.own[i] : -INFINITY), sum = broadcast(0.0f);
      for (std::int64_t key = 0; key < stride; key += lanes) top = max(top, load(scores + key));
      scratch.peak[i] = largest(top) * factor;
      const Vector minus = broadcast(-scratch.peak[i]);
      for (std::int64_t key = 0; key < stride; key += lanes) {
        const Vector weight = power_of_two(fma(load(scores + key), broadcast(factor), minus));
        store(scores + key, weight);
        sum = add(sum, weight);
      }
      total[i] = sparse_vit::SPARSE_VIT_ISA::sum(sum);
    }
    complete(total, count);
    ValuesOutput values{*this};
    product({scratch.scores, stride, 1}, scratch.values, width, count, width / lanes, keys, values);
  }

  const float* row_of(std::int64_t key) const {
    return key_rows + std::min(key, keys - 1) * key_stride;
  }

  // q_i . k_i of dropped tokens, -infinity for the others; where the largest logit starts from.
  void own_scores() {
    const Type type = item.sequences.type;
    std::fill_n(scratch.own, tile_queries, -INFINITY);
    for (std::int64_t i = 0; i < count; ++i) {
      if (item.kept(begin + i)) continue;
      const void *query = item.source(x.q, begin + i), *key = item.source(x.k, begin + i);
      Vector dot = broadcast(0.0f);
      for (std::int64_t d = 0; d < dim; d += lanes) {
        dot = fma(load_as(type, query, d, dim - d), load_as(type, key, d, dim - d), dot);
      }
      scratch.own[i] = sign * sum(dot);
    }
    std::copy_n(scratch.own, tile_queries, scratch.peak);
  }

  // Stores `floats` elements of a row of the output, from `column` on.
  __attribute__((noinline)) void finish(std::int64_t i, std::int64_t column, const float* sums,
                                        std::int64_t floats) {
    const std::int64_t token = begin + i;
    const Type type = item.sequences.type;
    void* target = item.target(x.out, token);
    const Vector inverse = broadcast(scratch.inverse[i]);
    const bool own = any_dropped && !item.kept(token);
    const void* value = own ? item.source(x.v, token) : nullptr;
    const Vector weight = broadcast(own ? scratch.weight[i] : 0.0f);
    for (std::int64_t j = 0; j < floats; j += lanes) {
      const std::int64_t left = dim - column - j;
      Vector y = load(sums + j);
      if (own) y = fma(load_as(type, value, column + j, left), weight, y);
      store_as(type, target, column + j, mul(y, inverse), left);
    }
  }

  const ForwardOperands& x;
  const Item& item;
  ForwardScratch scratch;
  std::int64_t dim, width, keys;
  const float* key_rows;  // of the kept tokens, where they lie if they can be read as they are
  std::int64_t key_stride;
  float sign, factor;  // scale = sign * factor * ln 2
  bool any_dropped;
  std::int64_t begin, count;  // of the tile at hand
};

inline void forward_unit(const Sequences& sequences, const ForwardOperands& x,
                         const ForwardUnit& unit, const ForwardUnit* next, float* memory) {
  const Item item(sequences, unit.image, unit.head);
  if (unit.first >= Tiles(item.length).count) return;
  Forward forward(item, x, memory);
  if (next == nullptr) return forward.run(unit, nullptr);
  const Item after(sequences, next->image, next->head);
  forward.run(unit, &after);
}

const ForwardKernel forward_kernel{
    [](std::int64_t length) { return Tiles(length).count; },
    ForwardScratch::size,
    forward_unit,
};

}  // namespace sparse_vit::SPARSE_VIT_ISA
