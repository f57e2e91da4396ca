// Which instruction sets this process may use. LATHE_ISA (a level of cpu.cpp) lowers the level; it never
// raises it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lathe {

// Features a kernel row may require, as bits.
enum : uint32_t {
  isa_avx2 = 1u << 0,    // AVX2 + FMA + F16C
  isa_avx512 = 1u << 1,  // F, BW, DQ, VL
  isa_avx512vnni = 1u << 2,
  isa_avx512bf16 = 1u << 3,
  isa_amx = 1u << 4,  // tile, int8, bf16; counts only if the kernel lets this process use the tiles
  isa_neon = 1u << 5,
  isa_avxvnni = 1u << 6,   // vpdpbusd on 256-bit vectors without AVX-512
  isa_neondot = 1u << 7,   // sdot
  isa_neoni8mm = 1u << 8,  // smmla
};

// Named levels, lowest first: each includes those before it. "ref" is no feature at all.
struct IsaLevel {
  std::string_view name;
  uint32_t features;
};
std::vector<IsaLevel> isa_levels();  // the levels that this machine has, always starting with "ref"

uint32_t cpu_features();      // of the machine, by CPUID and XGETBV
uint32_t allowed_features();  // cpu_features() cut down to LATHE_ISA; InputError on an unknown level
std::string cpu_model();      // "Intel(R) Xeon(R) ..."
int physical_cores();         // that this process may run on: core/cores.h
std::string describe_features(uint32_t);  // "avx2 avx512 avx512vnni"

}  // namespace lathe
