#include "ranking.h"

#include <ATen/Parallel.h>

#include <atomic>

#include "ranking_kernels.h"
#include "ranking_row.h"

namespace sparse_vit {

namespace {

// Rows that, with their scores for a strip of columns, fit the second cache.
constexpr std::int64_t most_rows = 128;
// Distances, squared ones under euclidean, so small a share of the norms are rounding: they are 0.
constexpr double negligible = 0x1p-40;
// Scores of longer rows may leave the range of float32; rows of the gallery are scaled to about 1.
constexpr double most_length = 0x1p60;

const RankingKernel& kernel() {
  switch (isa()) {
#if defined(__x86_64__)
    case Isa::avx512:
      return avx512::ranking_kernel;
    case Isa::avx2:
      return avx2::ranking_kernel;
#endif
    default:
      return generic::ranking_kernel;
  }
}

std::int64_t up(std::int64_t count, std::int64_t step) { return (count + step - 1) / step * step; }

// The distance in float64, and as it is compared.
struct Distance {
  double exact;
  float rounded;
};

Distance distance_of(const RankedSets& sets, const RankingKernel& kernel, std::int64_t row,
                     std::int64_t column) {
  const std::int64_t width = sets.width;
  if (sets.metric == Metric::hamming) {
    float agreement;
    kernel.agreements(static_cast<const std::uint64_t*>(sets.query) + row * width,
                      static_cast<const std::uint64_t*>(sets.gallery) + column * width, 1, width,
                      &agreement);
    return {-agreement, 0.0f - agreement};
  }
  const double product =
      kernel.dot(static_cast<const float*>(sets.query) + row * width,
                 static_cast<const float*>(sets.gallery) + column * width, width);
  const double a = sets.query_norms[row], b = sets.gallery_norms[column];
  double distance;
  if (sets.metric == Metric::cosine) {
    distance = 1.0 - product / (a * b);
    if (std::abs(distance) <= negligible) distance = 0.0;
  } else {
    const double squares = a * a + b * b, squared = squares - 2.0 * product;
    distance = squared <= negligible * squares ? 0.0 : std::sqrt(squared);
  }
  return {distance, static_cast<float>(distance)};
}

float towards(double x, float limit) {
  return std::nextafter(static_cast<float>(x), limit);
}

constexpr float infinity = std::numeric_limits<float>::infinity();

// How scores of one row and its distances go together: s = (|q|^2 - |q - g|^2) / 2 of the centred,
// scaled rows, and |q - g|^2 is twice the cosine distance or the squared euclidean one, scaled.
class Scores {
 public:
  Scores(const RankedSets& sets, std::int64_t row) : metric_(sets.metric) {
    if (metric_ == Metric::hamming) {
      smallest_ = -64.0 * static_cast<double>(sets.width);
      return;
    }
    const double unit = 0x1p-24, length = sets.lengths[row], longest = sets.longest;
    usable_ = length <= most_length && longest <= most_length;
    if (!usable_) return;
    const double terms =
        static_cast<double>(product_depth + (sets.width + product_depth - 1) / product_depth);
    half_square_ = 0.5 * length * length;
    smallest_ = -(length * longest + 0.5 * longest * longest);
    square_scale_ = sets.scale * sets.scale;
    // Of a sum of rounded products of rounded factors, then of the bias and its sum; last of all
    // factors and products that underflow.
    error_ = 1.01 * unit * ((terms + 8) * length * longest + 2 * longest * longest) +
             0x1p-100 * (1 + length + longest);
    const double norm = sets.query_norms[row], other = sets.largest_norm;
    floor_ = metric_ == Metric::cosine
                 ? square_scale_ * 0x1p-36
                 : square_scale_ * 0x1p-36 * (norm * norm + other * other);
    // Below the smallest normal number a step of float32 is 2^-149, however small the distance.
    floor_ += square_scale_ * 0x1p-270;
    overflow_ = half_of(0x1.fffffp127);
  }

  // Whether scores tell anything; if not, distances have to.
  bool usable() const { return usable_; }

  Bounds bounds(const float* thresholds, std::int64_t count) const {
    Bounds found;
    if (!usable_) {
      found.upper.assign(count, 0.0f);
      found.lower.assign(count, 0.0f);
      return found;
    }
    for (std::int64_t j = 0; j < count; ++j) {
      if (metric_ == Metric::hamming) {
        found.upper.push_back(-thresholds[j]);
        found.lower.push_back(-thresholds[j]);
        continue;
      }
      // A distance that is infinite as float32 is farther than any other, and equal to its like.
      const bool infinite = thresholds[j] == infinity;
      const double half = half_of(infinite ? 0x1p128 : thresholds[j]);
      const double s = half_square_ - half, slack = error_ + around(half);
      found.upper.push_back(towards(s + slack, infinity));
      found.lower.push_back(infinite ? -infinity : towards(s - slack, -infinity));
    }
    return found;
  }

  // What no score is below.
  float smallest() const {
    return towards(smallest_ - error_, -infinity);
  }

  // The least score of a column that may be nearer than, or as near as, one of the score given.
  float margin(float score) const {
    if (metric_ == Metric::hamming) return score;
    const double half = std::max(0.0, half_square_ - score + error_);
    if (half >= overflow_) return -infinity;
    return towards(score - 2 * error_ - around(half), -infinity);
  }

 private:
  // Half the squared distance of centred, scaled rows.
  double half_of(double distance) const {
    return square_scale_ * (metric_ == Metric::cosine ? distance : 0.5 * distance * distance);
  }
  // By how much it changes where the distance moves by more than a step of float32.
  double around(double half) const { return 0x1p-21 * std::abs(half) + floor_; }

  Metric metric_;
  bool usable_ = true;
  double half_square_ = 0, smallest_ = 0, square_scale_ = 0, error_ = 0, floor_ = 0;
  double overflow_ = 0;
};

class Block {
 public:
  Block(const RankedSets& sets, const Thresholds& thresholds, const Places& places,
        std::int64_t begin, std::int64_t end)
      : sets_(sets), thresholds_(thresholds), places_(places), kernel_(kernel()), begin_(begin),
        rows_(end - begin), counts_(rows_), candidates_(rows_), values_(strip_columns + 16),
        columns_(strip_columns + 16), open_(strip_columns + 1),
        strip_(up(rows_, kernel_.tile_rows) * strip_columns) {
    // Side by side, the rows of a tile are read as one stream; the last tile is filled with zeros.
    if (sets_.metric != Metric::hamming) {
      const std::int64_t height = kernel_.tile_rows, width = sets_.width;
      tiles_.resize(static_cast<std::size_t>(up(rows_, height) * width));
      for (std::int64_t i = 0; i < rows_; ++i) {
        const float* row = sets_.centred + (begin_ + i) * width;
        float* place = &tiles_[i / height * height * width + i % height];
        for (std::int64_t k = 0; k < width; ++k) place[k * height] = row[k];
      }
    }
    for (std::int64_t i = 0; i < rows_; ++i) {
      const std::int64_t row = begin_ + i, offset = row * thresholds_.most;
      const std::int64_t size = thresholds_.sizes[row];
      scores_.emplace_back(sets_, row);
      counts_[i].start(scores_[i].bounds(thresholds_.values + offset, size),
                       scores_[i].smallest());
      candidates_[i].start(places_.top);
      std::fill_n(places_.equal + offset, thresholds_.most, 0);
      std::fill_n(places_.earlier + offset, thresholds_.most, 0);
    }
  }

  void run() {
    for (std::int64_t column = 0; column < sets_.columns; column += strip_columns) strip(column);
    for (std::int64_t i = 0; i < rows_; ++i) {
      finish_counts(i);
      finish_nearest(i);
    }
  }

 private:
  void strip(std::int64_t column) {
    const std::int64_t count = std::min(strip_columns, sets_.columns - column);
    const std::int64_t width = sets_.width;
    if (sets_.metric == Metric::hamming) {
      const auto* query = static_cast<const std::uint64_t*>(sets_.query) + begin_ * width;
      const auto* gallery = static_cast<const std::uint64_t*>(sets_.gallery) + column * width;
      for (std::int64_t i = 0; i < rows_; ++i) {
        kernel_.agreements(query + i * width, gallery, count, width, &strip_[i * strip_columns]);
      }
    } else {
      kernel_.products(tiles_.data(), sets_.panels + column * width, up(rows_, kernel_.tile_rows),
                       width, up(count, panel_columns), strip_.data());
    }
    const float* bias = sets_.metric == Metric::hamming ? nullptr : sets_.bias + column;
    for (std::int64_t i = 0; i < rows_; ++i) {
      if (!scores_[i].usable()) continue;
      const float least = std::min(counts_[i].base(), candidates_[i].least());
      const std::int64_t found = kernel_.survivors(&strip_[i * strip_columns], bias, count, least,
                                                   values_.data(), columns_.data());
      look_at(i, found, static_cast<std::int32_t>(column));
    }
  }

  // Works off the survivors of a row in the strip that begins at a column.
  void look_at(std::int64_t i, std::int64_t found, std::int32_t column) {
    if (places_.top != 0) {
      for (std::int64_t s = 0; s < found; ++s) {
        if (values_[s] < candidates_[i].least()) continue;
        candidates_[i].add(values_[s], column + columns_[s],
                           [&](float kth) { return scores_[i].margin(kth); });
      }
    }
    const std::uint8_t* weights =
        thresholds_.countable == nullptr ? nullptr : thresholds_.countable + column;
    if (thresholds_.sizes[begin_ + i] == 0) return;
    const std::int64_t left = counts_[i].look_up(values_.data(), columns_.data(), found, weights,
                                                 open_.data());
    for (std::int64_t s = 0; s < left; ++s) {
      const std::int32_t threshold = counts_[i].threshold(values_[open_[s]]);
      if (threshold != Counts::unsure) {
        counts_[i].add(threshold, 1);
      } else {
        count(i, column + columns_[open_[s]], 1);
      }
    }
  }

  // Counts a column by its distance.
  void count(std::int64_t i, std::int64_t column, std::int64_t times) {
    const std::int64_t row = begin_ + i, offset = row * thresholds_.most;
    const float distance = distance_of(sets_, kernel_, row, column).rounded;
    const float* first = thresholds_.values + offset;
    const float* last = first + thresholds_.sizes[row];
    const float* farther = std::upper_bound(first, last, distance);
    counts_[i].add(farther - first, times);
    for (const float* same = farther; same != first && same[-1] == distance;) {
      const std::int64_t j = offset + (--same - first);
      places_.equal[j] += times;
      if (column < thresholds_.places[j]) places_.earlier[j] += times;
    }
  }

  void finish_counts(std::int64_t i) {
    const std::int64_t row = begin_ + i, size = thresholds_.sizes[row];
    if (!scores_[i].usable() && size > 0) {
      for (std::int64_t column = 0; column < sets_.columns; ++column) {
        if (thresholds_.countable == nullptr || thresholds_.countable[column] != 0) {
          count(i, column, 1);
        }
      }
    }
    if (thresholds_.starts != nullptr && size > 0) {
      for (std::int64_t e = thresholds_.starts[row]; e < thresholds_.starts[row + 1]; ++e) {
        const std::int64_t column = thresholds_.excluded[e];
        if (thresholds_.countable == nullptr || thresholds_.countable[column] != 0) {
          count(i, column, -1);
        }
      }
    }
    std::int64_t* less = places_.less + row * thresholds_.most;
    std::int64_t total = 0;
    for (std::int64_t j = 0; j < thresholds_.most; ++j) {
      if (j < size) total += counts_[i].count(j);
      less[j] = j < size ? total : 0;
    }
  }

  void finish_nearest(std::int64_t i) {
    if (places_.top == 0) return;
    const std::int64_t row = begin_ + i;
    candidates_[i].prune([&](float kth) { return scores_[i].margin(kth); });
    std::vector<std::pair<float, std::int64_t>> found;
    const auto add = [&](std::int64_t column) {
      found.emplace_back(distance_of(sets_, kernel_, row, column).rounded, column);
    };
    for (const auto& candidate : candidates_[i].found()) add(candidate.column);
    // Without usable scores there are no candidates.
    if (static_cast<std::int64_t>(found.size()) < places_.top) {
      found.clear();
      for (std::int64_t column = 0; column < sets_.columns; ++column) add(column);
    }
    std::partial_sort(found.begin(), found.begin() + places_.top, found.end());
    for (std::int64_t k = 0; k < places_.top; ++k) {
      places_.distances[row * places_.top + k] = found[k].first;
      places_.nearest[row * places_.top + k] = found[k].second;
    }
  }

  const RankedSets& sets_;
  const Thresholds& thresholds_;
  const Places& places_;
  const RankingKernel& kernel_;
  std::int64_t begin_, rows_;
  std::vector<Scores> scores_;
  std::vector<Counts> counts_;
  std::vector<Candidates> candidates_;
  std::vector<float> values_;
  std::vector<std::int32_t> columns_, open_;
  std::vector<float> strip_;
  std::vector<float> tiles_;
};

}  // namespace

void ranking_norms(const float* x, std::int64_t rows, std::int64_t width, double* norms) {
  const RankingKernel& kernel = sparse_vit::kernel();
  at::parallel_for(0, rows, 1 << 10, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      norms[i] = std::sqrt(kernel.dot(x + i * width, x + i * width, width));
    }
  });
}

void ranking_centre(const float* x, std::int64_t rows, std::int64_t width, const double* norms,
                    const double* centre, double scale, float* out, double* lengths, float* bias) {
  const std::int64_t panels = bias == nullptr ? rows : up(rows, panel_columns);
  const std::int64_t step = bias == nullptr ? 1 : panel_columns;
  at::parallel_for(0, panels / step, 32, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * step; i < end * step; ++i) {
      float* place = bias == nullptr ? out + i * width : out + i / step * step * width + i % step;
      double square = 0.0;
      const double inverse = norms != nullptr && i < rows ? 1.0 / norms[i] : 1.0;
      for (std::int64_t k = 0; k < width; ++k) {
        const double value = i < rows ? scale * (x[i * width + k] * inverse - centre[k]) : 0.0;
        square += value * value;
        place[k * step] = static_cast<float>(value);
      }
      if (i < rows) lengths[i] = std::sqrt(square);
      if (bias != nullptr) bias[i] = i < rows ? static_cast<float>(-0.5 * square) : -infinity;
    }
  });
}

void ranking_pairs(const RankedSets& sets, const std::int64_t* rows, const std::int64_t* columns,
                   std::int64_t count, float* out) {
  const RankingKernel& kernel = sparse_vit::kernel();
  at::parallel_for(0, count, 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      out[i] = distance_of(sets, kernel, rows[i], columns[i]).rounded;
    }
  });
}

void ranking_places(const RankedSets& sets, const Thresholds& thresholds, const Places& places) {
  // Blocks of about one size, which threads take as they come: others may use the processor too.
  const std::int64_t threads = at::get_num_threads(), rows = std::max<std::int64_t>(sets.rows, 1);
  const std::int64_t shares = up(rows, threads * most_rows) / most_rows;
  const std::int64_t step = up(up(rows, shares) / shares, kernel().tile_rows);
  const std::int64_t blocks = up(sets.rows, step) / step;
  std::atomic<std::int64_t> next{0};
  at::parallel_for(0, std::min(threads, blocks), 1, [&](std::int64_t, std::int64_t) {
    for (std::int64_t block; (block = next++) < blocks;) {
      const std::int64_t first = block * step;
      Block(sets, thresholds, places, first, std::min(first + step, sets.rows)).run();
    }
  });
}

}  // namespace sparse_vit
