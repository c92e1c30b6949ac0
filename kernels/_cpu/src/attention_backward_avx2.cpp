#if defined(__x86_64__)
#include "target_avx2.h"

#include "attention_backward_kernel.h"
#include "target_end.h"
#endif
