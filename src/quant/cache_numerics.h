// Which numbers the keys and values of an attention are, beside which scales come with a model.
#pragma once

#include <cstdint>
#include <string_view>

namespace lathe {

// What the layers before made; or that rounded: to e4m3, to int8, or to e2m1 with an e4m3 scale of each 16.
// x = scale * code: kernels/attention.h says how they are rounded and how they lie.
enum class CacheNumerics : uint8_t { floats, fp8, int8, nvfp4 };
inline constexpr std::string_view cache_numerics_names[] = {"floats", "fp8", "int8", "nvfp4"};

// Those that have scales to calibrate.
inline constexpr CacheNumerics calibrated_cache_numerics[] = {CacheNumerics::fp8, CacheNumerics::int8,
                                                              CacheNumerics::nvfp4};

inline std::string_view to_string(CacheNumerics n) { return cache_numerics_names[static_cast<size_t>(n)]; }

// What a scale is for: one row of one head, which finds it when it is rounded; or, coming with the model, all
// keys (or values) of a layer, or those of a head.
enum class CacheScales : uint8_t { row, layer, head };
inline constexpr std::string_view cache_scales_names[] = {"row", "layer", "head"};

inline std::string_view to_string(CacheScales s) { return cache_scales_names[static_cast<size_t>(s)]; }

struct CacheScheme {
  CacheNumerics numerics = CacheNumerics::floats;
  CacheScales scales = CacheScales::layer;

  bool rounds() const { return numerics != CacheNumerics::floats; }
  bool has_scales() const { return rounds() && scales != CacheScales::row; }  // that come with the model
  int count(int kv_heads) const { return !has_scales() ? 0 : scales == CacheScales::head ? kv_heads : 1; }
  bool operator==(const CacheScheme&) const = default;
};

// The largest size of a code, in scales: what a scale is found by. The largest key or value becomes that.
inline float largest_code(CacheNumerics n) {
  switch (n) {
    case CacheNumerics::fp8:
      return 448;
    case CacheNumerics::int8:
      return 127;
    case CacheNumerics::nvfp4:
      return 6 * 448;
    case CacheNumerics::floats:
      break;
  }
  return 0;
}

}  // namespace lathe
