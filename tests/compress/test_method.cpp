#include <cmath>
#include <gmock/gmock.h>

#include "calibration_data.h"
#include "compress/estimate.h"
#include "compress/linalg.h"
#include "compress/method.h"
#include "core/error.h"
#include "eval/quality.h"
#include "golden_models.h"
#include "models/low_rank.h"
#include "quant/activations.h"
#include "runtime/interpreter.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;
using testing::ThrowsMessage;

InputStats stats_of(const std::vector<float>& x, int64_t cols) {
  ThreadPool pool(1);
  InputStats s;
  s.cols = cols;
  const int64_t rows = std::ssize(x) / cols;
  s.add(pool, x.data(), nullptr, 0, rows, rows, {.hessian = true, .sample = true});
  s.finish(pool);
  return s;
}

TEST(Method, ReadsItsParts) {
  const Method m = parse_method("awq+gptq+bias");
  EXPECT_EQ(m.equalize, Equalize::awq);
  EXPECT_EQ(m.rounding->name, "gptq");
  EXPECT_TRUE(m.bias);
  EXPECT_TRUE(m.needs_text());
  EXPECT_FALSE(parse_method("rtn").needs_text());
  EXPECT_EQ(parse_method("awq").rounding->name, "importance");
  EXPECT_EQ(parse_method("rtn+rank16").rank, 16);
  EXPECT_TRUE(parse_method("rtn+rank16").needs_text());
  const Method svdquant = parse_method("smooth+gptq+rank8");
  EXPECT_EQ(svdquant.equalize, Equalize::smooth);
  EXPECT_EQ(svdquant.rank, 8);
  for (const char* bad : {"", "gptq+", "magic", "gptq+rtn", "awq+smooth", "bias", "rank8", "gptq+rank",
                          "gptq+rank0", "gptq+rank1025", "gptq+rank8x", "gptq+rank8+rank8"})
    EXPECT_THAT([&] { parse_method(bad); },
                ThrowsMessage<InputError>(HasSubstr("expected rtn, importance, gptq")))
        << bad;
}

// A correction of random factors behind every linear layer.
void correct_all(Model& m) {
  const std::vector<NodeId> order(m.graph.order().begin(), m.graph.order().end());
  for (const NodeId id : order)
    if (const Node node = m.graph.node(id); std::holds_alternative<op::Linear>(node.op))
      add_low_rank(m.graph, id, correction_of(node.name), {.rank = 2});
  for (const auto& [name, shape] : m.graph.param_shapes())
    if (is_correction(m.graph, name))
      m.weights[name] = dense_weight(
          Tensor::of<float>(DType::f32, shape, random_values(elements(shape), m.weights.size(), 0.1f)));
}

// Scales that move leave the function as it is: norms (of any gain), value rows behind grouped heads, up
// rows; and low-rank corrections of either.
TEST(Equalize, FoldingLeavesTheFunctionAlone) {
  for (const auto& [family, corrected] : {std::pair{"llama3", false},
                                          {"qwen2", false},
                                          {"qwen3", false},
                                          {"smollm2", false},
                                          {"llama3", true},
                                          {"qwen2", true}}) {
    Model before = load(Checkpoint::open(golden(family)));
    if (corrected) correct_all(before);
    const std::vector<float> expected = logits_of(before);
    Model after = before;
    uint64_t seed = 1;
    int folded = 0;
    for (const InputGroup& group : input_groups(before.graph)) {
      const auto site = fold_site(before.graph, group);
      if (!site) continue;
      std::vector<float> by_row = random_values(site->rows, seed++);
      std::vector<float> s;
      for (const int32_t r : site->row_of) s.push_back(std::exp2(by_row[static_cast<size_t>(r)]));
      fold(after, *site, group, s);
      ++folded;
    }
    EXPECT_GE(folded, 4) << family;
    const std::vector<float> found = logits_of(after);
    double most = 0, size = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      most = std::max(most, std::abs(static_cast<double>(found[i]) - static_cast<double>(expected[i])));
      size = std::max(size, std::abs(static_cast<double>(expected[i])));
    }
    EXPECT_LE(most, 1e-5 * size) << family;
    EXPECT_GT(most, 0) << family;
  }
}

// W8A8 of a layer whose input has outlier channels of 100 times the others.
double w8a8_error(const std::vector<float>& w, int64_t rows, const std::vector<float>& x, int64_t cols,
                  std::vector<float> s) {
  if (s.empty()) s.assign(static_cast<size_t>(cols), 1.0f);
  std::vector<float> scaled = w;
  for (size_t i = 0; i < w.size(); ++i) scaled[i] *= s[i % s.size()];
  dequantize(round_to_nearest(scaled.data(), rows, cols, Numerics::w8a8(DType::f32), ScaleSearch::absmax),
             scaled.data());
  double sum = 0;
  for (int64_t t = 0; t < std::ssize(x) / cols; ++t) {
    std::vector<float> q(x.begin() + t * cols, x.begin() + (t + 1) * cols);
    for (size_t c = 0; c < q.size(); ++c) q[c] /= s[c];
    round_row_to_int8(q.data(), cols, q.data());
    for (int64_t r = 0; r < rows; ++r) {
      double e = 0;
      for (int64_t c = 0; c < cols; ++c)
        e += static_cast<double>(q[static_cast<size_t>(c)]) *
                 static_cast<double>(scaled[static_cast<size_t>(r * cols + c)]) -
             static_cast<double>(x[static_cast<size_t>(t * cols + c)]) *
                 static_cast<double>(w[static_cast<size_t>(r * cols + c)]);
      sum += e * e;
    }
  }
  return sum;
}

TEST(Equalize, SmoothingTakesOutliersOutOfInt8Activations) {
  ThreadPool pool(2);
  constexpr int64_t rows = 48, cols = 128;
  const std::vector<float> w = random_values(rows * cols, 1);
  std::vector<float> x = random_values(200 * cols, 2), other = random_values(50 * cols, 3);
  for (auto* v : {&x, &other})
    for (size_t i = 0; i < v->size(); ++i)
      if (i % cols == 5 || i % cols == 77) (*v)[i] *= 100;
  const InputStats stats = stats_of(x, cols);
  std::vector<int32_t> rows_of(cols);
  for (size_t i = 0; i < rows_of.size(); ++i) rows_of[i] = static_cast<int32_t>(i);
  const FoldSite site{"norm", "", rows_of, cols};
  const Equalized found =
      equalize(pool, Equalize::smooth, {{w.data(), rows, Numerics::w8a8(DType::f32)}}, stats, site);
  ASSERT_FALSE(found.divisors.empty());
  const double as_is = w8a8_error(w, rows, other, cols, {}),
               smoothed = w8a8_error(w, rows, other, cols, found.divisors);
  EXPECT_LE(10 * smoothed, as_is);
}

// SVDQuant: what smoothing moves into the weights is of low rank, and 4 bits need not hold it.
TEST(Equalize, ACorrectionTakesWhatSmoothingMoved) {
  ThreadPool pool(2);
  constexpr int64_t rows = 48, cols = 128;
  const std::vector<float> w = random_values(rows * cols, 1);
  std::vector<float> x = random_values(200 * cols, 2);
  for (size_t i = 0; i < x.size(); ++i)
    if (i % cols == 5 || i % cols == 77) x[i] *= 100;
  const InputStats stats = stats_of(x, cols);
  std::vector<int32_t> rows_of(cols);
  for (size_t i = 0; i < rows_of.size(); ++i) rows_of[i] = static_cast<int32_t>(i);
  const FoldSite site{"norm", "", rows_of, cols};
  Numerics n = Numerics::integer(4, 32, false);
  n.activations = Numerics::Activations::int8_per_row;
  const auto found = [&](Equalize how, int64_t rank) {
    return equalize(pool, how, {{w.data(), rows, n, rank}}, stats, site).error;
  };
  const double smoothed = found(Equalize::smooth, 0), corrected = found(Equalize::none, 4),
               both = found(Equalize::smooth, 4);
  EXPECT_LE(4 * both, smoothed);
  EXPECT_LE(4 * both, corrected);
}

TEST(Equalize, IsNeverWorseThanNotEqualizing) {
  ThreadPool pool(2);
  constexpr int64_t rows = 32, cols = 64;
  std::vector<int32_t> rows_of(cols);
  for (size_t i = 0; i < rows_of.size(); ++i) rows_of[i] = static_cast<int32_t>(i);
  const FoldSite site{"norm", "", rows_of, cols};
  for (uint64_t seed = 0; seed < 6; ++seed) {
    const std::vector<float> w = random_values(rows * cols, seed);
    const InputStats stats =
        stats_of(seed % 2 ? correlated_inputs(200, cols, seed) : random_values(200 * cols, seed), cols);
    const Numerics n = Numerics::integer(4, 32, seed % 3 == 0);
    const Equalized found = equalize(pool, Equalize::awq, {{w.data(), rows, n}}, stats, site);
    EXPECT_LE(found.error, found.error_as_is);
    if (seed % 2) {  // channels of different sizes: there is something to gain
      EXPECT_LT(found.error, found.error_as_is);
    }
  }
}

TEST(Estimate, ScaleEstimationLowersTheSampledError) {
  ThreadPool pool(1);
  constexpr int64_t rows = 64, cols = 128;
  const std::vector<float> w = random_values(rows * cols, 4);
  const InputStats stats = stats_of(correlated_inputs(300, cols, 5), cols);
  for (const bool asymmetric : {false, true}) {
    const Numerics n = Numerics::integer(4, 64, asymmetric);
    std::vector<float> plain(w.size()), estimated(w.size());
    dequantize(round_to_nearest(w.data(), rows, cols, n, ScaleSearch::absmax), plain.data());
    dequantize(estimate_scales(w.data(), rows, cols, n, stats), estimated.data());
    EXPECT_LT(output_error(pool, w.data(), estimated.data(), rows, cols, stats.hessian.data()),
              0.95 * output_error(pool, w.data(), plain.data(), rows, cols, stats.hessian.data()));
  }
}

TEST(Estimate, HalfQuadraticLowersItsNorm) {
  constexpr int64_t rows = 64, cols = 128, group = 64;
  std::vector<float> w = random_values(rows * cols, 6);
  for (size_t i = 0; i < w.size(); i += 61) w[i] *= 4;  // outliers, which the 0.7-norm cares less about
  for (const int bits : {2, 3, 4}) {
    SCOPED_TRACE(bits);
    const Numerics n = Numerics::integer(bits, group, true);
    const Codes nearest = round_to_nearest(w.data(), rows, cols, n, ScaleSearch::absmax),
                half = half_quadratic(w.data(), rows, cols, n);
    std::vector<float> plain(w.size()), found(w.size());
    dequantize(nearest, plain.data());
    dequantize(half, found.data());
    double norm_plain = 0, norm_found = 0;
    size_t moved = 0;
    for (size_t g = 0; g < half.scales.size(); ++g) {
      double before = 0, after = 0;
      for (size_t i = g * group; i < (g + 1) * group; ++i) {
        before += std::pow(std::abs(static_cast<double>(w[i] - plain[i])), 0.7);
        after += std::pow(std::abs(static_cast<double>(w[i] - found[i])), 0.7);
      }
      EXPECT_LE(after, before * (1 + 1e-5)) << g;  // powers are computed in f32
      norm_plain += before;
      norm_found += after;
      moved += half.scales[g] != nearest.scales[g];
      EXPECT_EQ(half.zeros[g], std::nearbyint(half.zeros[g]));
    }
    EXPECT_LT(norm_found, 0.98 * norm_plain);
    EXPECT_GT(moved, half.scales.size() / 2);  // moving zero points alone, by whole steps, changed nothing
    const Codes stored = unpack(pack_codes(half, {rows, cols}), 0, rows);
    EXPECT_EQ(stored.codes, half.codes);
    EXPECT_EQ(stored.scales, half.scales);
    EXPECT_EQ(stored.zeros, half.zeros);
  }
  EXPECT_THAT([&] { half_quadratic(w.data(), rows, cols, Numerics::integer(3, 64, false)); },
              ThrowsMessage<InputError>(HasSubstr("--asymmetric")));
}

// Tokens that share a part of their embedding, as those of trained models do: channels have means, and
// rounding a layer's weights then shifts its outputs.
Model with_common_part() {
  Model m = load(Checkpoint::open(golden("qwen2")));
  Weight& table = m.weights.at("model.embed_tokens.weight");
  std::vector<float> values = read_all(table);
  double squares = 0;
  for (const float v : values) squares += static_cast<double>(v) * static_cast<double>(v);
  const float rms = static_cast<float>(std::sqrt(squares / static_cast<double>(values.size())));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] += 2 * rms * (i % static_cast<size_t>(table.cols()) % 3 == 0 ? 1.0f : -1.0f);
  table = dense_weight(Tensor::of<float>(DType::f32, table.shape, values));
  return m;
}

std::vector<std::string> layers_with_bias(const Model& m) {
  std::vector<std::string> params;
  for (const NodeId id : m.graph.order())
    if (const Node& node = m.graph.node(id);
        std::holds_alternative<op::Linear>(node.op) && node.params.size() > 1)
      params.push_back(node.params[0]);
  return params;
}

Model rounded_by(const char* method, const Model& base, const std::vector<std::string>& params) {
  Model m = base;
  Assignment a;
  for (const std::string& p : params) a[p] = Numerics::integer(3, 16, false, DType::f32);
  quantize_calibrated(m, a, some_tokens(96),
                      {.method = parse_method(method),
                       .sweep = {.context = 12, .work = {}, .fingerprint = {}, .threads = 2}});
  return m;
}

// E |Q x + b' - W x - b|^2 is tr(D H D^T) + 2 (b' - b) . D mean(x) + |b' - b|^2 with D = Q - W. The
// correction b' - b = -D mean(x) takes |D mean(x)|^2 out of it, but for the rounding of b' to its type.
TEST(BiasCorrection, TakesTheMeanOutOfTheErrorAndLeavesTheVariance) {
  ThreadPool pool(2);
  const Model base = with_common_part();
  std::vector<std::string> first;  // they read what no rounding has moved
  for (const std::string& p : layers_with_bias(base))
    if (p.starts_with("model.layers.0.")) first.push_back(p);
  ASSERT_EQ(first.size(), 3u);
  InputStats seen;
  Model walked = base;
  sweep(walked, some_tokens(96),
        {{{.hessian = true},
          [&](const InputGroup& g) { return base.graph.node(g.nodes[0]).params[0] == first[0]; },
          [&](const InputGroup&, InputStats& s) {
            seen = s;
            return std::vector<float>();
          }}},
        {.context = 12, .work = {}, .fingerprint = {}, .threads = 2});
  const Model plain = rounded_by("rtn", base, first), corrected = rounded_by("rtn+bias", base, first);
  for (const std::string& param : first) {
    SCOPED_TRACE(param);
    const std::string bias = module_path(param) + ".bias";
    const std::vector<float> w = read_all(base.weights.at(param)), q = read_all(corrected.weights.at(param)),
                             b = read_all(base.weights.at(bias)), now = read_all(corrected.weights.at(bias));
    EXPECT_EQ(q, read_all(plain.weights.at(param)));
    EXPECT_EQ(b, read_all(plain.weights.at(bias)));
    const double before =
        output_error(pool, w.data(), q.data(), std::ssize(b), seen.cols, seen.hessian.data());
    double mean_part = 0, after = before, stored = 0;
    for (size_t r = 0; r < b.size(); ++r) {
      double shift = 0;  // of the mean output
      for (size_t c = 0; c < seen.mean.size(); ++c)
        shift += static_cast<double>(q[r * seen.mean.size() + c] - w[r * seen.mean.size() + c]) *
                 static_cast<double>(seen.mean[c]);
      const double moved = static_cast<double>(now[r]) - static_cast<double>(b[r]);
      mean_part += shift * shift;
      after += 2 * moved * shift + moved * moved;
      stored += std::pow(0x1p-9 * static_cast<double>(now[r]), 2);  // half a step of bf16
    }
    EXPECT_GT(mean_part, 0.25 * before);  // there is something to take
    EXPECT_NEAR(after, before - mean_part, stored + 1e-5 * before);
  }
}

TEST(BiasCorrection, BringsTheModelNearerOnOtherText) {
  const Model base = with_common_part();
  const std::vector<std::string> params = layers_with_bias(base);
  std::vector<int32_t> other(16 * 12);
  for (size_t i = 0; i < other.size(); ++i) other[i] = static_cast<int32_t>((i * 13 + i * i % 17) % 60);
  const auto kl = [&](const char* method) {
    const Model m = rounded_by(method, base, params);
    const Target target{.threads = 1, .max_tokens = 12, .max_outputs = 12};
    Plan one = Plan::compile(base, target), two = Plan::compile(m, target);
    return evaluate(two, other, {.context = 12, .progress = ""}, &one).kl_mean;
  };
  EXPECT_LT(kl("rtn+bias"), 0.7 * kl("rtn"));
}

// What the original has as its input is divided as the equalized one is: beside it, not in other units.
TEST(Method, DriftStandsBesideEqualizing) {
  const Model base = load(Checkpoint::open(golden("qwen2")));
  const std::vector<float> exact = logits_of(base);
  const auto error = [&](const std::string& method) {
    Model m = base;
    quantize_calibrated(m, assign_all(m, Numerics::integer(8, 0, false, DType::f32), {}), some_tokens(512),
                        {.method = parse_method(method),
                         .sweep = {.context = 8, .work = {}, .fingerprint = {}, .threads = 2}});
    const std::vector<float> now = logits_of(m);
    double sum = 0;
    for (size_t i = 0; i < now.size(); ++i) sum += std::pow(static_cast<double>(now[i] - exact[i]), 2);
    return sum;
  };
  for (const char* equalized : {"awq+gptq", "smooth+gptq"})
    EXPECT_LT(error(std::string(equalized) + "+drift"), 2 * error(equalized)) << equalized;
}

// Every method on a model with biases: all that is assigned is rounded, and to codes that files hold.
TEST(Method, EachRoundsTheWholeModel) {
  for (const RoundingMethod& rounding : rounding_methods())
    for (const char* around : {"", "awq+", "smooth+"}) {
      Model m = load(Checkpoint::open(golden("qwen2")));
      const Numerics n = Numerics::integer(4, 16, true);
      const Assignment a = assign_all(m, n, {.head = true, .embeddings = true, .keep = {}});
      const std::string name = around + std::string(rounding.name) + "+bias";
      const std::vector<LayerReport> layers =
          quantize_calibrated(m, a, some_tokens(48),
                              {.method = parse_method(name),
                               .sweep = {.context = 8, .work = {}, .fingerprint = {}, .threads = 2}});
      EXPECT_EQ(layers.size(), a.size()) << name;
      for (const auto& [param, numerics] : a)
        EXPECT_EQ(m.weights.at(param).numerics, numerics) << name << param;
      for (const float logit : logits_of(m)) ASSERT_TRUE(std::isfinite(logit)) << name;
    }
}

}  // namespace
}  // namespace lathe
