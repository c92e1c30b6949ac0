// What every instruction set provides to the schedulers.
#pragma once

#include "attention.h"
#include "isa.h"

namespace sparse_vit {

struct ForwardKernel {
  std::int64_t (*tiles)(std::int64_t length);
  std::int64_t (*scratch)(std::int64_t length, std::int64_t dim);  // in floats
  void (*run)(const Sequences&, const Operand& q, const Operand& k, const Operand& v,
              const Operand& out, const Operand& lse, std::int64_t image, std::int64_t head,
              std::int64_t first_tile, std::int64_t last_tile, float* scratch);
};

namespace avx512 {
extern const ForwardKernel forward_kernel;
}
namespace avx2 {
extern const ForwardKernel forward_kernel;
}
namespace generic {
extern const ForwardKernel forward_kernel;
}

}  // namespace sparse_vit
