#include "isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace sparse_vit {

bool processor_has(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             processor_has(Isa::avx2);
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
    default:
      return true;
  }
#else
  return isa == Isa::generic;
#endif
}

Isa isa() {
  const char* name = std::getenv("SPARSE_VIT_CPU_ISA");
  const std::string wanted = name == nullptr ? "" : name;
  for (const auto& [isa, text] :
       {std::pair{Isa::avx512, "avx512"}, {Isa::avx2, "avx2"}, {Isa::generic, "generic"}}) {
    if (wanted.empty() ? processor_has(isa) : wanted == text) {
      if (processor_has(isa)) return isa;
      throw std::runtime_error("SPARSE_VIT_CPU_ISA=" + wanted +
                               ": this processor lacks it; unset the variable");
    }
  }
  throw std::runtime_error("SPARSE_VIT_CPU_ISA=" + wanted +
                           " is unknown; choose avx512, avx2 or generic, or unset the variable");
}

}  // namespace sparse_vit
