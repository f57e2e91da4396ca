#include <algorithm>
#include <gtest/gtest.h>
#include <list>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/rng.h"
#include "engine/scheduler.h"

namespace lathe {
namespace {

// Stands for a model: the "keys and values" of a position are a hash of all tokens up to it and of how it was
// computed. Every row that is computed checks all rows before it, so a block that was shared wrongly, freed
// too early or not copied shows at once.
class Memory {
 public:
  Memory(int64_t blocks, int64_t block_tokens)
      : block_tokens_(block_tokens), cells_(static_cast<size_t>(blocks * block_tokens)) {}

  void copy(const BlockCopy& c) {
    std::copy_n(cells_.begin() + c.from * block_tokens_, block_tokens_,
                cells_.begin() + c.to * block_tokens_);
  }
  void compute(const Work& w) {
    const Sequence& s = *w.sequence;
    uint64_t past = s.origin.space;
    for (int64_t i = 0; i < w.first + w.count; ++i) {
      const bool decoded = i >= std::min(s.prompt, s.origin.prompt);
      past = Rng(past ^ (static_cast<uint64_t>(s.tokens[static_cast<size_t>(i)]) * 2 + decoded)).next();
      uint64_t& cell = cells_[static_cast<size_t>(
          s.table.blocks[static_cast<size_t>(i / block_tokens_)] * block_tokens_ + i % block_tokens_)];
      if (i < w.first)
        ASSERT_EQ(cell, past) << "sequence " << s.id << " at " << i;
      else
        cell = past;
    }
  }

 private:
  int64_t block_tokens_;
  std::vector<uint64_t> cells_;
};

struct World {
  World(int64_t blocks, int64_t block_tokens, const StepLimits& at_most, int64_t longest)
      : pool(blocks, block_tokens, 5),
        memory(blocks, block_tokens),
        scheduler(pool, at_most, longest),
        limits(at_most) {}

  Sequence& add(std::vector<int32_t> prompt, int64_t generate, int priority = 0, uint64_t space = 0,
                bool scores = false) {
    Sequence& s = sequences.emplace_back();
    s.id = ++last_id;
    s.prompt = static_cast<int64_t>(prompt.size());
    s.origin = {space, s.prompt};
    s.tokens = std::move(prompt);
    s.priority = priority;
    s.scores = scores;
    ++operations;
    wanted[s.id] = s.prompt + generate;
    scheduler.add(s);
    return s;
  }
  void finish(Sequence& s) {
    scheduler.remove(s);
    ++operations;
    sequences.remove_if([&](const Sequence& other) { return &other == &s; });
  }

  // One step; false when there was nothing to do.
  bool step() {
    const Step& now = scheduler.next();
    ++operations;
    if (now.empty()) return false;
    preemptions += now.preempted.size();
    counted += now.computed;
    hits += now.cached;
    check(now);
    for (const BlockCopy& c : now.copies) memory.copy(c);
    for (const auto* works : {&now.prompts, &now.decodes})
      for (const Work& w : *works) {
        memory.compute(w);
        computed_rows += static_cast<uint64_t>(w.count);
      }
    scheduler.done();
    std::vector<Sequence*> sampled;
    for (const auto* works : {&now.prompts, &now.decodes})
      for (const Work& w : *works)
        if (w.samples) sampled.push_back(w.sequence);
    for (Sequence* s : sampled) {
      fork(*s);
      s->tokens.push_back(static_cast<int32_t>(s->tokens.size() % 7));
      ++generated;
      if (s->size() >= wanted[s->id]) finish(*s);
    }
    return true;
  }
  // The other choices of a prompt that was just computed.
  void fork(Sequence& s) {
    for (int64_t others = std::exchange(s.width, 1) - 1; others > 0; --others) {
      Sequence& twin = sequences.emplace_back();
      twin.id = ++last_id;
      twin.tokens = s.tokens;
      twin.prompt = s.prompt;
      twin.origin = s.origin;
      twin.priority = s.priority;
      wanted[twin.id] = wanted[s.id];
      scheduler.add_fork(s, twin);
      twin.tokens.push_back(static_cast<int32_t>(others));
      if (twin.size() >= wanted[twin.id]) finish(twin);
      ++forks;
    }
  }
  void check(const Step& now) const {
    int64_t rows = 0, prompt_rows = 0, outputs = 0;
    std::set<const Sequence*> seen;
    std::set<int32_t> slots;
    for (const Work& w : now.prompts) {
      prompt_rows += w.count;
      ASSERT_LE(w.first + w.count, w.sequence->prompt);
      ASSERT_EQ(w.outputs, w.sequence->scores ? w.count : w.samples);
    }
    for (const Work& w : now.decodes) {
      ASSERT_GE(w.first, w.sequence->prompt);
      ASSERT_EQ(w.outputs, w.samples);
    }
    for (const auto* works : {&now.prompts, &now.decodes})
      for (const Work& w : *works) {
        rows += w.count;
        outputs += w.outputs;
        ASSERT_GT(w.count, 0);
        ASSERT_EQ(w.first, w.sequence->computed);
        ASSERT_EQ(w.samples, w.first + w.count == w.sequence->size());
        ASSERT_TRUE(seen.insert(w.sequence).second) << "twice in a step";
        ASSERT_TRUE(slots.insert(w.sequence->slot).second) << "two in one slot";
        ASSERT_FALSE(std::ranges::count(now.preempted, w.sequence));
      }
    ASSERT_TRUE(slots.empty() || *slots.begin() >= 0);
    ASSERT_LE(rows, limits.tokens);
    // Those of the engine are forked within their width, others here are not.
    if (scheduler.running() <= limits.sequences) {
      ASSERT_LE(outputs, limits.outputs);
    }
    ASSERT_LE(prompt_rows, limits.prompt_rows);
    if (!now.decodes.empty() && limits.mixed_prompt > 0) {
      ASSERT_LE(prompt_rows, limits.mixed_prompt);
    }
    // Every block is free or held by as many tables as it counts, and what a table writes it holds alone.
    std::vector<int64_t> held(static_cast<size_t>(pool.size()));
    for (const Sequence& s : sequences)
      for (int32_t b : s.table.blocks) ++held[static_cast<size_t>(b)];
    ASSERT_EQ(pool.free_blocks(), std::ranges::count(held, 0));
    for (int32_t b = 0; b < pool.size(); ++b) ASSERT_EQ(pool.references(b), held[static_cast<size_t>(b)]);
    for (const auto* works : {&now.prompts, &now.decodes})
      for (const Work& w : *works)
        for (int64_t i = w.first; i < w.first + w.count; ++i)
          ASSERT_EQ(pool.references(w.sequence->table.blocks[static_cast<size_t>(i / pool.block_tokens())]),
                    1);
  }

  KvBlocks pool;
  Memory memory;
  Scheduler scheduler;
  StepLimits limits;
  std::list<Sequence> sequences;
  std::map<uint64_t, int64_t> wanted;
  uint64_t last_id = 0;
  size_t preemptions = 0, generated = 0, forks = 0;
  uint64_t computed_rows = 0, operations = 0;
  int64_t counted = 0, hits = 0;  // of prompts
};

std::vector<int32_t> repeated(int64_t n, int32_t token) {
  return std::vector<int32_t>(static_cast<size_t>(n), token);
}

TEST(Scheduler, APromptGoesInPartsAndThenDecodes) {
  World w(16, 4, {.tokens = 8}, 40);
  Sequence& s = w.add(repeated(20, 1), 3);
  for (const int64_t count : {8, 8, 4}) {
    const Step& step = w.scheduler.next();
    ASSERT_EQ(step.prompts.size(), 1u);
    EXPECT_EQ(step.prompts[0].count, count);
    EXPECT_EQ(step.prompts[0].samples, count == 4);
    w.scheduler.done();
  }
  s.tokens.push_back(5);
  const Step& step = w.scheduler.next();
  ASSERT_EQ(step.decodes.size(), 1u);
  EXPECT_EQ(step.decodes[0].first, 20);
}

TEST(Scheduler, WhoDecodesGoesFirstAndPromptsFillTheRest) {
  World w(64, 4, {.tokens = 32, .mixed_prompt = 6}, 100);
  w.add(repeated(4, 1), 50);
  ASSERT_TRUE(w.step());
  w.add(repeated(60, 2), 5);
  const Step& step = w.scheduler.next();
  ASSERT_EQ(step.decodes.size(), 1u);
  ASSERT_EQ(step.prompts.size(), 1u);
  EXPECT_EQ(step.prompts[0].count, 6);
}

// A prompt's share of a step's time: eight times the number of prompts over that of streams, at least that of
// decoding. One stream takes 11 ms here, eight take 18; 8 rows of prompts 12.
TEST(Scheduler, PromptsBesideDecodingTakeTheirShareOfTime) {
  const StepCost cost{.decode = .010, .stream = .001, .prompt = .004, .row = .001};
  const auto rows = [&](int64_t streams, int64_t prompts, int64_t length = 300) {
    World w(4096, 4, {.tokens = 512, .prompt_rows = 128, .mixed_prompt = 0, .cost = cost}, 400);
    for (int64_t i = 0; i < streams; ++i) w.add(repeated(4, static_cast<int32_t>(i)), 50);
    EXPECT_EQ(w.step(), streams > 0);
    for (int64_t i = 0; i < prompts; ++i) w.add(repeated(length, static_cast<int32_t>(100 + i)), 5);
    const Step& step = w.scheduler.next();
    EXPECT_EQ(static_cast<int64_t>(step.decodes.size()), streams);
    int64_t n = 0;
    for (const Work& p : step.prompts) n += p.count;
    return n;
  };
  EXPECT_EQ(rows(0, 3), 128);       // nobody waits for a token
  EXPECT_EQ(rows(8, 1), 8);         // 18 ms, less 4: a multiple of 8
  EXPECT_EQ(rows(8, 2), 32);        // 36 ms, less 4
  EXPECT_EQ(rows(16, 1), 16);       // 26 ms, less 4
  EXPECT_EQ(rows(16, 4), 48);       // 52 ms, less 4
  EXPECT_EQ(rows(1, 1), 80);        // 88 ms
  EXPECT_EQ(rows(1, 8), 128);       // as many as a step takes
  EXPECT_EQ(rows(16, 1, 100), 50);  // fits a step: in two
}

TEST(Scheduler, ASharedBeginningIsComputedOnce) {
  World w(64, 4, {.tokens = 64}, 100);
  w.add(repeated(33, 1), 1);
  while (w.step()) {
  }
  Sequence& second = w.add(repeated(33, 1), 1);
  const Step& step = w.scheduler.next();
  ASSERT_EQ(step.prompts.size(), 1u);
  EXPECT_EQ(step.prompts[0].count, 1);
  EXPECT_EQ(second.cached, 32);
  EXPECT_EQ(second.hits, 32);
  EXPECT_EQ(step.cached, 32);
  EXPECT_EQ(step.computed, 1);
}

TEST(Scheduler, APromptThatIsScoredComputesAllItsRowsWithinTheOutputs) {
  World w(64, 4, {.tokens = 64, .sequences = 4, .outputs = 10}, 100);
  w.add(repeated(33, 1), 1);
  while (w.step()) {
  }
  w.add(repeated(8, 2), 5);
  ASSERT_TRUE(w.step());
  Sequence& scored = w.add(repeated(33, 1), 1, 0, 0, true);
  int64_t outputs = 0;
  for (int i = 0; i < 4; ++i) {
    const Step& step = w.scheduler.next();
    ASSERT_EQ(step.prompts.size(), 1u);
    EXPECT_EQ(step.prompts[0].outputs, step.prompts[0].count);
    EXPECT_EQ(step.prompts[0].count, i < 3 ? 9 : 6) << "one is left for the sequence that decodes";
    outputs += step.prompts[0].outputs;
    w.scheduler.done();
  }
  EXPECT_EQ(outputs, 33);
  EXPECT_EQ(scored.cached, 0);
}

TEST(Scheduler, TheImportantArePreferredAndThePreemptedResume) {
  World w(10, 4, {.tokens = 64}, 40);
  w.add(repeated(12, 1), 20, 1);
  w.add(repeated(12, 2), 20, 1);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(w.step());
  Sequence& important = w.add(repeated(4, 3), 20, 0);
  const uint64_t id = important.id;
  while (std::ranges::count(w.sequences, id, &Sequence::id)) ASSERT_TRUE(w.step());
  EXPECT_GT(w.preemptions, 0u);
  while (w.step()) {
  }
  EXPECT_EQ(w.generated, 60u);
  EXPECT_EQ(w.counted, 12 + 12 + 4) << "each prompt once, however often it was computed";
  EXPECT_EQ(w.hits, 0) << "nobody had computed another's prompt";
  EXPECT_GT(w.computed_rows, 12u + 12 + 4 + 60 - 3) << "some rows were";
  EXPECT_TRUE(w.sequences.empty());
  EXPECT_EQ(w.pool.free_blocks(), w.pool.size());
}

TEST(Scheduler, RefusesWhatCanNeverRun) {
  KvBlocks pool(4, 4);
  EXPECT_THROW(Scheduler(pool, {}, 17), Error);
  Scheduler scheduler(pool, {}, 16);
  Sequence s;
  s.tokens = repeated(17, 1);
  s.prompt = 17;
  EXPECT_THROW(scheduler.add(s), Error);
}

// Random arrivals, priorities, widths, forks and cancellations, with prompts that share beginnings, in a pool
// that is too small for all, beside a bound on prompts or a cost of them: every row sees its own past,
// nothing leaks, and everybody finishes. An operation is a sequence added, forked or removed, or a step.
TEST(Scheduler, TwoMillionRandomOperations) {
  uint64_t operations = 0, rows = 0;
  size_t preemptions = 0, forks = 0, cached = 0;
  for (uint64_t seed = 0; operations < 2'000'000; ++seed) {
    Rng rng(seed);
    const int64_t block = int64_t{1} << rng.below(5), longest = 40 + static_cast<int64_t>(rng.below(60));
    const int64_t blocks = (longest + block - 1) / block + static_cast<int64_t>(rng.below(40));
    StepLimits limits{.tokens = 1 + static_cast<int64_t>(rng.below(48)),
                      .mixed_prompt = 1 + static_cast<int64_t>(rng.below(16)),
                      .sequences = 1 + static_cast<int64_t>(rng.below(8)),
                      .recompute_rows = 1 + static_cast<int64_t>(rng.below(8))};
    limits.outputs = limits.sequences + static_cast<int64_t>(rng.below(8));
    limits.prompt_rows = 1 + static_cast<int64_t>(rng.below(static_cast<uint64_t>(limits.tokens)));
    if (rng.below(2)) {
      limits.mixed_prompt = 0;
      limits.cost = {.decode = rng.uniform(),
                     .stream = rng.uniform() / 8,
                     .prompt = rng.uniform(),
                     .row = rng.uniform() / 8,
                     .key = rng.below(2) ? rng.uniform() / 1e3 : 0};
    }
    World w(blocks, block, limits, longest);
    for (int event = 0; event < 400; ++event) {
      const uint64_t kind = rng.below(10);
      if (kind < 2) {
        const auto n = 1 + static_cast<int64_t>(rng.below(static_cast<uint64_t>(longest) - 10));
        std::vector<int32_t> prompt = repeated(n, static_cast<int32_t>(rng.below(2)));
        if (rng.below(2)) prompt[rng.below(prompt.size())] = 9;
        Sequence& s = w.add(prompt, 1 + static_cast<int64_t>(rng.below(10)), static_cast<int>(rng.below(3)),
                            rng.below(2), rng.below(4) == 0);
        if (!s.scores) s.width = 1 + static_cast<int64_t>(rng.below(static_cast<uint64_t>(limits.sequences)));
      } else if (kind == 2 && !w.sequences.empty()) {
        auto at = std::next(w.sequences.begin(), static_cast<int64_t>(rng.below(w.sequences.size())));
        w.finish(*at);
      } else if (kind == 3) {
        // Any that has computed all but its last token, as after sampling.
        for (Sequence& s : w.sequences)
          if (s.computed > 0 && s.computed + 1 == s.size() && s.decodes()) {
            Sequence& twin = w.sequences.emplace_back();
            twin.id = ++w.last_id;
            twin.tokens = s.tokens;
            twin.tokens.back() = 8;
            twin.prompt = s.prompt;
            twin.origin = s.origin;
            w.wanted[twin.id] = w.wanted[s.id];
            w.scheduler.add_fork(s, twin);
            ++w.forks;
            break;
          }
      } else {
        w.step();
        if (HasFatalFailure()) FAIL() << "seed " << seed;
      }
      for (const Sequence& s : w.sequences) cached += static_cast<size_t>(s.cached > 0);
    }
    for (int64_t guard = 0; w.step(); ++guard) ASSERT_LT(guard, 100'000) << "seed " << seed;
    ASSERT_FALSE(HasFatalFailure()) << "seed " << seed;
    ASSERT_TRUE(w.sequences.empty()) << "seed " << seed;
    ASSERT_EQ(w.pool.free_blocks(), w.pool.size()) << "seed " << seed;
    operations += w.operations + w.forks;
    forks += w.forks;
    rows += w.computed_rows;
    preemptions += w.preemptions;
  }
  EXPECT_GT(rows, 2'000'000u);
  EXPECT_GT(preemptions, 10'000u);
  EXPECT_GT(forks, 100'000u);
  EXPECT_GT(cached, 1000u);
}

}  // namespace
}  // namespace lathe
