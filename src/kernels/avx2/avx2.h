// The AVX2 kernels, for tables.cpp. Their bodies are in kernels/simd/, written in the vectors of vec.h.
#pragma once

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/sample.h"

namespace lathe::avx2 {

void attention(const AttentionArgs&, const Share&) noexcept;
void write_kv(KvType, const float* x, int64_t head_dim, void* row,
              float scale) noexcept;  // head_dim a multiple of 8, at most 512

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

// Rows of x as int8 (kernels/simd/int8_rows.inl), laid out for the integer kernels of every ISA; the second
// for this one's W8A8 (dot.h).
void pack_int8_rows(const PackRowsArgs&, const Share&) noexcept;
void pack_flipped_rows(const PackRowsArgs&, const Share&) noexcept;
void pack_int8_groups(const PackRowsArgs&, const Share&) noexcept;
// Rounded to PackRowsArgs::to, as floats (kernels/simd/rounded_rows.inl).
void pack_rounded_rows(const PackRowsArgs&, const Share&) noexcept;

// W8A8: y = (x8 w8^T) scale_x scale_w + bias, the products summed exactly in 32 bits. x comes packed as int8
// rows, W as panel.int8. By the type of the scales.
void w8a8_bf16(const LinearArgs&, const Share&) noexcept;
void w8a8_f16(const LinearArgs&, const Share&) noexcept;
void w8a8_f32(const LinearArgs&, const Share&) noexcept;
void w8a8_gated_bf16(const GatedArgs&, const Share&) noexcept;
void w8a8_gated_f16(const GatedArgs&, const Share&) noexcept;
void w8a8_gated_f32(const GatedArgs&, const Share&) noexcept;

// y = x W^T + bias over panel.int4, x packed as int8 groups: exact integer sums per 32 columns, times both
// scales in f32, groups in order. k and weight groups are multiples of 32. By the type of the scales; min:
// f32 with minima.
void int4_bf16(const LinearArgs&, const Share&) noexcept;
void int4_f16(const LinearArgs&, const Share&) noexcept;
void int4_f32(const LinearArgs&, const Share&) noexcept;
void int4_min(const LinearArgs&, const Share&) noexcept;
void int4_gated_bf16(const GatedArgs&, const Share&) noexcept;
void int4_gated_f16(const GatedArgs&, const Share&) noexcept;
void int4_gated_f32(const GatedArgs&, const Share&) noexcept;
void int4_gated_min(const GatedArgs&, const Share&) noexcept;

// The same over panel.lut4 (kernels/simd/lut4.inl); nvfp4's steps are of 16 columns.
void nvfp4(const LinearArgs&, const Share&) noexcept;  // e4m3 scales
void mxfp4(const LinearArgs&, const Share&) noexcept;  // e8m0
void nf4(const LinearArgs&, const Share&) noexcept;    // f32

// y = x W^T + bias over panel.k, x packed as int8 groups: as int4, by bits of the codes.
void k2(const LinearArgs&, const Share&) noexcept;
void k3(const LinearArgs&, const Share&) noexcept;
void k4(const LinearArgs&, const Share&) noexcept;
void k5(const LinearArgs&, const Share&) noexcept;
void k6(const LinearArgs&, const Share&) noexcept;

}  // namespace lathe::avx2
