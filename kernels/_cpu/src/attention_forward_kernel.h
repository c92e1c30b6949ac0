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
    for (std::int64_t token = 0; item.sequences.keep != nullptr && token < item.length; ++token) {
      scratch.tokens[keys] = static_cast<std::int32_t>(token);
      keys += item.kept(token);
    }
    if (item.sequences.keep == nullptr) keys = item.length;
    any_dropped = keys < item.length;
    pack_kept(scratch.values, x.v);
    if (!any_dropped && item.sequences.rows == nullptr && item.sequences.type == Type::float32 &&
        width == dim && sign > 0.0f) {
      key_rows = static_cast<const float*>(item.source(x.k, 0));
      key_stride = x.k.token;
      return;
    }
    pack_kept(scratch.keys, x.k);
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
      begin = tiles.before(tile) * lanes;
      vectors = tiles.before(tile + 1) - tiles.before(tile);
      singles = tile + 1 == tiles.count ? tiles.singles : 0;
      count = std::min(vectors * lanes, item.length - begin) + singles;
      prefetch.writes = begin;
      prefetch.writes_end = begin + count;
      attend(prefetch);
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

  void pack_kept(float* packed, const Operand& x) {
    if (any_dropped) return pack_rows(packed, item, x, scratch.tokens, keys);
    pack_rows(packed, item, x, keys, [](std::int64_t i) { return i; });
  }

  void attend(Prefetch& prefetch) {
    stride = (vectors + (singles > 0)) * lanes;
    std::fill_n(scratch.peak, tile_width, -INFINITY);
    if (any_dropped) own_scores();
    pack_columns(scratch.queries, item, x.q, count - singles,
                 [this](std::int64_t i) { return begin + i; });
    ScoresOutput scores{scratch.scores, scratch.peak, stride, prefetch};
    product({key_rows, key_stride, 1}, scratch.queries, vectors * lanes, keys, vectors, dim,
            scores);
    weigh_vectors();
    for (std::int64_t i = count - singles; i < count; ++i) weigh_single(i);
    invert_sums();
    ValuesOutput values{*this};
    product({scratch.scores, 1, stride}, scratch.values, width, count, width / lanes, keys, values);
  }

  void weigh_vectors() {
    const Vector scale = broadcast(factor);
    for (std::int64_t i = 0; i < vectors * lanes; i += lanes) {
      store(scratch.peak + i, mul(load(scratch.peak + i), scale));
    }
    for (std::int64_t j = 0; j < vectors; j += 3) {
      float* scores = scratch.scores + j * lanes;
      const float* shift = scratch.peak + j * lanes;
      float* total = scratch.total + j * lanes;
      switch (vectors - j) {
        case 1: exponentials<1>(scores, stride, keys, scale, shift, total); break;
        case 2: exponentials<2>(scores, stride, keys, scale, shift, total); break;
        default: exponentials<3>(scores, stride, keys, scale, shift, total);
      }
    }
  }

  // One query, with its scores in a row; a dot product has an element of q and k in a lane.
  void weigh_single(std::int64_t i) {
    const std::int64_t end = round_up(keys);
    float *query = scratch.queries, *row = scratch.row;
    pack_rows(query, item, x.q, 1, [token = begin + i](std::int64_t) { return token; });
    for (std::int64_t key = 0; key < keys; key += lanes) {
      Vector dots[lanes];
#pragma GCC unroll 16
      for (int j = 0; j < lanes; ++j) dots[j] = mul(load(query), load(key_row(key + j)));
      for (std::int64_t d = lanes; d < dim; d += lanes) {
        const Vector part = load(query + d);
#pragma GCC unroll 16
        for (int j = 0; j < lanes; ++j) dots[j] = fma(part, load(key_row(key + j) + d), dots[j]);
      }
      store(row + key, sums_of(dots));
    }
    std::fill(row + keys, row + end, keys > 0 ? row[keys - 1] : 0.0f);
    Vector top = broadcast(scratch.peak[i]), sum = broadcast(0.0f);
    for (std::int64_t key = 0; key < end; key += lanes) top = max(top, load(row + key));
    scratch.peak[i] = largest(top) * factor;
    const Vector shift = broadcast(scratch.peak[i]);
    for (std::int64_t key = 0; key < end; key += lanes) {
      store(row + key, power_of_two(sub(mul(load(row + key), broadcast(factor)), shift)));
      sum = add(sum, key + lanes <= keys ? load(row + key) : load(row + key, keys - key));
    }
    scratch.total[i] = sparse_vit::SPARSE_VIT_ISA::sum(sum);
    for (std::int64_t key = 0; key < keys; ++key) scratch.scores[key * stride + i] = row[key];
  }

  // Adds the weight of a dropped token to its own sum, inverts the sums and stores their logarithms.
  void invert_sums() {
    for (std::int64_t i = 0; i < stride; i += lanes) {
      const Vector shift = load(scratch.peak + i);
      Vector sum = load(scratch.total + i);
      if (any_dropped) {
        // A scale of 0 must not give weight to tokens that are not dropped: times 0, else 1.
        const Vector own = sub(mul(load(scratch.own + i), broadcast(factor)), shift);
        const Vector weight = mul(power_of_two(own), load(scratch.weight + i));
        store(scratch.weight + i, weight);
        sum = add(sum, weight);
      }
      store(scratch.inverse + i, div(broadcast(1.0f), sum));
      if (x.lse.data == nullptr) continue;
      alignas(64) float logarithms[lanes];
      store(logarithms, fma(shift, broadcast(ln_2), natural_logarithm(sum)));
      for (std::int64_t j = 0; j < std::min<std::int64_t>(lanes, count - i); ++j) {
        *item.statistic(x.lse, begin + i + j) = logarithms[j];
      }
    }
  }

  const float* key_row(std::int64_t key) const {
    return key_rows + std::min(key, keys - 1) * key_stride;
  }

  // q_i . k_i of dropped tokens, where their largest logit starts from.
  void own_scores() {
    const Type type = item.sequences.type;
    std::fill_n(scratch.own, tile_width, std::numeric_limits<float>::lowest());
    std::fill_n(scratch.weight, tile_width, 0.0f);
    for (std::int64_t i = 0; i < count; ++i) {
      if (item.kept(begin + i)) continue;
      const void *query = item.source(x.q, begin + i), *key = item.source(x.k, begin + i);
      Vector dot = broadcast(0.0f);
      for (std::int64_t d = 0; d < dim; d += lanes) {
        dot = fma(load_as(type, query, d, dim - d), load_as(type, key, d, dim - d), dot);
      }
      scratch.own[i] = scratch.peak[i] = sign * sum(dot);
      scratch.weight[i] = 1.0f;
    }
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
  // The tile at hand: its first query, how many, in vectors and alone, and floats from key to key.
  std::int64_t begin, count, vectors, singles, stride;
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
