// Kernels on the integer dot products of 256-bit vectors, which need AVX2, FMA, F16C and AVX-VNNI, for
// tables.cpp. The bodies are in kernels/simd/.
#pragma once

#include "kernels/linear.h"

namespace lathe::avxvnni {

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

}  // namespace lathe::avxvnni
