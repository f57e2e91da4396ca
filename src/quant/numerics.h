// Which numbers a weight may hold. Says nothing about bytes: that is a Packing.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/tensor.h"
#include "quant/activation_numerics.h"

namespace lathe {

// A weight w is  dense:       the element itself;
//   of integers  none:        w = scale * q           q signed, -2^(bits-1) .. 2^(bits-1) - 1
//                zero_point:  w = scale * (q - zero)  q and zero signed, as above
//                minimum:     w = scale * q - minimum q unsigned, 0 .. 2^bits - 1 (GGUF k-quants)
//   of a grid                 w = scale * global * grid_values(kind)[q], q unsigned
// With column_scales, w * columns[k] is the weight; what is rounded of the input is x[k] * columns[k].
struct Numerics {
  // Grids: e4m3 and e2m1 are the 8- and 4-bit floats of the OCP specifications (FP8; MX and NVFP4), q their
  // bits; nf4 the 16 quantiles of a normal distribution in [-1, 1] (https://arxiv.org/abs/2305.14314); iq4_nl
  // the 16 integers from -127 to 113 of ggml's kvalues_iq4nl.
  enum class Kind : uint8_t { dense, integer, e4m3, e2m1, nf4, iq4_nl };
  enum class Offset : uint8_t { none, zero_point, minimum };
  using Activations = lathe::Activations;

  Kind kind = Kind::dense;
  DType dtype = DType::bf16;  // dense: the element; otherwise: the stored scale
  uint8_t bits = 16;          // integers: 2 .. 8
  int group = 0;              // elements along a row that share a scale; 0: the whole row ("per channel")
  Offset offset = Offset::none;
  Activations activations = Activations::as_they_are;  // what a linear layer rounds its input to first
  int block_rows = 1;   // grids: rows that share their scales, counted from row 0; 0: all rows
  bool global = false;  // grids: one f32 for the whole weight multiplies its scales; otherwise that is 1
  // integer: columns whose scales, and minima, are one f16 number each times integers from -128 to 127, so
  // that dtype is f32 (GGUF's k-quants: 256); 0: scales are free.
  int super = 0;
  // integer: which group a column belongs to is stored (GPTQ's g_idx, Codes::group_of): groups are as many,
  // and need not be runs of columns.
  bool act_order = false;
  // Column k is multiplied by a number of its own (ModelOpt's pre_quant_scale, Codes::columns).
  bool column_scales = false;

  bool operator==(const Numerics&) const = default;

  static Numerics dense(DType dtype) {
    return {Kind::dense, dtype, static_cast<uint8_t>(8 * dtype_bytes(dtype)), 0, Offset::none, {}};
  }
  static Numerics integer(int bits, int group, bool asymmetric, DType scale = DType::bf16) {
    return {Kind::integer,
            scale,
            static_cast<uint8_t>(bits),
            group,
            asymmetric ? Offset::zero_point : Offset::none,
            {}};
  }
  // GGUF's k-quants: super-blocks of 256 columns; scales and codes q signed, or scales, minima and codes that
  // are not.
  static Numerics k_quant(int bits, int group, bool minimum) {
    Numerics n = integer(bits, group, false, DType::f32);
    if (minimum) n.offset = Offset::minimum;
    n.super = 256;
    return n;
  }
  // W8A8: int8 weights with a scale per row, int8 activations with a scale per token or one for all.
  static Numerics w8a8(DType scale = DType::bf16, Activations activations = Activations::int8_per_row) {
    return integer(8, 0, false, scale).over(activations);
  }
  static Numerics w8a8_static(DType scale = DType::bf16) { return w8a8(scale, Activations::int8_static); }
  static constexpr Numerics grid(Kind kind, int group, DType scale, int block_rows = 1, bool global = false) {
    const uint8_t bits = kind == Kind::e4m3 ? 8 : 4;
    return {kind, scale, bits, group, Offset::none, {}, block_rows, global};
  }
  // Per channel.
  static constexpr Numerics fp8(DType scale = DType::bf16) { return grid(Kind::e4m3, 0, scale); }
  static constexpr Numerics fp8_tensor(DType scale = DType::bf16) { return grid(Kind::e4m3, 0, scale, 0); }
  static constexpr Numerics fp8_block(DType scale = DType::bf16) { return grid(Kind::e4m3, 128, scale, 128); }
  static constexpr Numerics mxfp8() { return grid(Kind::e4m3, 32, DType::f8e8m0); }
  static constexpr Numerics mxfp4() { return grid(Kind::e2m1, 32, DType::f8e8m0); }
  static constexpr Numerics nvfp4() { return grid(Kind::e2m1, 16, DType::f8e4m3, 1, true); }
  static constexpr Numerics nf4(int group = 64) { return grid(Kind::nf4, group, DType::f32); }
  static constexpr Numerics iq4_nl() { return grid(Kind::iq4_nl, 32, DType::f32); }  // scales are f16 numbers

  Numerics with_column_scales() const {
    Numerics n = *this;
    n.column_scales = true;
    return n;
  }
  constexpr Numerics over(Activations a) const {  // over rows that are rounded to those
    Numerics n = *this;
    n.activations = a;
    return n;
  }
  constexpr Numerics weights_alone() const { return over(Activations::as_they_are); }

  bool rounds_activations() const { return activations != Activations::as_they_are; }
  bool rounds_to_int8() const {
    return activations == Activations::int8_per_row || activations == Activations::int8_static;
  }
  // One for all rows, found by calibration and stored with the weight.
  bool has_input_scale() const { return scale_is_given(activations); }
  bool is_dense() const { return kind == Kind::dense; }
  bool is_integer() const { return kind == Kind::integer; }
  bool is_grid() const { return kind >= Kind::e4m3; }
  // Some scale depends on the largest magnitude of the whole weight.
  bool scales_by_whole() const { return global || block_rows == 0; }
  int64_t groups(int64_t cols) const { return group == 0 ? 1 : (cols + group - 1) / group; }  // per row
  int code_min() const { return is_signed() ? -(1 << (bits - 1)) : 0; }
  int code_max() const { return (1 << (is_signed() ? bits - 1 : bits)) - 1; }

 private:
  bool is_signed() const { return kind == Kind::integer && offset != Offset::minimum; }
};

// What each code of a grid means: 256 values of e4m3 (0x7f and 0xff are NaN), 16 of the others.
std::span<const float> grid_values(Numerics::Kind);
float largest_of_grid(Numerics::Kind);  // 448, 6, 1, 127

// "bf16", "int8", "int4 g32 asym", "int8 a8", "fp8 128x128", "nvfp4", "fp8 afp8", "nvfp4 anvfp4"
std::string to_string(const Numerics&);

// The command line's name of a grid without its group size: "fp8-block", "nvfp4"; empty where there is none.
std::string_view scheme_of(const Numerics&);
// "w8a16", "w4a16", "w8a8", "w8a8-static", "w4a8", "w4a8-static", "w4a8-fp8", "fp8", "fp8-tensor",
// "fp8-block", "nvfp4", "mxfp4", "mxfp8", "nf4", or of weights and activations alike "w8a8-fp8",
// "w8a8-fp8-static", "w8a8-fp8-block", "w4a4-nvfp4", "w4a4-mxfp4", "w8a8-mxfp8" (of the command line) with a
// group size; InputError on an unknown scheme. group_size: -1 takes the scheme's default (int8: per channel,
// int4: 128, nf4: 64), 0: per channel. Of grids only nf4 has a choice of groups: 64, 128, ... 4096. `scale`
// is the type of scales where the scheme leaves that open.
Numerics parse_scheme(std::string_view scheme, int group_size, bool asymmetric, DType scale);

}  // namespace lathe
