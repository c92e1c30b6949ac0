// From here to the end of the file, functions are compiled for AVX2 with FMA and F16C. Standard
// headers come first: what they define inline must stay callable on every processor.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#define SPARSE_VIT_AVX2 1
#define SPARSE_VIT_ISA avx2
