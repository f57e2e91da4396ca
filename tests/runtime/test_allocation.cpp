// A step allocates nothing: what it needs was placed when the plan was compiled. (The reference's attention
// is plain loops over a vector of scores, and exempt.)
#include <gtest/gtest.h>
#include <memory>
#include <vector>

#include "adapter_files.h"
#include "core/cpu.h"
#include "models/adapter.h"
#include "runtime/allocation.h"
#include "runtime/models.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

TEST(Allocation, IsCounted) {
  if (allocations() == 0) GTEST_SKIP() << "a sanitizer has its own operator new";
  const size_t before = allocations();
  auto kept = std::make_unique<std::vector<int>>(100);
  EXPECT_EQ(allocations(), before + 2);
  // Memory that operator new does not give is counted by what owns it.
  for (const size_t bytes : {size_t{64}, size_t{8} << 20}) {
    const size_t so_far = allocations();
    const Storage storage = Storage::allocate(bytes);
    EXPECT_GT(allocations(), so_far) << bytes;
  }
}

// Three sequences over a paged cache: their tokens so far, and the next step's. Holds what Batch points to.
struct Steps {
  const std::vector<int32_t> tables[3] = {{7, 0, 3}, {2, 8, 5}, {1, 4, 6}};
  const std::span<const int32_t> spans[3] = {tables[0], tables[1], tables[2]};
  const std::vector<int32_t> adapters{1, 0, 2}, slots{2, 0, 1};
  int32_t length[3] = {};
  std::vector<int32_t> tokens, positions, starts, outputs;

  // So many rows of each, the last one's logits; the first `prompts` sequences are prompts.
  Batch next(std::vector<int32_t> rows, int64_t prompts, bool adapted) {
    tokens.clear(), positions.clear(), outputs.clear(), starts = {0};
    for (size_t s = 0; s < 3; ++s) {
      for (int32_t i = 0; i < rows[s]; ++i) {
        tokens.push_back((length[s] * 7 + static_cast<int32_t>(s)) % 100);
        positions.push_back(length[s]++);
      }
      starts.push_back(static_cast<int32_t>(tokens.size()));
      outputs.push_back(starts.back() - 1);
    }
    Batch b{.tokens = tokens,
            .positions = positions,
            .starts = starts,
            .slots = slots,
            .outputs = outputs,
            .prompts = prompts,
            .tables = spans};
    if (adapted) b.adapters = adapters;
    return b;
  }
};

struct Case {
  std::string name;
  Model model;
  KvType kv = KvType::f32;
  bool adapted = false;
  int prefill_threads = 2;
};

// Every format, a case for each: 2-D weights with embeddings; what else changes a step, on the formats that
// pack rows.
std::vector<Case> cases(const fs::path& dir) {
  const Model dense = load(Checkpoint::open(golden("llama3")));
  Json wide = dense.config;  // whole super-blocks
  wide["hidden_size"] = 256, wide["intermediate_size"] = 512;
  const auto int4 = Numerics::integer(4, 32, false);
  const Model words = in_format(dense, int4, "ct.pack32");
  Numerics shuffled = int4;
  shuffled.act_order = true;
  Model adapted = words;
  write_adapter(dir / "first", adapter_factors(dense, 1), adapter_config());
  write_adapter(dir / "second", adapter_factors(dense, 2, "q_proj"), adapter_config());
  add_adapter(adapted, dir / "first", 1);
  add_adapter(adapted, dir / "second", 2);
  std::vector<Case> out;
  const auto add = [&](std::string name, Model model) { out.push_back({std::move(name), std::move(model)}); };
  add("f32", dense);
  add("bf16", in_format(dense, Numerics::dense(DType::bf16), "dense"));
  add("int8", in_format(dense, Numerics::integer(8, 0, false), "ct.int8"));
  add("int4 g32", words);
  add("int4 g32 asym", in_format(dense, Numerics::integer(4, 32, true), "ct.pack32"));
  add("w8a8", in_format(dense, Numerics::w8a8(), "ct.int8"));
  add("w8a8 static", in_format(dense, Numerics::w8a8_static(), "ct.int8"));
  add("fp8", in_format(dense, Numerics::fp8(), "ct.fp8"));
  add("nvfp4", in_format(dense, Numerics::nvfp4(), "ct.nvfp4"));
  add("mxfp4", in_format(dense, Numerics::mxfp4(), "ct.mxfp4"));
  add("q4_k", in_format(random_model(wide), Numerics::k_quant(4, 32, true), "gguf.q4_k"));
  add("q6_k", in_format(random_model(wide), Numerics::k_quant(6, 16, false), "gguf.q6_k"));
  add("columns in order", in_format(dense, shuffled, "ct.pack32"));
  add("scales of columns", in_format(dense, Numerics::nvfp4().with_column_scales(), "modelopt.nvfp4"));
  add("hadamard", with_hadamards(words));
  const Model of_32 =
      in_format(load(Checkpoint::open(golden("qwen3"))), int4, "ct.pack32");  // norms of heads
  add("heads of 32", of_32);
  const Model mixture = load(Checkpoint::open(golden("qwen2_moe")));
  add("experts", mixture);
  add("experts int4", in_format(mixture, Numerics::integer(4, 8, true), "ct.pack32"));
  out.push_back({"adapters", adapted, KvType::f32, true});
  out.push_back({"bf16 cache", words, KvType::bf16});
  out.push_back({"int8 cache", words, KvType::int8});
  out.push_back({"int4 cache", with_hadamards(of_32), KvType::int4});
  out.push_back({"int4-channel cache", of_32, KvType::int4_channel});
  out.push_back({"one thread for prompts", words, KvType::f32, false, 1});
  out.push_back({"more threads for prompts", words, KvType::f32, false, 3});
  return out;
}

TEST(Allocation, AStepAllocatesNothing) {
  if (allocations() == 0) GTEST_SKIP() << "a sanitizer has its own operator new";
  const TemporaryDirectory dir;
  for (const Case& c : cases(dir.path()))
    for (const IsaLevel& level : isa_levels()) {
      if (level.features == 0) continue;
      SCOPED_TRACE(c.name + " " + std::string(level.name));
      const Target target{.threads = 2,
                          .prefill_threads = c.prefill_threads,
                          .isa = level.features,
                          .max_tokens = 64,
                          .max_outputs = 16,
                          .kv = c.kv};
      Target slots = target, pages = target;
      slots.context = 32;
      pages.slots = 3;
      pages.kv_blocks = 9;
      pages.block_tokens = 32;
      Plan one = Plan::compile(c.model, slots), three = Plan::compile(c.model, pages);
      const std::vector<int32_t> prompt{1, 5, 9, 100, 7, 3, 64, 12, 99, 2};
      const SingleSequence first(prompt, 0, 10, true), chunk({prompt.data(), 4}, 10, 1, true),
          step({prompt.data(), 1}, 14, 1, true, Phase::decode),
          draft({prompt.data(), 3}, 15, 3, true, Phase::decode);
      const Batch batches[] = {first, chunk, step, draft};
      size_t before = allocations();
      for (const Batch& b : batches) one.run(b);
      EXPECT_EQ(allocations(), before) << "one sequence";
      // Prompts, a chunk beside two that decode, all decoding, drafts.
      Steps steps;
      for (const auto& [rows, prompts] : {std::pair<std::vector<int32_t>, int64_t>{{20, 9, 17}, 3},
                                          {{11, 1, 1}, 1},
                                          {{1, 1, 1}, 0},
                                          {{4, 1, 9}, 0}}) {
        const Batch batch = steps.next(rows, prompts, c.adapted);
        before = allocations();
        three.run(batch);
        EXPECT_EQ(allocations(), before)
            << fmt::format("{} rows, {} prompts", fmt::join(rows, ", "), prompts);
      }
    }
}

}  // namespace
}  // namespace lathe
