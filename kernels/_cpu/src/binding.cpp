// The module that Python imports: every function of the extension is one line of the table.
#include "binding.h"

#include <ATen/Parallel.h>

#define TEXT(name) #name
#define TEXT_OF(name) TEXT(name)

namespace {

// Read from the file before it is loaded, to see whether the module fits.
const char build_tag[] = "build-tag:" TEXT_OF(SPARSE_VIT_BUILD_TAG) ";";

std::int64_t num_threads() { return at::get_num_threads(); }

PyMethodDef methods[] = {
    binding::method<num_threads>("num_threads"),
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module{PyModuleDef_HEAD_INIT, "_extension", build_tag, -1, methods,
                   nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__extension() { return PyModule_Create(&module); }
