// Exact places of distances in rows of a distance matrix that is never held: counts of nearer rows
// and the nearest rows themselves.
//
// A distance is computed in float64, in an order that depends on the width alone, and rounded to
// float32; only such distances are compared. Scores in float32 with a proven bound on their error
// decide most comparisons, and distances the rest, so no result depends on tiles, threads or
// instruction sets.
#pragma once

#include <cstdint>

namespace sparse_vit {

enum class Metric : std::int64_t { cosine = 0, euclidean = 1, hamming = 2 };

// Columns of a panel: `centred` rows of the gallery, transposed, side by side.
constexpr std::int64_t panel_columns = 64;

// Two sets of rows. Rows are adjacent floats, or, under hamming, 64-bit words. What follows `norms`
// is unused under hamming.
struct RankedSets {
  Metric metric;
  const void* query;    // (rows, width)
  const void* gallery;  // (columns, width)
  std::int64_t rows, columns, width;
  const double* query_norms;    // (rows)
  const double* gallery_norms;  // (columns)
  const float* centred;         // (rows, width)
  const double* lengths;        // (rows), of the centred rows before they were rounded
  const float* panels;          // (ceil(columns / panel_columns), width, panel_columns)
  const float* bias;            // (columns, rounded up), minus half the squared length of a row
  double longest;               // largest length of a centred row of the gallery
  double largest_norm;          // largest norm of the gallery
  double scale;                 // what centred rows were multiplied with
};

// Thresholds of every row, ascending; `places` are columns, each the place of a threshold among
// rows at the same distance. Rows of the gallery that are not countable count for nobody; those in
// `excluded`, sorted by row of the query, not for that one.
struct Thresholds {
  const float* values;             // (rows, most)
  const std::int64_t* places;      // (rows, most)
  const std::int64_t* sizes;       // (rows)
  std::int64_t most;
  const std::uint8_t* countable;   // (columns) or null
  const std::int64_t* excluded;    // (starts[rows])
  const std::int64_t* starts;      // (rows + 1)
};

// Of every threshold: how many rows are nearer, how many at that distance, and how many of these
// before the place. Of every row: the `top` nearest columns by distance, then by column.
struct Places {
  std::int64_t* less;      // (rows, most)
  std::int64_t* equal;     // (rows, most)
  std::int64_t* earlier;   // (rows, most)
  std::int64_t top;
  std::int64_t* nearest;   // (rows, top)
  float* distances;        // (rows, top)
};

void ranking_norms(const float* x, std::int64_t rows, std::int64_t width, double* norms);

// out = scale (x / norm - centre), rounded, and its lengths; rows are not divided where norms is
// null. Writes panels and minus half the squared lengths as well if `bias` is not null, rows
// otherwise.
void ranking_centre(const float* x, std::int64_t rows, std::int64_t width, const double* norms,
                    const double* centre, double scale, float* out, double* lengths, float* bias);

// Distances of the pairs (rows[i], columns[i]).
void ranking_pairs(const RankedSets& sets, const std::int64_t* rows, const std::int64_t* columns,
                   std::int64_t count, float* out);

void ranking_places(const RankedSets& sets, const Thresholds& thresholds, const Places& places);

}  // namespace sparse_vit
