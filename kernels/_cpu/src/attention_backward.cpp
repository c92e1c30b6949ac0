#include "attention_backward.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "isa.h"
#include "scratch.h"

namespace sparse_vit {
namespace {

// Waking a thread for less costs more than it saves.
constexpr double flops_of_a_thread = 1e6;

const BackwardKernel& kernel() {
  switch (isa()) {
#if defined(__x86_64__)
    case Isa::avx512:
      return avx512::backward_kernel;
    case Isa::avx2:
      return avx2::backward_kernel;
#endif
    default:
      return generic::backward_kernel;
  }
}

// The longest sequence, and the products of all in floating-point operations.
std::int64_t measure(const Sequences& s, double& flops) {
  std::int64_t longest = 0;
  double pairs = 0.0;
  for (std::int64_t b = 0; b < s.images; ++b) {
    const std::int64_t length =
        s.cu_seqlens == nullptr ? s.tokens : s.cu_seqlens[b + 1] - s.cu_seqlens[b];
    longest = std::max(longest, length);
    pairs += static_cast<double>(length) * static_cast<double>(length);
  }
  flops = 10.0 * pairs * static_cast<double>(s.heads * s.dim);
  return longest;
}

}  // namespace

void attention_backward(const Sequences& sequences, const Gradients& gradients, float* dkeep) {
  const std::int64_t heads = sequences.heads, tokens = sequences.tokens;
  const std::int64_t items = sequences.images * heads;
  double flops;
  const std::int64_t length = measure(sequences, flops);
  if (items == 0 || length == 0) return;
  const BackwardKernel& kernel = sparse_vit::kernel();
  std::vector<float> columns(dkeep == nullptr ? 0 : items * tokens);
  const std::int64_t workers =
      std::min({items, std::int64_t{at::get_num_threads()},
                static_cast<std::int64_t>(flops / flops_of_a_thread) + 1});
  std::atomic<std::int64_t> next{0};
  at::parallel_for(0, workers, 1, [&](std::int64_t, std::int64_t) {
    float* memory = scratch(kernel.scratch(length, sequences.dim));
    const auto take = [&] { return next.fetch_add(1, std::memory_order_relaxed); };
    const auto unit = [&](std::int64_t item) { return BackwardUnit{item / heads, item % heads}; };
    for (std::int64_t item = take(), after; item < items; item = after) {
      after = take();
      const BackwardUnit now = unit(item), then = unit(after);
      kernel.run(sequences, gradients, now, after < items ? &then : nullptr,
                 dkeep == nullptr ? nullptr : columns.data() + item * tokens, memory);
    }
  });
  if (dkeep == nullptr) return;
  std::fill(dkeep, dkeep + sequences.images * tokens, 0.0f);
  for (std::int64_t item = 0; item < items; ++item) {
    float* sums = dkeep + item / heads * tokens;
    const float* part = columns.data() + item * tokens;
    for (std::int64_t token = 0; token < tokens; ++token) sums[token] += part[token];
  }
}

}  // namespace sparse_vit
