// Turns a plain C++ function into one that Python calls with positional numbers. Arguments are
// converted by their type alone; a structure takes its members, one number each, in order.
#pragma once

#include <Python.h>

#include <cstdint>
#include <exception>
#include <string>
#include <tuple>
#include <type_traits>

namespace binding {

// Numbers still to be converted, taken from the front.
using Numbers = PyObject* const*;

template <typename T>
struct Argument {
  static constexpr int count = 1;
  static T take(Numbers& numbers) {
    PyObject* number = *numbers++;
    if constexpr (std::is_pointer_v<T>) {
      return reinterpret_cast<T>(PyLong_AsUnsignedLongLong(number));
    } else if constexpr (std::is_floating_point_v<T>) {
      return static_cast<T>(PyFloat_AsDouble(number));
    } else {
      static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
      return static_cast<T>(PyLong_AsLongLong(number));
    }
  }
};

// The base of a specialisation for an aggregate: its members' types, in order.
template <typename Aggregate, typename... Members>
struct Aggregated {
  static constexpr int count = (Argument<Members>::count + ... + 0);
  static Aggregate take(Numbers& numbers) { return {Argument<Members>::take(numbers)...}; }
};

inline PyObject* to_python(const char* text) { return PyUnicode_FromString(text); }
inline PyObject* to_python(std::int64_t number) { return PyLong_FromLongLong(number); }

template <auto Function>
struct Bound;

template <typename Result, typename... Arguments, Result (*Function)(Arguments...)>
struct Bound<Function> {
  static PyObject* call(PyObject*, Numbers numbers, Py_ssize_t count) {
    constexpr int expected = (Argument<std::decay_t<Arguments>>::count + ... + 0);
    if (count != expected) {
      return PyErr_Format(PyExc_TypeError, "takes %d numbers, got %zd", expected, count);
    }
    // Braces convert from left to right.
    std::tuple<std::decay_t<Arguments>...> arguments{
        Argument<std::decay_t<Arguments>>::take(numbers)...};
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
  auto call = static_cast<PyObject* (*)(PyObject*, Numbers, Py_ssize_t)>(&Bound<Function>::call);
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call)), METH_FASTCALL,
          nullptr};
}

}  // namespace binding
