// Defines the forward kernel of the instruction set that the including file is compiled for.
#include "attention_forward.h"

namespace sparse_vit::SPARSE_VIT_ISA {

const ForwardKernel forward_kernel{
    [](std::int64_t length) { return Tiles(length).count; },
    ForwardScratch::size,
    forward_tiles,
};

}  // namespace sparse_vit::SPARSE_VIT_ISA
