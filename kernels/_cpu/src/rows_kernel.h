// Defines the kernel for rows of the instruction set that the including file is compiled for.
#include "rows_kernels.h"
#include "simd.h"

// For lambdas, which are called from several places and would not be inlined.
#define SPARSE_VIT_FLAT __attribute__((always_inline))

namespace sparse_vit::SPARSE_VIT_ISA {

// Calls step(offset, count, accumulator) over a row; four accumulators hide the latency of sums.
template <typename Step>
SPARSE_VIT_INLINE void over_row(std::int64_t channels, const Step& step) {
  std::int64_t c = 0;
  for (; c + 4 * lanes <= channels; c += 4 * lanes) {
    step(c, std::int64_t{lanes}, 0);
    step(c + lanes, std::int64_t{lanes}, 1);
    step(c + 2 * lanes, std::int64_t{lanes}, 2);
    step(c + 3 * lanes, std::int64_t{lanes}, 3);
  }
  for (; c < channels; c += lanes) step(c, std::min<std::int64_t>(lanes, channels - c), 0);
}

SPARSE_VIT_INLINE float total_of(const Vector (&parts)[4]) {
  return sum(add(add(parts[0], parts[1]), add(parts[2], parts[3])));
}

// As load_as, with `other` beyond the end of the row.
SPARSE_VIT_INLINE Vector load_or(Type type, const void* row, std::int64_t offset,
                                 std::int64_t count, float other) {
  const Vector value = load_as(type, row, offset, count);
  if (count == lanes) return value;
  float padded[lanes];
  store(padded, broadcast(other));
  store(padded, value, count);
  return load(padded);
}

template <Type type>
void norm_row(const Norm& norm, const void* x, float eps, void* out, void* normed, float* mean,
              float* rstd) {
  const std::int64_t channels = norm.channels;
  const float inverse = 1.0f / static_cast<float>(channels);
  Vector parts[4] = {broadcast(0), broadcast(0), broadcast(0), broadcast(0)};
  over_row(channels, [&](std::int64_t c, std::int64_t count, int part) SPARSE_VIT_FLAT {
    const Vector value = load_as(type, x, c, count);
    store_as(type, out, c, value, count);
    parts[part] = add(parts[part], value);
  });
  *mean = total_of(parts) * inverse;
  const Vector centre = broadcast(*mean);
  for (Vector& part : parts) part = broadcast(0);
  over_row(channels, [&](std::int64_t c, std::int64_t count, int part) SPARSE_VIT_FLAT {
    const Vector distance = sub(load_or(type, x, c, count, *mean), centre);
    parts[part] = fma(distance, distance, parts[part]);
  });
  *rstd = 1.0f / std::sqrt(total_of(parts) * inverse + eps);
  const Vector scale = broadcast(*rstd);
  over_row(channels, [&](std::int64_t c, std::int64_t count, int) SPARSE_VIT_FLAT {
    Vector value = mul(sub(load_as(type, x, c, count), centre), scale);
    if (norm.weight != nullptr) value = mul(value, load_as(Type::float32, norm.weight, c, count));
    if (norm.bias != nullptr) value = add(value, load_as(Type::float32, norm.bias, c, count));
    store_as(type, normed, c, value, count);
  });
}

template <Type type>
void norm_grad_row(const Norm& norm, const void* grad, const void* grad_normed, const void* out,
                   float mean, float rstd, void* dx, float* dweight, float* dbias) {
  const std::int64_t channels = norm.channels;
  const Vector centre = broadcast(mean), scale = broadcast(rstd);
  Vector shifts[4] = {broadcast(0), broadcast(0), broadcast(0), broadcast(0)};
  Vector slopes[4] = {broadcast(0), broadcast(0), broadcast(0), broadcast(0)};
  over_row(channels, [&](std::int64_t c, std::int64_t count, int part) SPARSE_VIT_FLAT {
    const Vector unit = mul(sub(load_as(type, out, c, count), centre), scale);
    // Zero beyond the row, and so is every product with it.
    Vector g = load_as(type, grad_normed, c, count);
    store_as(Type::float32, dbias, c, add(load_as(Type::float32, dbias, c, count), g), count);
    store_as(Type::float32, dweight, c, fma(g, unit, load_as(Type::float32, dweight, c, count)),
             count);
    if (norm.weight != nullptr) g = mul(g, load_as(Type::float32, norm.weight, c, count));
    shifts[part] = add(shifts[part], g);
    slopes[part] = fma(g, unit, slopes[part]);
  });
  const float inverse = 1.0f / static_cast<float>(channels);
  const Vector shift = broadcast(total_of(shifts) * inverse);
  const Vector slope = broadcast(total_of(slopes) * inverse);
  over_row(channels, [&](std::int64_t c, std::int64_t count, int) SPARSE_VIT_FLAT {
    const Vector unit = mul(sub(load_as(type, out, c, count), centre), scale);
    Vector g = load_as(type, grad_normed, c, count);
    if (norm.weight != nullptr) g = mul(g, load_as(Type::float32, norm.weight, c, count));
    const Vector inner = sub(sub(g, shift), mul(unit, slope));
    store_as(type, dx, c, fma(inner, scale, load_as(type, grad, c, count)), count);
  });
}

template <Type type>
void add_row(const void* x, std::int64_t channels, float* total) {
  over_row(channels, [&](std::int64_t c, std::int64_t count, int) SPARSE_VIT_FLAT {
    const Vector value = load_as(type, x, c, count);
    store_as(Type::float32, total, c, add(load_as(Type::float32, total, c, count), value), count);
  });
}

const RowsKernel rows_kernel{
    [](const Norm& norm, const void* x, float eps, void* out, void* normed, float* mean,
       float* rstd) {
      const auto row = norm.type == Type::float32    ? norm_row<Type::float32>
                       : norm.type == Type::bfloat16 ? norm_row<Type::bfloat16>
                                                     : norm_row<Type::float16>;
      row(norm, x, eps, out, normed, mean, rstd);
    },
    [](const Norm& norm, const void* grad, const void* grad_normed, const void* out, float mean,
       float rstd, void* dx, float* dweight, float* dbias) {
      const auto row = norm.type == Type::float32    ? norm_grad_row<Type::float32>
                       : norm.type == Type::bfloat16 ? norm_grad_row<Type::bfloat16>
                                                     : norm_grad_row<Type::float16>;
      row(norm, grad, grad_normed, out, mean, rstd, dx, dweight, dbias);
    },
    [](Type type, const void* x, std::int64_t channels, float* total) {
      const auto row = type == Type::float32    ? add_row<Type::float32>
                       : type == Type::bfloat16 ? add_row<Type::bfloat16>
                                                : add_row<Type::float16>;
      row(x, channels, total);
    },
    [](Type type, const float* total, std::int64_t channels, void* out) {
      over_row(channels, [&](std::int64_t c, std::int64_t count, int) SPARSE_VIT_FLAT {
        store_as(type, out, c, load_as(Type::float32, total, c, count), count);
      });
    },
};

}  // namespace sparse_vit::SPARSE_VIT_ISA
