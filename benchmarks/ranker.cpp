// The ranker that sorts whole rows, as compiled rankers of the field do: one row of distances at a
// time is sorted with its indices, the junk is dropped, and the list is walked down.
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

// Adds up AP, INP and the curve (max_rank) over the queries that have a match; returns how many do.
extern "C" std::int64_t rank_rows(const float* distances, std::int64_t queries,
                                  std::int64_t gallery, const std::int64_t* query_pids,
                                  const std::int64_t* query_camids,
                                  const std::int64_t* gallery_pids,
                                  const std::int64_t* gallery_camids, std::int64_t max_rank,
                                  double* ap_sum, double* inp_sum, double* curve) {
  std::vector<std::pair<float, std::int32_t>> order(gallery);
  std::int64_t valid = 0;
  for (std::int64_t q = 0; q < queries; ++q) {
    const float* row = distances + q * gallery;
    for (std::int64_t g = 0; g < gallery; ++g) order[g] = {row[g], static_cast<std::int32_t>(g)};
    std::sort(order.begin(), order.end());
    std::int64_t place = 0, found = 0, first = 0, last = 0;
    double precisions = 0.0;
    for (const auto& [distance, g] : order) {
      const bool same = gallery_pids[g] == query_pids[q];
      if (same && gallery_camids[g] == query_camids[q]) continue;
      ++place;
      if (!same) continue;
      ++found;
      if (found == 1) first = place;
      last = place;
      precisions += static_cast<double>(found) / static_cast<double>(place);
    }
    if (found == 0) continue;
    ++valid;
    *ap_sum += precisions / static_cast<double>(found);
    *inp_sum += static_cast<double>(found) / static_cast<double>(last);
    for (std::int64_t k = first; k <= max_rank; ++k) curve[k - 1] += 1.0;
  }
  return valid;
}
