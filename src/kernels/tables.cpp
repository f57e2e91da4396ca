#include "kernels/tables.h"

#include "core/cpu.h"
#include "core/error.h"
#include "kernels/ref/ref.h"

#if defined(__x86_64__)
#include "kernels/avx2/avx2.h"
#include "kernels/avx512/avx512.h"
#endif

namespace lathe {
namespace {

bool anything(const Numerics&, int64_t, int64_t) { return true; }
bool any_head(int64_t) { return true; }

#if defined(__x86_64__)
template <DType dtype>
bool dense(const Numerics& numerics, int64_t, int64_t) {
  return numerics == Numerics::dense(dtype);
}

// x86.int4 and x86.int8 hold the codes; kernels unpack whole words, so a group has whole words too.
template <int bits, DType scale, bool minimum>
bool integer(const Numerics& numerics, int64_t, int64_t k) {
  const bool has_minimum = numerics.offset == Numerics::Offset::minimum;
  const bool whole = numerics.group == 0 || numerics.group >= k || numerics.group % (32 / bits) == 0;
  // With a minimum, 16-bit scales are stored as f32 (x86.cpp).
  return !numerics.is_dense() && (bits == 4 ? numerics.bits <= 4 : numerics.bits > 4) && whole &&
         has_minimum == minimum && (minimum || numerics.dtype == scale);
}

template <int lanes>
bool head_of(int64_t head_dim) {
  return head_dim % lanes == 0 && head_dim <= 512;
}
#endif

constexpr LinearKernel linear_rows[] = {
#if defined(__x86_64__)
    {"avx512.f32", isa_avx512, "x86.f32", dense<DType::f32>, avx512::linear_f32},
    {"avx512.bf16", isa_avx512, "x86.bf16", dense<DType::bf16>, avx512::linear_bf16},
    {"avx512.f16", isa_avx512, "x86.f16", dense<DType::f16>, avx512::linear_f16},
    {"avx512.int4.bf16", isa_avx512, "x86.int4", integer<4, DType::bf16, false>, avx512::linear_int4_bf16},
    {"avx512.int4.f16", isa_avx512, "x86.int4", integer<4, DType::f16, false>, avx512::linear_int4_f16},
    {"avx512.int4.f32", isa_avx512, "x86.int4", integer<4, DType::f32, false>, avx512::linear_int4_f32},
    {"avx512.int4.min", isa_avx512, "x86.int4", integer<4, DType::f32, true>, avx512::linear_int4_min},
    {"avx512.int8.bf16", isa_avx512, "x86.int8", integer<8, DType::bf16, false>, avx512::linear_int8_bf16},
    {"avx512.int8.f16", isa_avx512, "x86.int8", integer<8, DType::f16, false>, avx512::linear_int8_f16},
    {"avx512.int8.f32", isa_avx512, "x86.int8", integer<8, DType::f32, false>, avx512::linear_int8_f32},
    {"avx512.int8.min", isa_avx512, "x86.int8", integer<8, DType::f32, true>, avx512::linear_int8_min},
    {"avx2.f32", isa_avx2, "x86.f32", dense<DType::f32>, avx2::linear_f32},
    {"avx2.bf16", isa_avx2, "x86.bf16", dense<DType::bf16>, avx2::linear_bf16},
    {"avx2.f16", isa_avx2, "x86.f16", dense<DType::f16>, avx2::linear_f16},
    {"avx2.int4.bf16", isa_avx2, "x86.int4", integer<4, DType::bf16, false>, avx2::linear_int4_bf16},
    {"avx2.int4.f16", isa_avx2, "x86.int4", integer<4, DType::f16, false>, avx2::linear_int4_f16},
    {"avx2.int4.f32", isa_avx2, "x86.int4", integer<4, DType::f32, false>, avx2::linear_int4_f32},
    {"avx2.int4.min", isa_avx2, "x86.int4", integer<4, DType::f32, true>, avx2::linear_int4_min},
    {"avx2.int8.bf16", isa_avx2, "x86.int8", integer<8, DType::bf16, false>, avx2::linear_int8_bf16},
    {"avx2.int8.f16", isa_avx2, "x86.int8", integer<8, DType::f16, false>, avx2::linear_int8_f16},
    {"avx2.int8.f32", isa_avx2, "x86.int8", integer<8, DType::f32, false>, avx2::linear_int8_f32},
    {"avx2.int8.min", isa_avx2, "x86.int8", integer<8, DType::f32, true>, avx2::linear_int8_min},
    // Everything else, as f32: exact, but four bytes per weight.
    {"avx512.expanded", isa_avx512, "expand.x86", anything, avx512::linear_f32},
    {"avx2.expanded", isa_avx2, "expand.x86", anything, avx2::linear_f32},
#endif
    {"ref", 0, "expand.f32", anything, linear_ref},
};

constexpr AttentionKernel attention_rows[] = {
#if defined(__x86_64__)
    {"avx512", isa_avx512, head_of<16>, avx512::attention},
    {"avx2", isa_avx2, head_of<8>, avx2::attention},
#endif
    {"ref", 0, any_head, attention_ref},
};

constexpr ElementwiseKernels elementwise_rows[] = {
#if defined(__x86_64__)
    {"avx512", isa_avx512, avx512::rms_norm, avx512::add_rms_norm, avx512::rope, avx512::add, avx512::mul,
     avx512::silu, avx512::silu_mul},
    {"avx2", isa_avx2, avx2::rms_norm, avx2::add_rms_norm, avx2::rope, avx2::add, avx2::mul, avx2::silu,
     avx2::silu_mul},
#endif
    {"ref", 0, rms_norm_ref, add_rms_norm_ref, rope_ref, add_ref, mul_ref, silu_ref, silu_mul_ref},
};

}  // namespace

std::span<const LinearKernel> linear_kernels() { return linear_rows; }
std::span<const AttentionKernel> attention_kernels() { return attention_rows; }
std::span<const ElementwiseKernels> elementwise_kernels() { return elementwise_rows; }

const LinearKernel& choose_linear(const Numerics& numerics, int64_t n, int64_t k, uint32_t features) {
  for (const LinearKernel& row : linear_rows)
    if ((row.isa & ~features) == 0 && row.accepts(numerics, n, k)) return row;
  fail("no linear kernel for {} [{}, {}]", to_string(numerics), n, k);
}

const AttentionKernel& choose_attention(int64_t head_dim, uint32_t features) {
  for (const AttentionKernel& row : attention_rows)
    if ((row.isa & ~features) == 0 && row.accepts(head_dim)) return row;
  fail("no attention kernel for head_dim {}", head_dim);
}

const ElementwiseKernels& choose_elementwise(uint32_t features) {
  for (const ElementwiseKernels& row : elementwise_rows)
    if ((row.isa & ~features) == 0) return row;
  fail("no elementwise kernels");
}

}  // namespace lathe
