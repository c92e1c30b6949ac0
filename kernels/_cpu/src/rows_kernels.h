// What every instruction set provides for rows.
#pragma once

#include "isa.h"
#include "rows.h"

namespace sparse_vit {

struct RowsKernel {
  // One row: out = x, normed, *mean and *rstd.
  void (*norm)(const Norm&, const void* x, float eps, void* out, void* normed, float* mean,
               float* rstd);
  // One row: dx; adds to dweight and dbias.
  void (*norm_grad)(const Norm&, const void* grad, const void* grad_normed, const void* out,
                    float mean, float rstd, void* dx, float* dweight, float* dbias);
  // total += x, of one row.
  void (*add)(Type, const void* x, std::int64_t channels, float* total);
  // out = total, rounded to the type.
  void (*round)(Type, const float* total, std::int64_t channels, void* out);
};

namespace avx512 {
extern const RowsKernel rows_kernel;
}
namespace avx2 {
extern const RowsKernel rows_kernel;
}
namespace generic {
extern const RowsKernel rows_kernel;
}

}  // namespace sparse_vit
