#include "compress/equalize.h"

#include <algorithm>
#include <cmath>

#include "compress/gptq.h"
#include "compress/linalg.h"
#include "compress/low_rank.h"
#include "core/error.h"
#include "core/float.h"
#include "quant/activations.h"

namespace lathe {
namespace {

constexpr int steps = 20;           // of an exponent between 0 and 1
constexpr int64_t most_rows = 512;  // of a layer that candidates are compared on

// Some rows of a layer, evenly spread.
struct Sampled {
  std::vector<float> w;
  int64_t rows = 0;
  double weight = 1;  // rows of the layer for each of these
  Numerics numerics;
  int64_t rank = 0;
};

Sampled some_rows(const EqualizedLayer& layer, int64_t cols) {
  Sampled out{{}, std::min(layer.rows, most_rows), 1, layer.numerics, 0};
  out.weight = static_cast<double>(layer.rows) / static_cast<double>(out.rows);
  out.rank = std::min(layer.rank, out.rows);
  for (int64_t i = 0; i < out.rows; ++i) {
    const float* row = layer.w + i * layer.rows / out.rows * cols;
    out.w.insert(out.w.end(), row, row + cols);
  }
  return out;
}

// What the unscaled input meets: Q / s, where Q is what the layer times s rounds to; with a correction B A of
// that, what the rest rounds to, and B A / s.
struct Rounded {
  std::vector<float> codes, low;  // low: empty without a correction
};

Rounded rounded(ThreadPool& pool, const Sampled& layer, int64_t cols, std::span<const float> s,
                const InputStats& stats) {
  Rounded out{layer.w, {}};
  std::vector<float> importance(static_cast<size_t>(cols));
  for (size_t i = 0; i < out.codes.size(); ++i) out.codes[i] *= s[i % s.size()];
  for (size_t c = 0; c < s.size(); ++c) importance[c] = stats.mean_square[c] / (s[c] * s[c]);
  if (layer.rank > 0) {
    std::vector<float> hessian = stats.hessian;  // of x / s
    for (size_t i = 0; i < hessian.size(); ++i) hessian[i] /= s[i / s.size()] * s[i % s.size()];
    out.low.resize(out.codes.size());
    add_correction(pool, fit_low_rank(pool, out.codes.data(), layer.rows, cols, layer.rank, hessian.data()),
                   layer.rows, cols, out.low.data());
    for (size_t i = 0; i < out.low.size(); ++i) out.codes[i] -= out.low[i];
  }
  dequantize(round_weighted(out.codes.data(), layer.rows, cols, layer.numerics, importance.data()),
             out.codes.data());
  for (auto* v : {&out.codes, &out.low})
    for (size_t i = 0; i < v->size(); ++i) (*v)[i] /= s[i % s.size()];
  return out;
}

// Of Q(x / s) Q(w s)^T against x w^T, over the sampled rows of x; corrections have x as it is.
double error_on_sample(ThreadPool& pool, const Sampled& layer, int64_t cols, std::span<const float> s,
                       const InputStats& stats) {
  const Rounded now = rounded(pool, layer, cols, s, stats);
  std::vector<float> exact = layer.w;  // less what the correction does
  for (size_t i = 0; i < now.low.size(); ++i) exact[i] -= now.low[i];
  // A scale that is going to be found: of integers, and of e4m3, each row's own stands for it; of NVFP4 the
  // sample's largest finds it.
  const Activations wanted = layer.numerics.activations,
                    to = wanted == Activations::int8_static  ? Activations::int8_per_row
                         : wanted == Activations::fp8_static ? Activations::fp8_per_row
                                                             : wanted;
  float most = 0;
  for (size_t i = 0; i < stats.sample.size(); ++i)
    most = std::max(most, std::fabs(stats.sample[i] / s[i % s.size()]));
  const float given = to == Activations::nvfp4 ? most / largest_activation(to) : 0;
  double sum = 0;
  std::vector<double> partial(static_cast<size_t>(stats.sample_rows));
  for_each_item(pool, stats.sample_rows, [&](int64_t t) {
    const float* x = stats.sample.data() + t * cols;
    std::vector<float> q(static_cast<size_t>(cols));
    for (int64_t c = 0; c < cols; ++c) q[static_cast<size_t>(c)] = x[c] / s[static_cast<size_t>(c)];
    round_row(to, q.data(), cols, q.data(), given);
    for (int64_t c = 0; c < cols; ++c) q[static_cast<size_t>(c)] *= s[static_cast<size_t>(c)];
    double squares = 0;
    for (int64_t r = 0; r < layer.rows; ++r) {
      const float *left = exact.data() + r * cols, *codes = now.codes.data() + r * cols;
      float e = 0;
      for (int64_t c = 0; c < cols; ++c) e += q[static_cast<size_t>(c)] * codes[c] - x[c] * left[c];
      squares += static_cast<double>(e) * static_cast<double>(e);
    }
    partial[static_cast<size_t>(t)] = squares;
  });
  for (const double p : partial) sum += p;
  return sum / static_cast<double>(std::max<int64_t>(stats.sample_rows, 1));
}

double error_of(ThreadPool& pool, const std::vector<Sampled>& layers, int64_t cols, std::span<const float> s,
                const InputStats& stats) {
  double sum = 0;
  for (const Sampled& layer : layers) {
    if (layer.numerics.rounds_activations()) {
      sum += layer.weight * error_on_sample(pool, layer, cols, s, stats);
      continue;
    }
    Rounded now = rounded(pool, layer, cols, s, stats);
    for (size_t i = 0; i < now.low.size(); ++i) now.codes[i] += now.low[i];
    sum += layer.weight *
           output_error(pool, layer.w.data(), now.codes.data(), layer.rows, cols, stats.hessian.data());
  }
  return sum;
}

// Sizes per row of the FoldSite: the largest, or the mean, of the channels that it makes.
std::vector<double> per_row(std::span<const float> channels, const FoldSite& site, bool largest) {
  std::vector<double> rows(static_cast<size_t>(site.rows)), count(rows.size());
  for (size_t c = 0; c < channels.size(); ++c) {
    const auto r = static_cast<size_t>(site.row_of[c]);
    const double v = static_cast<double>(channels[c]);
    rows[r] = largest ? std::max(rows[r], v) : rows[r] + v;
    count[r] += 1;
  }
  if (!largest)
    for (size_t r = 0; r < rows.size(); ++r) rows[r] /= std::max(count[r], 1.0);
  return rows;
}

std::vector<float> weight_sizes(const std::vector<Sampled>& layers, int64_t cols, bool largest) {
  std::vector<float> sizes(static_cast<size_t>(cols));
  int64_t rows = 0;
  for (const Sampled& layer : layers) {
    rows += layer.rows;
    for (size_t i = 0; i < layer.w.size(); ++i) {
      float& at = sizes[i % sizes.size()];
      at = largest ? std::max(at, std::abs(layer.w[i])) : at + std::abs(layer.w[i]);
    }
  }
  if (!largest)
    for (float& v : sizes) v /= static_cast<float>(std::max<int64_t>(rows, 1));
  return sizes;
}

// Channel divisors x^a / w^b, of which only the ratios matter to weights: centred so that the largest and the
// smallest are each other's inverse.
std::vector<float> divisors(const std::vector<double>& x, const std::vector<double>& w, double a, double b,
                            const FoldSite& site) {
  std::vector<double> s(x.size());
  double lo = 1e30, hi = 0;
  for (size_t r = 0; r < s.size(); ++r) {
    s[r] = std::clamp(std::pow(std::max(x[r], 1e-8), a) / std::pow(std::max(w[r], 1e-8), b), 1e-6, 1e6);
    lo = std::min(lo, s[r]);
    hi = std::max(hi, s[r]);
  }
  const double centre = std::sqrt(lo * hi);
  std::vector<float> out;
  for (const int32_t r : site.row_of)
    out.push_back(static_cast<float>(std::clamp(s[static_cast<size_t>(r)] / centre, 1e-4, 1e4)));
  return out;
}

Weight dense_f32(Shape shape, std::span<const float> values) {
  return dense_weight(Tensor::of<float>(DType::f32, std::move(shape), values));
}

}  // namespace

Equalized equalize(ThreadPool& pool, Equalize how, const std::vector<EqualizedLayer>& layers,
                   const InputStats& stats, const FoldSite& site) {
  std::vector<Sampled> rows;
  for (const EqualizedLayer& layer : layers) rows.push_back(some_rows(layer, stats.cols));
  const std::vector<float> ones(static_cast<size_t>(stats.cols), 1.0f);
  Equalized best;
  best.error = best.error_as_is = error_of(pool, rows, stats.cols, ones, stats);
  if (how == Equalize::none) return best;
  const bool smooth = how == Equalize::smooth;
  const std::vector<double> x = per_row(smooth ? stats.abs_max : stats.mean_abs, site, smooth),
                            w = per_row(weight_sizes(rows, stats.cols, smooth), site, smooth);
  for (int i = 1; i <= steps; ++i)
    for (const bool by_weights : {false, true}) {
      const double a = static_cast<double>(i) / steps, b = by_weights ? 1 - a : 0;
      if (smooth && !by_weights) continue;
      std::vector<float> s = divisors(x, w, a, b, site);
      const double error = error_of(pool, rows, stats.cols, s, stats);
      if (!(error < best.error)) continue;
      best.error = error;
      best.strength = a;
      best.divisors = std::move(s);
    }
  return best;
}

void fold(Model& model, const FoldSite& site, const InputGroup& group, std::vector<float>& s) {
  Weight& maker = model.weights.at(site.param);
  std::vector<float> by(static_cast<size_t>(site.rows), 1.0f);
  for (size_t c = 0; c < s.size(); ++c) by[static_cast<size_t>(site.row_of[c])] = s[c];
  std::vector<float> values = read_all(maker);
  if (maker.shape.size() == 1) {
    std::vector<float> kept(values.size());
    for (size_t i = 0; i < values.size(); ++i) kept[i] = values[i] / by[i];
    Tensor stored = Tensor::zeros(maker.numerics.dtype, maker.shape);
    from_f32(stored.dtype, kept.data(), stored.storage.data, std::ssize(kept));
    to_f32(stored.dtype, stored.storage.data, kept.data(), std::ssize(kept));
    for (size_t i = 0; i < values.size(); ++i)
      by[i] = kept[i] == 0 || values[i] == 0 ? 1.0f : values[i] / kept[i];
    maker = dense_weight(std::move(stored));
  } else {
    const int64_t cols = maker.cols();
    for (int64_t r = 0; r < site.rows; ++r)
      for (int64_t c = 0; c < cols; ++c)
        values[static_cast<size_t>(r * cols + c)] /= by[static_cast<size_t>(r)];
    maker = dense_f32(maker.shape, values);
    if (!site.bias.empty()) {
      Weight& bias = model.weights.at(site.bias);
      std::vector<float> b = read_all(bias);
      for (size_t i = 0; i < b.size(); ++i) b[i] /= by[i];
      bias = dense_f32(bias.shape, b);
    }
    if (!site.correction.empty()) {
      Weight& factor = model.weights.at(site.correction);
      std::vector<float> b = read_all(factor);
      for (size_t i = 0; i < b.size(); ++i) b[i] /= by[i / static_cast<size_t>(factor.cols())];
      factor = dense_f32(factor.shape, b);
    }
  }
  for (size_t c = 0; c < s.size(); ++c) s[c] = by[static_cast<size_t>(site.row_of[c])];
  for (const NodeId id : model.graph.users(group.input)) {  // layers, and the A of their corrections
    Weight& weight = model.weights.at(model.graph.node(id).params[0]);
    std::vector<float> w = read_all(weight);
    for (size_t i = 0; i < w.size(); ++i) w[i] *= s[i % s.size()];
    weight = dense_f32(weight.shape, w);
  }
}

}  // namespace lathe
