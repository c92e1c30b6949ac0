#include "ranking_kernels.h"
#if defined(__x86_64__)
#include "target_avx512.h"

#include "ranking_kernel.h"
#include "target_end.h"
#endif
