#include <cstdlib>
#include <gmock/gmock.h>
#include <iterator>
#include <optional>

#include "core/cache_directory.h"
#include "core/cpu.h"
#include "core/error.h"
#include "eval/machine.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;

Machine some_machine(const MachineKey& key) {
  Machine m;
  m.key = key;
  m.measured_at = "2026-01-31T12:00:00Z";
  m.roof.read_bytes_per_s = 3e10;
  m.roof.f32_flops_per_s = 4e11;
  m.roof.amx_int8_ops_per_s = 5e12;
  m.reads = {{1, 1.6e10}, {2, 3e10}};
  m.empty_region_us = 1.25;
  return m;
}

// Counts how often it measures; each time reads are a little faster.
class MachineCache : public testing::Test {
 protected:
  CachedMachine load(const MachineKey& key, bool fresh = false) {
    return load_machine(dir_ / "cache", key, fresh, [&] {
      Machine m = some_machine(key);
      m.roof.read_bytes_per_s += ++measured_;
      return m;
    });
  }
  int64_t files() const {
    return std::distance(fs::directory_iterator(dir_ / "cache"), fs::directory_iterator());
  }
  const MachineKey key_{"Some CPU", 2, "avx2 amx"};
  const TemporaryDirectory dir_;
  int measured_ = 0;
};

TEST_F(MachineCache, KeepsEverythingBetweenRuns) {
  const CachedMachine first = load(key_), second = load(key_);
  EXPECT_FALSE(first.cached);
  EXPECT_TRUE(second.cached);
  EXPECT_EQ(measured_, 1);
  EXPECT_EQ(first.path, second.path);
  const Machine &a = first.machine, &b = second.machine;
  EXPECT_EQ(a.key, b.key);
  EXPECT_EQ(a.measured_at, b.measured_at);
  for (const RoofField& field : roof_fields)
    EXPECT_EQ(a.roof.*field.value, b.roof.*field.value) << field.name;
  ASSERT_EQ(b.reads.size(), 2u);
  EXPECT_EQ(b.reads[0].threads, 1);
  EXPECT_EQ(b.reads[1].bytes_per_s, 3e10);
  EXPECT_EQ(b.empty_region_us, 1.25);
}

TEST_F(MachineCache, FreshMeasuresAgainAndReplaces) {
  load(key_);
  EXPECT_FALSE(load(key_, true).cached);
  EXPECT_EQ(measured_, 2);
  EXPECT_EQ(load(key_).machine.roof.read_bytes_per_s, 3e10 + 2);
  EXPECT_EQ(files(), 1);
}

TEST_F(MachineCache, AnotherKeyIsAnotherMeasurement) {
  load(key_);
  EXPECT_FALSE(load({"Other CPU", 2, "avx2 amx"}).cached);
  EXPECT_FALSE(load({"Some CPU", 4, "avx2 amx"}).cached);
  EXPECT_FALSE(load({"Some CPU", 2, "avx2"}).cached);
  EXPECT_EQ(measured_, 4);
  EXPECT_TRUE(load(key_).cached);
}

TEST_F(MachineCache, WhatMakesNoSenseIsMeasuredAgainWithANotice) {
  const fs::path path = load(key_).path;
  const std::string good = read_text_file(path);
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  const std::string bad[] = {
      "",
      "not JSON",
      good.substr(0, good.size() / 2),
      "[]",
      "{}",
      replaced("\"schema\": 1", "\"schema\": 0"),
      replaced("Some CPU", "Other CPU"),
      replaced("\"threads\": 2", "\"threads\": -2"),
      replaced("\"f32_flops_per_s\": 4", "\"f32_flops_per_s\": -4"),
      replaced("\"amx_int8_ops_per_s\": 5", "\"amx_int8_ops_per_s\": 1e999"),
      replaced("\"reads\": [", "\"reads\": [3, "),
      replaced("\"empty_region_us\": 1.25", "\"empty_region_us\": null"),
  };
  for (const std::string& text : bad) {
    std::ofstream(path, std::ios::binary) << text;
    const int before = measured_;
    testing::internal::CaptureStderr();
    const CachedMachine again = load(key_);
    const std::string notice = testing::internal::GetCapturedStderr();
    EXPECT_FALSE(again.cached) << text;
    EXPECT_EQ(measured_, before + 1) << text;
    EXPECT_THAT(notice, HasSubstr("measuring again")) << text;
    EXPECT_THAT(notice, HasSubstr(path.string())) << text;
    EXPECT_TRUE(load(key_).cached) << "it was replaced";
  }
}

TEST_F(MachineCache, WorksWithoutAPlaceToKeepIt) {
  EXPECT_FALSE(load_machine({}, key_, false, [&] { return some_machine(key_); }).cached);
  const fs::path file = dir_.put("file", "");
  testing::internal::CaptureStderr();
  EXPECT_FALSE(load_machine(file / "below", key_, false, [&] { return some_machine(key_); }).cached);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("not kept"));
}

TEST(Machine, IsMeasuredForEveryNumberOfThreads) {
  int64_t steps = 0;
  const Machine m = measure_machine(3, 0, [&](std::string_view) { ++steps; });
  EXPECT_EQ(steps, machine_steps(3));
  EXPECT_EQ(m.key, machine_key(3, 0));
  ASSERT_EQ(m.reads.size(), 3u);  // 1, 2 and 3 threads
  EXPECT_EQ(m.reads[2].threads, 3);
  EXPECT_EQ(m.roof.read_bytes_per_s, m.reads[2].bytes_per_s);
  EXPECT_GT(m.roof.f32_flops_per_s, 0);
  const Machine again = machine_from_json(to_json(m), "test");
  EXPECT_EQ(again.key, m.key);
}

TEST(CacheDirectory, FollowsTheEnvironment) {
  const auto with = [](const char* own, const char* xdg, const char* home) {
    const char* names[] = {"LATHE_CACHE", "XDG_CACHE_HOME", "HOME"};
    const char* values[] = {own, xdg, home};
    std::optional<std::string> before[3];
    for (int i = 0; i < 3; ++i) {
      if (const char* old = std::getenv(names[i])) before[i] = old;
      values[i] ? ::setenv(names[i], values[i], 1) : ::unsetenv(names[i]);
    }
    const fs::path found = cache_directory();
    for (int i = 0; i < 3; ++i) before[i] ? ::setenv(names[i], before[i]->c_str(), 1) : ::unsetenv(names[i]);
    return found;
  };
  EXPECT_EQ(with("/own", "/xdg", "/home/a"), "/own");
  EXPECT_EQ(with(nullptr, "/xdg", "/home/a"), "/xdg/lathe");
  EXPECT_EQ(with("", "relative", "/home/a"), "/home/a/.cache/lathe");
  EXPECT_EQ(with(nullptr, nullptr, "/home/a"), "/home/a/.cache/lathe");
  EXPECT_EQ(with(nullptr, nullptr, nullptr), "");
}

}  // namespace
}  // namespace lathe
