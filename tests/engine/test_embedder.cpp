#include <atomic>
#include <cmath>
#include <gtest/gtest.h>
#include <thread>

#include "builtin_model.h"
#include "engine/busy.h"
#include "engine/embedder.h"
#include "engine/turns.h"
#include "graph/graph.h"
#include "runtime/interpreter.h"
#include "text/tokenizer.h"

namespace lathe {
namespace {

using testing_support::builtin;

std::vector<std::vector<float>> embed(Embedder& e, const std::vector<std::vector<int32_t>>& texts) {
  std::vector<std::vector<float>> out;
  e.submit(texts, [&](const Embedder::Result& r) {
    EXPECT_EQ(r.error, "");
    out = r.vectors;
  });
  while (e.step()) {
  }
  return out;
}

const std::vector<std::string> texts = {"The ship had been three weeks at sea.", "Once upon a time",
                                        "It is a truth universally acknowledged", "a"};

std::vector<std::vector<int32_t>> tokens() {
  std::vector<std::vector<int32_t>> all;
  for (const std::string& t : texts) all.push_back(builtin().tokenizer.encode(t));
  return all;
}

// The last hidden states by the interpreter, pooled here.
std::vector<double> expected(const std::vector<int32_t>& text, Pooling pooling) {
  Model model = builtin().model;
  const Node& head = model.graph.node(model.graph.value(model.graph.output()).producer);
  model.graph.set_output(head.inputs[0]);
  model.graph.prune();
  const Tensor all = interpret(model, SingleSequence(text, 0, static_cast<int64_t>(text.size()), false));
  const auto rows = all.as<float>();
  const size_t width = rows.size() / text.size();
  std::vector<double> v(width, 0);
  for (size_t i = 0; i < text.size(); ++i) {
    const bool in = pooling == Pooling::mean || i == (pooling == Pooling::cls ? 0 : text.size() - 1);
    for (size_t c = 0; in && c < width; ++c) v[c] += static_cast<double>(rows[i * width + c]);
  }
  double squares = 0;
  for (const double x : v) squares += x * x;
  for (double& x : v) x /= std::sqrt(squares);
  return v;
}

TEST(Embedder, PoolsTheLastHiddenStates) {
  for (const Pooling pooling : {Pooling::mean, Pooling::last, Pooling::cls}) {
    Embedder e(builtin().model, {.threads = 1, .longest = 128, .pooling = pooling});
    const auto vectors = embed(e, tokens());
    ASSERT_EQ(vectors.size(), texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
      const std::vector<double> reference = expected(tokens()[i], pooling);
      ASSERT_EQ(vectors[i].size(), reference.size());
      double dot = 0, squares = 0;
      for (size_t c = 0; c < reference.size(); ++c) {
        dot += reference[c] * static_cast<double>(vectors[i][c]);
        squares += static_cast<double>(vectors[i][c]) * static_cast<double>(vectors[i][c]);
      }
      // f32 numbers of length 1: each is within 2^-24 of itself.
      EXPECT_NEAR(squares, 1, 1e-5);
      // bf16 tiles round activations to 8 bits: 2^-9 of a number, an angle whose cosine is within 1e-4.
      EXPECT_GT(dot, 1 - 1e-4) << texts[i];
    }
  }
}

TEST(Embedder, ATextHasItsVectorWhateverIsBesideIt) {
  Embedder e(builtin().model, {.threads = 1, .longest = 16});
  std::vector<std::vector<int32_t>> many;
  for (int i = 0; i < 30; ++i) many.push_back(tokens()[static_cast<size_t>(i) % texts.size()]);
  for (auto& text : many) text.resize(std::min<size_t>(text.size(), 16));
  const auto together = embed(e, many);
  ASSERT_EQ(together.size(), many.size());
  for (size_t i = 0; i < many.size(); ++i) EXPECT_EQ(together[i], embed(e, {many[i]})[0]) << i;
}

TEST(Embedder, RefusesWhatCannotRunAndForgetsWhatIsCancelled) {
  Embedder e(builtin().model, {.threads = 1, .longest = 16, .waiting = 2});
  const auto ignore = [](const Embedder::Result&) { ADD_FAILURE() << "it was cancelled"; };
  EXPECT_THROW(e.submit({}, ignore), InputError);
  EXPECT_THROW(e.submit({{}}, ignore), InputError);
  EXPECT_THROW(e.submit({{-1}}, ignore), InputError);
  EXPECT_THROW(e.submit({{1 << 30}}, ignore), InputError);
  EXPECT_THROW(e.submit({std::vector<int32_t>(17, 1)}, ignore), InputError);
  const uint64_t first = e.submit({{1}}, ignore), second = e.submit({{1}}, ignore);
  EXPECT_THROW(e.submit({{1}}, ignore), Busy);
  e.cancel(first);
  e.cancel(second);
  EXPECT_FALSE(e.step());
}

TEST(Embedder, WhatIsCancelledAmidItsTextsIsNotGoneOnWith) {
  Embedder e(builtin().model, {.threads = 1, .longest = 16});
  bool called = false;
  const uint64_t id = e.submit({{1}, {2}, {3}}, [&](const Embedder::Result&) { called = true; });
  EXPECT_TRUE(e.step(1));
  e.cancel(id);
  EXPECT_FALSE(e.step(1));
  // From another thread, while one of its texts is computed.
  std::vector<std::vector<int32_t>> many(20'000, std::vector<int32_t>(16, 1));
  const uint64_t second = e.submit(many, [&](const Embedder::Result&) { called = true; });
  std::atomic<bool> stepping = false;
  std::thread canceller([&] {
    while (!stepping) std::this_thread::yield();
    e.cancel(second);
  });
  int steps = 0;
  for (stepping = true; e.step(1); ++steps) {
  }
  canceller.join();
  EXPECT_LT(steps, 20'000);
  EXPECT_FALSE(called);
}

TEST(Embedder, AListenerThatThrowsIsNotItsEnd) {
  Embedder e(builtin().model, {.threads = 1, .longest = 16});
  e.submit({{1}}, [](const Embedder::Result&) { throw Error("the client's shape failed"); });
  EXPECT_TRUE(e.step());
  EXPECT_EQ(embed(e, {{1}}).size(), 1u);
}

TEST(Turns, TextsBesideStreamsTakeTheirShareOfTime) {
  Turns turns;
  EXPECT_TRUE(turns.may_embed(0));
  EXPECT_TRUE(turns.may_embed(8));
  turns.embedded(.1, 8);  // one text for eight streams: as long as the engine then has
  EXPECT_FALSE(turns.may_embed(8));
  EXPECT_TRUE(turns.may_embed(0)) << "nobody waits";
  turns.stepped(.06);
  EXPECT_FALSE(turns.may_embed(8));
  turns.stepped(.06);
  EXPECT_TRUE(turns.may_embed(8));
  turns.embedded(.1, 2);  // two streams may wait four times as long as they run
  turns.stepped(.024);
  EXPECT_FALSE(turns.may_embed(2));
  turns.stepped(.002);
  EXPECT_TRUE(turns.may_embed(2));
  turns.embedded(9, 0);
  EXPECT_TRUE(turns.may_embed(1)) << "what nobody waited for is not owed";
}

}  // namespace
}  // namespace lathe
