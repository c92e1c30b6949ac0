// Forward of attention for one head of one sequence, some of its query tiles.
//
// Scores are held with queries along the lanes, `S^T = K Q^T`, so that maximum, exponential and sum
// run down the columns without a horizontal step and `O = P V` reads `P^T` as it lies. Keys and
// values of dropped tokens are left out of the packed copies: exact, and less work.
//
// With pairs (see simd.h) a lane of a product's operand holds two bfloat16 neighbours: of a row of
// q and k, which are then packed as rows of half as many floats, or of a column of P^T and V.
#pragma once

#include "attention_forward_parts.h"

namespace sparse_vit::SPARSE_VIT_ISA {

class Forward {
 public:
  Forward(const Item& item, const ForwardOperands& x, float* memory)
      : x(x),
        item(item),
        scratch(memory, item.length, item.sequences.dim),
        in_lanes(item),
        q(in_lanes.operand(x.q)),
        k(in_lanes.operand(x.k)),
        dim(item.sequences.dim),
        width(round_up(dim)),
        depth(in_lanes.sequences.dim),
        keys(0),
        sign(item.sequences.scale < 0.0f ? -1.0f : 1.0f),
        factor(sign * item.sequences.scale * log2_of_e) {
    for (std::int64_t token = 0; item.sequences.keep != nullptr && token < item.length; ++token) {
      scratch.tokens[keys] = static_cast<std::int32_t>(token);
      keys += item.kept(token);
    }
    if (item.sequences.keep == nullptr) keys = item.length;
    any_dropped = keys < item.length;
    pack_values();
    const Item& source = in_lanes.item;
    key_stride = round_up(depth);
    if (!any_dropped && item.sequences.rows == nullptr &&
        source.sequences.type == Type::float32 && key_stride == depth && sign > 0.0f) {
      key_rows = static_cast<const float*>(source.source(k, 0));
      key_stride = k.token;
      return;
    }
    pack_rows(scratch.keys, source, k, keys, [this](std::int64_t i) { return kept_token(i); });
    key_rows = scratch.keys;
    if (sign > 0.0f) return;
    for (std::int64_t i = 0; i < keys * key_stride; ++i) {
      scratch.keys[i] = negated(scratch.keys[i]);
    }
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

  std::int64_t kept_token(std::int64_t i) const { return any_dropped ? scratch.tokens[i] : i; }

  void pack_values() {
    if constexpr (per_lane == 1) {
      return pack_rows(scratch.values, item, x.v, keys,
                       [this](std::int64_t i) { return kept_token(i); });
    }
#if defined(SPARSE_VIT_PAIRS)
    const auto source = item.sources(x.v);
    for (std::int64_t i = 0; i < keys; i += 2) {
      const void* first = source(kept_token(i));
      const void* second = i + 1 < keys ? source(kept_token(i + 1)) : nullptr;
      float* row = scratch.values + i / 2 * width;
      for (std::int64_t d = 0; d < dim; d += lanes) {
        const Vector low = load_as(Type::bfloat16, first, d, dim - d);
        const Vector high = second == nullptr ? broadcast(0.0f)
                                              : load_as(Type::bfloat16, second, d, dim - d);
        store(row + d, joined(low, high));
      }
    }
#endif
  }

  void attend(Prefetch& prefetch) {
    stride = (vectors + (singles > 0)) * lanes;
    std::fill_n(scratch.peak, tile_width, -INFINITY);
    if (any_dropped) own_scores();
    pack_columns(scratch.queries, in_lanes.item, q, count - singles,
                 [this](std::int64_t i) { return begin + i; });
    ScoresOutput scores{scratch.scores, scratch.peak, stride, prefetch};
    product({key_rows, key_stride, 1}, scratch.queries, vectors * lanes, keys, vectors, depth,
            scores);
    weigh_vectors();
    for (std::int64_t i = count - singles; i < count; ++i) weigh_single(i);
    invert_sums();
    ValuesOutput values{*this};
    product({scratch.scores, 1, stride}, scratch.values, width, count, width / lanes,
            (keys + per_lane - 1) / per_lane, values);
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
    pack_rows(query, in_lanes.item, q, 1, [token = begin + i](std::int64_t) { return token; });
    for (std::int64_t key = 0; key < keys; key += lanes) {
      Vector dots[lanes];
#pragma GCC unroll 16
      for (int j = 0; j < lanes; ++j) dots[j] = broadcast(0.0f);
      for (std::int64_t d = 0; d < depth; d += lanes) {
        const Vector part = load(query + d);
#pragma GCC unroll 16
        for (int j = 0; j < lanes; ++j) {
          dots[j] = multiply_add(part, load(key_row(key + j) + d), dots[j]);
        }
      }
      store(row + key, sums_of(dots));
    }
    Vector top = broadcast(scratch.peak[i]), sum = broadcast(0.0f);
    for (std::int64_t key = 0; key < end; key += lanes) top = max(top, load(row + key));
    scratch.peak[i] = largest(top) * factor;
    const Vector shift = broadcast(scratch.peak[i]);
    for (std::int64_t key = 0; key < end; key += lanes) {
      store(row + key, power_of_two(sub(mul(load(row + key), broadcast(factor)), shift)));
      sum = add(sum, key + lanes <= keys ? load(row + key) : load(row + key, keys - key));
    }
    scratch.total[i] = sparse_vit::SPARSE_VIT_ISA::sum(sum);
    // The partner of an odd last key counts for nothing: its values are zeros.
    for (std::int64_t key = 0; key < keys; key += per_lane) {
      scratch.scores[key / per_lane * stride + i] = in_a_lane(row + key);
    }
  }

  // Adds the weight of a dropped token to its own sum, inverts sums and stores their logarithms.
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

  // The last one again beyond the end.
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
  InLanes in_lanes;
  Operand q, k;  // as rows of `depth` lanes
  std::int64_t dim, width, depth, keys;
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
