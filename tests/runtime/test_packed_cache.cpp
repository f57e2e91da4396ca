#include <gmock/gmock.h>

#include "core/cpu.h"
#include "core/float.h"
#include "core/leftovers.h"
#include "core/rng.h"
#include "runtime/packed_cache.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

Weight random_weight(const Numerics& numerics, const char* packed_as, Shape shape) {
  Weight w = make_weight(numerics, packing(packed_as), shape);
  Rng rng(static_cast<uint64_t>(shape[0]));
  for (Tensor& part : w.parts)
    for (size_t i = 0; i < part.bytes(); ++i) part.storage.data[i] = static_cast<std::byte>(rng.below(256));
  return w;
}

std::map<std::string, Weight> some_weights() {
  std::map<std::string, Weight> out;
  out["a"] = random_weight(Numerics::integer(4, 32, true), "panel.int4", {70, 96});
  out["b"] = random_weight(Numerics::integer(8, 0, false), "panel.int8", {33, 50});
  out["c"] = random_weight(Numerics::dense(DType::bf16), "amx.bf16", {64, 40});
  return out;
}

WantedWeights wanted(const std::map<std::string, Weight>& weights) {
  WantedWeights out = weights;
  for (auto& [name, w] : out) w.parts.clear();
  return out;
}

void expect_same(const std::map<std::string, Weight>& a, const std::map<std::string, Weight>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, w] : a) {
    const Weight& other = b.at(name);
    ASSERT_EQ(w.parts.size(), other.parts.size());
    for (size_t i = 0; i < w.parts.size(); ++i) {
      ASSERT_EQ(w.parts[i].shape, other.parts[i].shape);
      EXPECT_EQ(std::memcmp(w.parts[i].storage.data, other.parts[i].storage.data, w.parts[i].bytes()), 0);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(other.parts[i].storage.data) % 64, 0u)
          << "kernels may count on it";
    }
  }
}

fs::path only_file(const fs::path& folder) {
  fs::path found;
  int count = 0;
  for (const auto& entry : fs::directory_iterator(folder)) found = entry.path(), ++count;
  EXPECT_EQ(count, 1);
  return found;
}

TEST(PackedCache, HoldsWhatWasWritten) {
  const TemporaryDirectory dir;
  ThreadPool pool(2);
  const PackedCache cache{dir / "packed", "source"};
  const auto weights = some_weights();
  EXPECT_FALSE(read_packed(cache, wanted(weights), pool));
  write_packed(cache, weights);
  const auto found = read_packed(cache, wanted(weights), pool);
  ASSERT_TRUE(found);
  expect_same(weights, *found);
  for (const auto& entry : fs::directory_iterator(dir / "packed"))
    EXPECT_EQ(entry.path().extension(), ".packed") << "nothing temporary stays";
}

TEST(PackedCache, IsOfOneSourceAndOneWayToPack) {
  const TemporaryDirectory dir;
  ThreadPool pool(1);
  const auto weights = some_weights();
  write_packed({dir / "packed", "source"}, weights);
  EXPECT_FALSE(read_packed({dir / "packed", "another"}, wanted(weights), pool));
  WantedWeights fewer = wanted(weights), other = wanted(weights), shape = wanted(weights);
  fewer.erase("b");
  other["c"].packing = &packing("panel.bf16");
  shape["c"].shape = {40, 64};
  for (const WantedWeights& want : {fewer, other, shape})
    EXPECT_FALSE(read_packed({dir / "packed", "source"}, want, pool));
  EXPECT_FALSE(read_packed({}, wanted(weights), pool));
  EXPECT_FALSE(read_packed({dir / "packed", ""}, wanted(weights), pool)) << "an unknown source is no source";
}

TEST(PackedCache, AnotherCpusFileIsNotUsed) {
  const TemporaryDirectory dir;
  ThreadPool pool(1);
  const auto weights = some_weights();
  const PackedCache here{dir / "packed", "source"};
  const std::string features = describe_features(cpu_features());
  for (const std::string& machine : {"Another CPU, " + features, cpu_model() + ", " + features + " more"}) {
    PackedCache there = here;
    there.machine = machine;
    write_packed(there, weights);
    EXPECT_TRUE(read_packed(there, wanted(weights), pool));
    const fs::path theirs = only_file(here.folder);
    EXPECT_FALSE(read_packed(here, wanted(weights), pool)) << "under another name";
    write_packed(here, weights);
    ASSERT_TRUE(read_packed(here, wanted(weights), pool));
    fs::path ours;
    for (const auto& entry : fs::directory_iterator(here.folder))
      if (entry.path() != theirs) ours = entry.path();
    fs::rename(theirs, ours);
    testing::internal::CaptureStderr();
    EXPECT_FALSE(read_packed(here, wanted(weights), pool)) << "under ours: the header says whose it is";
    EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr("packing the weights again"));
    write_packed(here, weights);  // as a plan then does
    const auto found = read_packed(here, wanted(weights), pool);
    ASSERT_TRUE(found);
    expect_same(weights, *found);
    fs::remove(ours);
  }
}

TEST(PackedCache, NoDamagedFileIsUsed) {
  const TemporaryDirectory dir;
  ThreadPool pool(1);
  const PackedCache cache{dir / "packed", "source"};
  const auto weights = some_weights();
  write_packed(cache, weights);
  const fs::path file = only_file(cache.folder);
  const std::string whole = read_text_file(file);
  const auto with = [&](std::string contents) {
    std::ofstream(file, std::ios::binary) << contents;
    return read_packed(cache, wanted(weights), pool);
  };
  testing::internal::CaptureStderr();
  for (size_t length : {size_t{0}, size_t{7}, size_t{23}, size_t{24}, size_t{200}, whole.size() / 2,
                        whole.size() - 4096, whole.size() - 8192})
    EXPECT_FALSE(with(whole.substr(0, length))) << length << " of " << whole.size();
  // Every part of the fixed fields, and places all over the header and the weights. Padding may be anything.
  int used = 0;
  for (size_t at = 0; at < whole.size(); at += at < 64 ? 1 : 61) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << (at % 8)));
    if (const auto found = with(flipped)) ++used, expect_same(weights, *found);
  }
  EXPECT_LT(used, static_cast<int>(whole.size() / 61)) << "most of the file is weights";
  std::string huge = whole;
  for (size_t i = 8; i < 16; ++i) huge[i] = '\xff';  // the length of the header
  EXPECT_FALSE(with(huge));
  testing::internal::GetCapturedStderr();
  EXPECT_TRUE(with(whole));
}

TEST(PackedCache, AModelsFolderForgetsEarlierWeights) {
  const TemporaryDirectory dir;
  const fs::path folder = dir.path() / "lathe" / "packed";
  const auto weights = some_weights();
  write_packed({folder, "old"}, weights);
  write_packed({folder, "new"}, weights);
  ThreadPool pool(1);
  EXPECT_TRUE(read_packed({folder, "new"}, wanted(weights), pool));
  only_file(folder);
  // A folder of many models keeps them.
  write_packed({dir / "shared", "old"}, weights);
  write_packed({dir / "shared", "new"}, weights);
  EXPECT_TRUE(read_packed({dir / "shared", "old"}, wanted(weights), pool));
}

TEST(PackedCache, WhatAKilledWriterLeftIsRemoved) {
  const TemporaryDirectory dir;
  const PackedCache cache{dir / "packed", "source"};
  write_packed(cache, some_weights());
  const fs::path file = only_file(cache.folder);
  // No process has a number above 2^22.
  std::ofstream(beside(file, "tmp-99999999"), std::ios::binary) << "half";
  write_packed(cache, some_weights());
  EXPECT_EQ(only_file(cache.folder), file);
}

TEST(PackedCache, WhatCannotBeWrittenIsAWarning) {
  const TemporaryDirectory dir;
  dir.put("file", "");
  testing::internal::CaptureStderr();
  write_packed({dir / "file" / "packed", "source"}, some_weights());
  EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr("not kept"));
}

TEST(PackedCache, AFileThatChangesIsAnotherSource) {
  const TemporaryDirectory dir;
  dir.put("model/config.json", "{}");
  const fs::path weights = dir.put("model/model.safetensors", "0123");
  const std::string before = identity_of(dir / "model");
  EXPECT_FALSE(before.empty());
  EXPECT_EQ(identity_of(dir / "model"), before);
  fs::create_directories(dir / "model/lathe/packed");
  dir.put("model/lathe/packed/x", "y");
  EXPECT_EQ(identity_of(dir / "model"), before) << "what this program keeps there is no source";
  const auto time = fs::last_write_time(weights);
  std::ofstream(weights, std::ios::binary) << "4567";
  fs::last_write_time(weights, time);  // as cp -p or rsync do
  EXPECT_NE(identity_of(dir / "model"), before);
  EXPECT_EQ(identity_of(dir / "nothing"), "");
}

TEST(PackedCache, APlanFromItGivesTheSameBits) {
  const Model model = load(Checkpoint::open(golden("llama3")));
  const TemporaryDirectory dir;
  const std::vector<int32_t> tokens{1, 5, 9, 100, 7, 3};
  const auto logits = [&](Plan& plan) {
    const auto row = plan.run(SingleSequence(tokens, 0, 3, true)).as<float>();
    return std::vector<float>(row.begin(), row.end());
  };
  for (const IsaLevel& level : isa_levels()) {
    SCOPED_TRACE(level.name);
    Target target{.threads = 2, .isa = level.features, .max_tokens = 8, .context = 16};
    Plan plain = Plan::compile(model, target);
    const std::vector<float> expected = logits(plain);
    target.packed_cache = {dir / level.name, "source", 0};
    Plan first = Plan::compile(model, target);
    EXPECT_FALSE(first.mapped_packed());
    EXPECT_EQ(logits(first), expected);
    first.keep_packed();
    for (bool ready_at_once : {true, false}) {
      target.ready_at_once = ready_at_once;
      Plan second = Plan::compile(model, target);
      EXPECT_TRUE(second.mapped_packed());
      EXPECT_EQ(logits(second), expected);
      EXPECT_EQ(second.weight_bytes(), plain.weight_bytes());
    }
    // Other numbers under the same name: someone changed the model in memory.
    Model changed = model;
    for (auto& [name, weight] : changed.weights)
      if (weight.shape.size() == 2) {
        std::vector<float> values = read_all(weight);
        for (float& f : values) f *= 2;
        Tensor twice = Tensor::zeros(weight.numerics.dtype, weight.shape);
        from_f32(twice.dtype, values.data(), twice.storage.data, elements(twice.shape));
        weight = dense_weight(std::move(twice));
      }
    testing::internal::CaptureStderr();
    EXPECT_FALSE(Plan::compile(changed, target).mapped_packed());
    EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr("not those of the model"));
  }
}

// A command that runs a few tokens must not end with writing a copy of the model.
TEST(PackedCache, WeightsThatStillRunAsTheyLieAreNotKept) {
  const Model model = load(Checkpoint::open(source_dir() / "models" / "builtin"));
  const TemporaryDirectory dir;
  const std::vector<int32_t> tokens{1, 5};
  for (const IsaLevel& level : isa_levels()) {
    SCOPED_TRACE(level.name);
    Target target{.threads = 2, .isa = level.features, .max_tokens = 8, .context = 16, .ready_at_once = true};
    target.packed_cache = {dir / level.name, "source", 0};
    Plan plan = Plan::compile(model, target);
    // Choices name the packing before anything settles.
    const bool as_stored =
        std::any_of(plan.choices().begin(), plan.choices().end(),
                    [](const Plan::Choice& c) { return !c.param.empty() && c.packing == "dense"; });
    plan.keep_packed();
    EXPECT_EQ(fs::exists(dir / level.name), !as_stored);
    for (int run = 0; run < 2; ++run) plan.run(SingleSequence(tokens, 0, 1, true));
    plan.keep_packed();
    EXPECT_TRUE(fs::exists(dir / level.name));
  }
}

}  // namespace
}  // namespace lathe
