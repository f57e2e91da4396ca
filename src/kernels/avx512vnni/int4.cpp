// Few rows of x over weights of 4 bits, on integer dot products: 64 products per instruction, weights
// unpacked by one shift and two masks per 128. Sums of 32 columns are exact, so a row's bits do not depend on
// the other rows.
//
// In f32 vectors (simd/linear.inl) the same weights take five operations per 16, and decode stopped at 72 %
// of the memory's bandwidth; tiles fed with unpacked bf16 reached 26 GB/s of 36: unpacking and tile loads did
// not overlap.
#include "kernels/avx512/vec.h"
#include "kernels/avx512vnni/avx512vnni.h"

namespace lathe::avx512vnni {
namespace {

constexpr int64_t panel = 32, columns = 32;  // rows of W side by side; columns of an exact sum
constexpr int64_t word_row = 4 * panel;      // bytes of 8 columns of a panel
constexpr int64_t read_ahead = 2048;

// Per row: [groups][32] int8, then [groups] f32 scales, then [groups] i32 sums of the integers. Of 8 columns
// those of even number come first, as masking a word uncovers them.
struct Groups {
  int64_t rows, count;
  Groups(int64_t m, int64_t k) : rows(m), count((k + columns - 1) / columns) {}
  int64_t scales() const { return rows * count * columns; }
  int64_t sums() const { return scales() + rows * count * 4; }
  int64_t bytes() const { return sums() + rows * count * 4; }
};

enum class Kind { signed_codes, minimum };  // the code is u - 8, or u

template <class S, Kind kind>
struct Kernel {
  const LinearArgs& a;
  Groups x;
  const char *values, *codes;
  const float* x_scales;
  const int32_t* x_sums;
  int64_t groups;  // of weights, per row

  explicit Kernel(const LinearArgs& args)
      : a(args),
        x(a.m, a.k),
        values(static_cast<const char*>(a.packed_x)),
        codes(static_cast<const char*>(a.codes)),
        x_scales(reinterpret_cast<const float*>(values + x.scales())),
        x_sums(reinterpret_cast<const int32_t*>(values + x.sums())),
        groups((a.k + a.group - 1) / a.group) {}

  // R rows of x from `row`, P panels from p.
  template <int R, int P>
  void block(int64_t row, int64_t p) const {
    constexpr int vectors = 2 * P;
    V sums[R][vectors];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[r][v] = zero();
    const __m512i low_nibbles = _mm512_set1_epi8(15);
    const int64_t panel_bytes = x.count * 4 * word_row, per_group = (a.group < a.k ? a.group : a.k) / columns;
    V scale[vectors], offset[vectors];
    for (int64_t g = 0; g < x.count; ++g) {
      if (g % per_group == 0)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          const int64_t at = ((p + v / 2) * groups + g / per_group) * panel + v % 2 * lanes;
          scale[v] = load_as_f32(static_cast<const S*>(a.scales) + at);
          offset[v] = zero();
          if constexpr (kind == Kind::minimum)
            offset[v] = load(static_cast<const float*>(a.zeros) + at);
          else if (a.zeros)
            offset[v] = load_as_f32(static_cast<const int8_t*>(a.zeros) + at);
        }
      __m512i exact[R][vectors];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const int32_t sum = x_sums[(row + r) * x.count + g];
        const __m512i start = _mm512_set1_epi32(kind == Kind::minimum ? 0 : -8 * sum);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) exact[r][v] = start;
      }
#pragma GCC unroll 4
      for (int w = 0; w < 4; ++w) {
        __m512i even[vectors], odd[vectors];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          const char* at = codes + (p + v / 2) * panel_bytes + (g * 4 + w) * word_row + v % 2 * 64;
          _mm_prefetch(at + read_ahead, _MM_HINT_T0);
          const __m512i words = _mm512_loadu_si512(at);
          even[v] = _mm512_and_si512(words, low_nibbles);
          odd[v] = _mm512_and_si512(_mm512_srli_epi16(words, 4), low_nibbles);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          int32_t four[2];
          __builtin_memcpy(four, values + ((row + r) * x.count + g) * columns + w * 8, 8);
#pragma GCC unroll 4
          for (int v = 0; v < vectors; ++v) {
            exact[r][v] = _mm512_dpbusd_epi32(exact[r][v], even[v], _mm512_set1_epi32(four[0]));
            exact[r][v] = _mm512_dpbusd_epi32(exact[r][v], odd[v], _mm512_set1_epi32(four[1]));
          }
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const V x_scale = set(x_scales[(row + r) * x.count + g]),
                x_sum = set(static_cast<float>(x_sums[(row + r) * x.count + g]));
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          V product = _mm512_cvtepi32_ps(exact[r][v]);
          if constexpr (kind == Kind::minimum) {
            sums[r][v] = fma(mul(product, x_scale), scale[v], sums[r][v]);
            sums[r][v] = sub(sums[r][v], mul(mul(x_sum, x_scale), offset[v]));
          } else {
            if (a.zeros) product = sub(product, mul(x_sum, offset[v]));  // integers below 2^24: exact
            sums[r][v] = fma(mul(product, x_scale), scale[v], sums[r][v]);
          }
        }
      }
    }
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < vectors; ++v) {
        const int64_t column = p * panel + v * lanes, left = a.n - column;
        if (left <= 0) continue;
        const V y = a.bias ? add(sums[r][v], load_n(a.bias + column, left)) : sums[r][v];
        store_n(a.y + (row + r) * a.y_stride + column, y, left);
      }
  }

  // One and two rows read two panels at a time: two streams keep more of the memory's bandwidth than one.
  template <int P>
  void rows(int64_t p) const {
    for (int64_t row = 0; row < a.m;) {
      const int64_t left = a.m - row;
      if (P == 2) {
        left == 1 ? block<1, P>(row, p) : block<2, P>(row, p);
        row += left == 1 ? 1 : 2;
      } else {
        if (left == 1) block<1, 1>(row, p);
        if (left == 2) block<2, 1>(row, p);
        if (left == 3) block<3, 1>(row, p);
        if (left == 4 || left == 7 || left == 8 || left > 9) block<4, 1>(row, p);
        if (left == 5 || left == 6 || left == 9) block<3, 1>(row, p);
        row += left == 5 || left == 6 || left == 9 ? 3 : left < 4 ? left : 4;
      }
    }
  }

  void run(Range mine) const {
    int64_t p = mine.begin;
    if (a.m <= 2)
      for (; p + 2 <= mine.end; p += 2) rows<2>(p);
    for (; p < mine.end; ++p) rows<1>(p);
  }
};

template <class S, Kind kind>
void decode(const LinearArgs& a, const Share& share) {
  Kernel<S, kind>(a).run(part_of((a.n + panel - 1) / panel, share.worker, share.workers));
}

}  // namespace

size_t int8_groups_bytes(int64_t m, int64_t k) { return static_cast<size_t>(Groups(m, k).bytes()); }

void pack_int8_groups(const PackRowsArgs& a, const Share& share) noexcept {
  const Groups x(a.m, a.k);
  auto* out = static_cast<char*>(a.out);
  auto* scales = reinterpret_cast<float*>(out + x.scales());
  auto* sums = reinterpret_cast<int32_t*>(out + x.sums());
  const __m256i order = _mm256_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15, 0, 2, 4, 6, 1,
                                         3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  const Range mine = part_of(a.m * x.count, share.worker, share.workers);
  for (int64_t item = mine.begin; item < mine.end; ++item) {
    const int64_t row = item / x.count, g = item % x.count, left = a.k - g * columns;
    const float* at = a.x + row * a.x_stride + g * columns;
    const V low = load_n(at, left), high = load_n(at + lanes, left - lanes);
    const float most = largest(max(_mm512_abs_ps(low), _mm512_abs_ps(high)));
    const V inverse = set(most > 0 ? 127.0f / most : 0.0f);
    const __m512i q0 = _mm512_cvtps_epi32(mul(low, inverse)), q1 = _mm512_cvtps_epi32(mul(high, inverse));
    const __m256i bytes = _mm256_set_m128i(_mm512_cvtepi32_epi8(q1), _mm512_cvtepi32_epi8(q0));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + item * columns), _mm256_shuffle_epi8(bytes, order));
    scales[item] = most / 127.0f;
    sums[item] = _mm512_reduce_add_epi32(_mm512_add_epi32(q0, q1));
  }
}

void int4_bf16(const LinearArgs& a, const Share& s) noexcept { decode<BF16, Kind::signed_codes>(a, s); }
void int4_f16(const LinearArgs& a, const Share& s) noexcept { decode<F16, Kind::signed_codes>(a, s); }
void int4_f32(const LinearArgs& a, const Share& s) noexcept { decode<float, Kind::signed_codes>(a, s); }
void int4_min(const LinearArgs& a, const Share& s) noexcept { decode<float, Kind::minimum>(a, s); }

}  // namespace lathe::avx512vnni
