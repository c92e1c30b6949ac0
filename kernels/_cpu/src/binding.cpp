// The module that Python imports: every function of the extension is one line of the table.
#include "binding.h"

#include <ATen/Parallel.h>

#include "attention.h"
#include "attention_backward.h"
#include "isa.h"
#include "ranking.h"
#include "rows.h"

#define TEXT(name) #name
#define TEXT_OF(name) TEXT(name)

namespace binding {

template <>
struct Argument<sparse_vit::Operand>
    : Aggregated<sparse_vit::Operand, void*, std::int64_t, std::int64_t, std::int64_t> {};

template <>
struct Argument<sparse_vit::Sequences>
    : Aggregated<sparse_vit::Sequences, const std::int32_t*, const void*, bool, const std::uint8_t*,
                 std::int64_t, std::int64_t, std::int64_t, std::int64_t, sparse_vit::Type, float> {
};

template <>
struct Argument<sparse_vit::Gradients>
    : Aggregated<sparse_vit::Gradients, sparse_vit::Operand, sparse_vit::Operand,
                 sparse_vit::Operand, sparse_vit::Operand, sparse_vit::Operand,
                 sparse_vit::Operand, sparse_vit::Operand, sparse_vit::Operand,
                 sparse_vit::Operand> {};

template <>
struct Argument<sparse_vit::Norm>
    : Aggregated<sparse_vit::Norm, sparse_vit::Type, std::int64_t, std::int64_t, const float*,
                 const float*, float*, float*> {};

template <>
struct Argument<sparse_vit::RankedSets>
    : Aggregated<sparse_vit::RankedSets, sparse_vit::Metric, const void*, const void*, std::int64_t,
                 std::int64_t, std::int64_t, const double*, const double*, const float*,
                 const double*, const float*, const float*, double, double, double> {};

template <>
struct Argument<sparse_vit::Thresholds>
    : Aggregated<sparse_vit::Thresholds, const float*, const std::int64_t*, const std::int64_t*,
                 std::int64_t, const std::uint8_t*, const std::int64_t*, const std::int64_t*> {};

template <>
struct Argument<sparse_vit::Places>
    : Aggregated<sparse_vit::Places, std::int64_t*, std::int64_t*, std::int64_t*, std::int64_t,
                 std::int64_t*, float*> {};

}  // namespace binding

namespace {

// Read from the file before it is loaded, to see whether the module fits.
const char build_tag[] = "build-tag:" TEXT_OF(SPARSE_VIT_BUILD_TAG) ";";

std::int64_t num_threads() { return at::get_num_threads(); }

const char* isa() {
  switch (sparse_vit::isa()) {
    case sparse_vit::Isa::avx512: return "avx512";
    case sparse_vit::Isa::avx2: return "avx2";
    default: return "generic";
  }
}

PyMethodDef methods[] = {
    binding::method<num_threads>("num_threads"),
    binding::method<isa>("isa"),
    binding::method<sparse_vit::attention_forward>("attention_forward"),
    binding::method<sparse_vit::attention_backward>("attention_backward"),
    binding::method<sparse_vit::select_tokens>("select_tokens"),
    binding::method<sparse_vit::gather_rows>("gather_rows"),
    binding::method<sparse_vit::scatter_rows>("scatter_rows"),
    binding::method<sparse_vit::gather_rows_grad>("gather_rows_grad"),
    binding::method<sparse_vit::gather_norm>("gather_norm"),
    binding::method<sparse_vit::norm_grad>("norm_grad"),
    binding::method<sparse_vit::ranking_norms>("ranking_norms"),
    binding::method<sparse_vit::ranking_centre>("ranking_centre"),
    binding::method<sparse_vit::ranking_pairs>("ranking_pairs"),
    binding::method<sparse_vit::ranking_places>("ranking_places"),
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module{PyModuleDef_HEAD_INIT, "_extension", build_tag, -1, methods,
                   nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__extension() { return PyModule_Create(&module); }
