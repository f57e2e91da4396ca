#include "eval/roof_loops.h"

#include <algorithm>
#include <atomic>
#include <iterator>
#include <numeric>

#include "core/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace lathe {
namespace {

// Accumulators start from different numbers and their sum ends here, so that no compiler may merge or drop
// the work.
std::atomic<float> kept{0};
void keep(float value) { kept.store(value, std::memory_order_relaxed); }

// Reading is fastest in two streams, each prefetched so many bytes ahead: 37 GB/s of memory with two threads
// where one plain stream gave 30 and four gave 33 to 36; caches gain less.
constexpr size_t ahead = 2048;

#if defined(__x86_64__)

// Sixteen chains keep two ports of latency four (vdpbf16ps: six) busy.
constexpr int wide = 16;
// Twelve, not sixteen: the constants need registers too, and AVX2 has sixteen in all.
constexpr int narrow = 12;

__attribute__((target("avx512f"))) void f32_avx512(int64_t rounds) {
  __m512 sum[wide];
  for (int i = 0; i < wide; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (__m512& s : sum) s = _mm512_fmadd_ps(s, a, b);
  for (int i = 1; i < wide; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  keep(_mm512_cvtss_f32(sum[0]));
}

__attribute__((target("avx2,fma"))) void f32_avx2(int64_t rounds) {
  __m256 sum[narrow];
  for (int i = 0; i < narrow; ++i) sum[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
    for (__m256& s : sum) s = _mm256_fmadd_ps(s, a, b);
  for (int i = 1; i < narrow; ++i) sum[0] = _mm256_add_ps(sum[0], sum[i]);
  keep(_mm256_cvtss_f32(sum[0]));
}

__attribute__((target("avx512f,avx512bf16"))) void bf16_avx512(int64_t rounds) {
  __m512 sum[wide];
  for (int i = 0; i < wide; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512bh a = (__m512bh)_mm512_set1_epi16(0x3c00), b = (__m512bh)_mm512_set1_epi16(0x3c23);
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (__m512& s : sum) s = _mm512_dpbf16_ps(s, a, b);
  for (int i = 1; i < wide; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  keep(_mm512_cvtss_f32(sum[0]));
}

__attribute__((target("avx512f,avx512vnni"))) void int8_avx512(int64_t rounds) {
  __m512i sum[wide];
  for (int i = 0; i < wide; ++i) sum[i] = _mm512_set1_epi32(i);
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-5);
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (__m512i& s : sum) s = _mm512_dpbusd_epi32(s, a, b);
  for (int i = 1; i < wide; ++i) sum[0] = _mm512_add_epi32(sum[0], sum[i]);
  keep(static_cast<float>(_mm512_cvtsi512_si32(sum[0])));
}

__attribute__((target("avx2,avxvnni"))) void int8_avx(int64_t rounds) {
  __m256i sum[narrow];
  for (int i = 0; i < narrow; ++i) sum[i] = _mm256_set1_epi32(i);
  const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5);
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
    for (__m256i& s : sum) s = _mm256_dpbusd_avx_epi32(s, a, b);
  for (int i = 1; i < narrow; ++i) sum[0] = _mm256_add_epi32(sum[0], sum[i]);
  keep(static_cast<float>(_mm_cvtsi128_si32(_mm256_castsi256_si128(sum[0]))));
}

// A product and the sum of 16 bits that it needs, as in kernels/avx2/dot.h.
__attribute__((target("avx2"))) void int8_avx2(int64_t rounds) {
  __m256i sum[narrow];
  for (int i = 0; i < narrow; ++i) sum[i] = _mm256_set1_epi16(static_cast<int16_t>(i));
  __m256i a = _mm256_set1_epi8(3);
  const __m256i b = _mm256_set1_epi8(-5);
  for (int64_t i = 0; i < rounds; ++i) {
    __asm__ volatile("" : "+x"(a));  // or the product, which is the same every time, leaves the loop
#pragma GCC unroll 12
    for (__m256i& s : sum) {
      __m256i product = _mm256_maddubs_epi16(a, b);
      __asm__ volatile("" : "+x"(product));
      s = _mm256_add_epi16(s, product);
    }
  }
  for (int i = 1; i < narrow; ++i) sum[0] = _mm256_add_epi16(sum[0], sum[i]);
  keep(static_cast<float>(_mm_cvtsi128_si32(_mm256_castsi256_si128(sum[0]))));
}

// Tiles 0-3 hold sums, 4 and 5 the left matrix, 6 and 7 the right: the shape of a real kernel's inner step,
// without its loads. All tiles have 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

// A tile of random bf16 between 2^-7 and 2 in magnitude, or of int8. Random, because the units draw less
// power on zeros and constants and the clock rises: 7.3 TFLOP/s on zeros, 5.9 on random numbers, on one
// machine.
struct alignas(64) TileData {
  uint16_t values[512] = {};
  constexpr TileData() {
    uint32_t state = 1;
    for (uint16_t& v : values) {
      state = state * 1664525u + 1013904223u;
      v = static_cast<uint16_t>(0x3c00 | (state >> 16 & 0x83ff));
    }
  }
};

// The tiles of the calling thread, filled; released when the loop ends, so that context switches stop saving
// them. What they are loaded from is static: GCC 12's intrinsics do not say that they read memory, and it
// drops stores to a local.
#define LATHE_AMX __attribute__((target("amx-tile,amx-int8,amx-bf16")))
LATHE_AMX void fill_tiles() {
  static constexpr TileConfig config;
  static constexpr TileData data;
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, data.values, 64);
  _tile_loadd(5, data.values, 64);
  _tile_loadd(6, data.values, 64);
  _tile_loadd(7, data.values, 64);
}

LATHE_AMX void bf16_amx(int64_t rounds) {
  fill_tiles();
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}

LATHE_AMX void int8_amx(int64_t rounds) {
  fill_tiles();
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_release();
}
#undef LATHE_AMX

__attribute__((target("avx512f"))) uint64_t read_avx512(const std::byte* data, size_t bytes) {
  const std::byte* half = data + bytes / 2;
  __m512i a = _mm512_setzero_si512(), b = a;
  for (size_t i = 0; i < bytes / 2; i += 64) {
    __builtin_prefetch(data + i + ahead);
    __builtin_prefetch(half + i + ahead);
    a = _mm512_add_epi64(a, _mm512_load_si512(data + i));
    b = _mm512_add_epi64(b, _mm512_load_si512(half + i));
  }
  alignas(64) uint64_t words[8];
  _mm512_store_si512(words, _mm512_add_epi64(a, b));
  return std::accumulate(words, words + 8, uint64_t{0});
}

__attribute__((target("avx2"))) __m256i load(const std::byte* at) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(at));
}

__attribute__((target("avx2"))) uint64_t read_avx2(const std::byte* data, size_t bytes) {
  const std::byte* half = data + bytes / 2;
  __m256i sum[4] = {};
  for (size_t i = 0; i < bytes / 2; i += 64) {
    __builtin_prefetch(data + i + ahead);
    __builtin_prefetch(half + i + ahead);
    sum[0] = _mm256_add_epi64(sum[0], load(data + i));
    sum[1] = _mm256_add_epi64(sum[1], load(data + i + 32));
    sum[2] = _mm256_add_epi64(sum[2], load(half + i));
    sum[3] = _mm256_add_epi64(sum[3], load(half + i + 32));
  }
  const __m256i all = _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
  alignas(32) uint64_t words[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), all);
  return std::accumulate(words, words + 4, uint64_t{0});
}

#elif defined(__aarch64__)

// NEON has 32 registers; 24 chains cover four pipes of latency four and more.
constexpr int chains = 24;
void f32_neon(int64_t rounds) {
  float32x4_t sum[chains];
  for (int i = 0; i < chains; ++i) sum[i] = vdupq_n_f32(static_cast<float>(i));
  const float32x4_t a = vdupq_n_f32(0.999f), b = vdupq_n_f32(0.001f);
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 24
    for (float32x4_t& s : sum) s = vfmaq_f32(b, s, a);
  for (int i = 1; i < chains; ++i) sum[0] = vaddq_f32(sum[0], sum[i]);
  keep(vaddvq_f32(sum[0]));
}

#endif

// Four floats at a time: what every 64-bit machine has without being asked.
constexpr int baseline_width = 4, baseline_chains = 12;
typedef float Floats __attribute__((vector_size(4 * baseline_width)));
void f32_baseline(int64_t rounds) {
  Floats sum[baseline_chains];
  for (int i = 0; i < baseline_chains; ++i) sum[i] = Floats{} + static_cast<float>(i);
  const Floats a = Floats{} + 0.999f, b = Floats{} + 0.001f;
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
    for (Floats& s : sum) s = s * a + b;
  for (int i = 1; i < baseline_chains; ++i) sum[0] += sum[i];
  keep(sum[0][0]);
}

uint64_t read_baseline(const std::byte* data, size_t bytes) {
  const auto* words = reinterpret_cast<const uint64_t*>(data);
  const size_t half = bytes / 16;  // words of a stream
  uint64_t sum[8] = {};
  for (size_t i = 0; i < half; i += 8) {
    __builtin_prefetch(words + i + ahead / 8);
    __builtin_prefetch(words + half + i + ahead / 8);
    for (size_t j = 0; j < 8; ++j) sum[j] += words[i + j] + words[half + i + j];
  }
  return std::accumulate(std::begin(sum), std::end(sum), uint64_t{0});
}

constexpr ComputeLoop compute_rows[] = {
#if defined(__x86_64__)
    {&Roof::f32_flops_per_s, isa_avx512, 2.0 * 16 * wide, f32_avx512},
    {&Roof::f32_flops_per_s, isa_avx2, 2.0 * 8 * narrow, f32_avx2},
    {&Roof::avx512bf16_flops_per_s, isa_avx512 | isa_avx512bf16, 2.0 * 32 * wide, bf16_avx512},
    {&Roof::avx512vnni_ops_per_s, isa_avx512 | isa_avx512vnni, 2.0 * 64 * wide, int8_avx512},
    {&Roof::avxvnni_ops_per_s, isa_avx2 | isa_avxvnni, 2.0 * 32 * narrow, int8_avx},
    {&Roof::avx2_int8_ops_per_s, isa_avx2, 2.0 * 32 * narrow, int8_avx2},
    {&Roof::amx_bf16_flops_per_s, isa_amx, 2.0 * 16 * 16 * 32 * 4, bf16_amx},
    {&Roof::amx_int8_ops_per_s, isa_amx, 2.0 * 16 * 16 * 64 * 4, int8_amx},
#elif defined(__aarch64__)
    {&Roof::f32_flops_per_s, isa_neon, 2.0 * 4 * chains, f32_neon},
#endif
    {&Roof::f32_flops_per_s, 0, 2.0 * baseline_width* baseline_chains, f32_baseline},
};

}  // namespace

std::span<const ComputeLoop> compute_loops() { return compute_rows; }

ReadLoop choose_read_loop([[maybe_unused]] uint32_t isa) {
#if defined(__x86_64__)
  if (isa & isa_avx512) return read_avx512;
  if (isa & isa_avx2) return read_avx2;
#endif
  return read_baseline;
}

}  // namespace lathe
