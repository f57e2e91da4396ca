// GGUF's k-quants in panels (panel.k, quant/packings/k_panels.cpp): reading them.
#pragma once

namespace lathe {
namespace {

typedef uint32_t Words __attribute__((vector_size(lanes * 4)));  // I with operators
inline Words as_words(I words) { return reinterpret_cast<Words>(words); }
inline I as_integers(Words words) { return reinterpret_cast<I>(words); }

// Half of 32 columns (0 or 1) of `lanes` rows, as the words of each plane.
template <int bits>
struct KCodes {
  static constexpr int rest = bits >= 4 ? bits - 4 : bits - 2;  // bits of the second plane
  Words low[2], high;                                           // low[1] of nibbles only

  KCodes() = default;
  // The words of 32 columns; a plane's words are 32 apart.
  KCodes(const uint32_t* at, int half) {
    const auto word = [&](int i) { return as_words(load_words(at + i * 32)); };
    low[0] = bits >= 4 ? word(2 * half) : word(half);
    if constexpr (bits >= 4) low[1] = word(2 * half + 1);
    if constexpr (rest == 2) high = word(4 + half);
    if constexpr (rest == 1) high = word(bits - 1) >> (4 * half);
  }
  // Quad i of the half (0 to 3): the codes of four columns as bytes.
  template <int i>
  I quad() const {
    Words q;
    if constexpr (bits >= 4)
      q = (i % 2 == 0 ? low[i / 2] : low[i / 2] >> 4) & 0x0f0f0f0f;
    else
      q = low[0] >> (2 * i) & 0x03030303;
    if constexpr (rest == 2)
      q |= (i == 0 ? high << 4 : i == 1 ? high << 2 : high >> (2 * i - 4)) & 0x30303030;
    if constexpr (rest == 1 && bits == 5) q |= high << (4 - i) & 0x10101010;
    if constexpr (rest == 1 && bits == 3) q |= (i == 3 ? high >> 1 : high << (2 - i)) & 0x04040404;
    return as_integers(q);
  }
  // Column i of the half (0 to 15).
  template <int i>
  I code() const {
    constexpr int place = i / 8 * 2 + i % 2, byte = i % 8 / 2 * 8;  // the quad, and where in it
    Words code;
    if constexpr (bits >= 4)
      code = low[i / 8] >> (byte + 4 * (i % 2)) & 15;
    else
      code = low[0] >> (byte + 2 * place) & 3;
    if constexpr (rest == 2) code |= (high >> (byte + 2 * place) & 3) << 4;
    if constexpr (rest == 1) code |= (high >> (byte + place) & 1) << (bits - 1);
    return as_integers(code);
  }
};

// Where things of panel p lie.
template <int bits, int group_columns, bool minimum>
struct KPanels {
  static constexpr int64_t super_columns = 256, levels = minimum ? 2 : 1, row = 32;
  const uint32_t* words;
  const int8_t* multiples;
  const F16* units;
  int64_t blocks;  // of 32 columns, per row

  explicit KPanels(const LinearArgs& a)
      : words(static_cast<const uint32_t*>(a.codes)),
        multiples(static_cast<const int8_t*>(a.scales)),
        units(static_cast<const F16*>(a.zeros)),
        blocks(a.k / 32) {}
  const uint32_t* codes(int64_t p, int64_t block, int64_t lane) const {
    return words + (p * blocks + block) * bits * row + lane;
  }
  const int8_t* multiple(int64_t p, int64_t group, int64_t lane) const {
    return multiples + (p * (blocks * 32 / group_columns) + group) * levels * row + lane;
  }
  const F16* unit(int64_t p, int64_t super, int64_t lane) const {
    return units + (p * (blocks * 32 / super_columns) + super) * levels * row + lane;
  }
};

}  // namespace
}  // namespace lathe
