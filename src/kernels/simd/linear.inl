// y = x W^T + bias over weights that lie in panels of 32 rows of W (quant/packings/panels.cpp). A panel
// holds, column by column, its 32 rows side by side, so a vector is one column of W for `lanes` rows: no
// horizontal sums, scales are vectors, and x is only ever read one float at a time, never beyond k.
//
// Two ways through the same arithmetic:
//   few rows of x (decode): weights become floats in registers and meet every row of x at once (`fused`).
//     Bound by memory. Per 16 weights (AVX-512), before one fma per row of x: int4 2.5 operations (half a
//     shift, mask-and-or, fma), int8 3, bf16 2, f16 1, f32 0; scales cost 4 to 8 per group.
//   many rows (prefill): a strip of panels x columns becomes floats in this worker's scratch, once for all
//     rows, and the f32 product of multiply.inl does the rest (`strips`). Bound by the fma units, whatever
//     the format.
// Both sum every y as one fma chain in the order of the columns, from the same float weights, so a row of y
// has the same bits for any number of rows, workers and vector lanes.
//
// Measured on two cores of a Xeon (Sapphire Rapids) that read 32 GB/s and do 480 GFLOP/s of fma with AVX-512,
// 260 with AVX2; [8192 x 2048], best of several (bench/kernels.cpp):
//                   f32    bf16   int8 g32   int4 g32
//   AVX-512 m=1     33     32     31         29 GB/s       m=512   340 to 375 GFLOP/s for every format
//   AVX2    m=1     24     23     24         16 GB/s       m=512   205 to 220
#pragma once

#include "kernels/simd/multiply.inl"

namespace lathe {
namespace {

template <int i>
struct At {};
template <int n, int i = 0, class F>
inline __attribute__((always_inline)) void unroll(F&& f) {
  if constexpr (i < n) {
    f(At<i>{});
    unroll<n, i + 1>(f);
  }
}

// Bytes ahead of the words in use. Without it: int4 decode 20 GB/s instead of 26.
constexpr int read_ahead = 2048;

// A weight format says how 32-bit words or floats of a panel become weights. `step`: columns per load.
// Elements of T, [panels, k, 32].
template <class T>
struct Dense {
  static constexpr int step = 1;
  struct Scale {};
  const T* elements;
  int64_t k, group;

  explicit Dense(const LinearArgs& a) : elements(static_cast<const T*>(a.codes)), k(a.k), group(a.k) {}
  Scale scale(int64_t, int64_t, int) const { return {}; }
  V codes(int64_t p, int64_t column, int lane) const {
    const T* at = elements + (p * k + column) * panel + lane;
    __builtin_prefetch(reinterpret_cast<const char*>(at) + read_ahead);
    return load_as_f32(at);
  }
  V weight(At<0>, V code, Scale) const { return code; }
  const void* stored(int64_t p, int64_t column) const { return elements + (p * k + column) * panel; }
};

// How a code u (q + 2^(bits-1), or q itself with a minimum) becomes a weight, by what is exact. Codes enter
// mantissas: `unit` is 1 + u / 2^d, with d = bits, or 2 * bits for a code one place lower.
enum class Rule {
  affine,   // 16-bit scale: unit * (scale * 2^d) - scale * (2^d + 2^(bits-1) + zero): both products are exact
  shifted,  // 32-bit scale: (unit - (1 + (2^(bits-1) + zero) / 2^d)) * (scale * 2^d): the difference is exact
  minimum,  // (unit - 1) * (scale * 2^d) - minimum
};

// codes: 32 / bits columns of a row per word, lowest bits first, [panels, ceil(k / step), 32] words
// scales: [panels, groups, 32] of S; zeros: as many int8 (zero points) or f32 (minima), or null
template <int bits, class S, Rule rule>
struct Integer {
  static constexpr int step = 32 / bits;
  // Two int4 codes share a shift: one at the top of the mantissa, one below it. (For int8 that is not exact.)
  static constexpr int places = bits == 4 && rule == Rule::affine ? 2 : 1;
  struct Scale {
    V factor[places], term[places];
  };
  const uint32_t* words;
  const S* scales;
  const void* zeros;
  int64_t steps, groups, group;

  explicit Integer(const LinearArgs& a)
      : words(static_cast<const uint32_t*>(a.codes)),
        scales(static_cast<const S*>(a.scales)),
        zeros(a.zeros),
        steps((a.k + step - 1) / step),
        groups((a.k + a.group - 1) / a.group),
        group(a.group) {}

  Scale scale(int64_t p, int64_t g, int lane) const {
    const int64_t at = (p * groups + g) * panel + lane;
    const V s = load_as_f32(scales + at);
    V zero_point = set(1 << (bits - 1));
    if (rule != Rule::minimum && zeros)
      zero_point = add(zero_point, load_as_f32(static_cast<const int8_t*>(zeros) + at));
    Scale out;
    for (int place = 0; place < places; ++place) {
      const float unit = 1 << (bits * (places - place));
      out.factor[place] = mul(s, set(unit));
      if constexpr (rule == Rule::affine)
        out.term[place] = sub(zero(), mul(s, add(zero_point, set(unit))));
      else if constexpr (rule == Rule::shifted)
        out.term[place] = fma(zero_point, set(1 / unit), set(1));
      else
        out.term[place] = sub(zero(), load(static_cast<const float*>(zeros) + at));
    }
    return out;
  }
  I codes(int64_t p, int64_t column, int lane) const {
    const uint32_t* at = words + (p * steps + column / step) * panel + lane;
    __builtin_prefetch(reinterpret_cast<const char*>(at) + read_ahead);
    return load_words(at);
  }
  const void* stored(int64_t p, int64_t column) const { return words + (p * steps + column / step) * panel; }
  template <int i>
  V weight(At<i>, I code, const Scale& s) const {
    constexpr int place = i % places, lowest = 23 - bits * places;
    constexpr int mask = ((1 << bits) - 1) << (lowest + bits * place);
    const V unit = mantissa<lowest - bits*(i - place), mask>(code);
    if constexpr (rule == Rule::affine) return fma(unit, s.factor[place], s.term[place]);
    if constexpr (rule == Rule::shifted) return mul(sub(unit, s.term[place]), s.factor[place]);
    return fma(sub(unit, set(1)), s.factor[place], s.term[place]);
  }
};

// Calls use(column, v, weights) for columns [begin, end) in order, v over the vectors of `panels` panels from
// `p`, so many panels `apart`. begin is a multiple of step.
template <int panels, class Format, class Use>
inline __attribute__((always_inline)) void walk(const Format& f, int64_t p, int64_t apart, int64_t begin,
                                                int64_t end, Use&& use) {
  constexpr int vectors = panels * panel_vectors, step = Format::step;
  for (int64_t column = begin, g = begin / f.group; column < end; ++g) {
    const int64_t group_end = (g + 1) * f.group < end ? (g + 1) * f.group : end;
    typename Format::Scale scales[vectors];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v)
      scales[v] = f.scale(p + v / panel_vectors * apart, g, v % panel_vectors * lanes);
    const auto columns = [&](int64_t count) __attribute__((always_inline)) {
      decltype(f.codes(0, 0, 0)) codes[vectors];
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v)
        codes[v] = f.codes(p + v / panel_vectors * apart, column, v % panel_vectors * lanes);
      unroll<step>([&]<int i>(At<i> at) __attribute__((always_inline)) {
        if (i >= count) return;
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) use(column + i, v, f.weight(at, codes[v], scales[v]));
      });
    };
    for (; column + step <= group_end; column += step) columns(step);
    if (column < group_end) {  // the last columns of W
      columns(group_end - column);
      column = group_end;
    }
  }
}

inline void store_columns(const LinearArgs& a, int64_t row, int64_t column, V sum) {
  const int64_t left = a.n - column;
  if (left <= 0) return;
  if (a.bias) sum = add(sum, load_n(a.bias + column, left));
  store_n(a.y + row * a.y_stride + column, sum, left);
}

// R rows of x times some panels, weights used in the registers that they are unpacked in.
template <int R, int panels, class Format>
void fused(const LinearArgs& a, const Format& f, int64_t row, int64_t p, int64_t apart) {
  constexpr int vectors = panels * panel_vectors;
  const float* x = a.x + row * a.x_stride;
  const int64_t x_stride = a.x_stride;
  V sums[R][vectors];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < vectors; ++v) sums[r][v] = zero();
  walk<panels>(
      f, p, apart, 0, a.k, [&](int64_t column, int v, V weights) __attribute__((always_inline)) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sums[r][v] = fma(set(x[r * x_stride + column]), weights, sums[r][v]);
      });
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < vectors; ++v)
      store_columns(a, row + r, (p + v / panel_vectors * apart) * panel + v % panel_vectors * lanes,
                    sums[r][v]);
}

template <int panels, class Format>
void fused_rows(const LinearArgs& a, const Format& f, Range rows, int64_t p, int64_t apart) {
  for (int64_t row = rows.begin; row < rows.end;) {  // in a second pass the panels are still in cache
    const int64_t left = rows.end - row, passes = (left + most_fused - 1) / most_fused;
    const int64_t now = (left + passes - 1) / passes;
    if (now == 1) fused<1, panels>(a, f, row, p, apart);
    if (now == 2) fused<2, panels>(a, f, row, p, apart);
    if constexpr (most_fused > 2) {
      if (now == 3) fused<3, panels>(a, f, row, p, apart);
      if (now == 4) fused<4, panels>(a, f, row, p, apart);
      if (now == 5) fused<5, panels>(a, f, row, p, apart);
      if (now == 6) fused<6, panels>(a, f, row, p, apart);
    }
    if constexpr (most_fused > 6)  // more sums than registers, unless panels take turns
      for (int64_t i = 0; i < panels; ++i) {
        if (now == 7) fused<7, 1>(a, f, row, p + i * apart, 0);
        if (now == 8) fused<8, 1>(a, f, row, p + i * apart, 0);
      }
    row += now;
  }
}

// Columns and panels that become floats in scratch together. Where a register tile is as wide as a panel, 16
// KiB that all rows read from the first-level cache; else 512 KiB. Rows of x stay in the second level for as
// many panels as strip_panels.
constexpr bool one_panel = tile_vectors == panel_vectors;
constexpr int64_t strip_columns = one_panel ? 128 : 512, strip_panels = 8,
                  expanded_panels = one_panel ? 1 : strip_panels;

// `panels` panels from p as floats: columns [begin, end).
template <class Format>
Matrix as_floats(const Format& f, int64_t p, int64_t panels, int64_t begin, int64_t end, void* scratch) {
  auto* out = static_cast<float*>(scratch);
  for (int64_t i = 0; i < panels; ++i) {
    float* strip = out + i * strip_columns * panel;
    walk<1>(
        f, p + i, 0, begin, end, [&](int64_t column, int v, V weights) __attribute__((always_inline)) {
          store(strip + (column - begin) * panel + v * lanes, weights);
        });
  }
  return {out, strip_columns * panel, panel};
}
inline Matrix as_floats(const Dense<float>& f, int64_t p, int64_t, int64_t begin, int64_t, void*) {
  return {f.elements + (p * f.k + begin) * panel, f.k * panel, panel};  // they are floats already
}

template <class Format>
void strips(const LinearArgs& a, const Format& f, Range panels, Range rows, void* scratch) {
  for (int64_t group = panels.begin; group < panels.end; group += strip_panels) {
    const int64_t group_end = panels.end - group < strip_panels ? panels.end : group + strip_panels;
    for (int64_t begin = 0; begin < a.k; begin += strip_columns) {
      const int64_t end = begin + strip_columns < a.k ? begin + strip_columns : a.k;
      for (int64_t p = group; p < group_end; p += expanded_panels) {
        const int64_t count = group_end - p < expanded_panels ? group_end - p : expanded_panels;
        Product product;
        product.a = a.x + rows.begin * a.x_stride + begin;
        product.a_stride = a.x_stride;
        product.b = as_floats(f, p, count, begin, end, scratch);
        product.c = a.y + rows.begin * a.y_stride + p * panel;
        product.c_stride = a.y_stride;
        product.bias = a.bias && end == a.k ? a.bias + p * panel : nullptr;
        product.rows = rows.end - rows.begin;
        product.columns = a.n - p * panel < count * panel ? a.n - p * panel : count * panel;
        product.k = end - begin;
        product.accumulate = begin > 0;
        multiply(product);
      }
    }
  }
}

template <class Format>
void linear(const LinearArgs& a, const Share& share) {
  // Workers share the panels. Where these are few, groups of workers do, and share the rows within a group.
  const int64_t panels = (a.n + panel - 1) / panel;
  int64_t row_parts = 1;
  while (share.workers % row_parts != 0 || panels * row_parts < share.workers) ++row_parts;
  const Range mine = part_of(panels, share.worker / row_parts, share.workers / row_parts);
  const Range rows = part_of(a.m, share.worker % row_parts, row_parts);
  const Format f(a);
  const int64_t count = rows.end - rows.begin;
  if (count <= 0) return;
  if (count > fused_limit) return strips(a, f, mine, rows, share.scratch);
  // Panels with four vectors: enough fma chains to hide latency. (A panel of NEON has eight.) Each of them
  // walks through a part of its own, so that what is prefetched at its end is what it reads next.
  constexpr int wide = panel_vectors < 4 ? 4 / panel_vectors : 1;
  const int64_t apart = (mine.end - mine.begin) / wide;
  for (int64_t i = 0; i < apart; ++i) fused_rows<wide>(a, f, rows, mine.begin + i, apart);
  for (int64_t p = mine.begin + wide * apart; p < mine.end; ++p) fused_rows<1>(a, f, rows, p, 0);
}

}  // namespace
}  // namespace lathe
