// The meaning of every kernel in plain loops. The interpreter calls these, and the tests hold the fast rows
// to them.
#pragma once

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/sample.h"

namespace lathe {

void linear_ref(const LinearArgs&,
                const Share&) noexcept;  // codes: row-major f32 [n, k] (packing "expand.f32")
// The same of rows rounded to PackRowsArgs::to (quant/activations.h), packed as the floats they mean.
size_t rounded_rows_bytes(int64_t m, int64_t k);
void pack_rounded_rows(const PackRowsArgs&, const Share&) noexcept;
void linear_rounded_ref(const LinearArgs&, const Share&) noexcept;
void attention_ref(const AttentionArgs&, const Share&) noexcept;  // items are whole groups
void read_kv_ref(KvType, const void* row, int64_t head_dim, float* out) noexcept;
void write_kv_ref(KvType, const float* x, int64_t head_dim, void* row, float scale = 0) noexcept;
void rms_norm_ref(const RmsNormArgs&, const Share&) noexcept;
void add_rms_norm_ref(const AddRmsNormArgs&, const Share&) noexcept;
void rope_ref(const RopeArgs&, const Share&) noexcept;
void low_rank_ref(const LowRankArgs&, const Share&) noexcept;
void hadamard_ref(const HadamardArgs&, const Share&) noexcept;
void take_columns_ref(const TakeColumnsArgs&, const Share&) noexcept;
void add_ref(const BinaryArgs&, const Share&) noexcept;
void mul_ref(const BinaryArgs&, const Share&) noexcept;
void silu_ref(const BinaryArgs&, const Share&) noexcept;
void silu_mul_ref(const BinaryArgs&, const Share&) noexcept;
float largest_ref(const float* x, int64_t n) noexcept;
void exponentials_ref(const ExponentialsArgs&) noexcept;
Tail at_least_ref(const float* x, int64_t n, float bound) noexcept;

}  // namespace lathe
