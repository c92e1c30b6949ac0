// Rows of a matrix on the processor: which ones to keep, and moving, normalising and adding them up.
#pragma once

#include "attention.h"

namespace sparse_vit {

// Keeps, of every image, the scores at or above a threshold, given as the bits of a score, but at
// least min_keep and at most max_keep of the largest; ties go to the lower index, NaN counts as
// -infinity. Each image has
// `prefix` tokens more in front, always kept. Writes mask (images, prefix + tokens); indices of kept
// rows, ascending, with room for images * (prefix + max_keep); and cu_seqlens (images + 1). `padded`
// fills the room with dropped rows, ascending.
void select_tokens(const void* scores, Type type, std::int64_t images, std::int64_t tokens,
                   std::int64_t image_stride, std::int64_t token_stride, std::int64_t threshold,
                   std::int64_t min_keep, std::int64_t max_keep, std::int64_t prefix, bool padded,
                   std::uint8_t* mask, std::int64_t* indices, std::int32_t* cu_seqlens);

// Of all functions below: matrices have rows of adjacent elements, the strides between rows count
// elements, results are contiguous. Where an index is outside [0, bound), the place of the first one
// is returned and nothing is written; otherwise -1 is.

// out (rows, channels) = x[indices]; `bytes` is the size of an element.
std::int64_t gather_rows(const void* x, std::int64_t stride, std::int64_t bytes,
                         const std::int64_t* indices, std::int64_t rows, std::int64_t bound,
                         std::int64_t channels, void* out);

// out (bound, channels) = `fill`, an element, but out[indices] = y; of two rows for one place the
// first.
std::int64_t scatter_rows(const void* y, std::int64_t stride, std::int64_t bytes,
                          const std::int64_t* indices, std::int64_t rows, std::int64_t bound,
                          std::int64_t channels, const void* fill, void* out);

// out (bound, channels) = 0, then out[indices] += grad: in float32, in the order of the rows.
std::int64_t gather_rows_grad(const void* grad, std::int64_t stride, Type type,
                              const std::int64_t* indices, std::int64_t rows, std::int64_t bound,
                              std::int64_t channels, void* out);

// Rows with their LayerNorm; the weight and the bias are float32, or null.
struct Norm {
  Type type;
  std::int64_t rows, channels;
  const float* weight;
  const float* bias;
  float* mean;  // (rows)
  float* rstd;  // (rows)
};

// out (rows, channels) = x[indices], normed = (out - mean) * rstd * weight + bias.
std::int64_t gather_norm(const Norm& norm, const void* x, std::int64_t stride,
                         const std::int64_t* indices, std::int64_t bound, float eps, void* out,
                         void* normed);

// From the gradients of out and normed: dx (rows, channels), that of x[indices]; dweight and dbias
// (channels), float32, summed in an order that does not depend on the number of threads.
void norm_grad(const Norm& norm, const void* grad, const void* grad_normed, const void* out,
               void* dx, float* dweight, float* dbias);

}  // namespace sparse_vit
