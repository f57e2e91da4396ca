// A batch of rows of x over weights of 4 bits, rows of x rounded to int8 in groups of 32 columns: the sums of
// simd/int4.inl, exact in a group, and the same bits, but from int8 tiles of 32 columns. A group's codes are
// unpacked once for all rows; per row of x there is one conversion and two products by scales for each 16
// rows of W.
//
// Codes without minimum become 16 (u - 8) in one operation per 64; the 16 leaves with the weight's scale.
//
// [8192 x 2048] in g32: 22 GB/s of weights for 8 rows and 17 for 16, where integer dot products in vectors
// reach 17 and 11. (Two panels at a time, or unpacking a group ahead, were no faster.)
#include "kernels/amx/amx.h"
#include "kernels/amx/tiles.h"
#include "kernels/avx512/vec.h"
#include "kernels/avx512vnni/avx512vnni.h"

namespace lathe::amx {
namespace {

constexpr int64_t few = 4;              // rows up to which integer dot products in vectors are faster
constexpr int64_t block_tiles = 4;      // tiles of 16 rows of x that share unpacked weights
constexpr int64_t group_tile = 8 * 64;  // bytes of 16 rows of W x 32 columns
constexpr int64_t word_row = 4 * pair;  // bytes of 8 columns of a panel
constexpr int64_t read_ahead = 2048;

// Tiles 0, 1 and 4: results and rows of x, 16 rows. Tiles 2, 3 and 5: the same for the last `rest` rows.
// Tiles 6 and 7: 32 columns of 16 rows of W.
struct GroupTiles {
  explicit GroupTiles(int64_t rest) {
    static constexpr auto configs = [] {
      struct {
        TileConfig of_rest[tile_side];
      } all;
      for (int r = 0; r < tile_side; ++r) {
        TileConfig& c = all.of_rest[r];
        c.rows[2] = c.rows[3] = c.rows[5] = static_cast<uint8_t>(r ? r : tile_side);
        c.rows[6] = c.rows[7] = 8;
        c.bytes_per_row[4] = c.bytes_per_row[5] = 32;
      }
      return all;
    }();
    _tile_loadconfig(&configs.of_rest[rest]);
  }
  ~GroupTiles() { _tile_release(); }
};

template <class S, bool minimum, bool zeros>
struct Kernel {
  static constexpr float unit = minimum ? 1 : 16;  // of the integers that tiles sum
  const LinearArgs& a;
  Int8Groups x;
  const char *values, *codes;
  const float* x_scales;
  const int32_t* x_sums;
  int64_t groups, per_group;  // of weights: per row, and groups of x in one

  explicit Kernel(const LinearArgs& args)
      : a(args),
        x(a.m, a.k),
        values(static_cast<const char*>(a.packed_x)),
        codes(static_cast<const char*>(a.codes)),
        x_scales(reinterpret_cast<const float*>(values + x.scales())),
        x_sums(reinterpret_cast<const int32_t*>(values + x.sums())),
        groups(ceil_div(a.k, a.group)),
        per_group((a.group < a.k ? a.group : a.k) / x.columns) {}

  // Rows of a tile: 4 columns of 16 rows of W, those of even number in a word first.
  void unpack(int64_t panel, int64_t g, char* out) const {
    const char* from = codes + (panel * x.count + g) * 4 * word_row;
    const __m512i mask = _mm512_set1_epi8(minimum ? 0x0f : static_cast<char>(0xf0)),
                  middle = _mm512_set1_epi8(static_cast<char>(0x80));
#pragma GCC unroll 4
    for (int w = 0; w < 4; ++w)
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const char* at = from + w * word_row + half * 64;
        _mm_prefetch(at + read_ahead, _MM_HINT_T0);
        const __m512i words = _mm512_loadu_si512(at);
        char* to = out + half * group_tile + w * 128;
        if constexpr (minimum) {
          _mm512_store_si512(to, _mm512_and_si512(words, mask));
          _mm512_store_si512(to + 64, _mm512_and_si512(_mm512_srli_epi16(words, 4), mask));
        } else {  // (w & mask) ^ middle
          _mm512_store_si512(to, _mm512_ternarylogic_epi32(_mm512_slli_epi16(words, 4), mask, middle, 0x6a));
          _mm512_store_si512(to + 64, _mm512_ternarylogic_epi32(words, mask, middle, 0x6a));
        }
      }
  }

  // Sums of group g for rows [top, ...) of x, 16 or the rest, into c [2, 16, 16]. (Tiles have literal names.)
  void multiply(int64_t top, int64_t g, int32_t* c) const {
    _tile_loadd(4, values + (top * x.count + g) * x.columns, x.count * x.columns);
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (minimum) {
      _tile_dpbsud(0, 4, 6);
      _tile_dpbsud(1, 4, 7);
    } else {
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
    }
    _tile_stored(0, c, 64);
    _tile_stored(1, c + 256, 64);
  }
  void multiply_rest(int64_t top, int64_t g, int32_t* c) const {
    _tile_loadd(5, values + (top * x.count + g) * x.columns, x.count * x.columns);
    _tile_zero(2);
    _tile_zero(3);
    if constexpr (minimum) {
      _tile_dpbsud(2, 5, 6);
      _tile_dpbsud(3, 5, 7);
    } else {
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
    _tile_stored(2, c, 64);
    _tile_stored(3, c + 256, 64);
  }

  struct Scales {
    V scale[2], offset[2];
  };
  Scales scales(int64_t panel, int64_t weight_group) const {
    Scales s;
    for (int half = 0; half < 2; ++half) {
      const int64_t at = (panel * groups + weight_group) * pair + half * lanes;
      s.scale[half] = mul(load_as_f32(static_cast<const S*>(a.scales) + at), set(1 / unit));
      s.offset[half] = zero();
      if constexpr (minimum) s.offset[half] = load(static_cast<const float*>(a.zeros) + at);
      if constexpr (zeros)
        s.offset[half] = mul(load_as_f32(static_cast<const int8_t*>(a.zeros) + at), set(-unit));
    }
    return s;
  }

  // In the order of simd/int4.inl.
  void accumulate(const int32_t* c, int64_t row, int64_t count, int64_t g, const Scales& s,
                  float* sums) const {
    for (int64_t r = 0; r < count; ++r, c += 16, sums += pair) {
      const int64_t at = (row + r) * x.count + g;
      const V x_scale = set(x_scales[at]), x_sum = set(static_cast<float>(x_sums[at]));
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        V product = _mm512_cvtepi32_ps(_mm512_load_si512(c + half * 256)), sum = load(sums + half * lanes);
        if constexpr (zeros) product = fma(x_sum, s.offset[half], product);  // integers below 2^24: exact
        sum = fma(mul(product, x_scale), s.scale[half], sum);
        if constexpr (minimum) sum = sub(sum, mul(mul(x_sum, x_scale), s.offset[half]));
        store(sums + half * lanes, sum);
      }
    }
  }

  // Rows [top, top + count) of x, at most block_tiles of 16. The sums of a group are taken while the tiles of
  // the next are under way.
  void block(int64_t panel, int64_t top, int64_t count) const {
    alignas(64) char unpacked[2 * group_tile];
    alignas(64) int32_t c[2][block_tiles][2 * 256];
    alignas(64) float sums[block_tiles * tile_side * pair] = {};
    Scales s = {};
    for (int64_t g = 0; g <= x.count; ++g) {
      if (g < x.count) {
        unpack(panel, g, unpacked);
        _tile_loadd(6, unpacked, 64);
        _tile_loadd(7, unpacked + group_tile, 64);
        int64_t r = 0;
        for (; r + tile_side <= count; r += tile_side) multiply(top + r, g, c[g % 2][r / tile_side]);
        if (r < count) multiply_rest(top + r, g, c[g % 2][r / tile_side]);
      }
      if (g == 0) continue;
      if ((g - 1) % per_group == 0) s = scales(panel, (g - 1) / per_group);
      for (int64_t r = 0; r < count; r += tile_side)
        accumulate(c[(g - 1) % 2][r / tile_side], top + r, count - r < tile_side ? count - r : tile_side,
                   g - 1, s, sums + r * pair);
    }
    for (int64_t half = 0; half < 2; ++half) {
      const int64_t column = panel * pair + half * lanes, left = a.n - column;
      const V bias = a.bias ? load_n(a.bias + column, left) : zero();
      for (int64_t r = 0; r < count; ++r) {
        const V sum = load(sums + r * pair + half * lanes);
        store_n(a.y + (top + r) * a.y_stride + column, a.bias ? add(sum, bias) : sum, left);
      }
    }
  }

  void run(Range panels) const {
    const GroupTiles tiles(a.m % tile_side);
    for (int64_t panel = panels.begin; panel < panels.end; ++panel)
      for (int64_t top = 0; top < a.m; top += block_tiles * tile_side) {
        const int64_t left = a.m - top;
        block(panel, top, left < block_tiles * tile_side ? left : block_tiles * tile_side);
      }
  }
};

template <class S, bool minimum>
void batch(const LinearArgs& a, const Share& share) {
  const Range mine = part_of(ceil_div(a.n, pair), share.worker, share.workers);
  if (!minimum && a.zeros)
    Kernel<S, minimum, !minimum>(a).run(mine);
  else
    Kernel<S, minimum, false>(a).run(mine);
}

}  // namespace

void int4_bf16(const LinearArgs& a, const Share& s) noexcept {
  a.m <= few ? avx512vnni::int4_bf16(a, s) : batch<BF16, false>(a, s);
}
void int4_f16(const LinearArgs& a, const Share& s) noexcept {
  a.m <= few ? avx512vnni::int4_f16(a, s) : batch<F16, false>(a, s);
}
void int4_f32(const LinearArgs& a, const Share& s) noexcept {
  a.m <= few ? avx512vnni::int4_f32(a, s) : batch<float, false>(a, s);
}
void int4_min(const LinearArgs& a, const Share& s) noexcept {
  a.m <= few ? avx512vnni::int4_min(a, s) : batch<float, true>(a, s);
}

}  // namespace lathe::amx
