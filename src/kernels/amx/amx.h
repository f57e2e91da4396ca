// The AMX kernels, for tables.cpp. They need AVX-512 (F, BW, DQ, VL, VNNI, BF16) too.
#pragma once

#include "kernels/attention.h"
#include "kernels/linear.h"

namespace lathe::amx {

// Rows of x as bf16 tiles, rounded to nearest even.
size_t bf16_rows_bytes(int64_t m, int64_t k);
void pack_bf16_rows(const PackRowsArgs&, const Share&) noexcept;

// y = x W^T + bias with x and W rounded to bf16 and sums in f32; x comes packed as bf16 rows.
void prefill_bf16(const LinearArgs&, const Share&) noexcept;  // amx.bf16
void gated_bf16(const GatedArgs&, const Share&) noexcept;
#include "kernels/prompt_formats.h"

void prefill_k2(const LinearArgs&, const Share&) noexcept;  // panel.k, by bits
void prefill_k3(const LinearArgs&, const Share&) noexcept;
void prefill_k4(const LinearArgs&, const Share&) noexcept;
void prefill_k5(const LinearArgs&, const Share&) noexcept;
void prefill_k6(const LinearArgs&, const Share&) noexcept;
void gated_k2(const GatedArgs&, const Share&) noexcept;
void gated_k3(const GatedArgs&, const Share&) noexcept;
void gated_k4(const GatedArgs&, const Share&) noexcept;
void gated_k5(const GatedArgs&, const Share&) noexcept;
void gated_k6(const GatedArgs&, const Share&) noexcept;

// W8A8 (kernels/simd/w8a8.inl) in int8 tiles; k a multiple of 64. By the type of the scales.
void w8a8_bf16(const LinearArgs&, const Share&) noexcept;
void w8a8_f16(const LinearArgs&, const Share&) noexcept;
void w8a8_f32(const LinearArgs&, const Share&) noexcept;
void w8a8_gated_bf16(const GatedArgs&, const Share&) noexcept;
void w8a8_gated_f16(const GatedArgs&, const Share&) noexcept;
void w8a8_gated_f32(const GatedArgs&, const Share&) noexcept;

// The numbers of avx512vnni/int4.cpp, for a batch of rows; x comes packed as int8 groups.
void int4_bf16(const LinearArgs&, const Share&) noexcept;
void int4_f16(const LinearArgs&, const Share&) noexcept;
void int4_f32(const LinearArgs&, const Share&) noexcept;
void int4_min(const LinearArgs&, const Share&) noexcept;

// Rows of x as three bf16 each, whose sum they are: bf16 tiles.
size_t bf16_parts_bytes(int64_t m, int64_t k);
void pack_bf16_parts(const PackRowsArgs&, const Share&) noexcept;

// y = x W^T + bias, with x as it is; x comes packed as bf16 parts.
void decode_bf16(const LinearArgs&, const Share&) noexcept;    // amx.bf16
void decode_stored(const LinearArgs&, const Share&) noexcept;  // dense: bf16 as in a checkpoint

// Queries scaled, keys, values and probabilities rounded to bf16, and sums in f32. head_dim a multiple of 16,
// at most 256.
void attention(const AttentionArgs&, const Share&) noexcept;

}  // namespace lathe::amx
