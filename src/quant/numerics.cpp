#include "quant/numerics.h"

#include "core/error.h"

namespace lathe {

std::string to_string(const Numerics& n) {
  if (n.is_dense()) return std::string(dtype_name(n.dtype));
  std::string text = fmt::format("int{}", n.bits);
  if (n.group > 0) text += fmt::format(" g{}", n.group);
  if (n.offset == Numerics::Offset::zero_point) text += " asym";
  if (n.offset == Numerics::Offset::minimum) text += " min";
  if (n.activations == Numerics::Activations::int8_per_row) text += " a8";
  return text;
}

Numerics parse_scheme(std::string_view scheme, int group_size, bool asymmetric, DType scale) {
  if (scheme == "w8a8") {
    if (group_size > 0 || asymmetric)
      throw input_error("scheme w8a8", "one scale per channel and no zero point",
                        asymmetric ? "--asymmetric" : fmt::format("--group-size {}", group_size));
    return Numerics::w8a8(scale);
  }
  const bool known = scheme.size() == 5 && scheme[0] == 'w' && scheme[1] >= '2' && scheme[1] <= '8' &&
                     scheme.substr(2) == "a16";
  if (!known)
    throw input_error("scheme", "w2a16 ... w8a16 or w8a8", printable(scheme),
                      "w8a8, w8a16 and w4a16 are the usual ones");
  if (group_size < -1 || group_size > 1 << 20)
    throw input_error("group size", "-1 (the scheme's default), 0 (per channel) or up to 1048576",
                      std::to_string(group_size));
  if (scale != DType::f32 && scale != DType::f16 && scale != DType::bf16)
    throw input_error("scale type", "f32, f16 or bf16", dtype_name(scale));
  const int bits = scheme[1] - '0';
  return Numerics::integer(bits, group_size >= 0 ? group_size : bits == 8 ? 0 : 128, asymmetric, scale);
}

}  // namespace lathe
