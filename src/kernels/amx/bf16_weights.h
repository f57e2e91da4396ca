// Weights of any format as bf16 tiles, for prefill.cpp and decode.cpp.
#pragma once

#include "kernels/amx/tiles.h"
#include "kernels/avx512/vec.h"
// The bodies come last: they are written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/grid.inl"
#include "kernels/simd/linear.inl"
#include "kernels/simd/stored.inl"
// clang-format on

namespace lathe {
namespace {

constexpr int64_t columns = 32;  // columns of W in a tile

// Sources of weights. A strip's tiles lie, for each 32 columns, that of its first 16 rows before that of the
// others; `lines` of the stored weights are prefetched per step of 32 columns.

// Weights that lie as tiles already.
struct Tiled {
  static constexpr bool expands = false;
  static constexpr int lines = 2;
  const char* tiles;
  int64_t depth;
  explicit Tiled(const LinearArgs& a)
      : tiles(static_cast<const char*>(a.codes)), depth(ceil_div(a.k, columns)) {}
  const char* stored(int64_t strip, int64_t pass) const {
    return tiles + (strip * depth + pass * depth_tiles) * 2 * tile_bytes;
  }
};

// Panels of 32 rows (quant/packings/panels.cpp), in any format of simd/linear.inl.
template <class Format>
struct Panels {
  static constexpr bool expands = true;
  static constexpr int lines = Format::step >= 4 ? 1 : 2;
  Format format;
  int64_t k;
  explicit Panels(const LinearArgs& a) : format(a), k(a.k) {}

  const char* stored(int64_t strip, int64_t pass) const {
    return static_cast<const char*>(format.stored(strip, pass * depth_tiles * columns));
  }
  void expand(int64_t strip, int64_t begin, int64_t depth, char* out) const {
    for (int64_t t = 0; t < depth; ++t, out += 2 * tile_bytes) {
      const int64_t first = begin + t * columns;
      if (first + columns <= k && format.group % Format::step == 0)
        whole(strip, first, out);
      else
        ragged(strip, first, out);
    }
  }

 private:
  // 32 columns that exist; words do not cross groups.
  void whole(int64_t strip, int64_t first, char* out) const {
    constexpr int step = Format::step;
    typename Format::Scale scales[2];
    int64_t group = -1;
    for (int64_t column = first; column < first + columns; column += step < 2 ? 2 : step) {
      if (column / format.group != group) {
        group = column / format.group;
        for (int half = 0; half < 2; ++half) scales[half] = format.scale(strip, group, half * lanes);
      }
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        char* to = out + half * tile_bytes + (column - first) / 2 * 64;
        if constexpr (step == 1) {
          const V even = format.weight(At<0>{}, format.codes(strip, column, half * lanes), scales[half]),
                  odd = format.weight(At<0>{}, format.codes(strip, column + 1, half * lanes), scales[half]);
          _mm512_store_si512(to, as_pairs(even, odd));
        } else {
          const auto codes = format.codes(strip, column, half * lanes);
          unroll<step / 2>([&]<int i>(At<i>) __attribute__((always_inline)) {
            _mm512_store_si512(to + i * 64, as_pairs(format.weight(At<2 * i>{}, codes, scales[half]),
                                                     format.weight(At<2 * i + 1>{}, codes, scales[half])));
          });
        }
      }
    }
  }

  // The last columns, or groups of an odd size: column by column, and zeros after the last.
  void ragged(int64_t strip, int64_t first, char* out) const {
    alignas(64) float weights[columns * panel];
    const int64_t end = first + columns < k ? first + columns : k;
    for (int64_t i = (end - first) * panel; i < columns * panel; i += lanes) store(weights + i, zero());
    walk<1>(
        format, strip, 0, first, end, [&](int64_t column, int v, V w) __attribute__((always_inline)) {
          store(weights + (column - first) * panel + v * lanes, w);
        });
    for (int64_t half = 0; half < 2; ++half)
      for (int64_t r = 0; r < 16; ++r) {
        const float* at = weights + 2 * r * panel + half * tile_side;
        _mm512_store_si512(out + half * tile_bytes + r * 64, as_pairs(load(at), load(at + panel)));
      }
  }
};

}  // namespace
}  // namespace lathe
