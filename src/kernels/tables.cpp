#include "kernels/tables.h"

#include <algorithm>
#include <cmath>

#include "core/cpu.h"
#include "core/error.h"
#include "kernels/ref/ref.h"
#include "kernels/simd/packed_rows.h"

#if defined(__x86_64__)
#include "kernels/amx/amx.h"
#include "kernels/avx2/avx2.h"
#include "kernels/avx512/avx512.h"
#include "kernels/avx512bf16/avx512bf16.h"
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avxvnni/avxvnni.h"
#elif defined(__aarch64__)
#include "kernels/neon/neon.h"
#include "kernels/neondot/neondot.h"
#include "kernels/neoni8mm/neoni8mm.h"
#endif

namespace lathe {
namespace {

bool anything(const Numerics& n, int64_t, int64_t) { return !n.rounds_activations(); }
bool anything_rounded(const Numerics& n, int64_t, int64_t) { return n.rounds_activations(); }
bool any_head(int64_t head_dim, KvType kv) {
  const bool grouped = kv == KvType::int4 || kv == KvType::nvfp4 || kv == KvType::int4_channel;
  return !grouped || head_dim % kv_group == 0;
}

#if defined(__x86_64__) || defined(__aarch64__)
template <DType dtype>
bool dense(const Numerics& numerics, int64_t, int64_t) {
  return numerics == Numerics::dense(dtype);
}

// panel.int4 and panel.int8 hold the codes; kernels unpack whole words, so a group has whole words too.
template <int bits, DType scale, bool minimum>
bool codes_of(const Numerics& numerics, int64_t k) {
  const bool has_minimum = numerics.offset == Numerics::Offset::minimum;
  const bool whole = numerics.group == 0 || numerics.group >= k || numerics.group % (32 / bits) == 0;
  // With a minimum, 16-bit scales are stored as f32 (panels.cpp).
  return numerics.is_integer() && !numerics.act_order && !numerics.column_scales &&
         (bits == 4 ? numerics.bits <= 4 : numerics.bits > 4) && whole && has_minimum == minimum &&
         (minimum || numerics.dtype == scale);
}

template <int bits, DType scale, bool minimum>
bool integer(const Numerics& numerics, int64_t, int64_t k) {
  return !numerics.rounds_activations() && codes_of<bits, scale, minimum>(numerics, k);
}

// Groups of whole 32 columns.
template <DType scale, bool minimum>
bool int4_groups(const Numerics& numerics, int64_t n, int64_t k) {
  return integer<4, scale, minimum>(numerics, n, k) && k % 32 == 0 &&
         (numerics.group >= k || numerics.group % 32 == 0);
}

// panel.lut4; words do not cross groups.
template <DType scale>
bool lut4(const Numerics& numerics, int64_t, int64_t k) {
  return !numerics.rounds_activations() && numerics.is_grid() && numerics.bits == 4 &&
         numerics.block_rows == 1 && numerics.dtype == scale &&
         (numerics.group == 0 || numerics.group >= k || numerics.group % 8 == 0);
}
// Integers stand for the values: twice those of e2m1, two for one of nf4. Steps are of `columns`.
template <Numerics::Kind kind, DType scale, int columns>
bool lut4_dot(const Numerics& numerics, int64_t n, int64_t k) {
  return numerics.kind == kind && lut4<scale>(numerics, n, k) && k % 32 == 0 &&
         (numerics.group >= k || numerics.group % columns == 0);
}
template <DType scale>
bool fp8(const Numerics& numerics, int64_t, int64_t) {
  return !numerics.rounds_activations() && numerics.kind == Numerics::Kind::e4m3 && !numerics.global &&
         numerics.dtype == scale;
}

// GGUF's k-quants, by bits of the codes.
template <int bits>
bool k_quant(const Numerics& numerics, int64_t, int64_t k) {
  constexpr bool minimum = bits != 3 && bits != 6;
  return numerics == Numerics::k_quant(bits, bits == 4 || bits == 5 ? 32 : 16, minimum) && k % 256 == 0;
}

// int8 per channel without zero points, which is all that Numerics::w8a8 makes. A scale of the input that is
// given comes with PackRowsArgs. A row's sum stays in one int32: fewer than 2^17 products, each of at most
// 2^7 * 2^7, are below 2^31. (Rows of other formats sum at most a block of 256 columns in integers.)
template <DType scale>
bool w8a8(const Numerics& numerics, int64_t, int64_t k) {
  return k < 1 << 17 && (numerics == Numerics::w8a8(scale) || numerics == Numerics::w8a8_static(scale));
}

// What a kernel of f32 products accepts, over rows that are rounded to anything; but for w8a8, whose kernels
// multiply integers.
template <bool (*accepts)(const Numerics&, int64_t, int64_t)>
bool rounded(const Numerics& numerics, int64_t n, int64_t k) {
  const bool integers =
      numerics.rounds_to_int8() && numerics == Numerics::w8a8(numerics.dtype, numerics.activations);
  return numerics.rounds_activations() && !integers && accepts(numerics.weights_alone(), n, k);
}

size_t int8_rows_bytes(int64_t m, int64_t k) { return static_cast<size_t>(Int8Rows(m, k).bytes()); }
size_t int8_groups_bytes(int64_t m, int64_t k) { return static_cast<size_t>(Int8Groups(m, k).bytes()); }

template <int lanes, int most = 512>
bool head_of(int64_t head_dim, KvType kv) {
  return any_head(head_dim, kv) && head_dim % lanes == 0 && head_dim <= most;
}
#endif

#if defined(__x86_64__)
constexpr uint32_t isa_tiles = isa_amx | isa_avx512 | isa_avx512bf16 | isa_avx512vnni;
constexpr uint32_t isa_bf16 = isa_avx512 | isa_avx512bf16;
constexpr uint32_t isa_512 = isa_avx512 | isa_avx512vnni, isa_256 = isa_avx2 | isa_avxvnni;
constexpr RowPacking bf16_parts = {"bf16 parts", Products::bf16, amx::bf16_parts_bytes, amx::pack_bf16_parts};
constexpr RowPacking bf16_rows = {"bf16 tiles", Products::bf16, amx::bf16_rows_bytes, amx::pack_bf16_rows,
                                  true};
constexpr RowPacking bf16_words = {"bf16 words", Products::bf16, avx512bf16::bf16_rows_bytes,
                                   avx512bf16::pack_bf16_rows};
constexpr RowPacking int8_rows_512 = {"int8 tiles", Products::int8, int8_rows_bytes, avx512::pack_int8_rows};
constexpr RowPacking int8_rows_256 = {"int8 tiles", Products::int8, int8_rows_bytes, avx2::pack_int8_rows};
size_t flipped_rows_bytes(int64_t m, int64_t k) { return static_cast<size_t>(Int8Rows(m, k, 2).bytes()); }
constexpr RowPacking flipped_rows_256 = {"int8 tiles flipped", Products::int8, flipped_rows_bytes,
                                         avx2::pack_flipped_rows};
constexpr RowPacking int8_groups_512 = {"int8 groups", Products::int8, int8_groups_bytes,
                                        avx512::pack_int8_groups};
constexpr RowPacking int8_groups_256 = {"int8 groups", Products::int8, int8_groups_bytes,
                                        avx2::pack_int8_groups};

// Whole tiles.
template <DType scale>
bool w8a8_tiles(const Numerics& numerics, int64_t n, int64_t k) {
  return w8a8<scale>(numerics, n, k) && k % 64 == 0;
}
#elif defined(__aarch64__)
constexpr uint32_t isa_matrix = isa_neon | isa_neondot | isa_neoni8mm;
constexpr RowPacking int8_rows_128 = {"int8 tiles", Products::int8, int8_rows_bytes, neon::pack_int8_rows};
constexpr RowPacking int8_groups_128 = {"int8 groups", Products::int8, int8_groups_bytes,
                                        neon::pack_int8_groups};
#endif

constexpr RowPacking packs_rounded(void (*run)(const PackRowsArgs&, const Share&) noexcept) {
  return {"rounded", Products::f32, rounded_rows_bytes, run, false, true};
}
constexpr RowPacking rounded_rows = packs_rounded(pack_rounded_rows);
#if defined(__x86_64__)
constexpr RowPacking rounded_rows_512 = packs_rounded(avx512::pack_rounded_rows);
constexpr RowPacking rounded_rows_256 = packs_rounded(avx2::pack_rounded_rows);
#elif defined(__aarch64__)
constexpr RowPacking rounded_rows_128 = packs_rounded(neon::pack_rounded_rows);
#endif

#if defined(__x86_64__) || defined(__aarch64__)
// A kernel of f32 products over rows that were rounded.
template <void (*run)(const LinearArgs&, const Share&) noexcept>
void over_rounded(const LinearArgs& a, const Share& share) noexcept {
  LinearArgs rounded = a;
  rounded.x = static_cast<const float*>(a.packed_x);
  rounded.x_stride = a.k;
  run(rounded, share);
}
template <void (*run)(const LinearArgs&, const Share&) noexcept,
          bool (*accepts)(const Numerics&, int64_t n, int64_t k)>
constexpr LinearKernel rounded_row(std::string_view name, uint32_t isa, std::string_view packing,
                                   const RowPacking& rows) {
  return {name, isa, packing, accepts, {over_rounded<run>, &rows}, {}};
}
#endif

constexpr LinearKernel linear_rows[] = {
#if defined(__x86_64__)
    // Prompts go through bf16 tiles whatever the format.
    {"amx.bf16",
     isa_tiles,
     "amx.bf16",
     dense<DType::bf16>,
     {amx::decode_bf16, &bf16_parts},
     {amx::prefill_bf16, &bf16_rows, amx::gated_bf16}},
    {"amx.bf16.stored",
     isa_tiles,
     "dense",
     dense<DType::bf16>,
     {amx::decode_stored, &bf16_parts},
     {amx::prefill_stored, &bf16_rows, amx::gated_stored},
     "amx.bf16"},
    {"amx.f16",
     isa_tiles,
     "panel.f16",
     dense<DType::f16>,
     {avx512::linear_f16},
     {amx::prefill_f16, &bf16_rows, amx::gated_f16}},
    {"amx.f32",
     isa_tiles,
     "panel.f32",
     dense<DType::f32>,
     {avx512::linear_f32},
     {amx::prefill_f32, &bf16_rows, amx::gated_f32}},
    {"amx.w8a8.bf16",
     isa_tiles,
     "panel.int8",
     w8a8_tiles<DType::bf16>,
     {amx::w8a8_bf16, &int8_rows_512},
     {amx::w8a8_bf16, &int8_rows_512, amx::w8a8_gated_bf16}},
    {"amx.w8a8.f16",
     isa_tiles,
     "panel.int8",
     w8a8_tiles<DType::f16>,
     {amx::w8a8_f16, &int8_rows_512},
     {amx::w8a8_f16, &int8_rows_512, amx::w8a8_gated_f16}},
    {"amx.w8a8.f32",
     isa_tiles,
     "panel.int8",
     w8a8_tiles<DType::f32>,
     {amx::w8a8_f32, &int8_rows_512},
     {amx::w8a8_f32, &int8_rows_512, amx::w8a8_gated_f32}},
    {"amx.k4",
     isa_tiles,
     "panel.k",
     k_quant<4>,
     {avx512vnni::k4, &int8_groups_512},
     {amx::prefill_k4, &bf16_rows, amx::gated_k4}},
    {"amx.k5",
     isa_tiles,
     "panel.k",
     k_quant<5>,
     {avx512vnni::k5, &int8_groups_512},
     {amx::prefill_k5, &bf16_rows, amx::gated_k5}},
    {"amx.k6",
     isa_tiles,
     "panel.k",
     k_quant<6>,
     {avx512vnni::k6, &int8_groups_512},
     {amx::prefill_k6, &bf16_rows, amx::gated_k6}},
    {"amx.k3",
     isa_tiles,
     "panel.k",
     k_quant<3>,
     {avx512vnni::k3, &int8_groups_512},
     {amx::prefill_k3, &bf16_rows, amx::gated_k3}},
    {"amx.k2",
     isa_tiles,
     "panel.k",
     k_quant<2>,
     {avx512vnni::k2, &int8_groups_512},
     {amx::prefill_k2, &bf16_rows, amx::gated_k2}},
    {"amx.int4.bf16",
     isa_tiles,
     "panel.int4",
     int4_groups<DType::bf16, false>,
     {amx::int4_bf16, &int8_groups_512},
     {amx::prefill_int4_bf16, &bf16_rows, amx::gated_int4_bf16}},
    {"amx.int4.f16",
     isa_tiles,
     "panel.int4",
     int4_groups<DType::f16, false>,
     {amx::int4_f16, &int8_groups_512},
     {amx::prefill_int4_f16, &bf16_rows, amx::gated_int4_f16}},
    {"amx.int4.f32",
     isa_tiles,
     "panel.int4",
     int4_groups<DType::f32, false>,
     {amx::int4_f32, &int8_groups_512},
     {amx::prefill_int4_f32, &bf16_rows, amx::gated_int4_f32}},
    {"amx.int4.min",
     isa_tiles,
     "panel.int4",
     int4_groups<DType::f32, true>,
     {amx::int4_min, &int8_groups_512},
     {amx::prefill_int4_min, &bf16_rows, amx::gated_int4_min}},
    {"amx.int4.bf16.odd",
     isa_tiles,
     "panel.int4",
     integer<4, DType::bf16, false>,
     {avx512::linear_int4_bf16},
     {amx::prefill_int4_bf16, &bf16_rows, amx::gated_int4_bf16}},
    {"amx.int4.f16.odd",
     isa_tiles,
     "panel.int4",
     integer<4, DType::f16, false>,
     {avx512::linear_int4_f16},
     {amx::prefill_int4_f16, &bf16_rows, amx::gated_int4_f16}},
    {"amx.int4.f32.odd",
     isa_tiles,
     "panel.int4",
     integer<4, DType::f32, false>,
     {avx512::linear_int4_f32},
     {amx::prefill_int4_f32, &bf16_rows, amx::gated_int4_f32}},
    {"amx.int4.min.odd",
     isa_tiles,
     "panel.int4",
     integer<4, DType::f32, true>,
     {avx512::linear_int4_min},
     {amx::prefill_int4_min, &bf16_rows, amx::gated_int4_min}},
    {"amx.int8.bf16",
     isa_tiles,
     "panel.int8",
     integer<8, DType::bf16, false>,
     {avx512::linear_int8_bf16},
     {amx::prefill_int8_bf16, &bf16_rows, amx::gated_int8_bf16}},
    {"amx.int8.f16",
     isa_tiles,
     "panel.int8",
     integer<8, DType::f16, false>,
     {avx512::linear_int8_f16},
     {amx::prefill_int8_f16, &bf16_rows, amx::gated_int8_f16}},
    {"amx.int8.f32",
     isa_tiles,
     "panel.int8",
     integer<8, DType::f32, false>,
     {avx512::linear_int8_f32},
     {amx::prefill_int8_f32, &bf16_rows, amx::gated_int8_f32}},
    {"amx.int8.min",
     isa_tiles,
     "panel.int8",
     integer<8, DType::f32, true>,
     {avx512::linear_int8_min},
     {amx::prefill_int8_min, &bf16_rows, amx::gated_int8_min}},
    {"amx.nvfp4",
     isa_tiles,
     "panel.lut4",
     lut4_dot<Numerics::Kind::e2m1, DType::f8e4m3, 16>,
     {avx512vnni::nvfp4, &int8_groups_512},
     {amx::prefill_lut4_e4m3, &bf16_rows, amx::gated_lut4_e4m3}},
    {"amx.mxfp4",
     isa_tiles,
     "panel.lut4",
     lut4_dot<Numerics::Kind::e2m1, DType::f8e8m0, 32>,
     {avx512vnni::mxfp4, &int8_groups_512},
     {amx::prefill_lut4_e8m0, &bf16_rows, amx::gated_lut4_e8m0}},
    {"amx.nf4",
     isa_tiles,
     "panel.lut4",
     lut4_dot<Numerics::Kind::nf4, DType::f32, 32>,
     {avx512vnni::nf4, &int8_groups_512},
     {amx::prefill_lut4_f32, &bf16_rows, amx::gated_lut4_f32}},
    {"amx.lut4.e4m3",
     isa_tiles,
     "panel.lut4",
     lut4<DType::f8e4m3>,
     {avx512::linear_lut4_e4m3},
     {amx::prefill_lut4_e4m3, &bf16_rows, amx::gated_lut4_e4m3}},
    {"amx.lut4.e8m0",
     isa_tiles,
     "panel.lut4",
     lut4<DType::f8e8m0>,
     {avx512::linear_lut4_e8m0},
     {amx::prefill_lut4_e8m0, &bf16_rows, amx::gated_lut4_e8m0}},
    {"amx.lut4.f32",
     isa_tiles,
     "panel.lut4",
     lut4<DType::f32>,
     {avx512::linear_lut4_f32},
     {amx::prefill_lut4_f32, &bf16_rows, amx::gated_lut4_f32}},
    {"amx.fp8.bf16",
     isa_tiles,
     "panel.fp8",
     fp8<DType::bf16>,
     {avx512::linear_fp8_bf16},
     {amx::prefill_fp8_bf16, &bf16_rows, amx::gated_fp8_bf16}},
    {"amx.fp8.f16",
     isa_tiles,
     "panel.fp8",
     fp8<DType::f16>,
     {avx512::linear_fp8_f16},
     {amx::prefill_fp8_f16, &bf16_rows, amx::gated_fp8_f16}},
    {"amx.fp8.f32",
     isa_tiles,
     "panel.fp8",
     fp8<DType::f32>,
     {avx512::linear_fp8_f32},
     {amx::prefill_fp8_f32, &bf16_rows, amx::gated_fp8_f32}},
    {"amx.fp8.e8m0",
     isa_tiles,
     "panel.fp8",
     fp8<DType::f8e8m0>,
     {avx512::linear_fp8_e8m0},
     {amx::prefill_fp8_e8m0, &bf16_rows, amx::gated_fp8_e8m0}},
    {"avx512vnni.w8a8.bf16",
     isa_512,
     "panel.int8",
     w8a8<DType::bf16>,
     {avx512vnni::w8a8_bf16, &int8_rows_512},
     {avx512vnni::w8a8_bf16, &int8_rows_512, avx512vnni::w8a8_gated_bf16}},
    {"avx512vnni.w8a8.f16",
     isa_512,
     "panel.int8",
     w8a8<DType::f16>,
     {avx512vnni::w8a8_f16, &int8_rows_512},
     {avx512vnni::w8a8_f16, &int8_rows_512, avx512vnni::w8a8_gated_f16}},
    {"avx512vnni.w8a8.f32",
     isa_512,
     "panel.int8",
     w8a8<DType::f32>,
     {avx512vnni::w8a8_f32, &int8_rows_512},
     {avx512vnni::w8a8_f32, &int8_rows_512, avx512vnni::w8a8_gated_f32}},
    {"avx512vnni.k4", isa_512, "panel.k", k_quant<4>, {avx512vnni::k4, &int8_groups_512}, {}},
    {"avx512vnni.k5", isa_512, "panel.k", k_quant<5>, {avx512vnni::k5, &int8_groups_512}, {}},
    {"avx512vnni.k6", isa_512, "panel.k", k_quant<6>, {avx512vnni::k6, &int8_groups_512}, {}},
    {"avx512vnni.k3", isa_512, "panel.k", k_quant<3>, {avx512vnni::k3, &int8_groups_512}, {}},
    {"avx512vnni.k2", isa_512, "panel.k", k_quant<2>, {avx512vnni::k2, &int8_groups_512}, {}},
    {"avx512vnni.int4.bf16",
     isa_512,
     "panel.int4",
     int4_groups<DType::bf16, false>,
     {avx512vnni::int4_bf16, &int8_groups_512},
     {avx512vnni::int4_bf16, &int8_groups_512, avx512vnni::int4_gated_bf16}},
    {"avx512vnni.int4.f16",
     isa_512,
     "panel.int4",
     int4_groups<DType::f16, false>,
     {avx512vnni::int4_f16, &int8_groups_512},
     {avx512vnni::int4_f16, &int8_groups_512, avx512vnni::int4_gated_f16}},
    {"avx512vnni.int4.f32",
     isa_512,
     "panel.int4",
     int4_groups<DType::f32, false>,
     {avx512vnni::int4_f32, &int8_groups_512},
     {avx512vnni::int4_f32, &int8_groups_512, avx512vnni::int4_gated_f32}},
    {"avx512vnni.int4.min",
     isa_512,
     "panel.int4",
     int4_groups<DType::f32, true>,
     {avx512vnni::int4_min, &int8_groups_512},
     {avx512vnni::int4_min, &int8_groups_512, avx512vnni::int4_gated_min}},
    {"avx512vnni.nvfp4",
     isa_512,
     "panel.lut4",
     lut4_dot<Numerics::Kind::e2m1, DType::f8e4m3, 16>,
     {avx512vnni::nvfp4, &int8_groups_512},
     {}},
    {"avx512vnni.mxfp4",
     isa_512,
     "panel.lut4",
     lut4_dot<Numerics::Kind::e2m1, DType::f8e8m0, 32>,
     {avx512vnni::mxfp4, &int8_groups_512},
     {}},
    {"avx512bf16.nf4",
     isa_512 | isa_avx512bf16,
     "panel.lut4",
     lut4_dot<Numerics::Kind::nf4, DType::f32, 32>,
     {avx512vnni::nf4, &int8_groups_512},
     {avx512bf16::prefill_lut4_f32, &bf16_words, avx512bf16::gated_lut4_f32}},
    {"avx512vnni.nf4",
     isa_512,
     "panel.lut4",
     lut4_dot<Numerics::Kind::nf4, DType::f32, 32>,
     {avx512vnni::nf4, &int8_groups_512},
     {}},
    // Prompts in bf16 products. Integers of 4 bits in groups of 32 have faster ones (avx512vnni).
    {"avx512bf16.f32",
     isa_bf16,
     "panel.f32",
     dense<DType::f32>,
     {avx512::linear_f32},
     {avx512bf16::prefill_f32, &bf16_words, avx512bf16::gated_f32}},
    {"avx512bf16.bf16",
     isa_bf16,
     "panel.bf16",
     dense<DType::bf16>,
     {avx512::linear_bf16},
     {avx512bf16::prefill_bf16, &bf16_words, avx512bf16::gated_bf16}},
    {"avx512bf16.bf16.stored",
     isa_bf16,
     "dense",
     dense<DType::bf16>,
     {avx512::linear_stored},
     {avx512bf16::prefill_stored, &bf16_words, avx512bf16::gated_stored},
     "avx512bf16.bf16"},
    {"avx512bf16.f16",
     isa_bf16,
     "panel.f16",
     dense<DType::f16>,
     {avx512::linear_f16},
     {avx512bf16::prefill_f16, &bf16_words, avx512bf16::gated_f16}},
    {"avx512bf16.int4.bf16",
     isa_bf16,
     "panel.int4",
     integer<4, DType::bf16, false>,
     {avx512::linear_int4_bf16},
     {avx512bf16::prefill_int4_bf16, &bf16_words, avx512bf16::gated_int4_bf16}},
    {"avx512bf16.int4.f16",
     isa_bf16,
     "panel.int4",
     integer<4, DType::f16, false>,
     {avx512::linear_int4_f16},
     {avx512bf16::prefill_int4_f16, &bf16_words, avx512bf16::gated_int4_f16}},
    {"avx512bf16.int4.f32",
     isa_bf16,
     "panel.int4",
     integer<4, DType::f32, false>,
     {avx512::linear_int4_f32},
     {avx512bf16::prefill_int4_f32, &bf16_words, avx512bf16::gated_int4_f32}},
    {"avx512bf16.int4.min",
     isa_bf16,
     "panel.int4",
     integer<4, DType::f32, true>,
     {avx512::linear_int4_min},
     {avx512bf16::prefill_int4_min, &bf16_words, avx512bf16::gated_int4_min}},
    {"avx512bf16.int8.bf16",
     isa_bf16,
     "panel.int8",
     integer<8, DType::bf16, false>,
     {avx512::linear_int8_bf16},
     {avx512bf16::prefill_int8_bf16, &bf16_words, avx512bf16::gated_int8_bf16}},
    {"avx512bf16.int8.f16",
     isa_bf16,
     "panel.int8",
     integer<8, DType::f16, false>,
     {avx512::linear_int8_f16},
     {avx512bf16::prefill_int8_f16, &bf16_words, avx512bf16::gated_int8_f16}},
    {"avx512bf16.int8.f32",
     isa_bf16,
     "panel.int8",
     integer<8, DType::f32, false>,
     {avx512::linear_int8_f32},
     {avx512bf16::prefill_int8_f32, &bf16_words, avx512bf16::gated_int8_f32}},
    {"avx512bf16.int8.min",
     isa_bf16,
     "panel.int8",
     integer<8, DType::f32, true>,
     {avx512::linear_int8_min},
     {avx512bf16::prefill_int8_min, &bf16_words, avx512bf16::gated_int8_min}},
    {"avx512bf16.lut4.e4m3",
     isa_bf16,
     "panel.lut4",
     lut4<DType::f8e4m3>,
     {avx512::linear_lut4_e4m3},
     {avx512bf16::prefill_lut4_e4m3, &bf16_words, avx512bf16::gated_lut4_e4m3}},
    {"avx512bf16.lut4.e8m0",
     isa_bf16,
     "panel.lut4",
     lut4<DType::f8e8m0>,
     {avx512::linear_lut4_e8m0},
     {avx512bf16::prefill_lut4_e8m0, &bf16_words, avx512bf16::gated_lut4_e8m0}},
    {"avx512bf16.lut4.f32",
     isa_bf16,
     "panel.lut4",
     lut4<DType::f32>,
     {avx512::linear_lut4_f32},
     {avx512bf16::prefill_lut4_f32, &bf16_words, avx512bf16::gated_lut4_f32}},
    {"avx512bf16.fp8.bf16",
     isa_bf16,
     "panel.fp8",
     fp8<DType::bf16>,
     {avx512::linear_fp8_bf16},
     {avx512bf16::prefill_fp8_bf16, &bf16_words, avx512bf16::gated_fp8_bf16}},
    {"avx512bf16.fp8.f16",
     isa_bf16,
     "panel.fp8",
     fp8<DType::f16>,
     {avx512::linear_fp8_f16},
     {avx512bf16::prefill_fp8_f16, &bf16_words, avx512bf16::gated_fp8_f16}},
    {"avx512bf16.fp8.f32",
     isa_bf16,
     "panel.fp8",
     fp8<DType::f32>,
     {avx512::linear_fp8_f32},
     {avx512bf16::prefill_fp8_f32, &bf16_words, avx512bf16::gated_fp8_f32}},
    {"avx512bf16.fp8.e8m0",
     isa_bf16,
     "panel.fp8",
     fp8<DType::f8e8m0>,
     {avx512::linear_fp8_e8m0},
     {avx512bf16::prefill_fp8_e8m0, &bf16_words, avx512bf16::gated_fp8_e8m0}},
    {"avx512.f32", isa_avx512, "panel.f32", dense<DType::f32>, {avx512::linear_f32}, {}},
    {"avx512.bf16", isa_avx512, "panel.bf16", dense<DType::bf16>, {avx512::linear_bf16}, {}},
    {"avx512.bf16.stored",
     isa_avx512,
     "dense",
     dense<DType::bf16>,
     {avx512::linear_stored},
     {},
     "avx512.bf16"},
    {"avx512.f16", isa_avx512, "panel.f16", dense<DType::f16>, {avx512::linear_f16}, {}},
    {"avx512.int4.bf16",
     isa_avx512,
     "panel.int4",
     integer<4, DType::bf16, false>,
     {avx512::linear_int4_bf16},
     {}},
    {"avx512.int4.f16",
     isa_avx512,
     "panel.int4",
     integer<4, DType::f16, false>,
     {avx512::linear_int4_f16},
     {}},
    {"avx512.int4.f32",
     isa_avx512,
     "panel.int4",
     integer<4, DType::f32, false>,
     {avx512::linear_int4_f32},
     {}},
    {"avx512.int4.min",
     isa_avx512,
     "panel.int4",
     integer<4, DType::f32, true>,
     {avx512::linear_int4_min},
     {}},
    {"avx512.int8.bf16",
     isa_avx512,
     "panel.int8",
     integer<8, DType::bf16, false>,
     {avx512::linear_int8_bf16},
     {}},
    {"avx512.int8.f16",
     isa_avx512,
     "panel.int8",
     integer<8, DType::f16, false>,
     {avx512::linear_int8_f16},
     {}},
    {"avx512.int8.f32",
     isa_avx512,
     "panel.int8",
     integer<8, DType::f32, false>,
     {avx512::linear_int8_f32},
     {}},
    {"avx512.int8.min",
     isa_avx512,
     "panel.int8",
     integer<8, DType::f32, true>,
     {avx512::linear_int8_min},
     {}},
    {"avx512.lut4.e4m3", isa_avx512, "panel.lut4", lut4<DType::f8e4m3>, {avx512::linear_lut4_e4m3}, {}},
    {"avx512.lut4.e8m0", isa_avx512, "panel.lut4", lut4<DType::f8e8m0>, {avx512::linear_lut4_e8m0}, {}},
    {"avx512.lut4.f32", isa_avx512, "panel.lut4", lut4<DType::f32>, {avx512::linear_lut4_f32}, {}},
    {"avx512.fp8.bf16", isa_avx512, "panel.fp8", fp8<DType::bf16>, {avx512::linear_fp8_bf16}, {}},
    {"avx512.fp8.f16", isa_avx512, "panel.fp8", fp8<DType::f16>, {avx512::linear_fp8_f16}, {}},
    {"avx512.fp8.f32", isa_avx512, "panel.fp8", fp8<DType::f32>, {avx512::linear_fp8_f32}, {}},
    {"avx512.fp8.e8m0", isa_avx512, "panel.fp8", fp8<DType::f8e8m0>, {avx512::linear_fp8_e8m0}, {}},
    rounded_row<avx512::linear_lut4_e4m3, rounded<lut4<DType::f8e4m3>>>(
        "avx512.lut4.e4m3.rounded", isa_avx512, "panel.lut4", rounded_rows_512),
    rounded_row<avx512::linear_lut4_e8m0, rounded<lut4<DType::f8e8m0>>>(
        "avx512.lut4.e8m0.rounded", isa_avx512, "panel.lut4", rounded_rows_512),
    rounded_row<avx512::linear_lut4_f32, rounded<lut4<DType::f32>>>("avx512.lut4.f32.rounded", isa_avx512,
                                                                    "panel.lut4", rounded_rows_512),
    rounded_row<avx512::linear_fp8_bf16, rounded<fp8<DType::bf16>>>("avx512.fp8.bf16.rounded", isa_avx512,
                                                                    "panel.fp8", rounded_rows_512),
    rounded_row<avx512::linear_fp8_f16, rounded<fp8<DType::f16>>>("avx512.fp8.f16.rounded", isa_avx512,
                                                                  "panel.fp8", rounded_rows_512),
    rounded_row<avx512::linear_fp8_f32, rounded<fp8<DType::f32>>>("avx512.fp8.f32.rounded", isa_avx512,
                                                                  "panel.fp8", rounded_rows_512),
    rounded_row<avx512::linear_fp8_e8m0, rounded<fp8<DType::f8e8m0>>>("avx512.fp8.e8m0.rounded", isa_avx512,
                                                                      "panel.fp8", rounded_rows_512),
    {"avxvnni.w8a8.bf16",
     isa_256,
     "panel.int8",
     w8a8<DType::bf16>,
     {avxvnni::w8a8_bf16, &int8_rows_256},
     {avxvnni::w8a8_bf16, &int8_rows_256, avxvnni::w8a8_gated_bf16}},
    {"avxvnni.w8a8.f16",
     isa_256,
     "panel.int8",
     w8a8<DType::f16>,
     {avxvnni::w8a8_f16, &int8_rows_256},
     {avxvnni::w8a8_f16, &int8_rows_256, avxvnni::w8a8_gated_f16}},
    {"avxvnni.w8a8.f32",
     isa_256,
     "panel.int8",
     w8a8<DType::f32>,
     {avxvnni::w8a8_f32, &int8_rows_256},
     {avxvnni::w8a8_f32, &int8_rows_256, avxvnni::w8a8_gated_f32}},
    {"avxvnni.k4", isa_256, "panel.k", k_quant<4>, {avxvnni::k4, &int8_groups_256}, {}},
    {"avxvnni.k5", isa_256, "panel.k", k_quant<5>, {avxvnni::k5, &int8_groups_256}, {}},
    {"avxvnni.k6", isa_256, "panel.k", k_quant<6>, {avxvnni::k6, &int8_groups_256}, {}},
    {"avxvnni.k3", isa_256, "panel.k", k_quant<3>, {avxvnni::k3, &int8_groups_256}, {}},
    {"avxvnni.k2", isa_256, "panel.k", k_quant<2>, {avxvnni::k2, &int8_groups_256}, {}},
    {"avxvnni.int4.bf16",
     isa_256,
     "panel.int4",
     int4_groups<DType::bf16, false>,
     {avxvnni::int4_bf16, &int8_groups_256},
     {avxvnni::int4_bf16, &int8_groups_256, avxvnni::int4_gated_bf16}},
    {"avxvnni.int4.f16",
     isa_256,
     "panel.int4",
     int4_groups<DType::f16, false>,
     {avxvnni::int4_f16, &int8_groups_256},
     {avxvnni::int4_f16, &int8_groups_256, avxvnni::int4_gated_f16}},
    {"avxvnni.int4.f32",
     isa_256,
     "panel.int4",
     int4_groups<DType::f32, false>,
     {avxvnni::int4_f32, &int8_groups_256},
     {avxvnni::int4_f32, &int8_groups_256, avxvnni::int4_gated_f32}},
    {"avxvnni.int4.min",
     isa_256,
     "panel.int4",
     int4_groups<DType::f32, true>,
     {avxvnni::int4_min, &int8_groups_256},
     {avxvnni::int4_min, &int8_groups_256, avxvnni::int4_gated_min}},
    {"avxvnni.nvfp4",
     isa_256,
     "panel.lut4",
     lut4_dot<Numerics::Kind::e2m1, DType::f8e4m3, 16>,
     {avxvnni::nvfp4, &int8_groups_256},
     {}},
    {"avxvnni.mxfp4",
     isa_256,
     "panel.lut4",
     lut4_dot<Numerics::Kind::e2m1, DType::f8e8m0, 32>,
     {avxvnni::mxfp4, &int8_groups_256},
     {}},
    {"avxvnni.nf4",
     isa_256,
     "panel.lut4",
     lut4_dot<Numerics::Kind::nf4, DType::f32, 32>,
     {avxvnni::nf4, &int8_groups_256},
     {}},
    {"avx2.w8a8.bf16",
     isa_avx2,
     "panel.int8",
     w8a8<DType::bf16>,
     {avx2::w8a8_bf16, &flipped_rows_256},
     {avx2::w8a8_bf16, &flipped_rows_256, avx2::w8a8_gated_bf16}},
    {"avx2.w8a8.f16",
     isa_avx2,
     "panel.int8",
     w8a8<DType::f16>,
     {avx2::w8a8_f16, &flipped_rows_256},
     {avx2::w8a8_f16, &flipped_rows_256, avx2::w8a8_gated_f16}},
    {"avx2.w8a8.f32",
     isa_avx2,
     "panel.int8",
     w8a8<DType::f32>,
     {avx2::w8a8_f32, &flipped_rows_256},
     {avx2::w8a8_f32, &flipped_rows_256, avx2::w8a8_gated_f32}},
    {"avx2.k4", isa_avx2, "panel.k", k_quant<4>, {avx2::k4, &int8_groups_256}, {}},
    {"avx2.k5", isa_avx2, "panel.k", k_quant<5>, {avx2::k5, &int8_groups_256}, {}},
    {"avx2.k6", isa_avx2, "panel.k", k_quant<6>, {avx2::k6, &int8_groups_256}, {}},
    {"avx2.k3", isa_avx2, "panel.k", k_quant<3>, {avx2::k3, &int8_groups_256}, {}},
    {"avx2.k2", isa_avx2, "panel.k", k_quant<2>, {avx2::k2, &int8_groups_256}, {}},
    {"avx2.dot.int4.bf16",
     isa_avx2,
     "panel.int4",
     int4_groups<DType::bf16, false>,
     {avx2::int4_bf16, &int8_groups_256},
     {avx2::int4_bf16, &int8_groups_256, avx2::int4_gated_bf16}},
    {"avx2.dot.int4.f16",
     isa_avx2,
     "panel.int4",
     int4_groups<DType::f16, false>,
     {avx2::int4_f16, &int8_groups_256},
     {avx2::int4_f16, &int8_groups_256, avx2::int4_gated_f16}},
    {"avx2.dot.int4.f32",
     isa_avx2,
     "panel.int4",
     int4_groups<DType::f32, false>,
     {avx2::int4_f32, &int8_groups_256},
     {avx2::int4_f32, &int8_groups_256, avx2::int4_gated_f32}},
    {"avx2.dot.int4.min",
     isa_avx2,
     "panel.int4",
     int4_groups<DType::f32, true>,
     {avx2::int4_min, &int8_groups_256},
     {avx2::int4_min, &int8_groups_256, avx2::int4_gated_min}},
    {"avx2.dot.nvfp4",
     isa_avx2,
     "panel.lut4",
     lut4_dot<Numerics::Kind::e2m1, DType::f8e4m3, 16>,
     {avx2::nvfp4, &int8_groups_256},
     {avx2::linear_lut4_e4m3}},
    {"avx2.dot.mxfp4",
     isa_avx2,
     "panel.lut4",
     lut4_dot<Numerics::Kind::e2m1, DType::f8e8m0, 32>,
     {avx2::mxfp4, &int8_groups_256},
     {avx2::linear_lut4_e8m0}},
    {"avx2.dot.nf4",
     isa_avx2,
     "panel.lut4",
     lut4_dot<Numerics::Kind::nf4, DType::f32, 32>,
     {avx2::nf4, &int8_groups_256},
     {avx2::linear_lut4_f32}},
    {"avx2.f32", isa_avx2, "panel.f32", dense<DType::f32>, {avx2::linear_f32}, {}},
    {"avx2.bf16", isa_avx2, "panel.bf16", dense<DType::bf16>, {avx2::linear_bf16}, {}},
    {"avx2.bf16.stored", isa_avx2, "dense", dense<DType::bf16>, {avx2::linear_stored}, {}, "avx2.bf16"},
    {"avx2.f16", isa_avx2, "panel.f16", dense<DType::f16>, {avx2::linear_f16}, {}},
    {"avx2.int4.bf16", isa_avx2, "panel.int4", integer<4, DType::bf16, false>, {avx2::linear_int4_bf16}, {}},
    {"avx2.int4.f16", isa_avx2, "panel.int4", integer<4, DType::f16, false>, {avx2::linear_int4_f16}, {}},
    {"avx2.int4.f32", isa_avx2, "panel.int4", integer<4, DType::f32, false>, {avx2::linear_int4_f32}, {}},
    {"avx2.int4.min", isa_avx2, "panel.int4", integer<4, DType::f32, true>, {avx2::linear_int4_min}, {}},
    {"avx2.int8.bf16", isa_avx2, "panel.int8", integer<8, DType::bf16, false>, {avx2::linear_int8_bf16}, {}},
    {"avx2.int8.f16", isa_avx2, "panel.int8", integer<8, DType::f16, false>, {avx2::linear_int8_f16}, {}},
    {"avx2.int8.f32", isa_avx2, "panel.int8", integer<8, DType::f32, false>, {avx2::linear_int8_f32}, {}},
    {"avx2.int8.min", isa_avx2, "panel.int8", integer<8, DType::f32, true>, {avx2::linear_int8_min}, {}},
    rounded_row<avx2::linear_int4_bf16, rounded<integer<4, DType::bf16, false>>>(
        "avx2.int4.bf16.rounded", isa_avx2, "panel.int4", rounded_rows_256),
    rounded_row<avx2::linear_int4_f16, rounded<integer<4, DType::f16, false>>>(
        "avx2.int4.f16.rounded", isa_avx2, "panel.int4", rounded_rows_256),
    rounded_row<avx2::linear_int4_f32, rounded<integer<4, DType::f32, false>>>(
        "avx2.int4.f32.rounded", isa_avx2, "panel.int4", rounded_rows_256),
    rounded_row<avx2::linear_int8_bf16, rounded<integer<8, DType::bf16, false>>>(
        "avx2.int8.bf16.rounded", isa_avx2, "panel.int8", rounded_rows_256),
    rounded_row<avx2::linear_int8_f16, rounded<integer<8, DType::f16, false>>>(
        "avx2.int8.f16.rounded", isa_avx2, "panel.int8", rounded_rows_256),
    rounded_row<avx2::linear_int8_f32, rounded<integer<8, DType::f32, false>>>(
        "avx2.int8.f32.rounded", isa_avx2, "panel.int8", rounded_rows_256),
    {"avx2.lut4.e4m3", isa_avx2, "panel.lut4", lut4<DType::f8e4m3>, {avx2::linear_lut4_e4m3}, {}},
    {"avx2.lut4.e8m0", isa_avx2, "panel.lut4", lut4<DType::f8e8m0>, {avx2::linear_lut4_e8m0}, {}},
    {"avx2.lut4.f32", isa_avx2, "panel.lut4", lut4<DType::f32>, {avx2::linear_lut4_f32}, {}},
    {"avx2.fp8.bf16", isa_avx2, "panel.fp8", fp8<DType::bf16>, {avx2::linear_fp8_bf16}, {}},
    {"avx2.fp8.f16", isa_avx2, "panel.fp8", fp8<DType::f16>, {avx2::linear_fp8_f16}, {}},
    {"avx2.fp8.f32", isa_avx2, "panel.fp8", fp8<DType::f32>, {avx2::linear_fp8_f32}, {}},
    {"avx2.fp8.e8m0", isa_avx2, "panel.fp8", fp8<DType::f8e8m0>, {avx2::linear_fp8_e8m0}, {}},
    rounded_row<avx2::linear_lut4_e4m3, rounded<lut4<DType::f8e4m3>>>("avx2.lut4.e4m3.rounded", isa_avx2,
                                                                      "panel.lut4", rounded_rows_256),
    rounded_row<avx2::linear_lut4_e8m0, rounded<lut4<DType::f8e8m0>>>("avx2.lut4.e8m0.rounded", isa_avx2,
                                                                      "panel.lut4", rounded_rows_256),
    rounded_row<avx2::linear_lut4_f32, rounded<lut4<DType::f32>>>("avx2.lut4.f32.rounded", isa_avx2,
                                                                  "panel.lut4", rounded_rows_256),
    rounded_row<avx2::linear_fp8_bf16, rounded<fp8<DType::bf16>>>("avx2.fp8.bf16.rounded", isa_avx2,
                                                                  "panel.fp8", rounded_rows_256),
    rounded_row<avx2::linear_fp8_f16, rounded<fp8<DType::f16>>>("avx2.fp8.f16.rounded", isa_avx2, "panel.fp8",
                                                                rounded_rows_256),
    rounded_row<avx2::linear_fp8_f32, rounded<fp8<DType::f32>>>("avx2.fp8.f32.rounded", isa_avx2, "panel.fp8",
                                                                rounded_rows_256),
    rounded_row<avx2::linear_fp8_e8m0, rounded<fp8<DType::f8e8m0>>>("avx2.fp8.e8m0.rounded", isa_avx2,
                                                                    "panel.fp8", rounded_rows_256),
    // Everything else, as f32: exact, but four bytes per weight.
    {"amx.expanded",
     isa_tiles,
     "expand.panel",
     anything,
     {avx512::linear_f32},
     {amx::prefill_f32, &bf16_rows, amx::gated_f32}},
    {"avx512bf16.expanded",
     isa_bf16,
     "expand.panel",
     anything,
     {avx512::linear_f32},
     {avx512bf16::prefill_f32, &bf16_words, avx512bf16::gated_f32}},
    {"avx512.expanded", isa_avx512, "expand.panel", anything, {avx512::linear_f32}, {}},
    rounded_row<avx512::linear_f32, anything_rounded>("avx512.expanded.rounded", isa_avx512, "expand.panel",
                                                      rounded_rows_512),
    {"avx2.expanded", isa_avx2, "expand.panel", anything, {avx2::linear_f32}, {}},
    rounded_row<avx2::linear_f32, anything_rounded>("avx2.expanded.rounded", isa_avx2, "expand.panel",
                                                    rounded_rows_256),
#elif defined(__aarch64__)
    // Panels suit any vector that divides 32.
    {"neoni8mm.w8a8.bf16",
     isa_matrix,
     "panel.int8",
     w8a8<DType::bf16>,
     {neondot::w8a8_bf16, &int8_rows_128},
     {neoni8mm::w8a8_bf16, &int8_rows_128, neoni8mm::w8a8_gated_bf16}},
    {"neoni8mm.w8a8.f16",
     isa_matrix,
     "panel.int8",
     w8a8<DType::f16>,
     {neondot::w8a8_f16, &int8_rows_128},
     {neoni8mm::w8a8_f16, &int8_rows_128, neoni8mm::w8a8_gated_f16}},
    {"neoni8mm.w8a8.f32",
     isa_matrix,
     "panel.int8",
     w8a8<DType::f32>,
     {neondot::w8a8_f32, &int8_rows_128},
     {neoni8mm::w8a8_f32, &int8_rows_128, neoni8mm::w8a8_gated_f32}},
    {"neoni8mm.int4.bf16",
     isa_matrix,
     "panel.int4",
     int4_groups<DType::bf16, false>,
     {neondot::int4_bf16, &int8_groups_128},
     {neoni8mm::int4_bf16, &int8_groups_128}},
    {"neoni8mm.int4.f16",
     isa_matrix,
     "panel.int4",
     int4_groups<DType::f16, false>,
     {neondot::int4_f16, &int8_groups_128},
     {neoni8mm::int4_f16, &int8_groups_128}},
    {"neoni8mm.int4.f32",
     isa_matrix,
     "panel.int4",
     int4_groups<DType::f32, false>,
     {neondot::int4_f32, &int8_groups_128},
     {neoni8mm::int4_f32, &int8_groups_128}},
    {"neoni8mm.int4.min",
     isa_matrix,
     "panel.int4",
     int4_groups<DType::f32, true>,
     {neondot::int4_min, &int8_groups_128},
     {neoni8mm::int4_min, &int8_groups_128}},
    {"neondot.w8a8.bf16",
     isa_neon | isa_neondot,
     "panel.int8",
     w8a8<DType::bf16>,
     {neondot::w8a8_bf16, &int8_rows_128},
     {neondot::w8a8_bf16, &int8_rows_128, neondot::w8a8_gated_bf16}},
    {"neondot.w8a8.f16",
     isa_neon | isa_neondot,
     "panel.int8",
     w8a8<DType::f16>,
     {neondot::w8a8_f16, &int8_rows_128},
     {neondot::w8a8_f16, &int8_rows_128, neondot::w8a8_gated_f16}},
    {"neondot.w8a8.f32",
     isa_neon | isa_neondot,
     "panel.int8",
     w8a8<DType::f32>,
     {neondot::w8a8_f32, &int8_rows_128},
     {neondot::w8a8_f32, &int8_rows_128, neondot::w8a8_gated_f32}},
    {"neondot.k4", isa_neon | isa_neondot, "panel.k", k_quant<4>, {neondot::k4, &int8_groups_128}, {}},
    {"neondot.k5", isa_neon | isa_neondot, "panel.k", k_quant<5>, {neondot::k5, &int8_groups_128}, {}},
    {"neondot.k6", isa_neon | isa_neondot, "panel.k", k_quant<6>, {neondot::k6, &int8_groups_128}, {}},
    {"neondot.k3", isa_neon | isa_neondot, "panel.k", k_quant<3>, {neondot::k3, &int8_groups_128}, {}},
    {"neondot.k2", isa_neon | isa_neondot, "panel.k", k_quant<2>, {neondot::k2, &int8_groups_128}, {}},
    {"neondot.int4.bf16",
     isa_neon | isa_neondot,
     "panel.int4",
     int4_groups<DType::bf16, false>,
     {neondot::int4_bf16, &int8_groups_128},
     {}},
    {"neondot.int4.f16",
     isa_neon | isa_neondot,
     "panel.int4",
     int4_groups<DType::f16, false>,
     {neondot::int4_f16, &int8_groups_128},
     {}},
    {"neondot.int4.f32",
     isa_neon | isa_neondot,
     "panel.int4",
     int4_groups<DType::f32, false>,
     {neondot::int4_f32, &int8_groups_128},
     {}},
    {"neondot.int4.min",
     isa_neon | isa_neondot,
     "panel.int4",
     int4_groups<DType::f32, true>,
     {neondot::int4_min, &int8_groups_128},
     {}},
    {"neondot.nvfp4",
     isa_neon | isa_neondot,
     "panel.lut4",
     lut4_dot<Numerics::Kind::e2m1, DType::f8e4m3, 16>,
     {neondot::nvfp4, &int8_groups_128},
     {}},
    {"neondot.mxfp4",
     isa_neon | isa_neondot,
     "panel.lut4",
     lut4_dot<Numerics::Kind::e2m1, DType::f8e8m0, 32>,
     {neondot::mxfp4, &int8_groups_128},
     {}},
    {"neondot.nf4",
     isa_neon | isa_neondot,
     "panel.lut4",
     lut4_dot<Numerics::Kind::nf4, DType::f32, 32>,
     {neondot::nf4, &int8_groups_128},
     {}},
    {"neon.w8a8.bf16",
     isa_neon,
     "panel.int8",
     w8a8<DType::bf16>,
     {neon::w8a8_bf16, &int8_rows_128},
     {neon::w8a8_bf16, &int8_rows_128, neon::w8a8_gated_bf16}},
    {"neon.w8a8.f16",
     isa_neon,
     "panel.int8",
     w8a8<DType::f16>,
     {neon::w8a8_f16, &int8_rows_128},
     {neon::w8a8_f16, &int8_rows_128, neon::w8a8_gated_f16}},
    {"neon.w8a8.f32",
     isa_neon,
     "panel.int8",
     w8a8<DType::f32>,
     {neon::w8a8_f32, &int8_rows_128},
     {neon::w8a8_f32, &int8_rows_128, neon::w8a8_gated_f32}},
    {"neon.k4", isa_neon, "panel.k", k_quant<4>, {neon::k4, &int8_groups_128}, {}},
    {"neon.k5", isa_neon, "panel.k", k_quant<5>, {neon::k5, &int8_groups_128}, {}},
    {"neon.k6", isa_neon, "panel.k", k_quant<6>, {neon::k6, &int8_groups_128}, {}},
    {"neon.k3", isa_neon, "panel.k", k_quant<3>, {neon::k3, &int8_groups_128}, {}},
    {"neon.k2", isa_neon, "panel.k", k_quant<2>, {neon::k2, &int8_groups_128}, {}},
    {"neon.f32", isa_neon, "panel.f32", dense<DType::f32>, {neon::linear_f32}, {}},
    {"neon.bf16", isa_neon, "panel.bf16", dense<DType::bf16>, {neon::linear_bf16}, {}},
    {"neon.bf16.stored", isa_neon, "dense", dense<DType::bf16>, {neon::linear_stored}, {}, "neon.bf16"},
    {"neon.f16", isa_neon, "panel.f16", dense<DType::f16>, {neon::linear_f16}, {}},
    {"neon.int4.bf16", isa_neon, "panel.int4", integer<4, DType::bf16, false>, {neon::linear_int4_bf16}, {}},
    {"neon.int4.f16", isa_neon, "panel.int4", integer<4, DType::f16, false>, {neon::linear_int4_f16}, {}},
    {"neon.int4.f32", isa_neon, "panel.int4", integer<4, DType::f32, false>, {neon::linear_int4_f32}, {}},
    {"neon.int4.min", isa_neon, "panel.int4", integer<4, DType::f32, true>, {neon::linear_int4_min}, {}},
    {"neon.int8.bf16", isa_neon, "panel.int8", integer<8, DType::bf16, false>, {neon::linear_int8_bf16}, {}},
    {"neon.int8.f16", isa_neon, "panel.int8", integer<8, DType::f16, false>, {neon::linear_int8_f16}, {}},
    {"neon.int8.f32", isa_neon, "panel.int8", integer<8, DType::f32, false>, {neon::linear_int8_f32}, {}},
    {"neon.int8.min", isa_neon, "panel.int8", integer<8, DType::f32, true>, {neon::linear_int8_min}, {}},
    rounded_row<neon::linear_int4_bf16, rounded<integer<4, DType::bf16, false>>>(
        "neon.int4.bf16.rounded", isa_neon, "panel.int4", rounded_rows_128),
    rounded_row<neon::linear_int4_f16, rounded<integer<4, DType::f16, false>>>(
        "neon.int4.f16.rounded", isa_neon, "panel.int4", rounded_rows_128),
    rounded_row<neon::linear_int4_f32, rounded<integer<4, DType::f32, false>>>(
        "neon.int4.f32.rounded", isa_neon, "panel.int4", rounded_rows_128),
    rounded_row<neon::linear_int8_bf16, rounded<integer<8, DType::bf16, false>>>(
        "neon.int8.bf16.rounded", isa_neon, "panel.int8", rounded_rows_128),
    rounded_row<neon::linear_int8_f16, rounded<integer<8, DType::f16, false>>>(
        "neon.int8.f16.rounded", isa_neon, "panel.int8", rounded_rows_128),
    rounded_row<neon::linear_int8_f32, rounded<integer<8, DType::f32, false>>>(
        "neon.int8.f32.rounded", isa_neon, "panel.int8", rounded_rows_128),
    {"neon.lut4.e4m3", isa_neon, "panel.lut4", lut4<DType::f8e4m3>, {neon::linear_lut4_e4m3}, {}},
    {"neon.lut4.e8m0", isa_neon, "panel.lut4", lut4<DType::f8e8m0>, {neon::linear_lut4_e8m0}, {}},
    {"neon.lut4.f32", isa_neon, "panel.lut4", lut4<DType::f32>, {neon::linear_lut4_f32}, {}},
    {"neon.fp8.bf16", isa_neon, "panel.fp8", fp8<DType::bf16>, {neon::linear_fp8_bf16}, {}},
    {"neon.fp8.f16", isa_neon, "panel.fp8", fp8<DType::f16>, {neon::linear_fp8_f16}, {}},
    {"neon.fp8.f32", isa_neon, "panel.fp8", fp8<DType::f32>, {neon::linear_fp8_f32}, {}},
    {"neon.fp8.e8m0", isa_neon, "panel.fp8", fp8<DType::f8e8m0>, {neon::linear_fp8_e8m0}, {}},
    rounded_row<neon::linear_lut4_e4m3, rounded<lut4<DType::f8e4m3>>>("neon.lut4.e4m3.rounded", isa_neon,
                                                                      "panel.lut4", rounded_rows_128),
    rounded_row<neon::linear_lut4_e8m0, rounded<lut4<DType::f8e8m0>>>("neon.lut4.e8m0.rounded", isa_neon,
                                                                      "panel.lut4", rounded_rows_128),
    rounded_row<neon::linear_lut4_f32, rounded<lut4<DType::f32>>>("neon.lut4.f32.rounded", isa_neon,
                                                                  "panel.lut4", rounded_rows_128),
    rounded_row<neon::linear_fp8_bf16, rounded<fp8<DType::bf16>>>("neon.fp8.bf16.rounded", isa_neon,
                                                                  "panel.fp8", rounded_rows_128),
    rounded_row<neon::linear_fp8_f16, rounded<fp8<DType::f16>>>("neon.fp8.f16.rounded", isa_neon, "panel.fp8",
                                                                rounded_rows_128),
    rounded_row<neon::linear_fp8_f32, rounded<fp8<DType::f32>>>("neon.fp8.f32.rounded", isa_neon, "panel.fp8",
                                                                rounded_rows_128),
    rounded_row<neon::linear_fp8_e8m0, rounded<fp8<DType::f8e8m0>>>("neon.fp8.e8m0.rounded", isa_neon,
                                                                    "panel.fp8", rounded_rows_128),
    {"neon.expanded", isa_neon, "expand.panel", anything, {neon::linear_f32}, {}},
    rounded_row<neon::linear_f32, anything_rounded>("neon.expanded.rounded", isa_neon, "expand.panel",
                                                    rounded_rows_128),
#endif
    {"ref.rounded", 0, "expand.f32", anything_rounded, {linear_rounded_ref, &rounded_rows}, {}},
    {"ref", 0, "expand.f32", anything, {linear_ref}, {}},
};

constexpr AttentionPath by_vectors(void (*run)(const AttentionArgs&, const Share&) noexcept) {
  return {run, 96, 24, true};  // simd/attention.inl: block_rows; four register tiles
}

#if defined(__x86_64__)
// Tiles take keys as rows.
bool head_of_tiles(int64_t head_dim, KvType kv) {
  return head_of<16, 256>(head_dim, kv) && !keys_in_spans(kv);
}
#endif

constexpr AttentionKernel attention_rows[] = {
#if defined(__x86_64__)
    {"amx",
     isa_tiles,
     head_of_tiles,
     avx512::write_kv,
     by_vectors(avx512::attention),
     {amx::attention, 512, 32, false, Products::bf16}},
    {"avx512", isa_avx512, head_of<16>, avx512::write_kv, by_vectors(avx512::attention)},
    {"avx2", isa_avx2, head_of<8>, avx2::write_kv, by_vectors(avx2::attention)},
#elif defined(__aarch64__)
    {"neon", isa_neon, head_of<4>, neon::write_kv, by_vectors(neon::attention)},
#endif
    {"ref", 0, any_head, write_kv_ref, {attention_ref, 16, 1, false}},
};

constexpr ElementwiseKernels elementwise_rows[] = {
#if defined(__x86_64__)
    {"avx512", isa_avx512, avx512::rms_norm, avx512::add_rms_norm, avx512::rope, avx512::low_rank,
     avx512::hadamard, avx512::take_columns, avx512::add, avx512::mul, avx512::silu, avx512::silu_mul,
     avx512::clamped_silu_mul, avx512::largest, avx512::exponentials, avx512::at_least},
    {"avx2", isa_avx2, avx2::rms_norm, avx2::add_rms_norm, avx2::rope, avx2::low_rank, avx2::hadamard,
     avx2::take_columns, avx2::add, avx2::mul, avx2::silu, avx2::silu_mul, avx2::clamped_silu_mul,
     avx2::largest, avx2::exponentials, avx2::at_least},
#elif defined(__aarch64__)
    {"neon", isa_neon, neon::rms_norm, neon::add_rms_norm, neon::rope, neon::low_rank, neon::hadamard,
     neon::take_columns, neon::add, neon::mul, neon::silu, neon::silu_mul, neon::clamped_silu_mul,
     neon::largest, neon::exponentials, neon::at_least},
#endif
    {"ref", 0, rms_norm_ref, add_rms_norm_ref, rope_ref, low_rank_ref, hadamard_ref, take_columns_ref,
     add_ref, mul_ref, silu_ref, silu_mul_ref, clamped_silu_mul_ref, largest_ref, exponentials_ref,
     at_least_ref},
};

}  // namespace

std::span<const LinearKernel> linear_kernels() { return linear_rows; }
std::span<const AttentionKernel> attention_kernels() { return attention_rows; }
std::span<const ElementwiseKernels> elementwise_kernels() { return elementwise_rows; }

const LinearKernel* row_that_starts_for(const LinearKernel& chosen, std::string_view stored_as) {
  for (const LinearKernel& row : linear_rows)
    if (row.starts_for == chosen.name && row.packing == stored_as) return &row;
  return nullptr;
}

const LinearKernel& choose_linear(const Numerics& numerics, int64_t n, int64_t k, uint32_t features) {
  for (const LinearKernel& row : linear_rows)
    if ((row.isa & ~features) == 0 && row.accepts(numerics, n, k)) return row;
  fail("no linear kernel for {} [{}, {}]", to_string(numerics), n, k);
}

const AttentionKernel& choose_attention(int64_t head_dim, KvType kv, uint32_t features) {
  for (const AttentionKernel& row : attention_rows)
    if ((row.isa & ~features) == 0 && row.accepts(head_dim, kv)) return row;
  const auto name = kv_type_names[static_cast<size_t>(kv)];
  throw input_error(fmt::format("KV cache in {}", name), fmt::format("heads of a multiple of {}", kv_group),
                    fmt::format("{}", head_dim), "choose another KV type");
}

const ElementwiseKernels& choose_elementwise(uint32_t features) {
  for (const ElementwiseKernels& row : elementwise_rows)
    if ((row.isa & ~features) == 0) return row;
  fail("no elementwise kernels");
}

int64_t most_likely(std::span<const float> logits, const ElementwiseKernels& kernels) {
  const auto n = static_cast<int64_t>(logits.size());
  const float best = kernels.largest(logits.data(), n);
  if (best == -INFINITY) return -1;
  // Whole blocks are skipped as fast as they are read; only the one with the winner is walked.
  int64_t begin = 0;
  while (kernels.largest(logits.data() + begin, std::min(tail_block, n - begin)) < best) begin += tail_block;
  return std::find(logits.begin() + begin, logits.end(), best) - logits.begin();
}

}  // namespace lathe
