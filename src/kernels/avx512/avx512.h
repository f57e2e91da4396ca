// The AVX-512 kernels, for tables.cpp. Their bodies are in kernels/simd/, written in the vectors of vec.h.
#pragma once

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/sample.h"

namespace lathe::avx512 {

void attention(const AttentionArgs&, const Share&) noexcept;
void write_kv(KvType, const float* x, int64_t head_dim, void* row,
              float scale) noexcept;  // head_dim a multiple of 16, at most 512

void rms_norm(const RmsNormArgs&, const Share&) noexcept;
void add_rms_norm(const AddRmsNormArgs&, const Share&) noexcept;
void rope(const RopeArgs&, const Share&) noexcept;
void low_rank(const LowRankArgs&, const Share&) noexcept;
void hadamard(const HadamardArgs&, const Share&) noexcept;
void take_columns(const TakeColumnsArgs&, const Share&) noexcept;
void add(const BinaryArgs&, const Share&) noexcept;
void mul(const BinaryArgs&, const Share&) noexcept;
void silu(const BinaryArgs&, const Share&) noexcept;
void silu_mul(const BinaryArgs&, const Share&) noexcept;

float largest(const float* x, int64_t n) noexcept;
void exponentials(const ExponentialsArgs&) noexcept;
Tail at_least(const float* x, int64_t n, float bound) noexcept;

#include "kernels/linear_formats.h"

// Rows of x as int8 (kernels/simd/int8_rows.inl), laid out for the integer kernels of every ISA.
void pack_int8_rows(const PackRowsArgs&, const Share&) noexcept;
void pack_int8_groups(const PackRowsArgs&, const Share&) noexcept;
// Rounded to PackRowsArgs::to, as floats (kernels/simd/rounded_rows.inl).
void pack_rounded_rows(const PackRowsArgs&, const Share&) noexcept;

}  // namespace lathe::avx512
