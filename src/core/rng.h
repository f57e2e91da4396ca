// Deterministic random numbers: the same seed gives the same stream on every machine and standard library.
#pragma once

#include <cstdint>

namespace lathe {

// SplitMix64 (Steele, Lea, Flood 2014): one multiply-xor chain per number, any 64-bit seed is fine.
class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // [0, 1)
  __extension__ typedef unsigned __int128 Wide;
  uint64_t below(uint64_t n) { return static_cast<uint64_t>((static_cast<Wide>(next()) * n) >> 64); }
  // Sum of twelve uniforms minus six: mean 0, variance 1, no libm call whose last bit differs between
  // machines.
  float normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return static_cast<float>(sum);
  }

 private:
  uint64_t state_;
};

}  // namespace lathe
