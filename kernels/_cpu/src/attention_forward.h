// Forward of attention for one head of one sequence, some of its query tiles.
//
// Scores are held with queries along the lanes, `S^T = K Q^T`, so that maximum, exponential and sum
// run down the columns without a horizontal step and `O = P V` reads `P^T` as it lies. Keys and
// values of dropped tokens are left out of the packed copies: exact, and less work.
#pragma once

#include "attention_item.h"
#include "functions.h"
#include "product.h"

namespace sparse_vit::SPARSE_VIT_ISA {

// Queries of a tile: its scores against some two hundred keys fit the first-level cache.
constexpr std::int64_t tile_queries = 48;

// How the queries of a sequence are cut into tiles. A function of the length alone, so that results
// do not depend on how tiles are spread over threads.
struct Tiles {
  std::int64_t length, vectors, count;

  explicit Tiles(std::int64_t length)
      : length(length),
        vectors((length + lanes - 1) / lanes),
        count((vectors * lanes + tile_queries - 1) / tile_queries) {}

  std::int64_t begin(std::int64_t tile) const {
    return std::min(length, vectors * tile / count * lanes);
  }
};

struct ForwardScratch {
  float *keys, *values, *queries, *scores, *output;
  std::int32_t* tokens;
  float own[tile_queries], weight[tile_queries], inverse[tile_queries];

  // Floats of memory that a sequence of `length` tokens takes.
  static std::int64_t size(std::int64_t length, std::int64_t dim) {
    const std::int64_t width = round_up(dim);
    return (2 * length + 2 * tile_queries) * width + (tile_queries + 1) * round_up(length);
  }

  ForwardScratch(float* memory, std::int64_t length, std::int64_t dim) {
    const std::int64_t width = round_up(dim);
    keys = memory;
    values = keys + length * width;
    queries = values + length * width;
    output = queries + tile_queries * width;
    scores = output + tile_queries * width;
    tokens = reinterpret_cast<std::int32_t*>(scores + tile_queries * round_up(length));
  }
};

// Turns scores (keys, Vectors * lanes) into exp(factor * (score - column maximum)). `peak` holds a
// start for the maximum; on return peak is the maximum and total the column sum.
template <int Vectors>
void exponentials(float* scores, std::int64_t stride, std::int64_t keys, Vector factor,
                  Vector (&peak)[Vectors], Vector (&total)[Vectors]) {
  Vector second[Vectors];
#pragma GCC unroll 4
  for (int j = 0; j < Vectors; ++j) second[j] = peak[j];
  std::int64_t key = 0;
  for (; key + 2 <= keys; key += 2) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      peak[j] = max(peak[j], load(scores + key * stride + j * lanes));
      second[j] = max(second[j], load(scores + (key + 1) * stride + j * lanes));
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < Vectors; ++j) {
    if (key < keys) peak[j] = max(peak[j], load(scores + key * stride + j * lanes));
    peak[j] = max(peak[j], second[j]);
    total[j] = broadcast(0.0f);
  }
  Vector shift[Vectors];
#pragma GCC unroll 4
  for (int j = 0; j < Vectors; ++j) shift[j] = sub(broadcast(0.0f), mul(peak[j], factor));
  for (key = 0; key < keys; ++key) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      float* place = scores + key * stride + j * lanes;
      const Vector weight = power_of_two(fma(load(place), factor, shift[j]));
      store(place, weight);
      total[j] = add(total[j], weight);
    }
  }
}

struct Forward {
  const Sequences& sequences;
  const Operand &q, &k, &v, &out, &lse;
  Item item;
  ForwardScratch scratch;
  std::int64_t width, keys;
  float sign, factor;  // scale = sign * factor * ln 2
  bool any_dropped;

  Forward(const Sequences& sequences, const Operand& q, const Operand& k, const Operand& v,
          const Operand& out, const Operand& lse, std::int64_t image, std::int64_t head,
          float* memory)
      : sequences(sequences),
        q(q),
        k(k),
        v(v),
        out(out),
        lse(lse),
        item(sequences, image, head),
        scratch(memory, item.length, sequences.dim),
        width(round_up(sequences.dim)),
        keys(0),
        sign(sequences.scale < 0.0f ? -1.0f : 1.0f),
        factor(sign * sequences.scale * 1.44269504f) {
    for (std::int64_t token = 0; token < item.length; ++token) {
      scratch.tokens[keys] = static_cast<std::int32_t>(token);
      keys += item.kept(token);
    }
    any_dropped = keys < item.length;
    pack_rows(scratch.keys, item, k, scratch.tokens, keys);
    pack_rows(scratch.values, item, v, scratch.tokens, keys);
  }

  void tile(std::int64_t begin, std::int64_t end) {
    const std::int64_t count = end - begin, stride = round_up(count);
    pack_columns(scratch.queries, item, q, begin, count, sign);
    product(scratch.scores, stride, {scratch.keys, width, 1}, scratch.queries, stride, keys,
            stride / lanes, sequences.dim);
    if (any_dropped) own_scores(begin, count);
    for (std::int64_t i = 0; i < stride; i += lanes) normalise(begin, i, count, stride);
    product(scratch.output, width, {scratch.scores, 1, stride}, scratch.values, width, count,
            width / lanes, keys);
    for (std::int64_t i = 0; i < count; ++i) finish(begin + i, i);
  }

 private:
  bool sees_only_kept(std::int64_t token) const { return !any_dropped || item.kept(token); }

  // q_i . k_i of dropped tokens, -infinity for the others.
  void own_scores(std::int64_t begin, std::int64_t count) {
    for (std::int64_t i = 0; i < tile_queries; ++i) scratch.own[i] = -INFINITY;
    for (std::int64_t i = 0; i < count; ++i) {
      if (item.kept(begin + i)) continue;
      const void *query = item.source(q, begin + i), *key = item.source(k, begin + i);
      Vector dot = broadcast(0.0f);
      for (std::int64_t d = 0; d < sequences.dim; d += lanes) {
        dot = fma(load_as(sequences.type, query, d, sequences.dim - d),
                  load_as(sequences.type, key, d, sequences.dim - d), dot);
      }
      scratch.own[i] = sign * sum(dot);
    }
  }

  void normalise(std::int64_t begin, std::int64_t i, std::int64_t count, std::int64_t stride) {
    Vector peak[1] = {any_dropped ? load(scratch.own + i) : broadcast(-INFINITY)}, total[1];
    const Vector own = peak[0], scale = broadcast(factor);
    exponentials<1>(scratch.scores + i, stride, keys, scale, peak, total);
    const Vector shift = mul(peak[0], scale);
    if (any_dropped) {
      const Vector weight = power_of_two(fma(own, scale, sub(broadcast(0.0f), shift)));
      store(scratch.weight + i, weight);
      total[0] = add(total[0], weight);
    }
    store(scratch.inverse + i, div(broadcast(1.0f), total[0]));
    if (lse.data == nullptr) return;
    const Vector logarithm = fma(shift, broadcast(0.693147181f), natural_logarithm(total[0]));
    alignas(64) float values[lanes];
    store(values, logarithm);
    for (std::int64_t j = 0; j < lanes && i + j < count; ++j) {
      *item.statistic(lse, begin + i + j) = values[j];
    }
  }

  void finish(std::int64_t token, std::int64_t i) {
    void* target = item.target(out, token);
    const Vector inverse = broadcast(scratch.inverse[i]);
    const float* row = scratch.output + i * width;
    if (sees_only_kept(token)) {
      for (std::int64_t d = 0; d < sequences.dim; d += lanes) {
        store_as(sequences.type, target, d, mul(load(row + d), inverse), sequences.dim - d);
      }
      return;
    }
    const void* value = item.source(v, token);
    const Vector weight = broadcast(scratch.weight[i]);
    for (std::int64_t d = 0; d < sequences.dim; d += lanes) {
      const Vector own = load_as(sequences.type, value, d, sequences.dim - d);
      store_as(sequences.type, target, d, mul(fma(own, weight, load(row + d)), inverse),
               sequences.dim - d);
    }
  }
};

// Query tiles first .. last - 1 of one head of one sequence.
inline void forward_tiles(const Sequences& sequences, const Operand& q, const Operand& k,
                          const Operand& v, const Operand& out, const Operand& lse,
                          std::int64_t image, std::int64_t head, std::int64_t first,
                          std::int64_t last, float* memory) {
  Forward forward(sequences, q, k, v, out, lse, image, head, memory);
  const Tiles tiles(forward.item.length);
  for (std::int64_t tile = first; tile < std::min(last, tiles.count); ++tile) {
    forward.tile(tiles.begin(tile), tiles.begin(tile + 1));
  }
}

}  // namespace sparse_vit::SPARSE_VIT_ISA
