// One row of a ranking: what its scores have told so far.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace sparse_vit {

// Scores at or above `upper` are surely nearer than the threshold, those below `lower` surely not
// and not equal either. Both descend where thresholds ascend.
struct Bounds {
  std::vector<float> upper, lower;
};

// Counts scores between the bounds of thresholds. Most scores are looked up in a table of cells
// of equal width; those in a cell that holds a bound are compared with the bounds.
class Counts {
 public:
  static constexpr std::int32_t unsure = -1;

  // Adds up scores by the first threshold that each counts for; those below `base` count for none,
  // nor do those whose place among `weights` (0 or 1; null: all 1) holds 0. Writes the indices of
  // scores that the table leaves open and returns how many.
  std::int64_t look_up(const float* scores, const std::int32_t* places, std::int64_t count,
                       const std::uint8_t* weights, std::int32_t* open) {
    const float base = base_, scale = scale_, last = last_;
    const std::int32_t* table = table_.data();
    // The first count is of open scores.
    std::int64_t* counts = counts_.data() + 1;
    std::int64_t found = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const float score = scores[i];
      const std::int64_t weight =
          (score >= base) & (weights == nullptr || weights[places[i]] != 0);
      const std::int32_t threshold = table[cell(score, base, scale, last)];
      counts[threshold] += weight;
      open[found] = static_cast<std::int32_t>(i);
      found += weight & (threshold == unsure);
    }
    return found;
  }

  // No score is below `smallest`.
  void start(Bounds bounds, float smallest) {
    bounds_ = std::move(bounds);
    const std::size_t size = bounds_.upper.size();
    counts_.assign(size + 2, 0);
    base_ = std::numeric_limits<float>::infinity();
    if (size == 0) return;
    base_ = std::max(bounds_.lower.back(), smallest);
    last_ = static_cast<float>(std::clamp<std::size_t>(16 * size, 64, 8192) - 1);
    // The last cell is for scores beyond all bounds.
    const float range = bounds_.upper.front() - base_;
    scale_ = range > 0 ? (last_ - 1) / range : 0;
    if (!std::isfinite(scale_)) scale_ = 0;
    table_.resize(static_cast<std::size_t>(last_) + 1);
    // Cells are monotonic in the score: a cell without a bound lies on one side of each.
    auto end = table_.begin() + static_cast<std::ptrdiff_t>(last_) + 1;
    for (std::size_t j = 0; j < size; ++j) {
      const auto begin = table_.begin() + cell(bounds_.lower[j]);
      if (begin < end) std::fill(begin, end, static_cast<std::int32_t>(j));
      end = begin;
    }
    for (std::size_t j = 0; j < size; ++j) {
      std::fill(table_.begin() + cell(bounds_.lower[j]),
                table_.begin() + cell(bounds_.upper[j]) + 1, unsure);
    }
  }

  // The least score that counts for any threshold.
  float base() const { return base_; }

  // The first threshold that a score counts for, or `unsure`; by the bounds.
  std::int32_t threshold(float score) const {
    const auto first = std::partition_point(bounds_.lower.begin(), bounds_.lower.end(),
                                            [=](float lower) { return lower > score; });
    const auto p = first - bounds_.lower.begin();
    const bool sure = first == bounds_.lower.end() || bounds_.upper[p] < score;
    return sure ? static_cast<std::int32_t>(p) : unsure;
  }

  void add(std::int64_t threshold, std::int64_t count) { counts_[threshold + 1] += count; }
  // How many scores count for a threshold and for none before it.
  std::int64_t count(std::int64_t threshold) const { return counts_[threshold + 1]; }

 private:
  // The first cell for what is no number.
  static std::int32_t cell(float score, float base, float scale, float last) {
    return static_cast<std::int32_t>(std::min(std::max(0.0f, (score - base) * scale), last));
  }
  std::int32_t cell(float score) const { return cell(score, base_, scale_, last_); }

  Bounds bounds_;
  std::vector<std::int64_t> counts_;
  std::vector<std::int32_t> table_;
  float base_ = 0, last_ = 0, scale_ = 0;
};

// The columns that may be among the nearest, by scores with an error.
class Candidates {
 public:
  struct Candidate {
    float score;
    std::int32_t column;
  };

  // `margin` of the k-th largest score: what a column's score may be below it and still be nearer.
  void start(std::int64_t top) {
    top_ = static_cast<std::size_t>(top);
    room_ = std::max<std::size_t>(4 * top_, 256);
    least_ = top == 0 ? std::numeric_limits<float>::infinity()
                      : std::numeric_limits<float>::lowest();
    found_.clear();
  }

  float least() const { return least_; }
  const std::vector<Candidate>& found() const { return found_; }

  template <typename Margin>
  void add(float score, std::int32_t column, const Margin& margin) {
    found_.push_back({score, column});
    if (found_.size() >= room_) prune(margin);
  }

  template <typename Margin>
  void prune(const Margin& margin) {
    if (found_.size() <= top_) return;
    const auto kth = found_.begin() + static_cast<std::ptrdiff_t>(top_) - 1;
    std::nth_element(found_.begin(), kth, found_.end(),
                     [](Candidate a, Candidate b) { return a.score > b.score; });
    least_ = margin(kth->score);
    found_.erase(std::remove_if(found_.begin(), found_.end(),
                                [&](Candidate c) { return c.score < least_; }),
                 found_.end());
    if (2 * found_.size() > room_) room_ = 2 * found_.size();
  }

 private:
  std::size_t top_ = 0, room_ = 0;
  float least_ = 0;
  std::vector<Candidate> found_;
};

}  // namespace sparse_vit
