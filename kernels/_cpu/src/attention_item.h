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

  // Bytes of an element of q, k, v and the output.
  std::int64_t size() const { return sequences.type == Type::float32 ? 4 : 2; }

  // Where the row of a token of q, k or v begins.
  auto sources(const Operand& x) const {
    const char* base = static_cast<const char*>(x.data) + size() * offset(x, 0);
    return [this, base, stride = size() * x.token](std::int64_t token) {
      return static_cast<const void*>(base + row(token) * stride);
    };
  }

  const void* source(const Operand& x, std::int64_t token) const { return sources(x)(token); }

  void* target(const Operand& x, std::int64_t token) const {
    return static_cast<char*>(x.data) + size() * offset(x, start + token);
  }

  float* statistic(const Operand& x, std::int64_t token) const {
    return static_cast<float*>(x.data) + offset(x, start + token);
  }

 private:
  std::int64_t offset(const Operand& x, std::int64_t token) const {
    return image * x.image + head * x.head + token * x.token;
  }
};

// Calls the function with the type as a constant.
template <typename Function>
SPARSE_VIT_INLINE void for_type(Type type, Function function) {
  switch (type) {
    case Type::float32: return function(std::integral_constant<Type, Type::float32>());
    case Type::bfloat16: return function(std::integral_constant<Type, Type::bfloat16>());
    case Type::float16: return function(std::integral_constant<Type, Type::float16>());
  }
}

// Copies the rows of token(0) .. token(count - 1) as floats, round_up(dim) apart, zeros at the end
// of each.
template <typename Token>
inline void pack_rows(float* packed, const Item& item, const Operand& x, std::int64_t count,
                      Token token) {
  const std::int64_t dim = item.sequences.dim, whole = dim / lanes * lanes;
  const auto sources = item.sources(x);
  for_type(item.sequences.type, [&](auto type) {
    for (std::int64_t i = 0; i < count; ++i) {
      const void* source = sources(token(i));
      for (std::int64_t d = 0; d < whole; d += lanes, packed += lanes) {
        store(packed, load_as(type, source, d, lanes));
      }
      if (whole == dim) continue;
      store(packed, load_as(type, source, whole, dim - whole));
      packed += lanes;
    }
  });
}

inline void pack_rows(float* packed, const Item& item, const Operand& x,
                      const std::int32_t* tokens, std::int64_t count) {
  pack_rows(packed, item, x, count, [tokens](std::int64_t i) { return tokens[i]; });
}

// Packs tokens by columns: packed[d * round_up(count) + i] is element d of token(i), and 0 where
// i >= count. Writes round_up(dim) rows.
template <typename Token>
inline void pack_columns(float* packed, const Item& item, const Operand& x, std::int64_t count,
                         Token token) {
  const std::int64_t dim = item.sequences.dim, stride = round_up(count);
  const auto source = item.sources(x);
  for_type(item.sequences.type, [&](auto type) {
    for (std::int64_t i = 0; i < count; i += lanes) {
      const void* sources[lanes];
      for (std::int64_t j = 0; j < lanes; ++j) {
        sources[j] = i + j < count ? source(token(i + j)) : nullptr;
      }
      std::int64_t d = 0;
      if constexpr (type() == Type::float32) {
        const float* rows[lanes];
        for (int j = 0; j < lanes; ++j) rows[j] = static_cast<const float*>(sources[j]);
        for (; i + lanes <= count && d + lanes <= dim; d += lanes) {
          transpose(packed + d * stride + i, stride, rows);
          for (int j = 0; j < lanes; ++j) rows[j] += lanes;
        }
      }
      for (; d < dim; d += lanes) {
        Vector rows[lanes];
#pragma GCC unroll 16
        for (int j = 0; j < lanes; ++j) {
          rows[j] = sources[j] == nullptr ? broadcast(0.0f)
                                          : load_as(type, sources[j], d, dim - d);
        }
        store_transposed(packed + d * stride + i, stride, rows);
      }
    }
  });
}

}  // namespace sparse_vit::SPARSE_VIT_ISA
