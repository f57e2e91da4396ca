// y = x W^T + bias for many rows of x, in bf16 tiles with f32 sums.
//
// A worker owns a run of 32-column strips of y. It takes them in blocks of 8, and k in passes of 256: the
// block's weights of a pass become bf16 tiles in its scratch, whatever their format, and meet all rows of x
// (512 at a time). Per strip and pass 16 KiB of weights stay in L1 while the packed x streams from L2; the
// partial sums lie in scratch too. Every element of y is summed in the order of k, in the tile unit's own
// order within 32 columns: a row's bits do not depend on the other rows or on the workers.
#include "kernels/amx/amx.h"
#include "kernels/amx/bf16_weights.h"
#include "kernels/simd/exp.inl"
#include "kernels/simd/k_linear.inl"

namespace lathe::amx {
namespace {

// Tiles 0 to 3 += rows times weights over `depth` tiles. `ahead`: what to bring into L2 meanwhile, a little
// per product, because each line that comes from memory holds one of the few buffers that tile loads need
// too.
template <int lines>
inline void multiply_tiles(const char* x0, const char* x1, const char* w, int64_t depth, const char* ahead) {
  for (int64_t t = 0; t < depth; ++t) {
#pragma GCC unroll 2
    for (int i = 0; i < lines; ++i) _mm_prefetch(ahead + (t * lines + i) * 64, _MM_HINT_T1);
    _tile_loadd(6, w + 2 * t * tile_bytes, 64);
    _tile_loadd(4, x0 + t * tile_bytes, 64);
    _tile_loadd(5, x1 + t * tile_bytes, 64);
    _tile_loadd(7, w + (2 * t + 1) * tile_bytes, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  }
}

// A row of a tile of activations, of which `n` columns exist, as pack_bf16_rows writes it.
inline void store_bf16(char* to, V low, V high, int64_t n) {
  const auto row = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
  const __mmask32 exist = n >= columns ? ~0u : (1u << n) - 1;
  _mm512_store_si512(to, _mm512_maskz_mov_epi16(exist, row));
}

// Where `up` is given, half of a block's strips are the gate's and half the other weight's, of the same
// columns, and y = silu(gate) * up. Where `packed_y` is given too, y becomes bf16 rows there (a strip is as
// wide as a tile of them) and never passes through memory as f32.
template <class Source>
void prefill(const LinearArgs& a, const LinearArgs* up, const Share& share, void* packed_y) {
  const Tiles tiles;
  const Source source(a), other(up ? *up : a);
  const PackedRows x(a.m, a.k, columns), y_rows(a.m, a.n, columns);
  const auto* packed = static_cast<const char*>(a.packed_x);
  char* weights = static_cast<char*>(share.scratch);  // [strips, 2 * depth_tiles] tiles
  float* sums = reinterpret_cast<float*>(weights + block_strips * 2 * depth_tiles * tile_bytes);
  const Range mine = part_of(ceil_div(a.n, pair), share.worker, share.workers);
  const int64_t most_strips = up ? block_strips / 2 : block_strips;
  for (int64_t block = mine.begin; block < mine.end; block += most_strips) {
    const int64_t wide = mine.end - block < most_strips ? mine.end - block : most_strips,
                  strips = up ? 2 * wide : wide;
    for (int64_t top = 0; top < x.row_tiles; top += block_rows_most / tile_side) {
      const int64_t rest = x.row_tiles - top,
                    row_tiles = rest < block_rows_most / tile_side ? rest : block_rows_most / tile_side;
      const int64_t pairs = ceil_div(row_tiles, 2);
      const auto sums_of = [&](int64_t s, int64_t p) { return sums + (s * pairs + p) * pair * pair; };
      for (int64_t pass = 0; pass < x.passes(); ++pass) {
        const int64_t depth = x.tiles_in(pass), begin = pass * depth_tiles * columns;
        const auto expanded = [&](int64_t s) { return weights + s * 2 * depth_tiles * tile_bytes; };
        if constexpr (Source::expands)
          for (int64_t s = 0; s < strips; ++s)
            (s < wide ? source : other).expand(block + s % wide, begin, depth, expanded(s));
        for (int64_t s = 0; s < strips; ++s) {
          const auto stored = [&](int64_t strip, int64_t of_pass) {
            return (strip < wide ? source : other).stored(block + strip % wide, of_pass);
          };
          // What comes next: where weights are expanded, the same strip's; else the next strip's.
          const char *w = expanded(s), *next;
          if constexpr (Source::expands) {
            next = pass + 1 < x.passes() ? stored(s, pass + 1) : source.stored(block + wide + s % wide, 0);
          } else {
            w = stored(s, pass);
            next = s + 1 < strips          ? stored(s + 1, pass)
                   : pass + 1 < x.passes() ? stored(0, pass + 1)
                                           : source.stored(block + wide, 0);
          }
          const int64_t part = Source::lines * depth_tiles * 64;
          for (int64_t p = 0; p < pairs; ++p) {
            float* c = sums_of(s, p);
            if (pass == 0)
              zero_results();
            else
              load_results(c);
            const char* x0 = packed + x.at(pass, top + 2 * p);
            const char* x1 = 2 * p + 1 < row_tiles ? packed + x.at(pass, top + 2 * p + 1) : x0;
            multiply_tiles<Source::lines>(x0, x1, w, depth, next + p * part);
            store_results(c);
          }
        }
      }
      // [pair of row tiles][row half][column half][16][16] to rows of y.
      const int64_t rows =
          a.m - top * tile_side < row_tiles * tile_side ? a.m - top * tile_side : row_tiles * tile_side;
      for (int64_t s = 0; s < wide; ++s) {
        const int64_t strip = block + s, column = strip * pair;
        const auto row_of = [&](int64_t r) {
          return static_cast<char*>(packed_y) + y_rows.at(strip / depth_tiles, top + r / tile_side) +
                 strip % depth_tiles * tile_bytes + r % tile_side * 64;
        };
        const V bias0 = a.bias ? load_n(a.bias + column, a.n - column) : zero(),
                bias1 = a.bias ? load_n(a.bias + column + 16, a.n - column - 16) : zero();
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t at = r % pair / 16 * 512 + r % 16 * 16;
          const float* c = sums_of(s, r / pair) + at;
          float* y = a.y + (top * tile_side + r) * a.y_stride + column;
          V y0 = add(load(c), bias0), y1 = add(load(c + 256), bias1);
          if (up) {
            const float* u = sums_of(wide + s, r / pair) + at;
            y0 = mul(silu(y0), load(u));
            y1 = mul(silu(y1), load(u + 256));
          }
          if (packed_y) {
            store_bf16(row_of(r), y0, y1, a.n - column);
            continue;
          }
          store_n(y, y0, a.n - column);
          store_n(y + 16, y1, a.n - column - 16);
        }
        if (packed_y)
          for (int64_t r = rows; r < row_tiles * tile_side; ++r) store_bf16(row_of(r), zero(), zero(), pair);
      }
    }
  }
}

static_assert(block_strips * (2 * depth_tiles * tile_bytes + block_rows_most * pair * 4) <=
              static_cast<int64_t>(kernel_scratch_bytes));

template <class Format>
void prompts(const LinearArgs& a, const Share& share) {
  prefill<Panels<Format>>(a, nullptr, share, nullptr);
}

template <class Format>
void prompts(const GatedArgs& a, const Share& share) {
  prefill<Panels<Format>>(a.gate, &a.up, share, a.packed_y);
}

}  // namespace

void prefill_bf16(const LinearArgs& a, const Share& s) noexcept { prefill<Tiled>(a, nullptr, s, nullptr); }
void gated_bf16(const GatedArgs& a, const Share& s) noexcept { prefill<Tiled>(a.gate, &a.up, s, a.packed_y); }
#include "kernels/simd/prompt_formats.inl"
void prefill_k2(const LinearArgs& a, const Share& s) noexcept { prompts<KFormat<2, 16, true>>(a, s); }
void gated_k2(const GatedArgs& a, const Share& s) noexcept { prompts<KFormat<2, 16, true>>(a, s); }
void prefill_k3(const LinearArgs& a, const Share& s) noexcept { prompts<KFormat<3, 16, false>>(a, s); }
void gated_k3(const GatedArgs& a, const Share& s) noexcept { prompts<KFormat<3, 16, false>>(a, s); }
void prefill_k4(const LinearArgs& a, const Share& s) noexcept { prompts<KFormat<4, 32, true>>(a, s); }
void gated_k4(const GatedArgs& a, const Share& s) noexcept { prompts<KFormat<4, 32, true>>(a, s); }
void prefill_k5(const LinearArgs& a, const Share& s) noexcept { prompts<KFormat<5, 32, true>>(a, s); }
void gated_k5(const GatedArgs& a, const Share& s) noexcept { prompts<KFormat<5, 32, true>>(a, s); }
void prefill_k6(const LinearArgs& a, const Share& s) noexcept { prompts<KFormat<6, 16, false>>(a, s); }
void gated_k6(const GatedArgs& a, const Share& s) noexcept { prompts<KFormat<6, 16, false>>(a, s); }

}  // namespace lathe::amx
