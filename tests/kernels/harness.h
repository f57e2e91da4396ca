// What the kernel tests share: random matrices with room around them, and running a kernel as a pool would.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <vector>

#include "core/cpu.h"
#include "core/rng.h"
#include "kernels/share.h"

namespace lathe {

constexpr float unit_roundoff = 0x1p-24f;  // of f32: half the distance from 1 to the next float

// A [rows, cols] matrix inside a wider buffer of NaN: whoever reads past a row poisons its result, and
// whoever writes past one is found by `intact`.
struct Matrix {
  int64_t rows, cols, stride;
  std::vector<float> data;

  Matrix(int64_t r, int64_t c, int64_t gap = 3)
      : rows(r), cols(c), stride(c + gap), data(static_cast<size_t>(r * (c + gap)), NAN) {}
  float* row(int64_t r) { return data.data() + r * stride; }
  const float* row(int64_t r) const { return data.data() + r * stride; }
  float& at(int64_t r, int64_t c) { return row(r)[c]; }
  float at(int64_t r, int64_t c) const { return row(r)[c]; }
  bool intact() const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = cols; c < stride; ++c)
        if (!std::isnan(at(r, c))) return false;
    return true;
  }
};

inline Matrix random_matrix(int64_t rows, int64_t cols, Rng& rng, int64_t gap = 3) {
  Matrix m(rows, cols, gap);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) m.at(r, c) = rng.normal();
  return m;
}

// An emulator takes a hundred times a CPU's time: it gets fewer of what differs in size only. What is the
// same code on every machine, the reference, is tested by the machine's own build.
#if defined(LATHE_EMULATED)
constexpr bool emulated = true;
#else
constexpr bool emulated = false;
#endif

// Of an emulator's CPUs, each runs what the one before it could not.
inline bool runs_here(uint32_t isa) {
  const uint32_t newest = emulated ? cpu_features() & (isa_neondot | isa_neoni8mm) : 0;
  return (isa & ~cpu_features()) == 0 && (isa & newest) == newest;
}

// Each worker in turn, all with scratch that holds NaN.
template <class Args>
void run_as(void (*run)(const Args&, const Share&) noexcept, const Args& args, int workers, int only = -1) {
  static std::byte* scratch = static_cast<std::byte*>(std::aligned_alloc(64, kernel_scratch_bytes));
  for (int worker = 0; worker < workers; ++worker) {
    if (only >= 0 && worker != only) continue;
    std::fill_n(reinterpret_cast<float*>(scratch), kernel_scratch_bytes / 4, NAN);
    run(args, Share{worker, workers, scratch});
  }
}

// The workers together write every element of `out` and no two the same one.
template <class Args>
void expect_partition(void (*run)(const Args&, const Share&) noexcept, const Args& args, Matrix& out,
                      int workers) {
  std::vector<int> writers(static_cast<size_t>(out.rows * out.cols));
  for (int worker = 0; worker < workers; ++worker) {
    std::fill(out.data.begin(), out.data.end(), NAN);
    run_as(run, args, workers, worker);
    EXPECT_TRUE(out.intact());
    for (int64_t r = 0; r < out.rows; ++r)
      for (int64_t c = 0; c < out.cols; ++c)
        writers[static_cast<size_t>(r * out.cols + c)] += !std::isnan(out.at(r, c));
  }
  for (int n : writers) ASSERT_EQ(n, 1) << workers << " workers";
}

}  // namespace lathe
