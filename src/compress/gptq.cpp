#include "compress/gptq.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "compress/linalg.h"

namespace lathe {
namespace {

constexpr int64_t strip_rows = 64;      // rows that one worker rounds together: independent of their number
constexpr int64_t block_columns = 128;  // columns between two updates of all the later ones

// The codes of a strip of rows, column after column.
class Strip {
 public:
  Strip(const float* w, int64_t first, int64_t rows, const GptqFactor& f, const GptqOptions& o, Codes& out)
      : factor_(f),
        options_(o),
        out_(out),
        first_(first),
        rows_(rows),
        cols_(f.cols()),
        values_(out.numerics.is_grid() ? grid_values(out.numerics.kind) : std::span<const float>()),
        grids_(values_.empty() ? groups() * rows : 0) {
    left_.resize(static_cast<size_t>(cols_ * rows_));
    for (int64_t i = 0; i < cols_; ++i)
      for (int64_t r = 0; r < rows_; ++r)
        left_[static_cast<size_t>(i * rows_ + r)] =
            w[(first + r) * cols_ + f.order()[static_cast<size_t>(i)]];
    if (!o.static_groups || !values_.empty()) return;
    for (int64_t g = 0; g < groups(); ++g)
      for (int64_t r = 0; r < rows_; ++r) fit(g, r, w + (first + r) * cols_ + g * group());
  }

  void run() {
    std::vector<float> errors(static_cast<size_t>(block_columns * rows_));
    for (int64_t begin = 0; begin < cols_; begin += block_columns) {
      const int64_t end = std::min(begin + block_columns, cols_);
      for (int64_t i = begin; i < end; ++i) {
        float* e = errors.data() + (i - begin) * rows_;
        round_column(i, e);
        const float* u = factor_.factor().data() + i * cols_;
        for (int64_t j = i + 1; j < end; ++j) {
          float* later = left_.data() + j * rows_;
          const float by = u[j];
          for (int64_t r = 0; r < rows_; ++r) later[r] -= by * e[r];
        }
      }
      subtract_product(cols_ - end, rows_, end - begin, factor_.factor().data() + begin * cols_ + end, cols_,
                       errors.data(), rows_, left_.data() + end * rows_, rows_);
    }
  }

 private:
  int64_t groups() const { return out_.numerics.groups(cols_); }
  int64_t group() const { return out_.numerics.group == 0 ? cols_ : out_.numerics.group; }

  void fit(int64_t g, int64_t r, const float* x) {
    const int64_t n = std::min(group(), cols_ - g * group());
    const Grid grid =
        fit_grid(x, factor_.importance().data() + g * group(), n, out_.numerics, options_.scales.search);
    grids_[static_cast<size_t>(g * rows_ + r)] = grid;
    const auto at = static_cast<size_t>((first_ + r) * groups() + g);
    out_.scales[at] = grid.scale;
    if (!out_.zeros.empty()) out_.zeros[at] = grid.zero;
  }

  // The columns of a group lie together here, since there is no act_order.
  void fit_from_what_is_left(int64_t g) {
    const int64_t begin = g * group(), n = std::min(group(), cols_ - begin);
    std::vector<float> x(static_cast<size_t>(n));
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t i = 0; i < n; ++i)
        x[static_cast<size_t>(i)] = left_[static_cast<size_t>((begin + i) * rows_ + r)];
      fit(g, r, x.data());
    }
  }

  void round_column(int64_t i, float* e) {
    const int64_t column = factor_.order()[static_cast<size_t>(i)], g = column / group();
    const float spread = factor_.factor()[static_cast<size_t>(i * (cols_ + 1))];
    const float* x = left_.data() + i * rows_;
    if (!values_.empty()) return round_column_to_values(x, column, g, spread, e);
    if (!options_.static_groups && column % group() == 0) fit_from_what_is_left(g);
    for (int64_t r = 0; r < rows_; ++r) {
      const Grid& grid = grids_[static_cast<size_t>(g * rows_ + r)];
      const float code = grid.code(x[r]);
      out_.codes[static_cast<size_t>((first_ + r) * cols_ + column)] = static_cast<int16_t>(code);
      e[r] = (x[r] - grid.value(code)) / spread;
    }
  }

  void round_column_to_values(const float* x, int64_t column, int64_t g, float spread, float* e) {
    for (int64_t r = 0; r < rows_; ++r) {
      const float scale = out_.scales[static_cast<size_t>((first_ + r) * groups() + g)] * out_.global;
      const int code = nearest_code(out_.numerics.kind, x[r] / scale);
      out_.codes[static_cast<size_t>((first_ + r) * cols_ + column)] = static_cast<int16_t>(code);
      e[r] = (x[r] - scale * values_[static_cast<size_t>(code)]) / spread;
    }
  }

  const GptqFactor& factor_;
  const GptqOptions& options_;
  Codes& out_;
  int64_t first_, rows_, cols_;
  std::span<const float> values_;  // of codes of a grid, whose scales are in out_ already
  std::vector<Grid> grids_;        // [groups, rows]
  std::vector<float> left_;        // [columns in order, rows]: weights, compensated
};

// One row of the error's gradient, g = (q - w) H, kept up to date while its codes and scales move.
struct Descent {
  Codes& codes;
  const float* damped;  // the Hessian
  int64_t row;
  float* gradient;

  const float* hessian(int64_t column) const { return damped + column * codes.cols; }
  void add(int64_t column, float delta) const {
    const float* h = hessian(column);
    for (int64_t j = 0; j < codes.cols; ++j) gradient[j] += delta * h[j];
  }

  void codes_once(int64_t group) const {
    const Numerics& n = codes.numerics;
    const int64_t cols = codes.cols, groups = n.groups(cols);
    const auto lo = static_cast<float>(n.code_min()), hi = static_cast<float>(n.code_max());
    for (int64_t c = 0; c < cols; ++c) {
      const float scale = codes.scales[static_cast<size_t>(row * groups + c / group)];
      const float curvature = hessian(c)[c];
      if (!(curvature > 0)) continue;
      int16_t& code = codes.codes[static_cast<size_t>(row * cols + c)];
      const float now = static_cast<float>(code);
      const float best = std::clamp(std::nearbyint(now - gradient[c] / (curvature * scale)), lo, hi);
      if (best == now) continue;
      code = static_cast<int16_t>(best);
      add(c, scale * (best - now));
    }
  }

  void scales_once(int64_t group, std::vector<float>& q, std::vector<float>& along) const {
    const Numerics& n = codes.numerics;
    const int64_t cols = codes.cols, groups = n.groups(cols);
    for (int64_t g = 0; g < groups; ++g) {
      const auto at = static_cast<size_t>(row * groups + g);
      const int64_t begin = g * group, size = std::min(group, cols - begin);
      const float zero = codes.zeros.empty() ? 0 : codes.zeros[at];
      std::fill(along.begin(), along.end(), 0.0f);
      double slope = 0, curvature = 0;
      for (int64_t i = 0; i < size; ++i) {
        const auto c = static_cast<size_t>(begin + i);
        q[static_cast<size_t>(i)] =
            static_cast<float>(codes.codes[static_cast<size_t>(row * cols) + c]) - zero;
        slope += static_cast<double>(q[static_cast<size_t>(i)] * gradient[c]);
        const float* h = hessian(begin + i);
        const float by = q[static_cast<size_t>(i)];
        for (int64_t j = 0; j < cols; ++j) along[static_cast<size_t>(j)] += by * h[j];
      }
      for (int64_t i = 0; i < size; ++i)
        curvature += static_cast<double>(q[static_cast<size_t>(i)] * along[static_cast<size_t>(begin + i)]);
      if (!(curvature > 0)) continue;
      const float now = codes.scales[at];
      const float best = storable(now - static_cast<float>(slope / curvature), n.dtype);
      const double moved = static_cast<double>(best - now);
      if (!(best > 0) || !(2 * moved * slope + moved * moved * curvature < 0)) continue;
      codes.scales[at] = best;
      for (int64_t j = 0; j < cols; ++j)
        gradient[j] += static_cast<float>(moved) * along[static_cast<size_t>(j)];
    }
  }
};

void descend(ThreadPool& pool, const float* w, Codes& codes, const GptqFactor& factor, int passes) {
  const int64_t cols = codes.cols, group = codes.numerics.group == 0 ? cols : codes.numerics.group;
  std::vector<float> moved(static_cast<size_t>(codes.rows * cols)), gradient(moved.size());
  dequantize(codes, moved.data());
  for (size_t i = 0; i < moved.size(); ++i) moved[i] -= w[i];
  std::vector<float> damped(factor.hessian(), factor.hessian() + cols * cols);
  for (int64_t c = 0; c < cols; ++c) damped[static_cast<size_t>(c * (cols + 1))] += factor.added();
  multiply(pool, moved.data(), damped.data(), gradient.data(), codes.rows, cols, cols);
  for_each_item(pool, (codes.rows + strip_rows - 1) / strip_rows, [&](int64_t item) {
    std::vector<float> q(static_cast<size_t>(group)), along(static_cast<size_t>(cols));
    for (int64_t r = item * strip_rows; r < std::min(codes.rows, (item + 1) * strip_rows); ++r) {
      const Descent row{codes, damped.data(), r, gradient.data() + r * cols};
      for (int pass = 0; pass < passes; ++pass) {
        row.codes_once(group);
        row.scales_once(group, q, along);
      }
      row.codes_once(group);
    }
  });
}

}  // namespace

GptqFactor::GptqFactor(ThreadPool& pool, const float* hessian, int64_t cols, double damping, bool act_order)
    : cols_(cols), damping_(damping), order_(static_cast<size_t>(cols)), hessian_(hessian) {
  double mean = 0;
  for (int64_t c = 0; c < cols; ++c) {
    importance_.push_back(hessian[c * (cols + 1)]);
    mean += static_cast<double>(importance_.back()) / static_cast<double>(cols);
  }
  std::iota(order_.begin(), order_.end(), 0);
  if (act_order)
    std::ranges::stable_sort(order_, [&](int32_t a, int32_t b) {
      return importance_[static_cast<size_t>(a)] > importance_[static_cast<size_t>(b)];
    });
  if (!(mean > 0)) return;  // no input ever: nothing can be made up for
  factor_.resize(static_cast<size_t>(cols * cols));
  for (int attempt = 0; attempt < 3 && !usable_; ++attempt) {
    if (attempt > 0) damping_ *= 10;
    added_ = static_cast<float>(damping_ * mean);
    for_each_item(pool, (cols + strip_rows - 1) / strip_rows, [&](int64_t item) {
      for (int64_t i = item * strip_rows; i < std::min(cols, (item + 1) * strip_rows); ++i) {
        const float* row = hessian + int64_t{order_[static_cast<size_t>(i)]} * cols;
        float* ordered = factor_.data() + i * cols;
        for (int64_t j = i; j < cols; ++j) ordered[j] = row[order_[static_cast<size_t>(j)]];
        ordered[i] += added_;
      }
    });
    usable_ = inverse_factor(pool, factor_.data(), cols);
  }
  if (!usable_) factor_ = {};
}

Codes gptq(ThreadPool& pool, const float* w, int64_t rows, int64_t cols, const Numerics& numerics,
           const GptqFactor& factor, const GptqOptions& options) {
  Codes codes = numerics.is_grid()
                    ? round_to_nearest(w, rows, cols, numerics, options.scales, options.largest)
                    : blank_codes(rows, cols, numerics);
  for_each_item(pool, (rows + strip_rows - 1) / strip_rows, [&](int64_t item) {
    const int64_t first = item * strip_rows;
    Strip(w, first, std::min(strip_rows, rows - first), factor, options, codes).run();
  });
  if (options.descent > 0 && numerics.is_integer()) descend(pool, w, codes, factor, options.descent);
  return codes;
}

double output_error(ThreadPool& pool, const float* w, const float* rounded, int64_t rows, int64_t cols,
                    const float* hessian) {
  constexpr int64_t most = 256;  // rows at a time: memory beside the weight stays small
  double sum = 0;
  std::vector<float> moved, through;
  for (int64_t first = 0; first < rows; first += most) {
    const int64_t n = std::min(most, rows - first);
    moved.resize(static_cast<size_t>(n * cols));
    through.resize(moved.size());
    for (size_t i = 0; i < moved.size(); ++i)
      moved[i] = rounded[static_cast<size_t>(first * cols) + i] - w[static_cast<size_t>(first * cols) + i];
    multiply(pool, moved.data(), hessian, through.data(), n, cols, cols);
    for (size_t i = 0; i < moved.size(); ++i)
      sum += static_cast<double>(moved[i]) * static_cast<double>(through[i]);
  }
  return sum;
}

}  // namespace lathe
