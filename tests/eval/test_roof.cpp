#include <gtest/gtest.h>

#include "core/cpu.h"
#include "eval/roof.h"
#include "eval/roof_loops.h"
#include "kernels/tables.h"

namespace lathe {
namespace {

TEST(Roof, HasTheComputeTypesOfEveryIsaLevelAndNoOthers) {
  for (const IsaLevel& level : isa_levels()) {
    const uint32_t f = level.features;
    ThreadPool pool(1);
    Roof roof;
    measure_compute(pool, f, roof);
    EXPECT_GT(roof.f32_flops_per_s, 0) << level.name;
    EXPECT_EQ(roof.avx512bf16_flops_per_s > 0, (f & isa_avx512bf16) != 0) << level.name;
    EXPECT_EQ(roof.avx512vnni_ops_per_s > 0, (f & isa_avx512vnni) != 0) << level.name;
    EXPECT_EQ(roof.avxvnni_ops_per_s > 0, (f & isa_avxvnni) != 0) << level.name;
    EXPECT_EQ(roof.avx2_int8_ops_per_s > 0, (f & isa_avx2) != 0) << level.name;
    EXPECT_EQ(roof.amx_bf16_flops_per_s > 0, (f & isa_amx) != 0) << level.name;
    EXPECT_EQ(roof.amx_int8_ops_per_s > 0, (f & isa_amx) != 0) << level.name;
  }
}

TEST(Roof, MeasuresMemoryAndCaches) {
  const Roof roof = measure_roof(2, cpu_features());
  EXPECT_GT(roof.read_bytes_per_s, 0);
  EXPECT_GT(roof.l2_bytes_per_s, 0);
  EXPECT_EQ(roof.l3_bytes_per_s > 0, cache_bytes(3) > 0);
  ThreadPool pool(2);
  EXPECT_GT(measure_empty_region(pool), 0);
}

// Every read loop sums all 64-bit words, so each sees every byte and they agree.
TEST(Roof, ReadLoopsReadEveryByte) {
  constexpr size_t bytes = 3 * 4096;
  const Storage buffer = Storage::allocate(bytes);
  auto* words = reinterpret_cast<uint64_t*>(buffer.data);
  for (const IsaLevel& level : isa_levels()) {
    const ReadLoop read = choose_read_loop(level.features);
    uint64_t sum = 0;
    for (size_t i = 0; i < bytes / 8; ++i) sum += words[i] = (i + 1) * 0x9e3779b97f4a7c15ull;
    EXPECT_EQ(read(buffer.data, bytes), sum) << level.name;
    for (size_t i : {size_t{0}, bytes / 16 - 1, bytes / 16, bytes / 8 - 1}) {
      words[i] += 1;
      EXPECT_EQ(read(buffer.data, bytes), ++sum) << level.name << " word " << i;
    }
  }
}

TEST(Roof, NamesTheRoofOfAPath) {
  const RowPacking bf16{"a", Products::bf16, nullptr, nullptr}, int8{"b", Products::int8, nullptr, nullptr},
      f32{"c", Products::f32, nullptr, nullptr};
  const auto name = [](uint32_t isa, const RowPacking* rows) {
    return compute_roof(isa, LinearPath{nullptr, rows}).name;
  };
  EXPECT_EQ(name(isa_avx512 | isa_amx, nullptr), "f32_flops_per_s");
  EXPECT_EQ(name(isa_avx512 | isa_amx, &f32), "f32_flops_per_s");
  EXPECT_EQ(name(isa_avx512 | isa_avx512bf16, &bf16), "avx512bf16_flops_per_s");
  EXPECT_EQ(name(isa_avx512 | isa_avx512bf16 | isa_amx, &bf16), "amx_bf16_flops_per_s");
  EXPECT_EQ(name(isa_avx2, &int8), "avx2_int8_ops_per_s");
  EXPECT_EQ(name(isa_avx2 | isa_avxvnni, &int8), "avxvnni_ops_per_s");
  EXPECT_EQ(name(isa_avx512 | isa_avx512vnni, &int8), "avx512vnni_ops_per_s");
  EXPECT_EQ(name(isa_avx512 | isa_avx512vnni | isa_amx, &int8), "amx_int8_ops_per_s");
}

}  // namespace
}  // namespace lathe
