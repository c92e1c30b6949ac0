#include "rows.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "rows_kernels.h"
#include "scratch.h"

namespace sparse_vit {

namespace {

const RowsKernel& kernel() {
  switch (isa()) {
#if defined(__x86_64__)
    case Isa::avx512:
      return avx512::rows_kernel;
    case Isa::avx2:
      return avx2::rows_kernel;
#endif
    default:
      return generic::rows_kernel;
  }
}

// Bytes that a thread should have to touch before another one helps.
constexpr std::int64_t grain_bytes = 1 << 16;

std::int64_t grain(std::int64_t row_bytes) {
  return std::max<std::int64_t>(1, grain_bytes / std::max<std::int64_t>(1, row_bytes));
}

const char* row_of(const void* x, std::int64_t row, std::int64_t row_bytes) {
  return static_cast<const char*>(x) + row * row_bytes;
}

char* row_of(void* x, std::int64_t row, std::int64_t row_bytes) {
  return static_cast<char*>(x) + row * row_bytes;
}

std::int64_t size_of(Type type) { return type == Type::float32 ? 4 : 2; }

// Returns the place of the first index outside [0, bound), or -1.
std::int64_t outside(const std::int64_t* indices, std::int64_t rows, std::int64_t bound) {
  // Without a branch first: it almost always finds nothing.
  bool wrong = false;
  for (std::int64_t t = 0; t < rows; ++t) wrong |= indices[t] < 0 || indices[t] >= bound;
  if (!wrong) return -1;
  std::int64_t t = 0;
  while (indices[t] >= 0 && indices[t] < bound) ++t;
  return t;
}

}  // namespace

std::int64_t gather_rows(const void* x, std::int64_t stride, std::int64_t bytes,
                         const std::int64_t* indices, std::int64_t rows, std::int64_t bound,
                         std::int64_t channels, void* out) {
  const std::int64_t wrong = outside(indices, rows, bound), row_bytes = channels * bytes;
  if (wrong != -1) return wrong;
  at::parallel_for(0, rows, grain(2 * row_bytes), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      std::memcpy(row_of(out, t, row_bytes), row_of(x, indices[t], stride * bytes), row_bytes);
    }
  });
  return -1;
}

std::int64_t scatter_rows(const void* y, std::int64_t stride, std::int64_t bytes,
                          const std::int64_t* indices, std::int64_t rows, std::int64_t bound,
                          std::int64_t channels, const void* fill, void* out) {
  const std::int64_t wrong = outside(indices, rows, bound), row_bytes = channels * bytes;
  if (wrong != -1) return wrong;
  std::vector<std::int64_t> source(bound, -1);
  for (std::int64_t t = rows - 1; t >= 0; --t) source[indices[t]] = t;
  std::vector<char> filled(row_bytes);
  for (std::int64_t c = 0; c < channels; ++c) std::memcpy(&filled[c * bytes], fill, bytes);
  at::parallel_for(0, bound, grain(2 * row_bytes), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const char* row = source[r] < 0 ? filled.data() : row_of(y, source[r], stride * bytes);
      std::memcpy(row_of(out, r, row_bytes), row, row_bytes);
    }
  });
  return -1;
}

std::int64_t gather_rows_grad(const void* grad, std::int64_t stride, Type type,
                              const std::int64_t* indices, std::int64_t rows, std::int64_t bound,
                              std::int64_t channels, void* out) {
  const std::int64_t wrong = outside(indices, rows, bound);
  if (wrong != -1) return wrong;
  const std::int64_t bytes = size_of(type), row_bytes = channels * bytes;
  // The rows that gathered r: first[r], then next[first[r]] and so on, ascending.
  std::vector<std::int64_t> first(bound, -1), next(rows);
  for (std::int64_t t = rows - 1; t >= 0; --t) {
    next[t] = first[indices[t]];
    first[indices[t]] = t;
  }
  const RowsKernel& kernel = sparse_vit::kernel();
  at::parallel_for(0, bound, grain(2 * row_bytes), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      char* sum = row_of(out, r, row_bytes);
      if (first[r] < 0) {
        std::memset(sum, 0, row_bytes);
      } else if (next[first[r]] < 0) {
        std::memcpy(sum, row_of(grad, first[r], stride * bytes), row_bytes);
      } else {
        float* total = scratch(channels);
        std::fill_n(total, channels, 0.0f);
        for (std::int64_t t = first[r]; t >= 0; t = next[t]) {
          kernel.add(type, row_of(grad, t, stride * bytes), channels, total);
        }
        kernel.round(type, total, channels, sum);
      }
    }
  });
  return -1;
}

std::int64_t gather_norm(const Norm& norm, const void* x, std::int64_t stride,
                         const std::int64_t* indices, std::int64_t bound, float eps, void* out,
                         void* normed) {
  const std::int64_t wrong = outside(indices, norm.rows, bound);
  if (wrong != -1) return wrong;
  const std::int64_t bytes = size_of(norm.type), row_bytes = norm.channels * bytes;
  const RowsKernel& kernel = sparse_vit::kernel();
  at::parallel_for(0, norm.rows, grain(3 * row_bytes), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      kernel.norm(norm, row_of(x, indices[t], stride * bytes), eps, row_of(out, t, row_bytes),
                  row_of(normed, t, row_bytes), norm.mean + t, norm.rstd + t);
    }
  });
  return -1;
}

void norm_grad(const Norm& norm, const void* grad, const void* grad_normed, const void* out,
               void* dx, float* dweight, float* dbias) {
  const std::int64_t channels = norm.channels, row_bytes = channels * size_of(norm.type);
  // Parts depend on the number of rows alone, and so do the sums.
  const std::int64_t step = std::max<std::int64_t>(32, (norm.rows + 63) / 64);
  const std::int64_t parts = (norm.rows + step - 1) / step;
  std::vector<float> sums(2 * parts * channels, 0.0f);
  const RowsKernel& kernel = sparse_vit::kernel();
  at::parallel_for(0, parts, grain(4 * step * row_bytes), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t part = begin; part < end; ++part) {
      float* part_weight = &sums[2 * part * channels];
      const std::int64_t last = std::min(norm.rows, (part + 1) * step);
      for (std::int64_t t = part * step; t < last; ++t) {
        kernel.norm_grad(norm, row_of(grad, t, row_bytes), row_of(grad_normed, t, row_bytes),
                         row_of(out, t, row_bytes), norm.mean[t], norm.rstd[t],
                         row_of(dx, t, row_bytes), part_weight, part_weight + channels);
      }
    }
  });
  std::fill_n(dweight, channels, 0.0f);
  std::fill_n(dbias, channels, 0.0f);
  for (std::int64_t part = 0; part < parts; ++part) {
    kernel.add(Type::float32, &sums[2 * part * channels], channels, dweight);
    kernel.add(Type::float32, &sums[(2 * part + 1) * channels], channels, dbias);
  }
}

}  // namespace sparse_vit
