// What every instruction set provides for ranking.
#pragma once

#include "isa.h"
#include "ranking.h"

namespace sparse_vit {

// Columns whose scores are computed before they are looked at: a whole number of panels.
constexpr std::int64_t strip_columns = 512;
// Products that are added up in one go; fewer make a smaller bound on the error.
constexpr std::int64_t product_depth = 128;

struct RankingKernel {
  // Rows of a tile; `products` takes whole tiles.
  std::int64_t tile_rows;
  // scores (rows, strip_columns) of `tiles` (rows / tile_rows, width, tile_rows) with the panels of
  // one strip.
  void (*products)(const float* tiles, const float* panels, std::int64_t rows, std::int64_t width,
                   std::int64_t columns, float* scores);
  // Writes value and place of those of `count` scores that, with their bias, reach `least`; returns
  // how many. `bias` may be null. Room for `count` and a vector more is needed.
  std::int64_t (*survivors)(const float* scores, const float* bias, std::int64_t count, float least,
                            float* values, std::int32_t* places);
  // The sum of products in float64, the same on every instruction set.
  double (*dot)(const float* a, const float* b, std::int64_t width);
  // Minus the differing bits of a row and `count` rows.
  void (*agreements)(const std::uint64_t* row, const std::uint64_t* others, std::int64_t count,
                     std::int64_t words, float* scores);
};

namespace avx512 {
extern const RankingKernel ranking_kernel;
}
namespace avx2 {
extern const RankingKernel ranking_kernel;
}
namespace generic {
extern const RankingKernel ranking_kernel;
}

}  // namespace sparse_vit
