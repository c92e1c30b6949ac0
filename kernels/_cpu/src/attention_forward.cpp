#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>

#include "attention_kernels.h"
#include "scratch.h"

namespace sparse_vit {
namespace {

// Waking a thread for less costs more than it saves.
constexpr double flops_of_a_thread = 1e6;

// Below this, what fetching ahead saves does not pay for its instructions.
constexpr std::int64_t cached_bytes = 8 << 20;

// Whether rows can be read as rows of pairs.
bool in_pairs(const Sequences& sequences, const Operand& q, const Operand& k) {
  const std::int64_t odd = sequences.dim | q.image | q.head | q.token | k.image | k.head | k.token;
  return sequences.type == Type::bfloat16 && odd % 2 == 0;
}

#if defined(__x86_64__)
// Whether bfloat16 is multiplied in pairs: where the processor does as many pairs as floats at a
// time. AMD's do from Zen 4 on, Intel's a quarter (measured on Sapphire Rapids). The environment
// variable SPARSE_VIT_CPU_PAIRS, 0 or 1, decides otherwise where there is a choice.
bool multiplies_pairs() {
  if (isa() != Isa::avx512 || !__builtin_cpu_supports("avx512bf16")) return false;
  const char* wanted = std::getenv("SPARSE_VIT_CPU_PAIRS");
  return wanted != nullptr ? std::string(wanted) == "1" : __builtin_cpu_is("amd");
}
#endif

const ForwardKernel& kernel(bool pairs) {
#if defined(__x86_64__)
  if (pairs && multiplies_pairs()) return avx512_pairs::forward_kernel;
#endif
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
  flops = 4.0 * pairs * static_cast<double>(s.heads * s.dim);
  return longest;
}

}  // namespace

void attention_forward(const Sequences& sequences, const Operand& q, const Operand& k,
                       const Operand& v, const Operand& out, const Operand& lse) {
  double flops;
  const std::int64_t heads = sequences.heads, items = sequences.images * heads;
  const std::int64_t length = measure(sequences, flops);
  if (items == 0 || length == 0) return;
  const ForwardKernel& kernel = sparse_vit::kernel(in_pairs(sequences, q, k));
  const ForwardOperands operands{q, k, v, out, lse};
  const std::int64_t tiles = kernel.tiles(length);
  const std::int64_t threads = std::min<std::int64_t>(
      at::get_num_threads(), static_cast<std::int64_t>(flops / flops_of_a_thread) + 1);
  // Few heads are cut at tiles, each part packing the keys again.
  const std::int64_t parts =
      threads == 1 || items >= 4 * threads ? 1 : std::min(tiles, 4 * threads / items);
  const std::int64_t step = (tiles + parts - 1) / parts, units = items * parts;
  const std::int64_t size = sequences.type == Type::float32 ? 4 : 2;
  const bool fetch = parts == 1 && 4 * items * length * sequences.dim * size > cached_bytes;
  std::atomic<std::int64_t> taken{0};
  at::parallel_for(0, std::min(threads, units), 1, [&](std::int64_t, std::int64_t) {
    float* memory = scratch(kernel.scratch(length, sequences.dim));
    std::int64_t index = 0, end = 0;
    const auto take = [&](ForwardUnit& unit) {
      if (index == end) {
        // Heads of an image lie side by side: whoever has touched the pages of one goes on with the
        // next. Towards the end threads take less at a time, to finish together.
        index = taken.load(std::memory_order_relaxed);
        do {
          end = index + std::clamp<std::int64_t>((units - index) / (4 * threads), 1, heads);
        } while (!taken.compare_exchange_weak(index, end, std::memory_order_relaxed));
      }
      if (index >= units) return false;
      const std::int64_t item = index / parts, part = index % parts;
      // A sequence that is not the longest may have more tiles: the last part takes all the rest.
      const std::int64_t last = part + 1 == parts ? length : (part + 1) * step;
      unit = {item / heads, item % heads, part * step, last};
      ++index;
      return true;
    };
    ForwardUnit unit, next;
    for (bool more = take(unit); more; unit = next) {
      more = take(next);
      kernel.run(sequences, operands, unit, more && fetch ? &next : nullptr, memory);
    }
  });
}

}  // namespace sparse_vit
