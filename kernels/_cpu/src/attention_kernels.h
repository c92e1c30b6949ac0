// What every instruction set provides to the scheduler of the forward.
#pragma once

#include "attention.h"
#include "isa.h"

namespace sparse_vit {

struct ForwardOperands {
  const Operand &q, &k, &v, &out, &lse;
};

// Query tiles first .. last - 1 of one head of one sequence.
struct ForwardUnit {
  std::int64_t image, head, first, last;
};

struct ForwardKernel {
  std::int64_t (*tiles)(std::int64_t length);
  std::int64_t (*scratch)(std::int64_t length, std::int64_t dim);  // in floats
  // What `next` reads, if not null, is fetched into the cache along the way.
  void (*run)(const Sequences& sequences, const ForwardOperands& operands, const ForwardUnit& unit,
              const ForwardUnit* next, float* scratch);
};

namespace avx512_pairs {
extern const ForwardKernel forward_kernel;  // of bfloat16 with even sizes and strides
}
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
