#include "quant/activations.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "quant/int8_step.h"
#include "quant/round.h"

namespace lathe {
namespace {

using Kind = Numerics::Kind;

constexpr std::string_view names[] = {"as they are", "int8",  "int8 static", "fp8",   "fp8 static",
                                      "fp8 g128",    "nvfp4", "mxfp4",       "mxfp8", "mxfp8 rceil"};

Kind grid_of(Activations to) {
  return to == Activations::nvfp4 || to == Activations::mxfp4 ? Kind::e2m1 : Kind::e4m3;
}

float nearest(Kind kind, float x) {
  if (std::isnan(x)) return x;
  const int code = nearest_code(kind, x);
  return grid_values(kind)[static_cast<size_t>(code)];
}

float scale_for(Activations to, float most, float given) {
  switch (to) {
    case Activations::fp8_per_row:
    case Activations::fp8_groups:
      return most / 448;
    case Activations::fp8_static:
      return given;
    case Activations::nvfp4:
      return given * nearest(Kind::e4m3, most / 6 / given);
    case Activations::mxfp4:
    case Activations::mxfp8:
      return std::ldexp(1.0f, mx_exponent(most, MxRule::even, grid_of(to)));
    case Activations::mxfp8_rceil:
      return std::ldexp(1.0f, mx_exponent(most, MxRule::rceil, Kind::e4m3));
    case Activations::as_they_are:
    case Activations::int8_per_row:
    case Activations::int8_static:
      break;
  }
  fail("{} has no float scale", to_string(to));
}

}  // namespace

int64_t columns_per_scale(Activations to) {
  switch (to) {
    case Activations::nvfp4:
      return 16;
    case Activations::mxfp4:
    case Activations::mxfp8:
    case Activations::mxfp8_rceil:
      return 32;
    case Activations::fp8_groups:
      return 128;
    default:
      return 0;
  }
}

float largest_activation(Activations to) {
  if (to == Activations::int8_per_row || to == Activations::int8_static) return 127;
  return to == Activations::nvfp4 ? 6 * 448 : largest_of_grid(grid_of(to));
}

std::string_view to_string(Activations to) { return names[static_cast<size_t>(to)]; }

void round_row(Activations to, const float* x, int64_t n, float* out, float given) {
  if (to == Activations::as_they_are) {
    if (x != out) std::copy_n(x, n, out);
    return;
  }
  if (to == Activations::int8_per_row || to == Activations::int8_static)
    return round_row_to_int8(x, n, out, given);
  const int64_t group = columns_per_scale(to) > 0 ? columns_per_scale(to) : n;
  for (int64_t begin = 0; begin < n; begin += group) {
    const int64_t end = std::min(n, begin + group);
    float most = 0;
    for (int64_t i = begin; i < end; ++i) most = std::max(most, std::fabs(x[i]));
    const float scale = scale_for(to, most, given);
    for (int64_t i = begin; i < end; ++i)
      out[i] = scale == 0 ? x[i] * 0 : nearest(grid_of(to), x[i] / scale) * scale;
  }
}

void round_row_to_int8(const float* x, int64_t n, float* out, float scale) {
  if (scale > 0) {
    const float by = 1.0f / scale;
    for (int64_t i = 0; i < n; ++i) out[i] = std::rint(std::clamp(x[i] * by, -127.0f, 127.0f)) * scale;
    return;
  }
  float most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::fabs(x[i]));
  const float inverse = inverse_of_step(most);
  scale = most / 127.0f;
  for (int64_t i = 0; i < n; ++i) out[i] = std::rint(x[i] * inverse) * scale;
}

}  // namespace lathe
