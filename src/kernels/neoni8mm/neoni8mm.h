// Kernels on NEON's 8-bit matrix products (smmla, FEAT_I8MM): two rows of x times two rows of W over eight
// columns in one instruction, twice the products of sdot. For prompts; they give the bits of neondot. For
// tables.cpp.
#pragma once

#include "kernels/linear.h"

namespace lathe::neoni8mm {

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

}  // namespace lathe::neoni8mm
