// Low-rank corrections: the fit against a whole decomposition, and models that have them.
#include <cmath>
#include <gmock/gmock.h>

#include "calibration_data.h"
#include "compress/gptq.h"
#include "compress/linalg.h"
#include "compress/low_rank.h"
#include "compress/method.h"
#include "compress/rotate.h"
#include "core/error.h"
#include "golden_models.h"
#include "io/writer.h"
#include "models/low_rank.h"
#include "runtime/interpreter.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

// The least loss that any B A of that rank has: the sum of the other eigenvalues of E H E^T.
double least_loss(const std::vector<float>& e, int64_t rows, int64_t cols, int64_t rank,
                  const std::vector<float>& h) {
  std::vector<double> m(static_cast<size_t>(rows * rows));
  const auto at = [](const std::vector<float>& x, int64_t i) {
    return static_cast<double>(x[static_cast<size_t>(i)]);
  };
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < rows; ++j)
      for (int64_t c = 0; c < cols; ++c)
        for (int64_t d = 0; d < cols; ++d)
          m[static_cast<size_t>(i * rows + j)] +=
              at(e, i * cols + c) * at(h, c * cols + d) * at(e, j * cols + d);
  double trace = 0, largest = 0;
  for (int64_t i = 0; i < rows; ++i) trace += m[static_cast<size_t>(i * (rows + 1))];
  const std::vector<float> v = leading_eigenvectors(m, rows, rank);
  for (int64_t k = 0; k < rank; ++k)
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < rows; ++j)
        largest += at(v, i * rank + k) * m[static_cast<size_t>(i * rows + j)] * at(v, j * rank + k);
  return trace - largest;
}

double loss_of(ThreadPool& pool, const std::vector<float>& e, int64_t rows, int64_t cols, const LowRank& low,
               const std::vector<float>& h) {
  std::vector<float> fitted(e.size());
  add_correction(pool, low, rows, cols, fitted.data());
  return output_error(pool, e.data(), fitted.data(), rows, cols, h.data());
}

TEST(FitLowRank, IsTheBestOfItsRank) {
  ThreadPool pool(2);
  for (const auto& [rows, cols] : {std::pair{40, 24}, {24, 40}, {32, 32}})
    for (const int rank : {1, 4, 12}) {
      SCOPED_TRACE(fmt::format("[{}, {}] rank {}", rows, cols, rank));
      const std::vector<float> e = random_values(rows * cols, 1),
                               h = plain_hessian(correlated_inputs(200, cols, 2), cols);
      const double least = least_loss(e, rows, cols, rank, h);
      const LowRank low = fit_low_rank(pool, e.data(), rows, cols, rank, h.data());
      EXPECT_LE(loss_of(pool, e, rows, cols, low, h), 1.001 * least);
      EXPECT_GE(loss_of(pool, e, rows, cols, low, h), 0.999 * least);
    }
}

// What has the rank itself is found up to the factors' rounding to bf16, at most 2^-8 of each number: B's
// counts twice, as A is made from it, A's once, independently.
TEST(FitLowRank, FindsWhatHasThatRank) {
  ThreadPool pool(1);
  constexpr int64_t rows = 48, cols = 32, rank = 5;
  const std::vector<float> b = random_values(rows * rank, 3), a = random_values(rank * cols, 4),
                           h = plain_hessian(random_values(100 * cols, 5), cols);
  std::vector<float> e(static_cast<size_t>(rows * cols));
  multiply(pool, b.data(), a.data(), e.data(), rows, cols, rank);
  const std::vector<float> zero(e.size());
  const double whole = output_error(pool, e.data(), zero.data(), rows, cols, h.data());
  EXPECT_LE(loss_of(pool, e, rows, cols, fit_low_rank(pool, e.data(), rows, cols, rank, h.data()), h),
            3 * 0x1p-16 * whole);
  // More than there is: nothing else is made up.
  EXPECT_LE(loss_of(pool, e, rows, cols, fit_low_rank(pool, e.data(), rows, cols, 9, h.data()), h),
            3 * 0x1p-16 * whole);
  const LowRank nothing = fit_low_rank(pool, zero.data(), rows, cols, rank, h.data());
  EXPECT_THAT(nothing.a, testing::Each(0.0f));
}

TEST(FitLowRank, ThreadsDoNotChangeABit) {
  ThreadPool one(1), three(3);
  constexpr int64_t rows = 600, cols = 300;
  const std::vector<float> e = random_values(rows * cols, 6),
                           h = plain_hessian(random_values(20 * cols, 7), cols);
  const LowRank x = fit_low_rank(one, e.data(), rows, cols, 4, h.data()),
                y = fit_low_rank(three, e.data(), rows, cols, 4, h.data());
  EXPECT_EQ(x.a, y.a);
  EXPECT_EQ(x.b, y.b);
}

// --- models

std::vector<float> values(const Tensor& t) { return {t.as<float>().begin(), t.as<float>().end()}; }

struct Corrections : testing::Test {
  Checkpoint from = Checkpoint::open(golden("llama3"));
  Model original = load(from);
  Model compressed(const char* method, const Numerics& numerics,
                   std::vector<LayerReport>* layers = nullptr) const {
    Model m = original;
    const Assignment a =
        assign_all(m, numerics, {.head = true, .embeddings = true, .keep = {"*.0.self_attn.*"}});
    std::vector<LayerReport> found =
        quantize_calibrated(m, a, some_tokens(96),
                            {.method = parse_method(method),
                             .sweep = {.context = 12, .work = {}, .fingerprint = {}, .threads = 2}});
    if (layers) *layers = found;
    return m;
  }
  Model saved(const Model& m, const fs::path& to) const {
    fs::create_directories(to);
    EXPECT_EQ(save(m, from, {}, ScaleSearch::mse, to), hash_of(m));
    return load(Checkpoint::open(to));
  }
};
const Numerics int4_g16 = Numerics::integer(4, 16, false);

// Every method, each layer: the correction takes away what it can, and its layers compute what is reported.
TEST_F(Corrections, LowerTheErrorOfEveryLayer) {
  for (const char* method : {"rtn", "gptq"}) {
    std::vector<LayerReport> without, with;
    const Model plain = compressed((std::string(method) + "+drift").c_str(), int4_g16, &without);
    const Model m = compressed((std::string(method) + "+rank4").c_str(), int4_g16, &with);
    ASSERT_EQ(with.size(), without.size());
    for (size_t i = 0; i < with.size(); ++i) {
      if (with[i].module == "model.embed_tokens") continue;  // a table: rounded to nearest
      EXPECT_LT(with[i].error.value(), 0.8 * with[i].nearest_error) << with[i].module;
    }
    EXPECT_EQ(m.weights.size(), original.weights.size() + 2 * 11);
    EXPECT_FALSE(m.weights.contains("model.layers.0.self_attn.q_proj.low_rank.a"));
    EXPECT_EQ(m.weights.at("lm_head.low_rank.b").shape, (Shape{128, 4}));
    EXPECT_EQ(correction_weights(m.graph), [&] {
      int64_t n = 0;
      for (const auto& [name, w] : m.weights)
        if (is_correction(m.graph, name)) n += elements(w.shape);
      return n;
    }());
  }
}

TEST_F(Corrections, AreTensorsOfTheCheckpoint) {
  const Model m = compressed("gptq+rank4", int4_g16);
  const TemporaryDirectory dir;
  const Model again = saved(m, dir / "m");
  EXPECT_EQ(to_string(again.graph), to_string(m.graph));
  EXPECT_EQ(logits_of(again), logits_of(m));
  EXPECT_NE(logits_of(again), logits_of(original));
  EXPECT_THAT(to_string(again.graph), HasSubstr("low_rank lm_head.low_rank("));
}

// In formats whose kernels leave activations of decoding in f32, as in the tests of parity.
TEST_F(Corrections, EveryPlanIsTheInterpreter) {
  const Model m = compressed("rtn+rank4", Numerics::integer(8, 0, false));
  const std::vector<int32_t> tokens = some_tokens(12);
  const std::vector<float> expected = logits_of(m);
  const SingleSequence decode(tokens, 0, 12, true, Phase::decode);
  for (const IsaLevel& level : isa_levels())
    for (const int threads : {1, 2}) {
      SCOPED_TRACE(fmt::format("{}, {} threads", level.name, threads));
      Plan plan = Plan::compile(
          m, {.threads = threads, .isa = level.features, .max_tokens = 12, .max_outputs = 12, .context = 16});
      EXPECT_THAT(values(plan.run(decode)), testing::Pointwise(testing::FloatNear(3e-4f), expected));
    }
}

TEST_F(Corrections, AreNotMadeTwiceNorTurned) {
  Model m = compressed("rtn+rank4", int4_g16);
  const Assignment a = assign_all(m, int4_g16, {});
  EXPECT_THAT(
      [&] {
        quantize_calibrated(
            m, a, some_tokens(24),
            {.method = parse_method("rtn+rank2"), .sweep = {.context = 12, .work = {}, .fingerprint = {}}});
      },
      ThrowsMessage<InputError>(
          HasSubstr("model.layers.0.mlp.gate_proj: expected a layer without a low-rank")));
  EXPECT_THAT([&] { rotate(m, {}, 1); },
              ThrowsMessage<InputError>(HasSubstr("low_rank: expected layers without")));
  EXPECT_THAT(
      [&] { compressed("rtn+rank40", int4_g16); },
      ThrowsMessage<InputError>(AllOf(HasSubstr("a rank whose factors are smaller"), HasSubstr("40 for"))));
}

TEST_F(Corrections, TensorsThatFitNoLayerAreNamed) {
  const auto refused = [&](const std::string& name, const Shape& shape, const char* said) {
    SCOPED_TRACE(said);
    const TemporaryDirectory dir;
    std::vector<PlannedEntry> entries;
    for (const auto& [param, w] : original.weights)
      entries.push_back({param, w.numerics, w.packing, w.shape});
    const Numerics bf16 = Numerics::dense(DType::bf16);
    entries.push_back({name, bf16, &packing("dense"), shape});
    CheckpointWriter writer(dir.path(), original.config, entries);
    for (const auto& [param, w] : original.weights) writer.write(w);
    writer.write(dense_weight(Tensor::zeros(DType::bf16, shape)));
    writer.finish();
    EXPECT_THAT([&] { load(Checkpoint::open(dir.path())); }, ThrowsMessage<InputError>(HasSubstr(said)));
  };
  refused("model.layers.9.mlp.up_proj.low_rank.a", {2, 64}, "expected a linear layer of that name");
  refused("model.norm.low_rank.a", {2, 64}, "expected a linear layer of that name");
  refused("lm_head.low_rank.a", {64}, "expected [1 to 1024, columns of the layer], found [64]");
  refused("lm_head.low_rank.a", {1025, 64}, "expected [1 to 1024, columns of the layer]");
  refused("lm_head.low_rank.a", {2, 63}, "expected shape [2, 64]");
  refused("lm_head.low_rank.a", {2, 64}, "expected tensor 'lm_head.low_rank.b' of shape [128, 2]");
  refused("lm_head.low_rank.b", {128, 2}, "lm_head.low_rank.b");
}

}  // namespace
}  // namespace lathe
