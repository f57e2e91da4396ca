// Tuning changes the speed and no bit. What it finds to be fastest is the machine's affair and not tested.
#include <gmock/gmock.h>

#include "core/cpu.h"
#include "runtime/models.h"
#include "runtime/tune.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

std::vector<float> text_of(const Model& model, const Target& target, int64_t chunk) {
  Plan plan = Plan::compile(model, target);
  const std::vector<int32_t> tokens{1, 5, 9, 100, 7, 3, 64, 12, 99, 2, 17};
  std::vector<float> out;
  const auto n = static_cast<int64_t>(tokens.size());
  for (int64_t at = 0; at < n; at += chunk) {
    const int64_t rows = std::min(chunk, n - at);
    const auto logits =
        plan.run(SingleSequence(std::span(tokens).subspan(static_cast<size_t>(at), static_cast<size_t>(rows)),
                                static_cast<int32_t>(at), rows, true))
            .as<float>();
    out.insert(out.end(), logits.begin(), logits.end());
  }
  for (int32_t step = 0; step < 3; ++step) {
    const auto logits =
        plan.run(SingleSequence({tokens.data(), 1}, static_cast<int32_t>(n) + step, 1, true, Phase::decode))
            .as<float>();
    out.insert(out.end(), logits.begin(), logits.end());
  }
  return out;
}

// Not only what a tuning chose: every row that could have been chosen, which is every one that gives the same
// bits on the plan's weights. Here that is held against a whole prompt and decoding.
TEST(Tune, ChangesNoBit) {
  const Model source = load(Checkpoint::open(golden("llama3")));
  const Model models[] = {in_format(source, Numerics::dense(DType::bf16), "dense"),
                          in_format(source, Numerics::integer(4, 32, false), "ct.pack32"),
                          in_format(source, Numerics::w8a8(), "ct.int8")};
  for (const Model& model : models)
    for (const IsaLevel& level : isa_levels()) {
      Target target{.threads = 2, .isa = level.features, .max_tokens = 16, .max_outputs = 16, .context = 32};
      const std::vector<float> expected = text_of(model, target, 11);
      Tuning tuning = tune(model, target);
      EXPECT_GE(tuning.threads, 1);
      EXPECT_LE(tuning.threads, 2);
      EXPECT_GE(tuning.prefill_threads, 1);
      target.tuning = tuning;
      target.threads = 0;
      EXPECT_EQ(text_of(model, target, 11), expected) << level.name;
      EXPECT_EQ(text_of(model, target, 4), expected) << level.name;
      target.tuning->threads = 2;
      target.tuning->prefill_threads = 1;  // two pools
      EXPECT_EQ(text_of(model, target, 11), expected) << level.name;
    }
}

// A tuning holds for weights that settle too, as far as x is packed alike.
TEST(Tune, ChangesNoBitOfWeightsThatSettle) {
  const Model model =
      in_format(load(Checkpoint::open(golden("llama3"))), Numerics::dense(DType::bf16), "dense");
  for (const IsaLevel& level : isa_levels()) {
    Target target{.threads = 2, .isa = level.features, .max_tokens = 16, .max_outputs = 16, .context = 32};
    const std::vector<float> expected = text_of(model, target, 4);
    target.tuning = tune(model, target);
    target.ready_at_once = true;
    EXPECT_EQ(text_of(model, target, 4), expected) << level.name;
  }
}

TEST(Tune, IsKeptByModelMachineAndThreads) {
  const TemporaryDirectory dir;
  const Target limits{.threads = 4, .isa = 0};
  const Model model = load(Checkpoint::open(golden("llama3"))),
              other = load(Checkpoint::open(golden("qwen2")));
  EXPECT_FALSE(load_tuning(dir.path(), model, limits));
  Tuning tuning{.threads = 3, .prefill_threads = 2, .chunk = 256, .rows = {}};
  tuning.rows[{"int4 g32 bf16 [64, 64]", Phase::decode}] = {"some.row", 1.25};
  store_tuning(dir.path(), model, limits, tuning);
  const auto found = load_tuning(dir.path(), model, limits);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->threads, 3);
  EXPECT_EQ(found->prefill_threads, 2);
  EXPECT_EQ(found->chunk, 256);
  ASSERT_EQ(found->rows.size(), 1u);
  const Tuning::Row& row = found->rows.at({"int4 g32 bf16 [64, 64]", Phase::decode});
  EXPECT_EQ(row.kernel, "some.row");
  EXPECT_EQ(row.times_faster, 1.25);
  EXPECT_FALSE(load_tuning(dir.path(), other, limits));
  if (cpu_features()) {
    EXPECT_FALSE(load_tuning(dir.path(), model, {.threads = 4, .isa = cpu_features()}));
  }
  EXPECT_FALSE(load_tuning({}, model, limits));
  // Of so many threads at most: one made for fewer says nothing of more.
  for (int threads : {1, 3, 5}) EXPECT_FALSE(load_tuning(dir.path(), model, {.threads = threads, .isa = 0}));
}

TEST(Tune, AllCoresAreTheLimitWhereNoneIsNamed) {
  const TemporaryDirectory dir;
  const Model model = load(Checkpoint::open(golden("llama3")));
  const int cores = physical_cores();
  store_tuning(dir.path(), model, {.isa = 0}, {.threads = 1, .prefill_threads = 1, .chunk = 256, .rows = {}});
  EXPECT_TRUE(load_tuning(dir.path(), model, {.threads = cores, .isa = 0}));
  EXPECT_FALSE(load_tuning(dir.path(), model, {.threads = cores + 1, .isa = 0}));
}

TEST(Tune, AFileThatMakesNoSenseIsIgnored) {
  const TemporaryDirectory dir;
  const Model model = load(Checkpoint::open(golden("llama3")));
  const Target limits{.threads = 1, .isa = 0};
  store_tuning(dir.path(), model, limits, {.threads = 1, .prefill_threads = 1, .chunk = 512, .rows = {}});
  const fs::path file = fs::directory_iterator(dir.path())->path();
  const std::string good = read_text_file(file);
  for (const auto& [from, to] : {std::pair<std::string, std::string>{"\"threads\": 1", "\"threads\": 0"},
                                 {"\"chunk\": 512", "\"chunk\": \"x\""},
                                 {"\"schema\": 1", "\"schema\": 2"},
                                 {"\"rows\": []", "\"rows\": [3]"},
                                 {"{", ""}}) {
    std::string bad = good;
    ASSERT_NE(bad.find(from), std::string::npos) << from;
    bad.replace(bad.find(from), from.size(), to);
    std::ofstream(file, std::ios::binary) << bad;
    testing::internal::CaptureStderr();
    EXPECT_FALSE(load_tuning(dir.path(), model, limits)) << to;
    EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr("ignored"));
  }
  // A row that this version does not have, or that reads another packing, is not run.
  Tuning odd{.threads = 2, .prefill_threads = 2, .chunk = 512, .rows = {}};
  for (const auto& [name, weight] : model.weights)
    odd.rows[{Tuning::kind_of(weight), Phase::decode}] = {"no.such.row", 2};
  const Target target{.threads = 2, .max_tokens = 16, .max_outputs = 16, .context = 32};
  Target tuned = target;
  tuned.tuning = odd;
  EXPECT_EQ(text_of(model, tuned, 11), text_of(model, target, 11));
}

}  // namespace
}  // namespace lathe
