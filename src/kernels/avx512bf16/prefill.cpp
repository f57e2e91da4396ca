// y = x W^T + bias for many rows of x, with x and W rounded to bf16 and sums in f32 (vdpbf16ps).
//
// Two columns of bf16 side by side are a word as wide as a float, so that the f32 product of
// simd/multiply.inl, taken over words, is this one: as many operations for twice the columns. A worker takes
// its panels of W 8 at a time and k in passes of 1,024 columns: the panels' weights of a pass become words in
// its scratch, whatever their format, and meet all rows of x. Every element of y is one chain over the pairs
// of columns in order: a row's bits depend neither on the other rows nor on the workers.
#include "kernels/avx512/vec.h"
#include "kernels/avx512bf16/avx512bf16.h"
#include "kernels/avx512bf16/pairs.h"
#include "kernels/simd/packed_rows.h"
// The bodies come last: they are written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/exp.inl"
#include "kernels/simd/grid.inl"
#include "kernels/simd/linear.inl"
#include "kernels/simd/stored.inl"
// clang-format on

namespace lathe::avx512bf16 {
namespace {

// Words of two columns.
struct Pairs {
  static V multiply_add(V x, V w, V sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
  }
};

constexpr int64_t pass_columns = 1024, block_panels = 8, gated_rows = 512;
constexpr int64_t panel_words = pass_columns / 2 * panel;
static_assert(4 * block_panels * (panel_words + gated_rows * panel / 2) <=
              static_cast<int64_t>(kernel_scratch_bytes));

// Columns [begin, end) of a panel.
template <class Format>
void expand(const Format& f, int64_t p, int64_t begin, int64_t end, float* out) {
  V even[panel_vectors];
  walk<1>(
      f, p, 0, begin, end, [&](int64_t column, int v, V w) __attribute__((always_inline)) {
        if ((column - begin) % 2 == 0)
          even[v] = w;
        else
          _mm512_store_si512(out + (column - begin) / 2 * panel + v * lanes, as_pairs(even[v], w));
      });
  if ((end - begin) % 2 == 1)
    for (int v = 0; v < panel_vectors; ++v)
      _mm512_store_si512(out + (end - begin) / 2 * panel + v * lanes, as_pairs(even[v], zero()));
}

// Where `up` is given, y = silu(x W^T) * (x up^T): its products lie in scratch for as many rows as fit.
template <class Format>
void prefill(const LinearArgs& a, const LinearArgs* up, const Share& share) {
  const Format format(a), other(up ? *up : a);
  const Bf16Rows x(a.m, a.k);
  const auto* packed = static_cast<const float*>(a.packed_x);
  auto* words = static_cast<float*>(share.scratch);      // [block_panels, pass_columns / 2, panel]
  float* products = words + block_panels * panel_words;  // [gated_rows, wide]
  const Range mine = part_of(ceil_div(a.n, panel), share.worker, share.workers);
  const int64_t most_panels = up ? block_panels / 2 : block_panels, most_rows = up ? gated_rows : a.m;
  constexpr int64_t wide = block_panels / 2 * panel;
  for (int64_t p = mine.begin; p < mine.end; p += most_panels) {
    const int64_t panels = mine.end - p < most_panels ? mine.end - p : most_panels, column = p * panel;
    const int64_t columns = a.n - column < panels * panel ? a.n - column : panels * panel;
    for (int64_t top = 0; top < a.m; top += most_rows) {
      const int64_t rows = a.m - top < most_rows ? a.m - top : most_rows;
      float* y = a.y + top * a.y_stride + column;
      for (int64_t begin = 0; begin < a.k; begin += pass_columns) {
        const int64_t end = begin + pass_columns < a.k ? begin + pass_columns : a.k;
        const auto pass = [&](const Format& f, float* at, float* out, int64_t stride, const float* bias) {
          for (int64_t i = 0; i < panels; ++i) expand(f, p + i, begin, end, at + i * panel_words);
          multiply<Pairs>({packed + top * x.words + begin / 2,
                           x.words,
                           {at, panel_words, panel},
                           out,
                           stride,
                           bias,
                           rows,
                           columns,
                           ceil_div(end - begin, 2),
                           begin > 0});
        };
        pass(format, words, y, a.y_stride, a.bias && end == a.k ? a.bias + column : nullptr);
        if (up) pass(other, words + most_panels * panel_words, products, wide, nullptr);
      }
      if (!up) continue;
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; c += lanes) {
          float* at = y + r * a.y_stride + c;
          store_n(at, mul(silu(load_n(at, columns - c)), load_n(products + r * wide + c, columns - c)),
                  columns - c);
        }
    }
  }
}

template <class Format>
void prompts(const LinearArgs& a, const Share& share) {
  prefill<Format>(a, nullptr, share);
}

template <class Format>
void prompts(const GatedArgs& a, const Share& share) {
  prefill<Format>(a.gate, &a.up, share);
}

}  // namespace

void prefill_bf16(const LinearArgs& a, const Share& s) noexcept { prompts<Dense<BF16>>(a, s); }
void gated_bf16(const GatedArgs& a, const Share& s) noexcept { prompts<Dense<BF16>>(a, s); }
#include "kernels/simd/prompt_formats.inl"

}  // namespace lathe::avx512bf16
