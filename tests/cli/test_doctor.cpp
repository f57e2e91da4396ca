// What `lathe doctor` reports and keeps. At the reference level, where one format alone has a kernel to time.
#include <gmock/gmock.h>

#include "command.h"
#include "core/file.h"
#include "eval/kernel_speed.h"
#include "eval/machine.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;
using testing::Not;

class Doctor : public testing::Test {
 protected:
  Outcome run(const std::string& arguments) {
    ::setenv("LATHE_CACHE", (dir_ / "cache").c_str(), 1);
    ::setenv("LATHE_ISA", "ref", 1);
    const Outcome o = lathe("doctor --threads 1 " + arguments);
    ::unsetenv("LATHE_CACHE");
    ::unsetenv("LATHE_ISA");
    return o;
  }
  const TemporaryDirectory dir_;
};

TEST_F(Doctor, RecoversFromABrokenCacheAndMeasuresOnce) {
  const fs::path cache =
      load_machine(dir_ / "cache", machine_key(1, 0), false, [] { return Machine(); }).path;
  std::ofstream(cache) << "{\"key\": ";
  const Outcome first = run("--json");
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_THAT(first.err, HasSubstr("measuring again"));
  const Json a = first.json();
  EXPECT_EQ(a["cache"], cache.string());
  EXPECT_EQ(a["cached"], false);
  EXPECT_EQ(a["key"]["threads"], 1);
  EXPECT_EQ(a["key"]["features"], "ref");
  EXPECT_GT(a["roof"]["read_bytes_per_s"], 0);
  EXPECT_FALSE(a["roof"].contains("amx_int8_ops_per_s"));
  EXPECT_EQ(a["reads"].size(), 1u);
  EXPECT_GT(a["empty_region_us"], 0);
  int timed = 0;
  for (const Json& row : a["kernels"]) {
    for (const char* key : {"op", "format", "level", "support", "kernel", "packing"})
      EXPECT_TRUE(row.contains(key)) << row;
    EXPECT_EQ(row["level"], "ref");
    EXPECT_THAT(row["support"], testing::AnyOf("native", "emulated", "storage only"));
    if (!row.contains("percent_of_roof")) continue;
    ++timed;
    EXPECT_EQ(row["support"], "native");
    EXPECT_GT(row.value(row["op"].get<std::string>().ends_with("decode") ? "gb_per_s" : "gflop_per_s", 0.0),
              0);
    EXPECT_EQ(row["error"], 0) << "this is the reference";
  }
  // f32 linear and attention, decode and prefill, and the elementwise ops.
  EXPECT_EQ(timed, 4 + std::ssize(elementwise_ops()));

  const Outcome second = run("");
  ASSERT_EQ(second.exit_code, 0) << second.err;
  EXPECT_THAT(second.out, HasSubstr("from the cache"));
  EXPECT_THAT(second.out, HasSubstr("emulated"));
}

TEST_F(Doctor, RefusesWhatItDoesNotKnow) {
  EXPECT_EQ(run("builtin").exit_code, 2);
  EXPECT_EQ(lathe("doctor --threads -1").exit_code, 2);
}

}  // namespace
}  // namespace lathe
