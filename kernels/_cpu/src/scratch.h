// Memory that a thread keeps between calls: fresh pages cost more than a short sequence.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace sparse_vit {

// Returns at least `count` floats, aligned to a cache line, valid until this thread's next call.
inline float* scratch(std::int64_t count) {
  struct Free {
    void operator()(float* memory) const { std::free(memory); }
  };
  thread_local std::unique_ptr<float, Free> memory;
  thread_local std::int64_t size = 0;
  if (count > size) {
    memory.reset();
    size = 0;
    const std::size_t bytes = (static_cast<std::size_t>(count) * sizeof(float) + 63) / 64 * 64;
    memory.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
    if (memory == nullptr) throw std::bad_alloc();
    size = count;
  }
  return memory.get();
}

}  // namespace sparse_vit
