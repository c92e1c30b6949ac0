#include "rows_kernels.h"

#include "target_generic.h"

#include "rows_kernel.h"
