// Gradients of the attention of short sequences.
#pragma once

#include "attention.h"

namespace sparse_vit {

// The inputs and results of the forward, the gradient of its result, and where the gradients go. q,
// k and v are read through `Sequences::rows`; all others count packed tokens.
struct Gradients {
  Operand q, k, v, out, lse, grad, dq, dk, dv;
};

// dkeep, null or (images, tokens), is the gradient of the mask, summed over the heads in their
// order: the same bits whatever the number of threads.
void attention_backward(const Sequences& sequences, const Gradients& gradients, float* dkeep);

// One head of one sequence.
struct BackwardUnit {
  std::int64_t image, head;
};

// What every instruction set provides.
struct BackwardKernel {
  std::int64_t (*scratch)(std::int64_t length, std::int64_t dim);  // in floats
  // columns, null or (tokens), is the unit's part of dkeep; next, or null, is what to fetch ahead.
  void (*run)(const Sequences&, const Gradients&, const BackwardUnit& unit,
              const BackwardUnit* next, float* columns, float* scratch);
};

namespace avx512 {
extern const BackwardKernel backward_kernel;
}
namespace avx2 {
extern const BackwardKernel backward_kernel;
}
namespace generic {
extern const BackwardKernel backward_kernel;
}

}  // namespace sparse_vit
