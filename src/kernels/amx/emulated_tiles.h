// The tile instructions in AVX-512, for tests on machines without AMX (LATHE_EMULATE_TILES). Every operation
// follows the pseudo-code of Intel's "Architecture Instruction Set Extensions Programming Reference", chapter
// 3, configured rows and bytes included, but for denormal numbers, which AMX takes as zero. Some hundred
// times slower than the real ones.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

namespace lathe {
namespace {

struct EmulatedTiles {
  int rows[8], bytes[8];  // as configured
  alignas(64) uint8_t data[8][16][64];
};
thread_local EmulatedTiles emulated_tiles;

inline void emulated_loadconfig(const void* config) {
  const auto* at = static_cast<const uint8_t*>(config);
  for (int t = 0; t < 8; ++t) {
    uint16_t bytes;
    memcpy(&bytes, at + 16 + 2 * t, 2);
    emulated_tiles.bytes[t] = bytes;
    emulated_tiles.rows[t] = at[48 + t];
  }
  memset(emulated_tiles.data, 0, sizeof emulated_tiles.data);
}
inline void emulated_zero(int t) { memset(emulated_tiles.data[t], 0, sizeof emulated_tiles.data[t]); }
inline void emulated_load(int t, const void* from, int64_t stride) {
  EmulatedTiles& e = emulated_tiles;
  emulated_zero(t);
  for (int r = 0; r < e.rows[t]; ++r)
    memcpy(e.data[t][r], static_cast<const char*>(from) + r * stride, static_cast<size_t>(e.bytes[t]));
}
inline void emulated_store(int t, void* to, int64_t stride) {
  EmulatedTiles& e = emulated_tiles;
  for (int r = 0; r < e.rows[t]; ++r)
    memcpy(static_cast<char*>(to) + r * stride, e.data[t][r], static_cast<size_t>(e.bytes[t]));
}

// Columns of even and of odd numbers are summed apart, from zero, and then added to the result.
inline void emulated_dpbf16ps(int c, int a, int b) {
  EmulatedTiles& e = emulated_tiles;
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  for (int m = 0; m < e.rows[c]; ++m) {
    __m512 even = _mm512_setzero_ps(), odd = even;
    for (int k = 0; k < e.bytes[a] / 4; ++k) {
      uint32_t pair;
      memcpy(&pair, e.data[a][m] + 4 * k, 4);
      const __m512i x = _mm512_set1_epi32(static_cast<int>(pair)), w = _mm512_load_si512(e.data[b][k]);
      even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
                             _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)), even);
      odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, upper)),
                            _mm512_castsi512_ps(_mm512_and_si512(w, upper)), odd);
    }
    const __m512 sum = _mm512_add_ps(_mm512_load_ps(e.data[c][m]), _mm512_add_ps(even, odd));
    _mm512_store_ps(e.data[c][m], sum);
  }
}

template <bool a_signed, bool b_signed>
void emulated_dpb(int c, int a, int b) {
  EmulatedTiles& e = emulated_tiles;
  for (int m = 0; m < e.rows[c]; ++m) {
    __m512i sum = _mm512_load_si512(e.data[c][m]);
    for (int k = 0; k < e.bytes[a] / 4; ++k)
      for (int i = 0; i < 4; ++i) {
        const uint8_t byte = e.data[a][m][4 * k + i];
        const __m512i x = _mm512_set1_epi32(a_signed ? static_cast<int8_t>(byte) : byte),
                      w = _mm512_sllv_epi32(_mm512_load_si512(e.data[b][k]), _mm512_set1_epi32(24 - 8 * i));
        sum = _mm512_add_epi32(
            sum, _mm512_mullo_epi32(x, b_signed ? _mm512_srai_epi32(w, 24) : _mm512_srli_epi32(w, 24)));
      }
    _mm512_store_si512(e.data[c][m], sum);
  }
}

}  // namespace
}  // namespace lathe

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#undef _tile_dpbsud
#undef _tile_dpbusd
#undef _tile_dpbuud
#define _tile_loadconfig(config) ::lathe::emulated_loadconfig(config)
#define _tile_release() ((void)0)
#define _tile_zero(t) ::lathe::emulated_zero(t)
#define _tile_loadd(t, from, stride) ::lathe::emulated_load(t, from, stride)
#define _tile_stream_loadd(t, from, stride) ::lathe::emulated_load(t, from, stride)
#define _tile_stored(t, to, stride) ::lathe::emulated_store(t, to, stride)
#define _tile_dpbf16ps(c, a, b) ::lathe::emulated_dpbf16ps(c, a, b)
#define _tile_dpbssd(c, a, b) ::lathe::emulated_dpb<true, true>(c, a, b)
#define _tile_dpbsud(c, a, b) ::lathe::emulated_dpb<true, false>(c, a, b)
#define _tile_dpbusd(c, a, b) ::lathe::emulated_dpb<false, true>(c, a, b)
#define _tile_dpbuud(c, a, b) ::lathe::emulated_dpb<false, false>(c, a, b)
