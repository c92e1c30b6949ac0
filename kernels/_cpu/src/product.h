// C = A B by register tiles: every product of the attention kernels is this one.
#pragma once

#include "simd.h"

namespace sparse_vit::SPARSE_VIT_ISA {

// A (rows, depth) may be stored by rows or by columns: element (i, k) is a[i * row + k * depth].
struct Left {
  const float* data;
  std::int64_t row, depth;
};

// Rows of a tile of `vectors` vectors, such that tile, one row of B and an element of A fit the
// registers: 32 of them with AVX-512, else 16.
constexpr int tile_rows(int vectors) {
#if defined(SPARSE_VIT_AVX512)
  return vectors <= 2 ? 12 : vectors == 3 ? 8 : 6;
#else
  return vectors == 1 ? 8 : vectors == 2 ? 6 : vectors == 3 ? 4 : 3;
#endif
}

// Vectors of the next panel when `left` are to come: one alone would be bound by its loads.
constexpr std::int64_t panel_vectors(std::int64_t left) {
#if defined(SPARSE_VIT_AVX512)
  return left <= 4 ? left : left <= 6 ? 3 : 4;
#else
  return left <= 3 ? left : 2;
#endif
}

template <int Rows, int Vectors>
using Sums = Vector[Rows][Vectors];

// Stores a tile into C, or adds it.
struct Store {
  float* c;
  std::int64_t stride;
  bool accumulate;

  template <int Rows, int Vectors>
  SPARSE_VIT_INLINE void operator()(std::int64_t row, std::int64_t vector,
                                    const Sums<Rows, Vectors>& sums) const {
    float* place = c + row * stride + vector * lanes;
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i, place += stride) {
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) {
        const Vector x = sums[i][j];
        store(place + j * lanes, accumulate ? add(x, load(place + j * lanes)) : x);
      }
      keep_in_register(place);
    }
  }
};

template <int Rows, int Vectors, typename Output>
__attribute__((noinline)) void tile(Left a, const float* b, std::int64_t b_row, std::int64_t depth,
                                    Output& output, std::int64_t row, std::int64_t vector) {
  Sums<Rows, Vectors> sums;
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) sums[i][j] = broadcast(0.0f);
  }
  // Three rows share a pointer: the processor adds no, one or two strides for free.
  const float* pointers[(Rows + 2) / 3];
#pragma GCC unroll 6
  for (int i = 0; i < (Rows + 2) / 3; ++i) pointers[i] = a.data + 3 * i * a.row;
  for (std::int64_t k = 0; k < depth; ++k) {
    Vector right[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) right[j] = load(b + j * lanes);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const Vector left = broadcast(pointers[i / 3][i % 3 * a.row]);
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sums[i][j] = multiply_add(left, right[j], sums[i][j]);
    }
#pragma GCC unroll 6
    for (int i = 0; i < (Rows + 2) / 3; ++i) pointers[i] += a.depth;
    b += b_row;
  }
  output.template operator()<Rows, Vectors>(row, vector, sums);
}

template <int Vectors, int Rows = tile_rows(Vectors), typename Output>
void tile_of(int rows, Left a, const float* b, std::int64_t b_row, std::int64_t depth,
             Output& output, std::int64_t row, std::int64_t vector) {
  if constexpr (Rows > 1) {
    if (rows < Rows) {
      return tile_of<Vectors, Rows - 1>(rows, a, b, b_row, depth, output, row, vector);
    }
  }
  tile<Rows, Vectors>(a, b, b_row, depth, output, row, vector);
}

template <int Vectors, typename Output>
void panel(std::int64_t rows, Left a, const float* b, std::int64_t b_row, std::int64_t depth,
           Output& output, std::int64_t vector) {
  // Tiles of about equal height: a thin one at the end would wait for its own sums.
  std::int64_t row = 0;
  for (std::int64_t tiles = (rows + tile_rows(Vectors) - 1) / tile_rows(Vectors); tiles > 0;
       --tiles) {
    const std::int64_t height = (rows - row + tiles - 1) / tiles;
    tile_of<Vectors>(static_cast<int>(height), a, b, b_row, depth, output, row, vector);
    a.data += height * a.row;
    row += height;
  }
}

// C (rows, vectors * lanes) = A (rows, depth) B (depth, vectors * lanes), where B is stored by rows
// of b_row floats. Calls output.operator()<Rows, Vectors>(row, vector, sums) for every tile of C.
template <typename Output>
inline void product(Left a, const float* b, std::int64_t b_row, std::int64_t rows,
                    std::int64_t vectors, std::int64_t depth, Output& output) {
  for (std::int64_t vector = 0, width; vector < vectors; vector += width, b += width * lanes) {
    width = panel_vectors(vectors - vector);
    switch (width) {
      case 1: panel<1>(rows, a, b, b_row, depth, output, vector); break;
      case 2: panel<2>(rows, a, b, b_row, depth, output, vector); break;
      case 3: panel<3>(rows, a, b, b_row, depth, output, vector); break;
#if defined(SPARSE_VIT_AVX512)
      case 4: panel<4>(rows, a, b, b_row, depth, output, vector); break;
#endif
    }
  }
}

// The same, stored by rows of c_row floats, or added to what is there if accumulate.
inline void product(float* c, std::int64_t c_row, Left a, const float* b, std::int64_t b_row,
                    std::int64_t rows, std::int64_t vectors, std::int64_t depth,
                    bool accumulate = false) {
  Store output{c, c_row, accumulate};
  product(a, b, b_row, rows, vectors, depth, output);
}

}  // namespace sparse_vit::SPARSE_VIT_ISA
