// Kernels on AVX-512's integer dot products, for tables.cpp. They need AVX-512 F, BW, DQ, VL and VNNI.
#pragma once

#include "kernels/linear.h"

namespace lathe::avx512vnni {

// Rows of x as int8 in groups of 32 columns: rint(x * 127 / m) and m / 127, m = max |x| of the group. An
// element is off by at most m / 254.
size_t int8_groups_bytes(int64_t m, int64_t k);
void pack_int8_groups(const PackRowsArgs&, const Share&) noexcept;

// y = x W^T + bias over x86.int4, x packed as int8 groups: exact integer sums per 32 columns, times both
// scales in f32, groups in order. k and weight groups are multiples of 32. By the type of the scales; min:
// f32 with minima.
void int4_bf16(const LinearArgs&, const Share&) noexcept;
void int4_f16(const LinearArgs&, const Share&) noexcept;
void int4_f32(const LinearArgs&, const Share&) noexcept;
void int4_min(const LinearArgs&, const Share&) noexcept;

}  // namespace lathe::avx512vnni
