// Attention of short sequences on the processor: what is computed, and on what memory.
#pragma once

#include <cstdint>

namespace sparse_vit {

enum class Type : std::int64_t { float32 = 0, bfloat16 = 1, float16 = 2 };

// Rows of `dim` adjacent elements; row (image, head, token) starts at the sum of its strides.
struct Operand {
  void* data;
  std::int64_t image, head, token;  // strides in elements
};

// Either `images` sequences of `tokens` rows each, or, with cu_seqlens, packed sequences: sequence
// b owns tokens cu_seqlens[b] .. cu_seqlens[b + 1], whose image stride is zero.
struct Sequences {
  const std::int32_t* cu_seqlens;  // (images + 1), or null
  const void* rows;                // row of q, k and v that a packed token reads, or null
  bool rows_are_64_bit;
  const std::uint8_t* keep;  // (images, tokens), or null; a dropped token is seen by itself alone
  std::int64_t images, heads, tokens, dim;
  Type type;
  float scale;
};

// out = softmax(scale q k^T) v and, where lse.data is not null, the float32 log of the softmax's
// sum for every row. The strides of out and lse count packed tokens, not the rows that they gather.
void attention_forward(const Sequences& sequences, const Operand& q, const Operand& k,
                       const Operand& v, const Operand& out, const Operand& lse);

}  // namespace sparse_vit
