#include <algorithm>
#include <gtest/gtest.h>
#include <set>

#include "core/cpu.h"
#include "core/error.h"
#include "eval/kernel_speed.h"
#include "eval/support.h"

namespace lathe {
namespace {

TEST(KernelSpeed, FormatsHaveDistinctNames) {
  std::set<std::string> names;
  for (const Numerics& format : all_formats()) EXPECT_TRUE(names.insert(format_name(format)).second);
}

// bench_kernels walks formats and asks each row: a row that takes none of them would never be timed.
TEST(KernelSpeed, EveryRowOfTheTableHasAFormat) {
  for (const LinearKernel& row : linear_kernels()) {
    const auto formats = all_formats();
    EXPECT_TRUE(std::any_of(formats.begin(), formats.end(), [&](const Numerics& format) {
      return row.accepts(format, 2048, 2048) && packing(row.packing).holds(format);
    })) << row.name;
  }
}

TEST(Support, FollowsTheTables) {
  for (const IsaLevel& level : isa_levels())
    for (const Numerics& format : known_formats()) {
      const FormatSupport s = support_of(format, 64, 256, level.features);
      ASSERT_NE(s.kernel, nullptr) << format_name(format);
      EXPECT_EQ(s.kernel->name, choose_linear(format, 64, 256, level.features).name);
      const bool expanded = s.kernel->packing.starts_with("expand.") && format != Numerics::dense(DType::f32),
                 small_floats = format.rounds_activations() && !format.rounds_to_int8();
      EXPECT_EQ(s.support == Support::emulated, expanded || small_floats) << format_name(format);
    }
  EXPECT_EQ(support_of(Numerics::dense(DType::f32), 64, 256, 0).support, Support::native);
  EXPECT_EQ(support_of(Numerics::integer(4, 32, false), 64, 256, 0).support, Support::emulated);
}

// Timed kernels compute what the reference computes: bf16 rounds inputs to 2^-9, int8 rows to about 2^-8, and
// the errors of the products of a row add up like a random walk does, as the sum itself.
TEST(KernelSpeed, KernelsAgreeWithTheReference) {
  KernelRunner runner(2, 1 << 20);
  constexpr int64_t n = 96, k = 256;
  for (const LinearKernel& row : linear_kernels()) {
    if ((row.isa & ~cpu_features()) != 0) continue;
    for (const Numerics& format : all_formats()) {
      if (!row.accepts(format, n, k) || !packing(row.packing).holds(format)) continue;
      WeightCopies weights(format, packing(row.packing), n, k, runner);
      for (const auto& [m, prompt] : {std::pair<int64_t, bool>{1, false}, {32, false}, {32, true}}) {
        const KernelSpeed s = time_linear(runner, row, weights, m, prompt, 0, 2);
        EXPECT_GT(s.seconds, 0);
        EXPECT_EQ(s.flops, 2.0 * static_cast<double>(m * n * k));
        EXPECT_EQ(s.bytes, static_cast<double>(packed_bytes(format, packing(row.packing), {n, k})));
        EXPECT_LT(s.error, 0.02) << row.name << " " << format_name(format) << " m=" << m
                                 << (prompt ? " prompt" : "");
        EXPECT_EQ(s.hash.size(), 12u);
        EXPECT_EQ(time_linear(runner, row, weights, m, prompt, 0, 1).hash, s.hash)
            << "every copy is the same";
      }
    }
  }
}

TEST(KernelSpeed, ElementwiseOpsAgreeWithTheReference) {
  KernelRunner runner(2, 1 << 20);
  for (const ElementwiseKernels& row : elementwise_kernels()) {
    if ((row.isa & ~cpu_features()) != 0) continue;
    for (const std::string_view op : elementwise_ops()) {
      const KernelSpeed s = time_elementwise(runner, row, op, 3, 128, 0, 2);
      EXPECT_GT(s.bytes, 0);
      EXPECT_LT(s.error, 2e-6) << row.name << " " << op;  // roundings of some chains of 384 numbers
      EXPECT_EQ(time_elementwise(runner, row, op, 3, 128, 0, 1).hash, s.hash);
    }
  }
  EXPECT_THROW(time_elementwise(runner, elementwise_kernels()[0], "mull", 1, 64, 0, 1), Error);
}

TEST(KernelSpeed, AttentionAgreesWithTheReference) {
  KernelRunner runner(2, 1 << 20);
  for (const AttentionKernel& row : attention_kernels()) {
    if ((row.isa & ~cpu_features()) != 0) continue;
    for (bool prompt : {false, true})
      for (const KvType kv : {KvType::int8, KvType::int4_channel}) {
        if (!row.accepts(timed_head_dim, kv)) continue;
        const KernelSpeed s = time_attention(runner, row, {5, 70, prompt, kv}, 0, 3);
        EXPECT_LT(s.error, 1e-2) << row.name;
        EXPECT_EQ(s.bytes, 2.0 * 75 * timed_kv_heads * static_cast<double>(kv_row_bytes(kv, timed_head_dim)));
      }
  }
}

}  // namespace
}  // namespace lathe
