#include "ranking_kernels.h"

#include "target_generic.h"

#include "ranking_kernel.h"
