// One head of one sequence: where its rows lie, and their conversion into packed float32.
#pragma once

#include "simd.h"

namespace sparse_vit::SPARSE_VIT_ISA {

struct Item {
  const Sequences& sequences;
  std::int64_t image, head, start, length;

  Item(const Sequences& s, std::int64_t image, std::int64_t head)
      : sequences(s), image(image), head(head), start(0), length(s.tokens) {
    if (s.cu_seqlens != nullptr) {
      start = s.cu_seqlens[image];
      length = s.cu_seqlens[image + 1] - start;
    }
  }

  // Row of q, k and v that holds a token of this sequence.
  std::int64_t row(std::int64_t token) const {
    const std::int64_t packed = start + token;
    if (sequences.rows == nullptr) return packed;
    return sequences.rows_are_64_bit ? static_cast<const std::int64_t*>(sequences.rows)[packed]
                                     : static_cast<const std::int32_t*>(sequences.rows)[packed];
  }

  bool kept(std::int64_t token) const {
    return sequences.keep == nullptr || sequences.keep[image * sequences.tokens + token] != 0;
  }

  const void* source(const Operand& x, std::int64_t token) const {
    const std::int64_t size = sequences.type == Type::float32 ? 4 : 2;
    return static_cast<const char*>(x.data) + size * offset(x, row(token));
  }

  void* target(const Operand& x, std::int64_t token) const {
    const std::int64_t size = sequences.type == Type::float32 ? 4 : 2;
    return static_cast<char*>(x.data) + size * offset(x, start + token);
  }

  float* statistic(const Operand& x, std::int64_t token) const {
    return static_cast<float*>(x.data) + offset(x, start + token);
  }

 private:
  std::int64_t offset(const Operand& x, std::int64_t token) const {
    return image * x.image + head * x.head + token * x.token;
  }
};

// Copies the rows of `count` tokens as floats, round_up(dim) apart, zeros at the end of each.
inline void pack_rows(float* packed, const Item& item, const Operand& x,
                      const std::int32_t* tokens, std::int64_t count) {
  const std::int64_t dim = item.sequences.dim;
  const Type type = item.sequences.type;
  for (std::int64_t i = 0; i < count; ++i) {
    const void* source = item.source(x, tokens[i]);
    for (std::int64_t d = 0; d < dim; d += lanes, packed += lanes) {
      store(packed, load_as(type, source, d, dim - d));
    }
  }
}

// Packs `sign` times tokens first .. first + count - 1 by columns: packed[d * stride + i], where
// stride = round_up(count), and zeros for i >= count. Writes round_up(dim) * stride floats.
inline void pack_columns(float* packed, const Item& item, const Operand& x, std::int64_t first,
                         std::int64_t count, float sign) {
  const std::int64_t dim = item.sequences.dim, stride = round_up(count);
  const Type type = item.sequences.type;
  for (std::int64_t i = 0; i < count; i += lanes) {
    const void* sources[lanes];
    const std::int64_t here = std::min<std::int64_t>(lanes, count - i);
    for (std::int64_t j = 0; j < here; ++j) sources[j] = item.source(x, first + i + j);
    for (std::int64_t d = 0; d < dim; d += lanes) {
      Vector rows[lanes];
      for (int j = 0; j < lanes; ++j) {
        rows[j] = j < here ? mul(broadcast(sign), load_as(type, sources[j], d, dim - d))
                           : broadcast(0.0f);
      }
      store_transposed(packed + d * stride + i, stride, rows);
    }
  }
}

}  // namespace sparse_vit::SPARSE_VIT_ISA
