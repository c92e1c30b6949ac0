#include "attention_kernels.h"
#include "target_generic.h"

#include "attention_forward_kernel.h"

