// The instruction sets that the kernels are compiled for, and which one this processor runs.
#pragma once

#include <cstdint>

namespace sparse_vit {

enum class Isa : std::int64_t { generic = 0, avx2 = 1, avx512 = 2 };

// The best one of this processor, or what the environment variable SPARSE_VIT_CPU_ISA names.
// Throws std::runtime_error where the name is unknown or the processor lacks it.
Isa isa();

bool processor_has(Isa isa);

}  // namespace sparse_vit
