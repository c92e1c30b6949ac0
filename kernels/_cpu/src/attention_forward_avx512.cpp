#include "attention_kernels.h"
#if defined(__x86_64__)
#include "target_avx512.h"

#include "attention_forward_kernel.h"
#include "target_end.h"
#endif
