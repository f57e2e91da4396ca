#include "quant/numerics.h"

#include <array>

#include "core/error.h"
#include "core/float.h"
#include "quant/activations.h"

namespace lathe {
namespace {

using Kind = Numerics::Kind;

constexpr float e2m1_values[] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -.0f, -.5f, -1, -1.5f, -2, -3, -4, -6};

constexpr float nf4_values[] = {-1.0f,
                                -0.6961928009986877f,
                                -0.5250730514526367f,
                                -0.39491748809814453f,
                                -0.28444138169288635f,
                                -0.18477343022823334f,
                                -0.09105003625154495f,
                                0.0f,
                                0.07958029955625534f,
                                0.16093020141124725f,
                                0.24611230194568634f,
                                0.33791524171829224f,
                                0.44070982933044434f,
                                0.5626170039176941f,
                                0.7229568362236023f,
                                1.0f};

constexpr float iq4_nl_values[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// What people call these, in order of appearance; the name is that of the weights.
struct Known {
  std::string_view scheme, name;
  Numerics numerics;
};
constexpr Known known[] = {
    {"fp8", "fp8", Numerics::fp8()},
    {"fp8-tensor", "fp8 tensor", Numerics::fp8_tensor()},
    {"fp8-block", "fp8 128x128", Numerics::fp8_block()},
    {"nvfp4", "nvfp4", Numerics::nvfp4()},
    {"mxfp4", "mxfp4", Numerics::mxfp4()},
    {"mxfp8", "mxfp8", Numerics::mxfp8()},
    {"", "iq4_nl", Numerics::iq4_nl()},
    {"w8a8-fp8", "fp8", Numerics::fp8().over(Activations::fp8_per_row)},
    {"w8a8-fp8-static", "fp8 tensor", Numerics::fp8_tensor().over(Activations::fp8_static)},
    {"w8a8-fp8-block", "fp8 128x128", Numerics::fp8_block().over(Activations::fp8_groups)},
    {"w4a4-nvfp4", "nvfp4", Numerics::nvfp4().over(Activations::nvfp4)},
    {"w4a4-mxfp4", "mxfp4", Numerics::mxfp4().over(Activations::mxfp4)},
    {"w8a8-mxfp8", "mxfp8", Numerics::mxfp8().over(Activations::mxfp8)},
};

bool has_wide_scale(const Numerics& n) {
  return n.dtype == DType::f32 || n.dtype == DType::f16 || n.dtype == DType::bf16;
}

const Known* find_known(const Numerics& n) {
  for (const Known& k : known) {
    Numerics same = n;  // f32, f16 and bf16 scales are not told apart
    if (has_wide_scale(n) && has_wide_scale(k.numerics)) same.dtype = k.numerics.dtype;
    if (same == k.numerics) return &k;
  }
  return nullptr;
}

// " a8" of integers, which is what they are called; " afp8", " afp8 g128", " anvfp4".
std::string activations_suffix(const Numerics& n) {
  if (!n.rounds_activations()) return "";
  if (n.rounds_to_int8()) return n.has_input_scale() ? " a8 static" : " a8";
  return fmt::format(" a{}", to_string(n.activations));
}

bool is_nf4_group(int group) { return group >= 64 && group <= 4096 && (group & (group - 1)) == 0; }

std::string grid_name(const Numerics& n) {
  if (const Known* k = find_known(n)) return std::string(k->name);
  std::string text(n.kind == Kind::e4m3     ? "fp8"
                   : n.kind == Kind::e2m1   ? "fp4"
                   : n.kind == Kind::iq4_nl ? "iq4_nl"
                                            : "nf4");
  if (n.group > 0) text += fmt::format(" g{}", n.group);
  if (n.block_rows != 1) text += fmt::format(" rows {}", n.block_rows);
  if (n.global) text += " global";
  return text;
}

}  // namespace

std::span<const float> grid_values(Kind kind) {
  static const std::array<float, 256> e4m3 = [] {
    std::array<float, 256> out;
    for (int code = 0; code < 256; ++code)
      out[static_cast<size_t>(code)] = f8e4m3_to_f32(static_cast<uint8_t>(code));
    return out;
  }();
  switch (kind) {
    case Kind::e4m3:
      return e4m3;
    case Kind::e2m1:
      return e2m1_values;
    case Kind::nf4:
      return nf4_values;
    case Kind::iq4_nl:
      return iq4_nl_values;
    case Kind::dense:
    case Kind::integer:
      break;
  }
  fail("only grids have values");
}

float largest_of_grid(Kind kind) {
  switch (kind) {
    case Kind::e4m3:
      return 448;
    case Kind::e2m1:
      return 6;
    case Kind::nf4:
      return 1;
    case Kind::iq4_nl:
      return 127;
    case Kind::dense:
    case Kind::integer:
      break;
  }
  fail("only grids have values");
}

std::string_view scheme_of(const Numerics& n) {
  if (n == Numerics::nf4(n.group)) return "nf4";
  const Known* k = find_known(n);
  return k ? k->scheme : std::string_view();
}

std::string to_string(const Numerics& n) {
  if (n.column_scales) {
    Numerics plain = n;
    plain.column_scales = false;
    return to_string(plain) + " column scales";
  }
  if (n.is_dense()) return std::string(dtype_name(n.dtype));
  if (n.is_grid()) return grid_name(n.weights_alone()) + activations_suffix(n);
  std::string text = fmt::format("int{}", n.bits);
  if (n.group > 0) text += fmt::format(" g{}", n.group);
  if (n.super > 0) text += fmt::format("/{}", n.super);
  if (n.offset == Numerics::Offset::zero_point) text += " asym";
  if (n.offset == Numerics::Offset::minimum) text += " min";
  text += activations_suffix(n);
  if (n.act_order) text += " act-order";
  return text;
}

Numerics parse_scheme(std::string_view scheme, int group_size, bool asymmetric, DType scale) {
  if (scale != DType::f32 && scale != DType::f16 && scale != DType::bf16)
    throw input_error("scale type", "f32, f16 or bf16", dtype_name(scale));
  const auto fixed = [&](std::string_view what) {
    if (group_size > 0 || asymmetric)
      throw input_error(fmt::format("scheme {}", scheme), what,
                        asymmetric ? "--asymmetric" : fmt::format("--group-size {}", group_size));
  };
  if (scheme == "w8a8" || scheme == "w8a8-static") {
    fixed("one scale per channel and no zero point");
    return scheme == "w8a8" ? Numerics::w8a8(scale) : Numerics::w8a8_static(scale);
  }
  for (const Known& k : known) {
    if (k.scheme.empty() || k.scheme != scheme) continue;
    fixed("its own groups and no zero point");
    Numerics n = k.numerics;
    if (has_wide_scale(n)) n.dtype = scale;
    return n;
  }
  const bool bits_of_weights = scheme.size() > 2 && scheme[0] == 'w' && scheme[1] >= '2' && scheme[1] <= '8';
  const bool per_row = bits_of_weights && scheme.substr(2) == "a8",
             with_scale = bits_of_weights && scheme.substr(2) == "a8-static";
  const bool beside_floats = scheme == "w4a8-fp8";
  const bool integers =
      per_row || with_scale || beside_floats || (bits_of_weights && scheme.substr(2) == "a16");
  if (!integers && scheme != "nf4")
    throw input_error(
        "scheme",
        "w2a16 ... w8a16, w2a8 ... w8a8, w2a8-static ... w8a8-static, w4a8-fp8, fp8, fp8-tensor, fp8-block, "
        "nvfp4, mxfp4, mxfp8, nf4, w8a8-fp8, w8a8-fp8-static, w8a8-fp8-block, w4a4-nvfp4, w4a4-mxfp4 or "
        "w8a8-mxfp8",
        printable(scheme), "w8a8, w8a16 and w4a16 are the usual ones");
  if (group_size < -1 || group_size > 1 << 20)
    throw input_error("group size", "-1 (the scheme's default), 0 (per channel) or up to 1048576",
                      std::to_string(group_size));
  if (scheme == "nf4") {
    if (asymmetric) throw input_error("scheme nf4", "no zero point", "--asymmetric");
    if (group_size >= 0 && !is_nf4_group(group_size))
      throw input_error("scheme nf4", "group size 64, 128, ... 4096", std::to_string(group_size));
    return Numerics::nf4(group_size >= 0 ? group_size : 64);
  }
  const int bits = scheme[1] - '0';
  const Numerics n = Numerics::integer(bits,
                                       group_size >= 0 ? group_size
                                       : bits == 8     ? 0
                                                       : 128,
                                       asymmetric, scale);
  return n.over(per_row         ? Activations::int8_per_row
                : with_scale    ? Activations::int8_static
                : beside_floats ? Activations::fp8_per_row
                                : Activations::as_they_are);
}

}  // namespace lathe
