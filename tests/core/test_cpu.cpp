#include <algorithm>
#include <cstdlib>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cpu.h"
#include "core/error.h"

namespace lathe {
namespace {

TEST(Cpu, LevelsAreNestedAndWithinTheMachine) {
  const auto levels = isa_levels();
  ASSERT_FALSE(levels.empty());
  EXPECT_EQ(levels[0].name, "ref");
  for (size_t i = 1; i < levels.size(); ++i) {
    EXPECT_EQ(levels[i - 1].features & ~levels[i].features, 0u) << levels[i].name;
    EXPECT_EQ(levels[i].features & ~cpu_features(), 0u) << levels[i].name;
  }
  EXPECT_EQ(levels.back().features, cpu_features());
}

TEST(Cpu, LowerLevelsHaveNoLargerVectors) {
  const char* old = std::getenv("LATHE_ISA");
  const std::string before = old ? old : "";
  for (const IsaLevel& level : isa_levels()) {
    ::setenv("LATHE_ISA", std::string(level.name).c_str(), 1);
    EXPECT_EQ(allowed_features(), level.features) << level.name;
  }
  old ? ::setenv("LATHE_ISA", before.c_str(), 1) : ::unsetenv("LATHE_ISA");
}

// A lower level in its place would be measured under the wrong name.
TEST(Cpu, ALevelThatTheMachineLacksIsRefused) {
  const char* old = std::getenv("LATHE_ISA");
  const std::string before = old ? old : "";
  const auto levels = isa_levels();
  for (const std::string_view name :
       {"ref", "avx2", "avxvnni", "avx512", "amx", "neon", "neondot", "neoni8mm"}) {
    ::setenv("LATHE_ISA", std::string(name).c_str(), 1);
    if (std::ranges::any_of(levels, [&](const IsaLevel& level) { return level.name == name; }))
      EXPECT_NO_THROW(allowed_features()) << name;
    else
      EXPECT_THROW(allowed_features(), InputError) << name;
  }
  old ? ::setenv("LATHE_ISA", before.c_str(), 1) : ::unsetenv("LATHE_ISA");
}

#if defined(__x86_64__) && defined(__linux__)
TEST(Cpu, TilesCountOnlyWithTheKernelsPermission) {
  if (!(cpu_features() & isa_amx)) GTEST_SKIP() << "no AMX, or not permitted";
  uint64_t permitted = 0;
  ASSERT_EQ(::syscall(SYS_arch_prctl, 0x1022, &permitted), 0);  // ARCH_GET_XCOMP_PERM
  EXPECT_TRUE(permitted >> 18 & 1);
}
#endif

}  // namespace
}  // namespace lathe
