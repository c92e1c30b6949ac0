// C (+)= A B by register tiles: every product of the attention kernels is this one.
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
constexpr int tile_vectors = 4;

template <int Rows, int Vectors>
void tile(float* c, std::int64_t c_row, Left a, const float* b, std::int64_t b_row,
          std::int64_t depth, bool accumulate) {
  Vector sums[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      sums[i][j] = accumulate ? load(c + i * c_row + j * lanes) : broadcast(0.0f);
    }
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
      for (int j = 0; j < Vectors; ++j) sums[i][j] = fma(left, right[j], sums[i][j]);
    }
#pragma GCC unroll 6
    for (int i = 0; i < (Rows + 2) / 3; ++i) pointers[i] += a.depth;
    b += b_row;
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) store(c + i * c_row + j * lanes, sums[i][j]);
  }
}

template <int Vectors, int Rows = tile_rows(Vectors)>
void tile_of(int rows, float* c, std::int64_t c_row, Left a, const float* b, std::int64_t b_row,
             std::int64_t depth, bool accumulate) {
  if constexpr (Rows > 1) {
    if (rows < Rows) {
      return tile_of<Vectors, Rows - 1>(rows, c, c_row, a, b, b_row, depth, accumulate);
    }
  }
  tile<Rows, Vectors>(c, c_row, a, b, b_row, depth, accumulate);
}

template <int Vectors>
void panel(std::int64_t rows, float* c, std::int64_t c_row, Left a, const float* b,
           std::int64_t b_row, std::int64_t depth, bool accumulate) {
  // Tiles of about equal height: a thin one at the end would wait for its own sums.
  for (std::int64_t tiles = (rows + tile_rows(Vectors) - 1) / tile_rows(Vectors); tiles > 0;
       --tiles) {
    const std::int64_t height = (rows + tiles - 1) / tiles;
    tile_of<Vectors>(static_cast<int>(height), c, c_row, a, b, b_row, depth, accumulate);
    c += height * c_row;
    a.data += height * a.row;
    rows -= height;
  }
}

// C (rows, vectors * lanes) = A (rows, depth) B (depth, vectors * lanes), added to C if accumulate.
// B and C are stored by rows of b_row and c_row floats; all columns of a row are read and written.
inline void product(float* c, std::int64_t c_row, Left a, const float* b, std::int64_t b_row,
                    std::int64_t rows, std::int64_t vectors, std::int64_t depth,
                    bool accumulate = false) {
  while (vectors > 0) {
    // Five are three and two: a panel of one vector alone would be bound by loads.
    const std::int64_t width = vectors <= 4 ? vectors : vectors == 5 ? 3 : vectors == 6 ? 3 : 4;
    switch (width) {
      case 1: panel<1>(rows, c, c_row, a, b, b_row, depth, accumulate); break;
      case 2: panel<2>(rows, c, c_row, a, b, b_row, depth, accumulate); break;
      case 3: panel<3>(rows, c, c_row, a, b, b_row, depth, accumulate); break;
      default: panel<4>(rows, c, c_row, a, b, b_row, depth, accumulate);
    }
    b += width * lanes;
    c += width * lanes;
    vectors -= width;
  }
}

}  // namespace sparse_vit::SPARSE_VIT_ISA
