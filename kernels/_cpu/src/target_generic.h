// Functions are compiled for whatever the compiler takes as its base, four floats at a time.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#define SPARSE_VIT_ISA generic
