#include "core/cpu.h"

#include <cstdlib>
#include <fstream>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cores.h"
#include "core/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace lathe {
namespace {

struct FeatureName {
  uint32_t bit;
  std::string_view name;
};
constexpr FeatureName feature_names[] = {{isa_avx2, "avx2"},
                                         {isa_avx512, "avx512"},
                                         {isa_avx512vnni, "avx512vnni"},
                                         {isa_avx512bf16, "avx512bf16"},
                                         {isa_amx, "amx"},
                                         {isa_neon, "neon"},
                                         {isa_avxvnni, "avxvnni"},
                                         {isa_neondot, "neondot"},
                                         {isa_neoni8mm, "neoni8mm"}};

// A level is there when its own feature is: an AVX-512 machine without bf16 still runs "avx512".
struct Level {
  std::string_view name;
  uint32_t own, features;
};
constexpr uint32_t up_to_avx512 = isa_avx2 | isa_avxvnni | isa_avx512 | isa_avx512vnni | isa_avx512bf16;
constexpr Level levels[] = {
    {"ref", 0, 0},
    {"avx2", isa_avx2, isa_avx2},
    {"avxvnni", isa_avxvnni, isa_avx2 | isa_avxvnni},
    {"avx512", isa_avx512, up_to_avx512},
    {"amx", isa_amx, up_to_avx512 | isa_amx},
    {"neon", isa_neon, isa_neon},
    {"neondot", isa_neondot, isa_neon | isa_neondot},
    {"neoni8mm", isa_neoni8mm, isa_neon | isa_neondot | isa_neoni8mm},
};

#if defined(__x86_64__)
uint64_t enabled_state() {
  uint32_t lo = 0, hi = 0;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (static_cast<uint64_t>(hi) << 32) | lo;
}

// Linux saves the 8 KiB of tile data only for processes that ask (once; threads inherit the answer). It may
// say no: a container's filter, or an alternate signal stack too small for the larger frame, as sanitizers
// set up.
bool tiles_permitted() {
#if defined(__linux__)
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return ::syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

// A feature counts when the CPU has it and the operating system saves its registers.
uint32_t detect() {
  uint32_t a = 0, b = 0, c = 0, d = 0, features = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  const bool osxsave = (c >> 27) & 1, fma = (c >> 12) & 1, f16c = (c >> 29) & 1;
  if (!osxsave) return 0;
  const uint64_t state = enabled_state();
  const bool ymm = (state & 0x6) == 0x6, zmm = (state & 0xe6) == 0xe6, tiles = (state & 0x60000) == 0x60000;
  uint32_t b7 = 0, c7 = 0, d7 = 0, a71 = 0, unused = 0;
  if (!__get_cpuid_count(7, 0, &unused, &b7, &c7, &d7)) return 0;
  __get_cpuid_count(7, 1, &a71, &b, &c, &d);
  if (ymm && fma && f16c && ((b7 >> 5) & 1)) {
    features |= isa_avx2;
    if ((a71 >> 4) & 1) features |= isa_avxvnni;
  }
  const bool f = (b7 >> 16) & 1, dq = (b7 >> 17) & 1, bw = (b7 >> 30) & 1, vl = (b7 >> 31) & 1;
  if ((features & isa_avx2) && zmm && f && dq && bw && vl) {
    features |= isa_avx512;
    if ((c7 >> 11) & 1) features |= isa_avx512vnni;
    if ((a71 >> 5) & 1) features |= isa_avx512bf16;
    const bool amx_bf16 = (d7 >> 22) & 1, amx_tile = (d7 >> 24) & 1, amx_int8 = (d7 >> 25) & 1;
    if (tiles && amx_bf16 && amx_tile && amx_int8 && tiles_permitted()) features |= isa_amx;
#if defined(LATHE_EMULATE_TILES)
    if ((features & isa_avx512vnni) && (features & isa_avx512bf16)) features |= isa_amx;
#endif
  }
  return features;
}
#elif defined(__aarch64__)
uint32_t detect() {
  uint32_t features = isa_neon;
#if defined(__linux__)
  if (::getauxval(AT_HWCAP) & HWCAP_ASIMDDP) features |= isa_neondot;
  if ((features & isa_neondot) && (::getauxval(AT_HWCAP2) & HWCAP2_I8MM)) features |= isa_neoni8mm;
#endif
  return features;
}
#else
uint32_t detect() { return 0; }
#endif

}  // namespace

uint32_t cpu_features() {
  static const uint32_t features = detect();
  return features;
}

std::vector<IsaLevel> isa_levels() {
  std::vector<IsaLevel> out;
  for (const Level& level : levels)
    if ((level.own & ~cpu_features()) == 0) out.push_back({level.name, level.features & cpu_features()});
  return out;
}

uint32_t allowed_features() {
  const char* wish = std::getenv("LATHE_ISA");
  if (!wish || !*wish) return cpu_features();
  for (const Level& level : levels)
    if (level.name == wish) {
      if (level.own & ~cpu_features()) throw input_error("LATHE_ISA", "a level that this CPU has", wish);
      return level.features & cpu_features();
    }
  throw input_error("LATHE_ISA", "one of ref, avx2, avxvnni, avx512, amx, neon, neondot, neoni8mm",
                    printable(wish));
}

// "model name" on x86; ARM has none, but numbers of who made the core and of which it is.
std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  std::string maker, part;
  for (std::string line; std::getline(info, line);) {
    const size_t colon = std::min(line.find(':'), line.size());
    const std::string value = line.substr(std::min(line.find_first_not_of(": ", colon), line.size()));
    if (line.starts_with("model name") && !value.empty()) return value;
    if (line.starts_with("CPU implementer") && maker.empty()) maker = value;
    if (line.starts_with("CPU part") && part.empty()) part = value;
  }
  if (maker.empty() || part.empty()) return "unknown CPU";
  return fmt::format("ARM implementer {} part {}", maker, part);
}

int physical_cores() { return static_cast<int>(cores().size()); }

std::string describe_features(uint32_t features) {
  std::string out;
  for (const FeatureName& f : feature_names)
    if (features & f.bit) out += (out.empty() ? "" : " ") + std::string(f.name);
  return out.empty() ? "ref" : out;
}

}  // namespace lathe
