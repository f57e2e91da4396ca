// What this machine can do at most: bytes read per second and f32 multiply-adds per second.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <unistd.h>
#include <vector>

#include "core/cpu.h"
#include "core/tensor.h"
#include "core/thread_pool.h"
#include "eval/speed.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lathe {
namespace {

using Clock = std::chrono::steady_clock;
constexpr double trial_seconds = 0.05;
constexpr int trials = 5;

// Multiply-adds in registers: sixteen accumulators keep two FMA ports of latency four busy. They start from
// different numbers and their sum is returned, so that no compiler may merge or drop the work.
constexpr int accumulators = 16;

#if defined(__x86_64__)
__attribute__((target("avx512f"))) float multiply_add_avx512(int64_t rounds) {
  __m512 sum[accumulators];
  for (int i = 0; i < accumulators; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (__m512& s : sum) s = _mm512_fmadd_ps(s, a, b);
  alignas(64) float out[16];
  float total = 0;
  for (__m512& s : sum) {
    _mm512_store_ps(out, s);
    total += std::accumulate(out, out + 16, 0.0f);
  }
  return total;
}

// Twelve, not sixteen: the constants need registers too, and AVX2 has sixteen in all.
constexpr int accumulators_avx2 = 12;
__attribute__((target("avx2,fma"))) float multiply_add_avx2(int64_t rounds) {
  __m256 sum[accumulators_avx2];
  for (int i = 0; i < accumulators_avx2; ++i) sum[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
    for (__m256& s : sum) s = _mm256_fmadd_ps(s, a, b);
  alignas(32) float out[8];
  float total = 0;
  for (__m256& s : sum) {
    _mm256_store_ps(out, s);
    total += std::accumulate(out, out + 8, 0.0f);
  }
  return total;
}
#endif

// Four floats at a time: what every 64-bit machine has without being asked.
constexpr int baseline_width = 4, accumulators_baseline = 12;
float multiply_add_baseline(int64_t rounds) {
  typedef float Vector __attribute__((vector_size(4 * baseline_width)));
  Vector sum[accumulators_baseline];
  for (int i = 0; i < accumulators_baseline; ++i) sum[i] = Vector{} + static_cast<float>(i);
  const Vector a = Vector{} + 0.999f, b = Vector{} + 0.001f;
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
    for (Vector& s : sum) s = s * a + b;
  float total = 0;
  for (const Vector& s : sum) total += s[0] + s[1] + s[2] + s[3];
  return total;
}

struct MultiplyAdd {
  float (*run)(int64_t rounds);
  double flops_per_round;
};

MultiplyAdd choose_multiply_add([[maybe_unused]] uint32_t isa) {
#if defined(__x86_64__)
  if (isa & isa_avx512) return {multiply_add_avx512, 2.0 * 16 * accumulators};
  if (isa & isa_avx2) return {multiply_add_avx2, 2.0 * 8 * accumulators_avx2};
#endif
  return {multiply_add_baseline, 2.0 * baseline_width * accumulators_baseline};
}

// Runs `work` on every worker again and again for one trial; returns how often it ran, per second.
template <class Work>
double best_rate(ThreadPool& pool, Work work) {
  double best = 0;
  for (int trial = 0; trial < trials; ++trial) {
    std::atomic<int64_t> runs{0};
    const auto start = Clock::now();
    pool.run([&](int worker, int workers) {
      while (std::chrono::duration<double>(Clock::now() - start).count() < trial_seconds) {
        work(worker, workers);
        runs.fetch_add(1, std::memory_order_relaxed);
      }
    });
    best = std::max(
        best, static_cast<double>(runs.load()) / std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

std::atomic<uint64_t> kept{0};  // results go here, so that the loops are not optimised away

double measure_flops(ThreadPool& pool, uint32_t isa) {
  constexpr int64_t rounds = 100'000;
  const MultiplyAdd loop = choose_multiply_add(isa);
  const double rate = best_rate(pool, [&](int, int) {
    kept.fetch_add(static_cast<uint64_t>(loop.run(rounds)), std::memory_order_relaxed);
  });
  return rate * static_cast<double>(rounds) * loop.flops_per_round;
}

// Twice the last-level cache and at least 512 MB, unless memory is short.
size_t stream_bytes() {
  const size_t wanted = std::max<size_t>(size_t{512} << 20, 2 * last_level_cache_bytes());
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE)),
             free_pages = static_cast<size_t>(std::max(0L, ::sysconf(_SC_AVPHYS_PAGES)));
  return std::max<size_t>(std::min(wanted, free_pages * page / 4), size_t{16} << 20);
}

double measure_reads(ThreadPool& pool) {
  constexpr size_t chunk = size_t{4} << 20;
  const size_t chunks = stream_bytes() / chunk;
  // Written before it is read: pages never written all map to one page of zeros, which the cache holds.
  const Storage buffer = Storage::allocate(chunks * chunk);
  pool.run([&](int worker, int workers) {
    auto* words = reinterpret_cast<uint64_t*>(buffer.data);
    const size_t n = chunks * chunk / 8, w = static_cast<size_t>(worker), all = static_cast<size_t>(workers);
    for (size_t i = n * w / all; i < n * (w + 1) / all; ++i) words[i] = i * 0x9e3779b97f4a7c15ull;
  });

  std::atomic<size_t> next{0};
  const double rate = best_rate(pool, [&](int, int) {
    const auto* words = reinterpret_cast<const uint64_t*>(
        buffer.data + next.fetch_add(1, std::memory_order_relaxed) % chunks * chunk);
    uint64_t sums[8] = {};
    for (size_t i = 0; i < chunk / 8; i += 8)
      for (size_t j = 0; j < 8; ++j) sums[j] += words[i + j];
    kept.fetch_add(std::accumulate(sums, sums + 8, uint64_t{0}), std::memory_order_relaxed);
  });
  return rate * static_cast<double>(chunk);
}

}  // namespace

size_t last_level_cache_bytes() {
  size_t largest = 0;
  for (int index = 0; index < 8; ++index) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/size");
    size_t value = 0;
    char unit = 0;
    if (!(file >> value)) continue;
    file >> unit;
    largest = std::max(largest, value * (unit == 'K' ? size_t{1} << 10 : unit == 'M' ? size_t{1} << 20 : 1));
  }
  return largest;
}

Roof measure_roof(int threads, uint32_t isa) {
  ThreadPool pool(threads > 0 ? threads : physical_cores());
  const Roof roof{.read_bytes_per_s = measure_reads(pool), .f32_flops_per_s = measure_flops(pool, isa)};
  // The buffer must not count as the model's memory: forget the peak of this process so far.
  std::ofstream("/proc/self/clear_refs") << "5";
  return roof;
}

}  // namespace lathe
