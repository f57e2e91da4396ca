// op::LowRank and PEFT's adapters: against weights with the adapter merged into them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "adapter_files.h"
#include "core/error.h"
#include "models/adapter.h"
#include "runtime/interpreter.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
constexpr int64_t rank = adapter_rank;

Model base() { return load(Checkpoint::open(golden("llama3"))); }

// W + alpha / r B A
Model merged(Model model, const std::vector<Factor>& all) {
  for (size_t i = 0; i < all.size(); i += 2) {
    const std::string module = all[i].name.substr(17, all[i].name.size() - 17 - 14);
    Weight& weight = model.weights.at(module + ".weight");
    std::vector<float> w = read_all(weight);
    const int64_t n = weight.rows(), k = weight.cols();
    for (int64_t r = 0; r < n; ++r)
      for (int64_t c = 0; c < k; ++c) {
        double sum = 0;
        for (int64_t j = 0; j < rank; ++j)
          sum += static_cast<double>(all[i + 1].values[static_cast<size_t>(r * rank + j)]) *
                 static_cast<double>(all[i].values[static_cast<size_t>(j * k + c)]);
        w[static_cast<size_t>(r * k + c)] += static_cast<float>(adapter_alpha / rank * sum);
      }
    Tensor t = Tensor::zeros(DType::f32, {n, k});
    std::copy(w.begin(), w.end(), t.as_mutable<float>().begin());
    weight = dense_weight(t);
  }
  return model;
}

std::vector<float> values(const Tensor& t) {
  const auto span = t.as<float>();
  return {span.begin(), span.end()};
}

std::vector<int32_t> text(int n, int step) {
  std::vector<int32_t> out(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) out[static_cast<size_t>(i)] = (7 + i * step) % 101;
  return out;
}

struct Adapters : testing::Test {
  TemporaryDirectory dir;
  Model plain = base();
  std::vector<Factor> first = adapter_factors(plain, 1), second = adapter_factors(plain, 2, "q_proj");
  std::vector<int32_t> tokens = text(12, 5);

  Adapters() {
    write_adapter(dir / "first", first, adapter_config());
    write_adapter(dir / "second", second, adapter_config());
  }
  Model with_both() {
    Model model = base();
    add_adapter(model, dir / "first", 1);
    add_adapter(model, dir / "second", 2);
    return model;
  }
};

// Merging rounds W + BA once per weight (2^-24 of it), the adapter rounds its own sums: over two layers of
// the tiny model differences stay within the bound that holds between the interpreter and Hugging Face.
constexpr float bound = 2e-4f;

TEST_F(Adapters, GiveWhatMergedWeightsGive) {
  const std::vector<float> expected =
      values(interpret(merged(base(), first), SingleSequence(tokens, 0, 12, false)));
  const std::vector<float> without = values(interpret(plain, SingleSequence(tokens, 0, 12, false)));
  EXPECT_THAT(expected, testing::Not(testing::Pointwise(testing::FloatNear(0.01f), without)));
  Model model = base();
  add_adapter(model, dir / "first", 0);
  EXPECT_EQ(adapters_of(model.graph), 0);
  const std::vector<float> got = values(interpret(model, SingleSequence(tokens, 0, 12, false)));
  EXPECT_THAT(got, testing::Pointwise(testing::FloatNear(bound), expected));
  for (const IsaLevel& level : isa_levels()) {
    SCOPED_TRACE(level.name);
    Plan plan = Plan::compile(
        model, {.threads = 2, .isa = level.features, .max_tokens = 12, .max_outputs = 12, .context = 16});
    Model together = merged(base(), first);
    Plan other = Plan::compile(
        together, {.threads = 2, .isa = level.features, .max_tokens = 12, .max_outputs = 12, .context = 16});
    // Prompts may round activations to bf16; decoding does not.
    const SingleSequence decode(tokens, 0, 12, true, Phase::decode);
    EXPECT_THAT(values(plan.run(decode)),
                testing::Pointwise(testing::FloatNear(bound), values(other.run(decode))));
  }
}

TEST_F(Adapters, EachSequenceOfABatchHasItsOwn) {
  const Model model = with_both();
  EXPECT_EQ(adapters_of(model.graph), 2);
  const std::vector<int32_t> a = text(5, 3), b = text(9, 7), c = text(1, 1), d = text(6, 11);
  const std::vector<const std::vector<int32_t>*> texts{&a, &b, &c, &d};
  const std::vector<int32_t> adapters{2, 0, 1, 1}, slots{3, 1, 0, 2};
  std::vector<int32_t> all, positions, starts{0}, outputs;
  for (const auto* t : texts) {
    for (size_t i = 0; i < t->size(); ++i) {
      all.push_back((*t)[i]);
      positions.push_back(static_cast<int32_t>(i));
    }
    starts.push_back(static_cast<int32_t>(all.size()));
    outputs.push_back(starts.back() - 1);
  }
  for (const IsaLevel& level : isa_levels())
    for (const int64_t prompts : {0, 2, 4}) {
      SCOPED_TRACE(fmt::format("{}, {} prompts", level.name, prompts));
      const Target target{
          .threads = 2, .isa = level.features, .max_tokens = 32, .max_outputs = 8, .slots = 4, .context = 16};
      Plan plan = Plan::compile(model, target), bare = Plan::compile(plain, target);
      Batch batch{
          .tokens = all, .positions = positions, .starts = starts, .slots = slots, .outputs = outputs};
      batch.prompts = prompts;
      batch.adapters = adapters;
      const std::vector<float> together = values(plan.run(batch));
      const size_t vocab = together.size() / 4;
      for (size_t s = 0; s < 4; ++s) {
        SCOPED_TRACE(s);
        const SingleSequence single(*texts[s], 0, 1, true,
                                    static_cast<int64_t>(s) < prompts ? Phase::prefill : Phase::decode);
        Batch one = single;
        one.adapters = {&adapters[s], 1};
        const std::vector<float> expected = values(plan.run(one));
        EXPECT_EQ(std::vector<float>(together.begin() + static_cast<ptrdiff_t>(s * vocab),
                                     together.begin() + static_cast<ptrdiff_t>((s + 1) * vocab)),
                  expected);
        if (adapters[s] == 0) {  // not a bit of a sequence without an adapter
          EXPECT_EQ(expected, values(bare.run(single)));
        } else {
          EXPECT_NE(expected, values(bare.run(single)));
        }
      }
    }
}

TEST_F(Adapters, ThePlanIsTheInterpreter) {
  const Model model = with_both();
  const std::vector<int32_t> starts{0, 5, 12}, adapters{1, 2};
  std::vector<int32_t> positions{0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6}, outputs{2, 4, 11};
  Batch batch{.tokens = tokens, .positions = positions, .starts = starts, .slots = {}, .outputs = outputs};
  batch.adapters = adapters;
  const std::vector<float> expected = values(interpret(model, batch));
  for (const IsaLevel& level : isa_levels()) {
    SCOPED_TRACE(level.name);
    Plan plan = Plan::compile(
        model, {.threads = 2, .isa = level.features, .max_tokens = 12, .max_outputs = 12, .slots = 0});
    EXPECT_THAT(values(plan.run(batch)), testing::Pointwise(testing::FloatNear(3e-4f), expected));
  }
}

TEST_F(Adapters, AreAddedBesideEachOther) {
  Model one = base(), other = base();
  add_adapter(one, dir / "first", 0);
  add_adapter(one, dir / "second", 0 + 1);
  const std::string printed = to_string(one.graph);
  EXPECT_EQ(to_string(parse_graph(printed)), printed);
  EXPECT_THAT(printed, testing::HasSubstr("low_rank model.layers.0.self_attn.q_proj.adapter_0("));
  EXPECT_THAT(printed, testing::HasSubstr("{rank=3, scale=2, adapter=1}"));
}

TEST_F(Adapters, WhatIsNoPlainAdapterIsRefused) {
  const auto refused = [&](const Json& config, const std::vector<Factor>& all, const char* said) {
    SCOPED_TRACE(said);
    TemporaryDirectory where;
    write_adapter(where / "x", all, config);
    Model model = base();
    try {
      add_adapter(model, where / "x", 1);
      ADD_FAILURE() << "accepted";
    } catch (const InputError& e) {
      EXPECT_THAT(e.what(), testing::HasSubstr(said));
    }
  };
  const auto with = [](const char* key, const Json& value) {
    Json c = adapter_config();
    c[key] = value;
    return c;
  };
  refused(with("peft_type", "LOHA"), first, "peft_type LORA");
  refused(with("use_dora", true), first, "use_dora");
  refused(with("bias", "all"), first, "bias none");
  refused(with("modules_to_save", {"lm_head"}), first, "modules_to_save");
  refused(with("rank_pattern", {{"q_proj", 4}}), first, "rank_pattern");
  refused(with("r", 0), first, "r of 1 to 1024");
  refused(with("r", 1e9), first, "r of 1 to 1024");
  refused(with("r", 4), first, "shape [4, ");
  refused(with("lora_alpha", nullptr), first, "lora_alpha");
  refused(with("lora_alpha", 1e300), first, "lora_alpha");
  std::vector<Factor> all = first;
  all[0].name += "x";
  refused(adapter_config(), all, "a tensor 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight'");
  all = first;
  all.push_back({"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight", {1}, {0.0f}});
  refused(adapter_config(), all, "no such layer");
  all = first;
  all[1].values[2] = NAN;
  refused(adapter_config(), all, "finite numbers");
}

}  // namespace
}  // namespace lathe
