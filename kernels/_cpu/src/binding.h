// Turns a plain C++ function into one that Python calls with positional numbers: a tensor is given
// as its data pointer, sizes and strides as integers. Arguments are converted by their type alone.
#pragma once

#include <Python.h>

#include <cstdint>
#include <exception>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

namespace binding {

template <typename T>
T from_python(PyObject* object) {
  if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<T>(PyLong_AsUnsignedLongLong(object));
  } else if constexpr (std::is_floating_point_v<T>) {
    return static_cast<T>(PyFloat_AsDouble(object));
  } else {
    static_assert(std::is_integral_v<T>, "arguments are pointers, integers or floats");
    return static_cast<T>(PyLong_AsLongLong(object));
  }
}

inline PyObject* to_python(const char* text) { return PyUnicode_FromString(text); }
inline PyObject* to_python(std::int64_t number) { return PyLong_FromLongLong(number); }

template <auto Function>
struct Bound;

template <typename Result, typename... Arguments, Result (*Function)(Arguments...)>
struct Bound<Function> {
  static PyObject* call(PyObject*, PyObject* const* objects, Py_ssize_t count) {
    constexpr int expected = sizeof...(Arguments);
    if (count != expected) {
      return PyErr_Format(PyExc_TypeError, "takes %d arguments, got %zd", expected, count);
    }
    return call(objects, std::index_sequence_for<Arguments...>{});
  }

 private:
  template <std::size_t... Index>
  static PyObject* call([[maybe_unused]] PyObject* const* objects, std::index_sequence<Index...>) {
    std::tuple<Arguments...> arguments{from_python<Arguments>(objects[Index])...};
    if (PyErr_Occurred()) return nullptr;
    std::string failure;
    [[maybe_unused]] std::conditional_t<std::is_void_v<Result>, int, Result> result{};
    PyThreadState* state = PyEval_SaveThread();
    try {
      if constexpr (std::is_void_v<Result>) {
        std::apply(Function, arguments);
      } else {
        result = std::apply(Function, arguments);
      }
    } catch (const std::exception& error) {
      failure = error.what();
    }
    PyEval_RestoreThread(state);
    if (!failure.empty()) {
      PyErr_SetString(PyExc_RuntimeError, failure.c_str());
      return nullptr;
    }
    if constexpr (std::is_void_v<Result>) {
      Py_RETURN_NONE;
    } else {
      return to_python(result);
    }
  }
};

template <auto Function>
PyMethodDef method(const char* name) {
  auto call = static_cast<PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t)>(
      &Bound<Function>::call);
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call)), METH_FASTCALL,
          nullptr};
}

}  // namespace binding
