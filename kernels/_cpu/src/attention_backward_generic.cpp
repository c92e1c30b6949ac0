#include "target_generic.h"

#include "attention_backward_kernel.h"
