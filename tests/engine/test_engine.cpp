#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <thread>

#include "adapter_files.h"
#include "builtin_model.h"
#include "compress/quantize.h"
#include "engine/engine.h"
#include "engine/kv_size.h"
#include "mixture_model.h"
#include "models/adapter.h"
#include "models/kv_cache.h"
#include "models/model.h"
#include "support.h"

namespace lathe {
namespace {

using testing_support::builtin;

// Prompts of 1 to some 200 tokens, many of which begin alike.
std::vector<Request> mixed_requests(int count) {
  const std::vector<std::string> beginnings = {
      "It was a truth universally acknowledged, that a single man in possession of a good fortune, must be "
      "in want of a "
      "wife. However little known the feelings or views of such a man may be on his first entering a "
      "neighbourhood,",
      "The ship had been three weeks at sea when the captain", "\"My dear,\" said"};
  Rng rng(11);
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    std::string text = beginnings[rng.below(beginnings.size())];
    for (uint64_t n = rng.below(4); n > 0; --n) text += " " + beginnings[rng.below(beginnings.size())];
    Request r;
    r.prompt = builtin().tokenizer.encode(text);
    r.prompt.resize(std::max<size_t>(1, r.prompt.size() - rng.below(r.prompt.size())));
    r.sampling.temperature = 0;
    r.max_tokens = 1 + static_cast<int64_t>(rng.below(24));
    requests.push_back(r);
  }
  return requests;
}

struct Answer {
  std::vector<int32_t> tokens;
  std::string text;
  Event end;
};

// By request and choice.
using Answers = std::map<std::pair<size_t, int64_t>, Answer>;

Answers run(Engine& engine, const std::vector<Request>& requests) {
  Answers answers;
  for (size_t i = 0; i < requests.size(); ++i)
    engine.submit(requests[i], [&answers, i](const Event& e) {
      Answer& a = answers[{i, e.choice}];
      EXPECT_EQ(a.end.finish, Finish::none) << "an event after the end";
      if (e.token >= 0) a.tokens.push_back(e.token);
      a.text += e.text;
      a.end = e;
    });
  while (engine.step()) {
  }
  return answers;
}

Answers run(const EngineOptions& options, const std::vector<Request>& requests,
            EngineStats* stats = nullptr) {
  Engine engine(builtin().model, builtin().tokenizer, options);
  const Answers answers = run(engine, requests);
  if (stats) *stats = engine.stats();
  EXPECT_EQ(engine.stats().free_blocks, engine.stats().blocks) << "blocks leaked";
  return answers;
}

// What one sequence gives alone, without an engine.
std::vector<int32_t> alone(const Request& r, std::optional<KvType> kv, const Model& model = builtin().model) {
  Target target;
  target.max_tokens = 512;
  target.max_outputs = 1;
  target.context = static_cast<int64_t>(r.prompt.size()) + r.max_tokens;
  target.kv = kv;
  Plan plan = Plan::compile(model, target);
  const int32_t adapter = r.adapter;
  const auto run = [&](const SingleSequence& sequence) {
    Batch batch = sequence;
    batch.adapters = {&adapter, 1};
    return plan.run(batch).as<float>();
  };
  std::vector<int32_t> tokens;
  std::span<const float> logits = run(SingleSequence(r.prompt, 0, 1, true));
  for (;;) {
    tokens.push_back(static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin()));
    if (static_cast<int64_t>(tokens.size()) == r.max_tokens) return tokens;
    const auto position = static_cast<int32_t>(r.prompt.size() + tokens.size() - 1);
    logits = run(SingleSequence({&tokens.back(), 1}, position, 1, true, Phase::decode));
  }
}

EngineOptions options() {
  EngineOptions o;
  o.context = 320;
  o.mixed_prompt = 32;
  return o;
}

// Also through the prefix cache: most prompts begin alike, and the cache keeps adapters apart.
TEST(Adapters, EveryRequestHasItsOwn) {
  const testing_support::TemporaryDirectory dir;
  Model model = builtin().model;
  for (int number : {1, 2}) {
    const fs::path where = dir / std::to_string(number);
    testing_support::write_adapter(where,
                                   testing_support::adapter_factors(model, static_cast<uint64_t>(number)),
                                   testing_support::adapter_config());
    add_adapter(model, where, number);
  }
  std::vector<Request> requests = mixed_requests(24);
  for (size_t i = 0; i < requests.size(); ++i) requests[i].adapter = static_cast<int>(i % 3);
  Engine engine(model, builtin().tokenizer, options());
  run(engine, requests);  // fills the cache
  std::ranges::rotate(requests, requests.begin() + 1);
  for (size_t i = 0; i < requests.size(); ++i) requests[i].adapter = static_cast<int>(i % 3);
  const Answers answers = run(engine, requests);
  EXPECT_GT(engine.stats().cached_tokens, 0u);
  size_t changed = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(answers.at({i, 0}).tokens, alone(requests[i], KvType::f32, model)) << i;
    changed += answers.at({i, 0}).tokens != alone(requests[i], KvType::f32);
  }
  EXPECT_GT(changed, 4u);
  EXPECT_LE(changed, 16u);
  Request unknown = requests[0];
  unknown.adapter = 3;
  EXPECT_THROW(engine.submit(unknown, [](const Event&) {}), InputError);
}

// Tokens of one step share experts, and prompts come in parts beside others that decode.
TEST(Engine, MixturesOfExpertsGiveTheSameTextWhateverRunsBesideIt) {
  const Model model = testing_support::mixture_of(builtin().model, 8, 2);
  const std::vector<Request> requests = mixed_requests(16);
  for (const int64_t sequences : {int64_t{1}, int64_t{16}}) {
    EngineOptions o = options();
    o.sequences = sequences;
    o.step_tokens = 64;
    Engine engine(model, builtin().tokenizer, o);
    const Answers answers = run(engine, requests);
    for (size_t i = 0; i < requests.size(); ++i)
      ASSERT_EQ(answers.at({i, 0}).tokens, alone(requests[i], KvType::f32, model)) << i;
  }
}

class KvTypes : public testing::TestWithParam<KvType> {};
INSTANTIATE_TEST_SUITE_P(Each, KvTypes,
                         testing::Values(KvType::f32, KvType::bf16, KvType::int8, KvType::int4, KvType::fp8,
                                         KvType::nvfp4, KvType::int4_channel));

TEST_P(KvTypes, AGreedyTextIsTheSameWhateverRunsBesideIt) {
  std::vector<Request> requests = mixed_requests(64);
  const bool spans = keys_in_spans(GetParam());  // blocks are of some of them
  std::vector<std::vector<int32_t>> expected;
  for (const Request& r : requests) expected.push_back(alone(r, GetParam()));
  const auto check = [&](const std::string& how, EngineOptions o, EngineStats& stats) {
    o.kv = GetParam();
    const Answers answers = run(o, requests, &stats);
    ASSERT_EQ(answers.size(), requests.size()) << how;
    for (size_t i = 0; i < requests.size(); ++i) {
      ASSERT_EQ(answers.at({i, 0}).tokens, expected[i]) << how << ", request " << i;
      ASSERT_EQ(answers.at({i, 0}).end.finish, Finish::length) << how;
    }
  };
  EngineStats stats;
  check("together", options(), stats);
  EXPECT_GT(stats.cached_tokens, 0u);
  EXPECT_EQ(stats.preemptions, 0u);

  EngineOptions o = options();
  o.mixed_prompt = 0;
  check("with measured steps, as by default", o, stats);

  o = options();
  o.prefix_cache = false;
  check("without a prefix cache", o, stats);
  EXPECT_EQ(stats.cached_tokens, 0u);

  o = options();
  o.step_tokens = 64;
  o.mixed_prompt = 5;
  o.block_tokens = spans ? 64 : 16;
  check("in small parts", o, stats);

  o = options();
  o.sequences = 1;
  check("one at a time", o, stats);

  o = options();
  o.block_tokens = spans ? key_span : 4;
  o.kv_bytes = static_cast<size_t>(kv_bytes_per_token(builtin().model.graph, GetParam()) * 340);
  if (spans) {  // larger blocks run out only while longer answers are written
    requests.resize(16);
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].max_tokens = 80;
      expected[i] = alone(requests[i], GetParam());
    }
  }
  check("short of memory", o, stats);
  EXPECT_GT(stats.preemptions, 0u);
}

// Integer products of activations that are rounded per row, and codes of 4 bits: other kernels for prompts
// and decoding.
TEST(Engine, AQuantizedModelsTextIsTheSameWhateverRunsBesideIt) {
  const std::vector<Request> requests = mixed_requests(32);
  for (const Numerics& numerics : {Numerics::integer(4, 32, false), Numerics::w8a8()}) {
    Model model = builtin().model;
    quantize(model, assign_all(model, numerics, {}), ScaleSearch::absmax);
    std::vector<std::vector<int32_t>> expected;
    for (const Request& r : requests) expected.push_back(alone(r, KvType::f32, model));
    EngineOptions measured = options(), parts = options(), crowded = options();
    measured.mixed_prompt = 0;
    parts.step_tokens = 64;
    parts.mixed_prompt = 5;
    crowded.block_tokens = 4;
    crowded.kv_bytes = static_cast<size_t>(kv_bytes_per_token(model.graph, crowded.kv) * 340);
    for (const EngineOptions& o : {measured, parts, crowded}) {
      Engine engine(model, builtin().tokenizer, o);
      const Answers answers = run(engine, requests);
      for (size_t i = 0; i < requests.size(); ++i)
        ASSERT_EQ(answers.at({i, 0}).tokens, expected[i]) << scheme_of(numerics) << ", request " << i;
      EXPECT_EQ(engine.stats().preemptions > 0, o.kv_bytes > 0);
    }
  }
}

// Keys and values in the model's own numbers, without a word from the options.
TEST(Engine, AModelsOwnKvNumbersAreUsed) {
  Model model = builtin().model;
  const std::vector<NodeId> order(model.graph.order().begin(), model.graph.order().end());
  for (const NodeId id : order) {
    if (!std::holds_alternative<op::Attention>(model.graph.node(id).op)) continue;
    const Node node = model.graph.node(set_cache(model.graph, id, {CacheNumerics::fp8}));
    for (const std::string& name : {k_scale_of(node), v_scale_of(node)})
      model.weights[name] = dense_weight(Tensor::of<float>(DType::f32, {1}, std::vector<float>{1.0f}));
  }
  const std::vector<Request> requests = mixed_requests(24);
  Engine engine(model, builtin().tokenizer, options());
  const Answers answers = run(engine, requests);
  size_t changed = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(answers.at({i, 0}).tokens, alone(requests[i], {}, model)) << i;
    changed += answers.at({i, 0}).tokens != alone(requests[i], {});
  }
  EXPECT_GT(changed, 0u);
  EXPECT_EQ(kv_bytes_per_token(model.graph, {}), kv_bytes_per_token(builtin().model.graph, KvType::fp8));
  EngineOptions o = options();
  o.kv = KvType::f32;  // asked for
  Engine floats(model, builtin().tokenizer, o);
  const Answers plain = run(floats, requests);
  for (size_t i = 0; i < requests.size(); ++i)
    EXPECT_EQ(plain.at({i, 0}).tokens, alone(requests[i], {})) << i;
}

TEST(Engine, SeedsReproduceAndChoicesAreRequestsOfTheirOwn) {
  std::vector<Request> requests = mixed_requests(8);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].sampling = {};
    requests[i].sampling.seed = 100 * i;
    requests[i].choices = 3;
  }
  std::vector<Request> single;
  for (const Request& r : requests)
    for (uint64_t c = 0; c < 3; ++c) {
      single.push_back(r);
      single.back().choices = 1;
      single.back().sampling.seed += c;
    }
  // A fork has its own keys of a span that is not full (int4-channel).
  for (const KvType kv : {KvType::f32, KvType::int4_channel}) {
    EngineOptions o = options();
    o.kv = kv;
    const Answers together = run(o, requests), again = run(o, requests), apart = run(o, single);
    int different = 0;
    for (size_t i = 0; i < requests.size(); ++i)
      for (int64_t c = 0; c < 3; ++c) {
        EXPECT_EQ(together.at({i, c}).tokens, again.at({i, c}).tokens);
        EXPECT_EQ(together.at({i, c}).tokens, apart.at({3 * i + static_cast<size_t>(c), 0}).tokens);
        different += together.at({i, c}).tokens != together.at({i, 0}).tokens;
      }
    EXPECT_GT(different, 4);
  }
}

Request story(int64_t max_tokens) {
  Request r;
  r.prompt = builtin().tokenizer.encode("The ship had been three weeks at sea when the captain");
  r.sampling.temperature = 0;
  r.max_tokens = max_tokens;
  return r;
}

TEST(Engine, StopsAtStringsAndTokens) {
  Request r = story(40);
  const Answer whole = run(options(), {r}).at({0, 0});
  ASSERT_GT(whole.text.size(), 20u);
  r.stop = {whole.text.substr(10, 4)};
  const Answer cut = run(options(), {r}).at({0, 0});
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(r.stop[0])));
  EXPECT_EQ(cut.end.finish, Finish::stop);
  EXPECT_EQ(cut.end.stop, r.stop[0]);

  r.stop = {};
  r.stop_tokens = {whole.tokens[5]};
  const size_t first =
      static_cast<size_t>(std::ranges::find(whole.tokens, whole.tokens[5]) - whole.tokens.begin());
  const Answer ended = run(options(), {r}).at({0, 0});
  EXPECT_EQ(ended.tokens,
            std::vector(whole.tokens.begin(), whole.tokens.begin() + static_cast<std::ptrdiff_t>(first) + 1));
  EXPECT_EQ(ended.end.finish, Finish::stop);
  EXPECT_EQ(ended.text, builtin().tokenizer.decode({whole.tokens.data(), first}));

  r.min_tokens = 20;
  const Answer longer = run(options(), {r}).at({0, 0});
  EXPECT_GT(longer.tokens.size(), 20u);
  EXPECT_FALSE(std::ranges::count(longer.tokens.begin(), longer.tokens.begin() + 20, r.stop_tokens[0]));
}

TEST(Engine, NoStopStringEndsATextBeforeItsLeastLength) {
  Request r = story(40);
  const Answer whole = run(options(), {r}).at({0, 0});
  r.stop = {"e"};
  const size_t first = whole.text.find('e');
  ASSERT_LT(first, builtin().tokenizer.decode({whole.tokens.data(), 20}).size());
  EXPECT_EQ(run(options(), {r}).at({0, 0}).text, whole.text.substr(0, first));
  r.min_tokens = 20;
  const Answer cut = run(options(), {r}).at({0, 0});
  EXPECT_GT(cut.tokens.size(), 20u);
  const size_t early = builtin().tokenizer.decode({whole.tokens.data(), 20}).size();
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find('e', early)));
}

TEST(Engine, SeveralPromptsAreTakenTogetherOrNotAtAll) {
  std::vector<Request> alone(3, story(6));
  alone[1].prompt.resize(3);
  alone[2].prompt.resize(5);
  for (Request& r : alone) {
    r.sampling = {};
    r.choices = 2;
  }
  const Answers expected = run(options(), alone);
  std::vector<std::vector<int32_t>> prompts;
  for (const Request& r : alone) prompts.push_back(r.prompt);
  EngineOptions o = options();
  o.waiting = 3;
  Engine engine(builtin().model, builtin().tokenizer, o);
  std::map<int64_t, std::vector<int32_t>> tokens;
  std::vector<uint64_t> numbers;
  const auto note = [&](const Event& e) {
    tokens[e.choice].push_back(e.token);
    numbers.push_back(e.request);
  };
  const uint64_t id = engine.submit(alone[0], prompts, note);
  EXPECT_THROW(engine.submit(story(1), note), Busy) << "three wait";
  while (engine.step()) {
  }
  ASSERT_EQ(tokens.size(), 6u);
  for (const auto& [choice, written] : tokens)
    EXPECT_EQ(written, expected.at({static_cast<size_t>(choice) / 2, choice % 2}).tokens) << choice;
  for (const uint64_t number : numbers) EXPECT_EQ(number, id);

  tokens.clear();
  prompts.back().assign(1000, 1);
  EXPECT_THROW(engine.submit(alone[0], prompts, note), InputError);
  prompts.back().assign(1, 1);
  prompts.emplace_back(1, 1);
  EXPECT_THROW(engine.submit(alone[0], prompts, note), InputError) << "never so many may wait";
  engine.submit(story(1), note);
  prompts.pop_back();
  EXPECT_THROW(engine.submit(alone[0], prompts, note), Busy);
  while (engine.step()) {
  }
  EXPECT_EQ(tokens.size(), 1u);
  engine.cancel(engine.submit(alone[0], prompts, note));
  EXPECT_FALSE(engine.step()) << "all of them are cancelled";
  EXPECT_EQ(engine.stats().free_blocks, engine.stats().blocks);
}

TEST(Engine, AListenerThatThrowsEndsItsRequestAndNoOther) {
  const Answer alone = run(options(), {story(12)}).at({0, 0});
  Engine engine(builtin().model, builtin().tokenizer, options());
  int events = 0;
  engine.submit(story(100), [&](const Event&) {
    if (++events == 3) throw Error("the client's shape failed");
  });
  std::vector<int32_t> tokens;
  engine.submit(story(12), [&](const Event& e) { tokens.push_back(e.token); });
  int steps = 0;
  for (; engine.step(); ++steps) {
  }
  EXPECT_EQ(tokens, alone.tokens);
  EXPECT_LE(events, 4) << "the one that says it was cancelled may come";
  EXPECT_LT(steps, 20);
  EXPECT_EQ(engine.stats().free_blocks, engine.stats().blocks);
}

TEST(Engine, ThoughtsEndAfterTheirTokens) {
  const std::vector<int32_t> plain = run(options(), {story(30)}).at({0, 0}).tokens;
  const int32_t close = 5;
  ASSERT_FALSE(std::ranges::count(plain, close));
  Request r = story(30);
  r.thoughts = {.open = -1, .close = close, .tokens = 7};
  const std::vector<int32_t> bounded = run(options(), {r}).at({0, 0}).tokens;
  EXPECT_EQ(std::ranges::find(bounded, close) - bounded.begin(), 7);
  EXPECT_TRUE(std::equal(bounded.begin(), bounded.begin() + 7, plain.begin()));
  // They begin where the model opens them.
  r.thoughts.open = plain[4];
  const auto opened = std::ranges::find(plain, plain[4]) - plain.begin();
  const std::vector<int32_t> later = run(options(), {r}).at({0, 0}).tokens;
  EXPECT_EQ(std::ranges::find(later, close) - later.begin(), opened + 8);
  r.thoughts.tokens = 1000;
  EXPECT_EQ(run(options(), {r}).at({0, 0}).tokens, plain);
}

TEST(Engine, LogprobsAreThoseOfTheLogits) {
  Request r = story(5);
  r.logprobs = 4;
  Engine engine(builtin().model, builtin().tokenizer, options());
  int events = 0;
  engine.submit(r, [&](const Event& e) {
    ++events;
    const std::vector<TokenLogprob>& top = e.score.top;
    ASSERT_EQ(top.size(), 4u);
    EXPECT_EQ(top[0].token, e.token);  // greedy
    EXPECT_EQ(top[0].logprob, e.score.logprob);
    EXPECT_EQ(e.score.rank, 1);
    double total = 0;
    for (size_t i = 0; i < top.size(); ++i) {
      if (i > 0) {
        EXPECT_LE(top[i].logprob, top[i - 1].logprob);
      }
      total += std::exp(static_cast<double>(top[i].logprob));
    }
    EXPECT_LE(total, 1 + 1e-6);
  });
  while (engine.step()) {
  }
  EXPECT_EQ(events, 5);
}

// What the model expects behind each token of a text, by one run without an engine.
std::vector<std::vector<double>> expected_behind(const std::vector<int32_t>& tokens) {
  Target target;
  target.max_tokens = target.max_outputs = target.context = static_cast<int64_t>(tokens.size());
  Plan plan = Plan::compile(builtin().model, target);
  const auto all = plan.run(SingleSequence(tokens, 0, static_cast<int64_t>(tokens.size()), true)).as<float>();
  std::vector<std::vector<double>> rows(tokens.size());
  const size_t vocab = all.size() / tokens.size();
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].assign(all.begin() + static_cast<std::ptrdiff_t>(i * vocab),
                   all.begin() + static_cast<std::ptrdiff_t>((i + 1) * vocab));
    double total = 0;
    for (const double x : rows[i]) total += std::exp(x);
    for (double& x : rows[i]) x -= std::log(total);
  }
  return rows;
}

// Cut into parts, beside others, behind a prefix that the cache has, and preempted.
TEST(Engine, PromptLogprobsAreThoseOfTheLogits) {
  std::vector<Request> requests = mixed_requests(16);
  for (size_t i = 0; i < requests.size(); i += 2) requests[i].prompt_logprobs = 3;
  requests[0].max_tokens = 0;
  requests[2].choices = 2;
  EngineOptions short_of_memory = options();
  short_of_memory.block_tokens = 4;
  short_of_memory.kv_bytes =
      static_cast<size_t>(kv_bytes_per_token(builtin().model.graph, KvType::f32) * short_of_memory.context);
  for (const EngineOptions& o : {options(), short_of_memory}) {
    Engine engine(builtin().model, builtin().tokenizer, o);
    std::map<std::pair<size_t, int64_t>, std::vector<Event>> events;
    for (size_t i = 0; i < requests.size(); ++i)
      engine.submit(requests[i], [&events, i](const Event& e) { events[{i, e.choice}].push_back(e); });
    while (engine.step()) {
    }
    EXPECT_EQ(events.size(), 17u);
    EXPECT_EQ(engine.stats().free_blocks, engine.stats().blocks);
    for (const auto& [of, all] : events) {
      const Request& r = requests[of.first];
      for (size_t i = 1; i < all.size(); ++i) EXPECT_EQ(all[i].prompt, nullptr);
      ASSERT_EQ(all[0].prompt != nullptr, r.prompt_logprobs >= 0) << of.first;
      EXPECT_EQ(all.back().generated, r.max_tokens);
      if (!all[0].prompt) continue;
      const std::vector<TokenScore>& scores = *all[0].prompt;
      ASSERT_EQ(scores.size(), r.prompt.size() - 1);
      const auto expected = expected_behind(r.prompt);
      for (size_t i = 0; i < scores.size(); ++i) {
        const auto at = [&](int32_t token) { return expected[i][static_cast<size_t>(token)]; };
        const double own = at(r.prompt[i + 1]);
        // Kernels for one row and for many round sums of 64 products otherwise: 1e-6 of logits up to 30.
        EXPECT_NEAR(static_cast<double>(scores[i].logprob), own, 1e-4) << of.first << " at " << i;
        const auto less = std::ranges::count_if(expected[i], [&](double x) { return x > own + 1e-4; });
        const auto most = std::ranges::count_if(expected[i], [&](double x) { return x > own - 1e-4; });
        EXPECT_GE(scores[i].rank, less + 1);
        EXPECT_LE(scores[i].rank, most + 1);
        ASSERT_EQ(scores[i].top.size(), 3u);
        EXPECT_NEAR(at(scores[i].top[0].token), std::ranges::max(expected[i]), 1e-4);
        for (const TokenLogprob& t : scores[i].top)
          EXPECT_NEAR(static_cast<double>(t.logprob), at(t.token), 1e-4);
      }
    }
  }
}

TEST(Engine, LogprobsOfTheDrawAreBehindItsCuts) {
  Request r = story(20);
  r.sampling = {.temperature = 1, .top_k = 3, .top_p = 1, .seed = 3};
  r.logprobs = 5;
  r.drawn_logprobs = true;
  Engine engine(builtin().model, builtin().tokenizer, options());
  int not_first = 0;
  engine.submit(r, [&](const Event& e) {
    ASSERT_EQ(e.score.top.size(), 3u);
    double total = 0;
    for (const TokenLogprob& t : e.score.top) {
      total += std::exp(static_cast<double>(t.logprob));
      if (t.token == e.token) {
        EXPECT_EQ(t.logprob, e.score.logprob);
      }
    }
    EXPECT_NEAR(total, 1, 1e-6);
    not_first += e.score.top[0].token != e.token;
  });
  while (engine.step()) {
  }
  EXPECT_GT(not_first, 0);
}

TEST(Engine, OnlyAllowedTokensAndNoBadWords) {
  Request r = story(24);
  const std::vector<int32_t> plain = run(options(), {r}).at({0, 0}).tokens;
  Request allowed = r;
  allowed.allowed_tokens = {plain[3], plain[5], plain[9]};
  const std::vector<int32_t> only = run(options(), {allowed}).at({0, 0}).tokens;
  for (const int32_t token : only) EXPECT_TRUE(std::ranges::count(allowed.allowed_tokens, token)) << token;
  Request bad = r;
  bad.bad_words = {{plain[4], plain[5]}, {plain[9]}};
  const std::vector<int32_t> other = run(options(), {bad}).at({0, 0}).tokens;
  EXPECT_EQ(std::ranges::equal(std::span(other).first(5), std::span(plain).first(5)), true);
  EXPECT_NE(other[5], plain[5]);
  EXPECT_FALSE(std::ranges::count(other, plain[9]));
  for (size_t i = 1; i < other.size(); ++i)
    EXPECT_FALSE(other[i - 1] == plain[4] && other[i] == plain[5]) << i;
  // What nothing can satisfy is the request's fault.
  bad.allowed_tokens = {plain[9]};
  const Event end = run(options(), {bad}).at({0, 0}).end;
  EXPECT_EQ(end.finish, Finish::failed);
  EXPECT_TRUE(end.refused);
}

TEST(Engine, ACancelledRequestEndsWithinAStepAndFreesItsBlocks) {
  Engine engine(builtin().model, builtin().tokenizer, options());
  std::vector<Finish> ends;
  Request r = story(200);
  r.choices = 2;
  const auto note = [&](const Event& e) {
    if (e.finish != Finish::none) ends.push_back(e.finish);
  };
  const uint64_t id = engine.submit(r, note);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(engine.step());
  EXPECT_LT(engine.stats().free_blocks, engine.stats().blocks);
  engine.cancel(id);
  engine.cancel(id + 77);
  EXPECT_FALSE(engine.step());
  EXPECT_THAT(ends, testing::ElementsAre(Finish::cancelled, Finish::cancelled));
  EXPECT_EQ(engine.stats().free_blocks, engine.stats().blocks);
  const uint64_t waiting = engine.submit(r, note);  // cancelled before it ever ran
  engine.cancel(waiting);
  EXPECT_FALSE(engine.step());
  EXPECT_EQ(ends.size(), 4u);
}

std::shared_ptr<TokenMasks> masks(const Grammar& grammar) {
  static const auto trie = std::make_shared<const TokenTrie>(builtin().tokenizer.token_bytes());
  return std::make_shared<TokenMasks>(grammar, trie);
}

TEST(Engine, AConstrainedTextIsTheSameWhateverRunsBesideIt) {
  const Grammar grammar =
      Grammar::gbnf("root ::= \"[\" item (\", \" item)* \"]\"\nitem ::= [a-z]{2,7} | [0-9]+");
  std::vector<Request> requests = mixed_requests(24);
  for (size_t i = 0; i < requests.size(); i += 2) {
    requests[i].grammar = masks(grammar);
    requests[i].sampling.temperature = 1;
    requests[i].sampling.seed = i;
    requests[i].choices = 1 + static_cast<int64_t>(i % 3);
    requests[i].max_tokens = 20;
  }
  EngineOptions o = options();
  o.prefix_cache = false;
  o.sequences = 3;
  const Answers expected = run(o, requests);
  o = options();
  o.block_tokens = 4;
  o.kv_bytes = static_cast<size_t>(kv_bytes_per_token(builtin().model.graph, o.kv) * 340);
  EngineStats stats;
  const Answers crowded = run(o, requests, &stats);
  EXPECT_GT(stats.preemptions, 0u);
  EXPECT_GT(stats.cached_tokens, 0u);
  ASSERT_EQ(crowded.size(), expected.size());
  int ended = 0;
  for (const auto& [key, a] : crowded) {
    EXPECT_EQ(a.tokens, expected.at(key).tokens);
    if (key.first % 2 != 0) continue;
    EXPECT_THAT(a.text, testing::StartsWith("["));
    if (a.end.finish != Finish::stop) continue;
    ++ended;
    EXPECT_TRUE(grammar.accepts(a.text)) << a.text;
  }
  EXPECT_GT(ended, 0);
}

TEST(Engine, StopTokensEndAConstrainedTextOnlyWhereItIsComplete) {
  Request r = story(40);
  r.stop_tokens = {0};  // a special token
  r.sampling.logit_bias = {{0, 100}};
  r.grammar = masks(Grammar::regex("[0-9]{4}[a-z]*"));
  Answer a = run(options(), {r}).at({0, 0});
  EXPECT_EQ(a.text.size(), 4u);
  EXPECT_EQ(a.end.finish, Finish::stop);
  EXPECT_EQ(a.tokens.back(), 0);
  r.min_tokens = 12;
  a = run(options(), {r}).at({0, 0});
  EXPECT_EQ(a.tokens.size(), 13u);
  r.grammar = masks(Grammar::regex("[0-9]{4}"));  // nothing may follow: it ends without another token
  a = run(options(), {r}).at({0, 0});
  EXPECT_EQ(a.text.size(), 4u);
  EXPECT_EQ(a.end.finish, Finish::stop);
  EXPECT_NE(a.tokens.back(), 0);
  r.grammar = masks(Grammar::regex(""));
  a = run(options(), {r}).at({0, 0});
  EXPECT_TRUE(a.tokens.empty());
  EXPECT_EQ(a.end.finish, Finish::stop);
  r = story(40);
  r.grammar = masks(Grammar::choice(std::vector<std::string>{"one two three"}));
  r.stop = {"two"};
  a = run(options(), {r}).at({0, 0});
  EXPECT_EQ(a.text, "one ");
  EXPECT_EQ(a.end.stop, "two");
}

TEST(Engine, AGrammarThatIsTooSlowFailsItsRequestAndNoOther) {
  const Answer alone = run(options(), {story(40)}).at({0, 0});
  Request slow = story(40);
  slow.choices = 3;
  slow.grammar = masks(Grammar::regex("(.{0,60}){0,60}"));
  const Answers answers = run(options(), {slow, story(40)});
  EXPECT_EQ(answers.at({1, 0}).tokens, alone.tokens);
  for (int64_t choice = 0; choice < 3; ++choice) {
    const Answer& a = answers.at({0, choice});
    EXPECT_EQ(a.end.finish, Finish::failed);
    EXPECT_TRUE(a.end.refused);
    EXPECT_THAT(a.end.error, testing::HasSubstr("steps before a token"));
  }
}

TEST(Engine, AGrammarMayBeginBehindAToken) {
  const Answer plain = run(options(), {story(40)}).at({0, 0});
  Request r = story(40);
  r.grammar = masks(Grammar::regex("[0-9]{4}"));
  r.grammar_after = plain.tokens[6];
  const auto first =
      static_cast<size_t>(std::ranges::find(plain.tokens, r.grammar_after) - plain.tokens.begin());
  const Answer a = run(options(), {r}).at({0, 0});
  ASSERT_GT(a.tokens.size(), first + 1);
  EXPECT_TRUE(std::equal(plain.tokens.begin(), plain.tokens.begin() + static_cast<std::ptrdiff_t>(first) + 1,
                         a.tokens.begin()));
  const std::string rest = a.text.substr(builtin().tokenizer.decode({a.tokens.data(), first + 1}).size());
  EXPECT_EQ(rest.size(), 4u);
  EXPECT_TRUE(Grammar::regex("[0-9]{4}").accepts(rest)) << rest;
}

TEST(Engine, RefusesWhatCannotRun) {
  EngineOptions o = options();
  o.waiting = 2;
  Engine engine(builtin().model, builtin().tokenizer, o);
  const auto ignore = [](const Event&) {};
  Request r;
  EXPECT_THROW(engine.submit(r, ignore), InputError);
  r.prompt = {-1};
  EXPECT_THROW(engine.submit(r, ignore), InputError);
  r.prompt = {1 << 30};
  EXPECT_THROW(engine.submit(r, ignore), InputError);
  r.prompt.assign(320, 1);
  EXPECT_THROW(engine.submit(r, ignore), InputError);
  r.prompt = {1};
  r.choices = 65;
  EXPECT_THROW(engine.submit(r, ignore), InputError);
  r.choices = 0;
  EXPECT_THROW(engine.submit(r, ignore), InputError);
  r.choices = 1;
  r.max_tokens = -1;
  EXPECT_THROW(engine.submit(r, ignore), InputError);
  r.max_tokens = 1;
  r.allowed_tokens = {1 << 30};
  EXPECT_THROW(engine.submit(r, ignore), InputError);
  r.allowed_tokens = {};
  r.bad_words = {{}};
  EXPECT_THROW(engine.submit(r, ignore), InputError);
  r.bad_words = {};
  engine.submit(r, ignore);
  engine.submit(r, ignore);
  EXPECT_THROW(engine.submit(r, ignore), Busy);
  while (engine.step()) {
  }
  engine.submit(r, ignore);

  o.kv_bytes = 1000;
  EXPECT_THROW(Engine(builtin().model, builtin().tokenizer, o), InputError);
  o = options();
  o.sequences = 65;
  EXPECT_THROW(Engine(builtin().model, builtin().tokenizer, o), InputError);
}

TEST(Engine, WhoWaitsTooLongForItsFirstStepIsTold) {
  EngineOptions o = options();
  o.sequences = 1;
  o.longest_wait = std::chrono::milliseconds(20);
  Engine engine(builtin().model, builtin().tokenizer, o);
  std::vector<Event> ends;
  const auto note = [&](const Event& e) {
    if (e.finish != Finish::none) ends.push_back(e);
  };
  Request first = story(8), second = story(8);
  engine.submit(first, note);
  engine.step();  // runs already, so it may take as long as it does
  const uint64_t late = engine.submit(second, note);
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  while (engine.step()) {
  }
  ASSERT_EQ(ends.size(), 2u);
  EXPECT_EQ(ends[0].request, late);
  EXPECT_EQ(ends[0].finish, Finish::failed);
  EXPECT_TRUE(ends[0].busy);
  EXPECT_FALSE(ends[0].refused);
  EXPECT_EQ(ends[1].finish, Finish::length);
  engine.submit(second, note);
  while (engine.step()) {
  }
  EXPECT_EQ(ends.back().finish, Finish::length) << "when nobody is before it";
  EXPECT_EQ(engine.stats().free_blocks, engine.stats().blocks);
}

TEST(Engine, TheContextEndsAnAnswer) {
  EngineOptions o = options();
  o.context = 40;
  Request r = story(1000);
  const Answer a = run(o, {r}).at({0, 0});
  EXPECT_EQ(a.tokens.size() + r.prompt.size(), 40u);
  EXPECT_EQ(a.end.finish, Finish::length);
  r.prompt.assign(40, 1);
  r.max_tokens = 0;
  EXPECT_EQ(run(o, {r}).at({0, 0}).end.finish, Finish::length) << "without an answer a prompt may fill it";
}

}  // namespace
}  // namespace lathe
