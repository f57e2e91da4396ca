// Weights whose groups are no runs of columns, or whose columns have scales: a plan takes the columns of x as
// the kernel wants them, and then every kernel gives the bits that it gives for an ordinary weight over an
// input that already is so.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <gmock/gmock.h>
#include <numeric>

#include "core/rng.h"
#include "graph/builder.h"
#include "quant/columns.h"
#include "runtime/interpreter.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

constexpr int64_t vocab = 40, width = 128, group = 32;

Codes random_codes(const Numerics& n, int64_t rows, int64_t cols, Rng& rng) {
  Codes c;
  c.numerics = n;
  c.rows = rows;
  c.cols = cols;
  for (int64_t i = 0; i < rows * cols; ++i)
    c.codes.push_back(static_cast<int16_t>(n.code_min() + static_cast<int>(rng.below(1u << n.bits))));
  const float step = n.dtype == DType::f8e4m3 ? 0.125f : 1.0f / 64;
  for (int64_t i = 0; i < rows * n.groups(cols); ++i) {
    c.scales.push_back(static_cast<float>(1 + rng.below(8)) * step);
    if (n.offset == Numerics::Offset::zero_point) c.zeros.push_back(static_cast<float>(rng.below(5)) - 2);
  }
  if (n.global) c.global = 0.25f;
  if (n.has_input_scale()) c.input_scale = 0.0625f;
  return c;
}

Weight packed(const Codes& c, std::string_view as) {
  Weight w = make_weight(c.numerics, packing(as), {c.rows, c.cols});
  for (int64_t row = 0; row < c.rows; row += pack_row_multiple) {
    Codes strip = c;
    const int64_t groups = c.numerics.groups(c.cols);
    strip.rows = std::min(pack_row_multiple, c.rows - row);
    const auto cut = [&](auto& v, int64_t per_row) {
      if (!v.empty()) v = {v.begin() + row * per_row, v.begin() + (row + strip.rows) * per_row};
    };
    cut(strip.codes, c.cols), cut(strip.scales, groups), cut(strip.zeros, groups);
    w.packing->pack(strip, row, w);
  }
  return w;
}

std::vector<int32_t> shuffled(int64_t n, Rng& rng) {
  std::vector<int32_t> out(static_cast<size_t>(n));
  std::iota(out.begin(), out.end(), 0);
  for (size_t i = out.size(); i > 1; --i) std::swap(out[i - 1], out[rng.below(i)]);
  return out;
}

// `plain` with its column k as column from[k]. As files have it, `from` rises within each group.
Codes scattered(const Codes& plain, std::vector<int32_t>& from) {
  for (int64_t g = 0; g < plain.cols; g += group)
    std::sort(from.begin() + g, from.begin() + std::min(plain.cols, g + group));
  Codes c = plain;
  c.numerics.act_order = true;
  c.group_of.resize(from.size());
  for (size_t k = 0; k < from.size(); ++k) {
    c.group_of[static_cast<size_t>(from[k])] = static_cast<int32_t>(k) / group;
    for (int64_t r = 0; r < c.rows; ++r)
      c.codes[static_cast<size_t>(r * c.cols + from[k])] = plain.codes[static_cast<size_t>(r * c.cols) + k];
  }
  return c;
}

std::vector<float> random_table(int64_t cols, Rng& rng) {
  std::vector<float> out(static_cast<size_t>(vocab * cols));
  for (float& x : out) x = rng.normal();
  return out;
}

Weight table_of(const std::vector<float>& values, const std::vector<int32_t>& from,
                const std::vector<float>& scales = {}) {
  const auto cols = static_cast<int64_t>(values.size()) / vocab;
  Weight w = make_weight(Numerics::dense(DType::f32), packing("dense"), {vocab, cols});
  auto out = w.parts[0].as_mutable<float>();
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t k = i % static_cast<size_t>(cols), at = from.empty() ? k : static_cast<size_t>(from[k]);
    out[i] = values[i - k + at] * (scales.empty() ? 1 : scales[at]);
  }
  return w;
}

using Weights = std::map<std::string, Weight, std::less<>>;
Model model_of(const std::function<Value(Builder&, Value)>& layers, Weights weights) {
  Builder b;
  const int64_t cols = weights.at("table.weight").cols();
  Graph graph = std::move(b).finish(b.take_rows(layers(b, b.embedding("table", b.tokens(), vocab, cols))));
  return {std::move(graph), std::move(weights), {}, {}};
}

Value one(Builder& b, Value x) { return b.linear("a", x, 96); }
Value sum(Builder& b, Value x) { return b.linear("a", x, 96) + b.linear("b", x, 96); }
Value gated(Builder& b, Value x) { return b.silu(b.linear("gate", x, 160)) * b.linear("up", x, 160); }
Value mlp(Builder& b, Value x) { return b.linear("down", gated(b, x), 96); }

std::vector<float> copied(const Tensor& t) {
  const auto s = t.as<float>();
  return {s.begin(), s.end()};
}

// Prompts, then a few rows that decode.
std::vector<float> run(Plan& plan) {
  std::vector<int32_t> tokens(vocab);
  std::iota(tokens.begin(), tokens.end(), 0);
  std::vector<float> out = copied(plan.run(SingleSequence(tokens, 0, vocab, false)));
  const std::vector<float> decoded =
      copied(plan.run(SingleSequence({tokens.data(), 3}, 0, 3, false, Phase::decode)));
  out.insert(out.end(), decoded.begin(), decoded.end());
  return out;
}
std::vector<float> run(const Model& model, uint32_t isa) {
  Plan plan = Plan::compile(model, {.threads = 2, .isa = isa, .max_tokens = vocab, .max_outputs = vocab});
  return run(plan);
}
std::vector<float> interpreted(const Model& model) {
  std::vector<int32_t> tokens(vocab);
  std::iota(tokens.begin(), tokens.end(), 0);
  return copied(interpret(model, SingleSequence(tokens, 0, vocab, false)));
}

const Numerics integers[] = {
    Numerics::integer(4, group, false), Numerics::integer(4, group, true, DType::f16),
    Numerics::integer(3, group, false, DType::f16), Numerics::integer(8, group, true, DType::f32)};

TEST(ColumnsInOrder, GiveTheBitsOfRunsOverAnInputInThatOrder) {
  Rng rng(3);
  for (const Numerics& n : integers)
    for (const int64_t cols : {width, width + 16}) {  // the last group has fewer
      std::vector<int32_t> from = shuffled(cols, rng);
      const Codes plain = random_codes(n, 96, cols, rng), stored = scattered(plain, from);
      const std::vector<float> table = random_table(cols, rng);
      const Model given =
          model_of(one, {{"table.weight", table_of(table, {})}, {"a.weight", packed(stored, "ct.pack32")}});
      const Model ordered =
          model_of(one, {{"table.weight", table_of(table, from)}, {"a.weight", packed(plain, "ct.pack32")}});
      EXPECT_EQ(columns_of(given.weights.at("a.weight")).from, from);
      for (const IsaLevel& level : isa_levels()) {
        SCOPED_TRACE(fmt::format("{} {} {}", to_string(n), cols, level.name));
        EXPECT_EQ(run(given, level.features), run(ordered, level.features));
        const Plan plan = Plan::compile(given, {.isa = level.features});
        const Plan like = Plan::compile(ordered, {.isa = level.features});
        for (size_t i = 0; i < plan.choices().size(); ++i) {
          EXPECT_EQ(plan.choices()[i].kernel, like.choices()[i].kernel);
          EXPECT_EQ(plan.choices()[i].emulated, like.choices()[i].emulated);
          EXPECT_EQ(plan.choices()[i].columns, plan.choices()[i].param.empty() ? "" : "reordered");
        }
      }
    }
}

// The interpreter's plain loops against the floats that the file means: sums of as many products in two
// orders.
TEST(ColumnsInOrder, AreWhatTheFileMeans) {
  Rng rng(4);
  for (const Numerics& n : integers) {
    std::vector<int32_t> from = shuffled(width, rng);
    const Weight stored = packed(scattered(random_codes(n, 96, width, rng), from), "ct.pack32");
    const std::vector<float> table = random_table(width, rng), w = read_all(stored),
                             got = interpreted(model_of(
                                 one, {{"table.weight", table_of(table, {})}, {"a.weight", stored}}));
    for (int64_t r = 0; r < vocab; ++r)
      for (int64_t c = 0; c < 96; ++c) {
        double expected = 0, size = 0;
        for (int64_t k = 0; k < width; ++k) {
          const double product = static_cast<double>(table[static_cast<size_t>(r * width + k)]) *
                                 static_cast<double>(w[static_cast<size_t>(c * width + k)]);
          expected += product, size += std::fabs(product);
        }
        ASSERT_NEAR(got[static_cast<size_t>(r * 96 + c)], expected, size * width * 0x1p-24) << to_string(n);
      }
  }
}

TEST(ColumnsInOrder, LayersThatShareAnInputMayOrderItDifferently) {
  Rng rng(5);
  const Numerics n = integers[0];
  const std::vector<float> table = random_table(width, rng);
  const Codes plain[] = {random_codes(n, 96, width, rng), random_codes(n, 96, width, rng)};
  for (const bool same : {true, false}) {
    std::vector<int32_t> from[] = {shuffled(width, rng), shuffled(width, rng)};
    if (same) from[1] = from[0];
    const Weight stored[] = {packed(scattered(plain[0], from[0]), "ct.pack32"),
                             packed(scattered(plain[1], from[1]), "ct.pack32")};
    const Model both = model_of(
        sum, {{"table.weight", table_of(table, {})}, {"a.weight", stored[0]}, {"b.weight", stored[1]}});
    for (const IsaLevel& level : isa_levels()) {
      SCOPED_TRACE(level.name);
      std::vector<float> expected;
      for (size_t i : {0u, 1u}) {
        const std::vector<float> part = run(model_of(one, {{"table.weight", table_of(table, from[i])},
                                                           {"a.weight", packed(plain[i], "ct.pack32")}}),
                                            level.features);
        expected.resize(part.size());
        for (size_t k = 0; k < part.size(); ++k) expected[k] += part[k];
      }
      EXPECT_EQ(run(both, level.features), expected);
    }
  }
}

// gate and up have one order or two, down another: that of its input is not theirs.
TEST(ColumnsInOrder, GatedLayersAndWhatReadsThem) {
  Rng rng(6);
  const Numerics n = integers[0];
  const std::vector<float> table = random_table(width, rng);
  const Codes gate = random_codes(n, 160, width, rng), up = random_codes(n, 160, width, rng),
              down = random_codes(n, 96, 160, rng);
  std::vector<int32_t> from = shuffled(width, rng), other = shuffled(width, rng),
                       of_down = shuffled(160, rng);
  const Weight down_stored = packed(scattered(down, of_down), "ct.pack32");
  // down's order as the order of gate's and up's rows.
  const auto in_rows = [&](const Codes& c) {
    Codes out = c;
    const int64_t groups = c.numerics.groups(c.cols);
    for (size_t r = 0; r < of_down.size(); ++r) {
      std::copy_n(c.codes.begin() + of_down[r] * c.cols, c.cols,
                  out.codes.begin() + static_cast<int64_t>(r) * c.cols);
      std::copy_n(c.scales.begin() + of_down[r] * groups, groups,
                  out.scales.begin() + static_cast<int64_t>(r) * groups);
    }
    return out;
  };
  const Codes gate_stored = scattered(gate, from), up_stored = scattered(up, from);
  const Model given = model_of(mlp, {{"table.weight", table_of(table, {})},
                                     {"gate.weight", packed(gate_stored, "ct.pack32")},
                                     {"up.weight", packed(up_stored, "ct.pack32")},
                                     {"down.weight", down_stored}});
  const Model ordered = model_of(mlp, {{"table.weight", table_of(table, from)},
                                       {"gate.weight", packed(in_rows(gate), "ct.pack32")},
                                       {"up.weight", packed(in_rows(up), "ct.pack32")},
                                       {"down.weight", packed(down, "ct.pack32")}});
  // Two orders: what gate and up give apart, multiplied.
  const Model apart = model_of(gated, {{"table.weight", table_of(table, {})},
                                       {"gate.weight", packed(gate_stored, "ct.pack32")},
                                       {"up.weight", packed(scattered(up, other), "ct.pack32")}});
  const Model up_in_order =
      model_of([](Builder& b, Value x) { return b.linear("up", x, 160); },
               {{"table.weight", table_of(table, other)}, {"up.weight", packed(up, "ct.pack32")}});
  const Model gate_in_order =
      model_of([](Builder& b, Value x) { return b.linear("gate", x, 160); },
               {{"table.weight", table_of(table, from)}, {"gate.weight", packed(gate, "ct.pack32")}});
  for (const IsaLevel& level : isa_levels()) {
    SCOPED_TRACE(level.name);
    EXPECT_EQ(run(given, level.features), run(ordered, level.features));
    const std::vector<float> got = run(apart, level.features), g = run(gate_in_order, level.features),
                             u = run(up_in_order, level.features);
    for (size_t i = 0; i < got.size(); ++i) {
      const float expected = g[i] / (1 + std::exp(-g[i])) * u[i];
      ASSERT_NEAR(got[i], expected, 1e-6f * std::fabs(expected)) << i;  // silu as in test_elementwise
    }
  }
}

TEST(ColumnsInOrder, GroupsOfDifferentSizesAreEmulated) {
  Rng rng(7);
  std::vector<int32_t> from = shuffled(width, rng);
  Codes c = scattered(random_codes(integers[0], 96, width, rng), from);
  c.group_of[0] = (c.group_of[0] + 1) % 4;
  const Weight uneven = packed(c, "ct.pack32");
  EXPECT_TRUE(columns_of(uneven).empty());
  const std::vector<float> table = random_table(width, rng);
  const Model model = model_of(one, {{"table.weight", table_of(table, {})}, {"a.weight", uneven}});
  Weight values = make_weight(Numerics::dense(DType::f32), packing("dense"), {96, width});
  std::ranges::copy(read_all(uneven), values.parts[0].as_mutable<float>().begin());
  const Model dense = model_of(one, {{"table.weight", table_of(table, {})}, {"a.weight", values}});
  for (const IsaLevel& level : isa_levels()) {
    const Plan plan = Plan::compile(model, {.isa = level.features});
    const auto linear = std::ranges::find(plan.choices(), "a.weight", &Plan::Choice::param);
    ASSERT_NE(linear, plan.choices().end());
    EXPECT_TRUE(linear->emulated);
  }
  EXPECT_EQ(interpreted(model), interpreted(dense));
}

TEST(ScaledColumns, GiveTheBitsOfAnInputThatIsScaled) {
  Rng rng(8);
  std::vector<float> scales(width);
  for (float& s : scales) s = std::exp(0.5f * rng.normal());
  const std::pair<Numerics, std::string_view> formats[] = {
      {Numerics::nvfp4(), "modelopt.nvfp4"},
      {Numerics::integer(4, group, false), "modelopt.int4"},
      {Numerics::integer(8, 0, false, DType::f32), "modelopt.int8"},
      {Numerics::w8a8_static(DType::f32), "modelopt.int8"}};
  for (const auto& [n, as] : formats) {
    const Codes plain = random_codes(n, 96, width, rng);
    Codes scaled = plain;
    scaled.numerics = n.with_column_scales();
    scaled.columns = scales;
    const std::vector<float> table = random_table(width, rng);
    const Weight stored = packed(scaled, as);
    const Model given = model_of(one, {{"table.weight", table_of(table, {})}, {"a.weight", stored}});
    const Model before =
        model_of(one, {{"table.weight", table_of(table, {}, scales)}, {"a.weight", packed(plain, as)}});
    EXPECT_EQ(columns_of(stored).scales, scales);
    for (const Plan::Choice& c : Plan::compile(given, {}).choices())
      EXPECT_EQ(c.columns, c.param.empty() ? "" : "scaled");
    for (const IsaLevel& level : isa_levels()) {
      SCOPED_TRACE(fmt::format("{} {}", to_string(n), level.name));
      EXPECT_EQ(run(given, level.features), run(before, level.features));
    }
    EXPECT_EQ(interpreted(given), interpreted(before));
    // What the file means, where nothing rounds the input: w times the column's scale.
    std::vector<float> w = read_all(stored), expected = read_all(packed(plain, as));
    for (size_t i = 0; i < w.size(); ++i) ASSERT_EQ(w[i], expected[i] * scales[i % width]);
  }
}

TEST(ColumnsInOrder, PackedWeightsAreMappedAgain) {
  Rng rng(9);
  TemporaryDirectory dir;
  std::vector<int32_t> from = shuffled(width, rng);
  const Weight stored = packed(scattered(random_codes(integers[0], 96, width, rng), from), "ct.pack32");
  const Model model =
      model_of(one, {{"table.weight", table_of(random_table(width, rng), {})}, {"a.weight", stored}});
  Target target{.threads = 2, .max_tokens = vocab, .max_outputs = vocab};
  target.packed_cache = {dir.path(), "a model", 0};
  Plan first = Plan::compile(model, target);
  const std::vector<float> expected = run(first);
  first.keep_packed();
  Plan second = Plan::compile(model, target);
  EXPECT_TRUE(second.mapped_packed());
  EXPECT_EQ(run(second), expected);
}

}  // namespace
}  // namespace lathe
