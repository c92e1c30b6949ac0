#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

#include "attention_kernels.h"
#include "scratch.h"

namespace sparse_vit {

namespace {

const ForwardKernel& kernel() {
  switch (isa()) {
#if defined(__x86_64__)
    case Isa::avx512:
      return avx512::forward_kernel;
    case Isa::avx2:
      return avx2::forward_kernel;
#endif
    default:
      return generic::forward_kernel;
  }
}

std::int64_t longest(const Sequences& s) {
  if (s.cu_seqlens == nullptr) return s.tokens;
  std::int64_t length = 0;
  for (std::int64_t b = 0; b < s.images; ++b) {
    length = std::max<std::int64_t>(length, s.cu_seqlens[b + 1] - s.cu_seqlens[b]);
  }
  return length;
}

}  // namespace

void attention_forward(const Sequences& sequences, const Operand& q, const Operand& k,
                       const Operand& v, const Operand& out, const Operand& lse) {
  const std::int64_t items = sequences.images * sequences.heads, length = longest(sequences);
  if (items == 0 || length == 0) return;
  const ForwardKernel& kernel = sparse_vit::kernel();
  const std::int64_t threads = at::get_num_threads(), tiles = kernel.tiles(length);
  // Few heads are cut at tiles, each part packing the keys again.
  const std::int64_t parts = std::min(tiles, items >= 4 * threads ? 1 : (4 * threads) / items);
  const std::int64_t step = (tiles + parts - 1) / parts, units = items * parts;
  std::atomic<std::int64_t> next{0};
  at::parallel_for(0, std::min(threads, units), 1, [&](std::int64_t, std::int64_t) {
    float* memory = scratch(kernel.scratch(length, sequences.dim));
    for (std::int64_t unit; (unit = next.fetch_add(1, std::memory_order_relaxed)) < units;) {
      const std::int64_t item = unit / parts, part = unit % parts;
      kernel.run(sequences, q, k, v, out, lse, item / sequences.heads, item % sequences.heads,
                 part * step, (part + 1) * step, memory);
    }
  });
}

}  // namespace sparse_vit
