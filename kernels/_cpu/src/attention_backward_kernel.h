// Gradients of attention for one head of one sequence.
//
// With S = scale q k^T, R = exp(min(S - L, ln 1e6)), dP = dO v^T, delta_i = dO_i . O_i and
// T = R (dP - delta):
//   dv_j = sum_i R_ij dO_i,  dk_j = scale sum_i T_ij q_i,  dq_i = scale sum_j T_ij k_j,
// where a dropped token j counts for i = j alone, and dkeep_j = sum_{i != j} T_ij for every j.
//
// Tokens are renumbered, the kept ones first, so that these three products run over kept columns
// and need no mask; what a dropped token does to itself is added row by row. Query rows go by
// blocks whose R and T stay in cache: no matrix of length x length is stored.
#pragma once

#include "attention_backward.h"
#include "attention_item.h"
#include "functions.h"
#include "product.h"

namespace sparse_vit::SPARSE_VIT_ISA {

constexpr float ratio_limit = 1e6f;
constexpr float log2_e = 1.44269504f;

// Query rows of a block: R and T of so many fit the second-level cache with all the rest.
inline std::int64_t block_rows(std::int64_t length) {
  if (length == 0) return 0;
  constexpr std::int64_t floats = 24 << 10;
  const std::int64_t most = std::max<std::int64_t>(floats / (2 * round_up(length)) / 12 * 12, 12);
  const std::int64_t blocks = (length + most - 1) / most;
  return (length + blocks - 1) / blocks;
}

struct BackwardScratch {
  float *keys_by_column, *values_by_column, *keys, *dk, *dv;
  float *queries, *grads, *dq, *ratios, *scores, *own, *sums;
  std::int32_t* tokens;

  static std::int64_t size(std::int64_t length, std::int64_t dim) {
    return BackwardScratch(nullptr, length, dim).end;
  }

  BackwardScratch(float* memory, std::int64_t length, std::int64_t dim) : memory(memory) {
    const std::int64_t stride = round_up(length), width = round_up(dim);
    const std::int64_t rows = block_rows(length);
    keys_by_column = take(stride * width);
    values_by_column = take(stride * width);
    keys = take(length * width);
    dk = take(length * width);
    dv = take(length * width);
    queries = take(rows * width);
    grads = take(rows * width);
    dq = take(rows * width);
    ratios = take(rows * stride);
    scores = take(rows * stride);
    own = take(round_up(rows));
    sums = take(stride);
    tokens = reinterpret_cast<std::int32_t*>(take(stride));
  }

 private:
  float* memory;
  std::int64_t end = 0;

  float* take(std::int64_t floats) {
    end += floats;
    return memory + end - floats;
  }
};

// Fetches a row at every step of what the next head reads and of where this one writes.
struct BackwardFetch {
  const Gradients& g;
  const Item& now;
  const Item* next;  // or null
  std::int64_t reads = 0, writes = 0;

  SPARSE_VIT_INLINE void step() {
    if (next == nullptr) return;
    if (writes < now.length) {
      for (const Operand* x : {&g.dq, &g.dk, &g.dv}) fetch<1>(now.target(*x, writes));
      ++writes;
    }
    if (reads < next->length) {
      for (const Operand* x : {&g.k, &g.v, &g.q}) fetch<0>(next->source(*x, reads));
      for (const Operand* x : {&g.grad, &g.out}) fetch<0>(next->target(*x, reads));
      ++reads;
    }
  }

 private:
  template <int Write>
  SPARSE_VIT_INLINE void fetch(const void* row) {
    const std::int64_t bytes = now.sequences.dim * now.size();
    for (std::int64_t at = 0; at < bytes; at += 64) {
      __builtin_prefetch(static_cast<const char*>(row) + at, Write, 2);
    }
  }
};

// Stores a product tile by tile and fetches meanwhile.
struct FetchingStore {
  Store store;
  BackwardFetch& fetch;

  template <int Rows, int Vectors>
  SPARSE_VIT_INLINE void operator()(std::int64_t row, std::int64_t vector,
                                    const Sums<Rows, Vectors>& sums) {
    store(row, vector, sums);
    fetch.step();
  }
};

struct Backward {
  const Gradients& g;
  Item item;
  BackwardFetch fetch;
  BackwardScratch scratch;
  std::int64_t width, stride, kept;
  float scale;

  Backward(const Sequences& sequences, const Gradients& g, std::int64_t image, std::int64_t head,
           const Item* next, float* memory)
      : g(g),
        item(sequences, image, head),
        fetch{g, item, next},
        scratch(memory, item.length, sequences.dim),
        width(round_up(sequences.dim)),
        stride(round_up(item.length)),
        kept(0),
        scale(sequences.scale) {
    std::int64_t dropped = item.length;
    for (std::int64_t token = item.length - 1; token >= 0; --token) {
      if (!item.kept(token)) scratch.tokens[--dropped] = static_cast<std::int32_t>(token);
    }
    for (std::int64_t token = 0; token < item.length; ++token) {
      if (item.kept(token)) scratch.tokens[kept++] = static_cast<std::int32_t>(token);
    }
    pack_columns_of(scratch.keys_by_column, g.k);
    pack_columns_of(scratch.values_by_column, g.v);
    pack_rows(scratch.keys, item, g.k, scratch.tokens, item.length);
    std::fill(scratch.sums, scratch.sums + stride, 0.0f);
  }

  void run(float* columns) {
    const std::int64_t height = block_rows(item.length);
    for (std::int64_t first = 0; first < item.length; first += height) {
      const std::int64_t rows = std::min(height, item.length - first);
      weigh(first, rows);
      if (columns != nullptr) add_up(first, rows);
      const std::int64_t vectors = width / lanes;
      multiply(scratch.dv, {scratch.ratios, 1, stride}, scratch.grads, kept, vectors, rows,
               first > 0);
      multiply(scratch.dk, {scratch.scores, 1, stride}, scratch.queries, kept, vectors, rows,
               first > 0);
      multiply(scratch.dq, {scratch.scores, stride, 1}, scratch.keys, rows, vectors, kept, false);
      for (std::int64_t i = 0; i < rows; ++i) finish(first, i);
    }
    for (std::int64_t j = 0; j < kept; ++j) {
      store_row(g.dk, j, scratch.dk + j * width, scale);
      store_row(g.dv, j, scratch.dv + j * width, 1.0f);
    }
    if (columns == nullptr) return;
    for (std::int64_t j = 0; j < item.length; ++j) columns[scratch.tokens[j]] = scratch.sums[j];
  }

 private:
  // R and T of some rows.
  void weigh(std::int64_t first, std::int64_t rows) {
    const std::int64_t dim = item.sequences.dim;
    pack_rows(scratch.queries, item, g.q, scratch.tokens + first, rows);
    for (std::int64_t i = 0; i < rows; ++i) load_grad(first, i);
    const std::int64_t vectors = stride / lanes;
    multiply(scratch.ratios, {scratch.queries, width, 1}, scratch.keys_by_column, rows, vectors,
             dim, false);
    multiply(scratch.scores, {scratch.grads, width, 1}, scratch.values_by_column, rows, vectors,
             dim, false);
    for (std::int64_t i = 0; i < rows; ++i) {
      float *ratios = scratch.ratios + i * stride, *scores = scratch.scores + i * stride;
      exponentials(ratios, *item.statistic(g.lse, scratch.tokens[first + i]));
      const Vector inverse = broadcast(1.0f / std::max(row_sum(ratios, first + i), 1e-30f));
      const Vector delta = broadcast(scratch.own[i]), limit = broadcast(ratio_limit);
      for (std::int64_t j = 0; j < stride; j += lanes) {
        const Vector ratio = min(limit, mul(load(ratios + j), inverse));
        store(ratios + j, ratio);
        store(scores + j, mul(ratio, sub(load(scores + j), delta)));
      }
    }
  }

  void exponentials(float* scores, float lse) {
    const Vector factor = broadcast(scale * log2_e), shift = broadcast(-lse * log2_e);
    const Vector limit = broadcast(21.0f);  // finite, and beyond the limit of a ratio
    for (std::int64_t j = 0; j < stride; j += lanes) {
      store(scores + j, power_of_two(min(limit, fma(load(scores + j), factor, shift))));
    }
  }

  // One but for the rounding of L, which at logits in the thousands is felt.
  float row_sum(const float* ratios, std::int64_t i) {
    Vector total = broadcast(0.0f);
    std::int64_t j = 0;
    for (; j + lanes <= kept; j += lanes) total = add(total, load(ratios + j));
    if (j < kept) total = add(total, load(ratios + j, kept - j));
    return sum(total) + (i < kept ? 0.0f : ratios[i]);
  }

  // Packs the gradient of a row and computes its delta.
  void load_grad(std::int64_t first, std::int64_t i) {
    const std::int64_t dim = item.sequences.dim, token = scratch.tokens[first + i];
    const Type type = item.sequences.type;
    const void *grad = item.target(g.grad, token), *out = item.target(g.out, token);
    Vector delta = broadcast(0.0f);
    for (std::int64_t d = 0; d < dim; d += lanes) {
      const Vector x = load_as(type, grad, d, dim - d);
      store(scratch.grads + i * width + d, x);
      delta = fma(x, load_as(type, out, d, dim - d), delta);
    }
    scratch.own[i] = sum(delta);
  }

  // Adds T of some rows to the column sums, except for the diagonal.
  void add_up(std::int64_t first, std::int64_t rows) {
    for (std::int64_t i = 0; i < rows; ++i) {
      scratch.own[i] = std::exchange(scratch.scores[i * stride + first + i], 0.0f);
    }
    for (std::int64_t j = 0; j < stride; j += lanes) {
      Vector total = load(scratch.sums + j);
      for (std::int64_t i = 0; i < rows; ++i) {
        total = add(total, load(scratch.scores + i * stride + j));
      }
      store(scratch.sums + j, total);
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      scratch.scores[i * stride + first + i] = scratch.own[i];
    }
  }

  // c (rows, vectors) = a (rows, depth) b (depth, vectors), added to c if accumulate.
  void multiply(float* c, Left a, const float* b, std::int64_t rows, std::int64_t vectors,
                std::int64_t depth, bool accumulate) {
    FetchingStore output{{c, vectors * lanes, accumulate}, fetch};
    product(a, b, vectors * lanes, rows, vectors, depth, output);
  }

  void finish(std::int64_t first, std::int64_t i) {
    float* row = scratch.dq + i * width;
    if (first + i >= kept) {
      const float ratio = scratch.ratios[i * stride + first + i];
      const float score = scratch.scores[i * stride + first + i];
      const float* key = scratch.keys + (first + i) * width;
      for (std::int64_t d = 0; d < width; d += lanes) {
        store(row + d, fma(broadcast(score), load(key + d), load(row + d)));
      }
      store_row(g.dk, first + i, scratch.queries + i * width, score * scale);
      store_row(g.dv, first + i, scratch.grads + i * width, ratio);
    }
    store_row(g.dq, first + i, row, scale);
  }

  void store_row(const Operand& x, std::int64_t i, const float* row, float factor) {
    const std::int64_t dim = item.sequences.dim;
    void* target = item.target(x, scratch.tokens[i]);
    for (std::int64_t d = 0; d < dim; d += lanes) {
      store_as(item.sequences.type, target, d, mul(load(row + d), broadcast(factor)), dim - d);
    }
  }

  // All tokens by columns, as renumbered; zeros beyond the last one.
  void pack_columns_of(float* packed, const Operand& x) {
    const std::int64_t dim = item.sequences.dim;
    for (std::int64_t i = 0; i < item.length; i += lanes) {
      const void* sources[lanes];
      const std::int64_t here = std::min<std::int64_t>(lanes, item.length - i);
      for (std::int64_t j = 0; j < here; ++j) sources[j] = item.source(x, scratch.tokens[i + j]);
      for (std::int64_t d = 0; d < dim; d += lanes) {
        Vector rows[lanes];
        for (int j = 0; j < lanes; ++j) {
          rows[j] = j < here ? load_as(item.sequences.type, sources[j], d, dim - d)
                             : broadcast(0.0f);
        }
        store_transposed(packed + d * stride + i, stride, rows);
      }
    }
  }
};

const BackwardKernel backward_kernel{
    BackwardScratch::size,
    [](const Sequences& sequences, const Gradients& gradients, const BackwardUnit& unit,
       const BackwardUnit* next, float* columns, float* memory) {
      const BackwardUnit& coming = next == nullptr ? unit : *next;
      const Item following(sequences, coming.image, coming.head);
      Backward(sequences, gradients, unit.image, unit.head, next == nullptr ? nullptr : &following,
               memory)
          .run(columns);
    },
};

}  // namespace sparse_vit::SPARSE_VIT_ISA
