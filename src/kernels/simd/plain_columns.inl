// The part of dot.h that all ISAs but plain AVX2 share: bytes of x are operands as they are.
#pragma once

namespace lathe {
namespace {

constexpr int64_t column_bytes = 1;           // of a packed row of x
constexpr int32_t sum_factor = -code_offset;  // how many of the row's sums its products lack
inline I four_columns(const char* x) { return broadcast_word(x); }
inline Operand panel_operand(I words) { return operand(words); }

// Sums of codes u, which are q + 8, to those of q.
inline I less_eights(I total, int32_t x_sum) { return add_words(total, set_words(-8 * x_sum)); }

}  // namespace
}  // namespace lathe
