// Kernels on AVX-512's bf16 products (F, BW, DQ, VL and BF16), for tables.cpp: prompts only.
#pragma once

#include "kernels/linear.h"

namespace lathe::avx512bf16 {

// Rows of x as bf16, rounded to nearest even.
size_t bf16_rows_bytes(int64_t m, int64_t k);
void pack_bf16_rows(const PackRowsArgs&, const Share&) noexcept;

void prefill_bf16(const LinearArgs&, const Share&) noexcept;  // panel.bf16
void gated_bf16(const GatedArgs&, const Share&) noexcept;
#include "kernels/prompt_formats.h"

}  // namespace lathe::avx512bf16
