#include "eval/roof.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "core/clock.h"
#include "core/cpu.h"
#include "eval/roof_loops.h"
#include "kernels/tables.h"

namespace lathe {
namespace {

constexpr double trial_seconds = 0.04;
constexpr int trials = 5;

// Runs `work` on every worker again and again for one trial; returns how often it ran per second, at best:
// whatever else runs on the machine only ever lowers it.
template <class Work>
double best_rate(ThreadPool& pool, Work work) {
  double best = 0;
  for (int trial = 0; trial < trials; ++trial) {
    std::atomic<int64_t> runs{0};
    const auto start = Clock::now();
    pool.run([&](int worker, int) {
      while (seconds_since(start) < trial_seconds) {
        work(worker);
        runs.fetch_add(1, std::memory_order_relaxed);
      }
    });
    best = std::max(best, static_cast<double>(runs.load()) / seconds_since(start));
  }
  return best;
}

std::atomic<uint64_t> kept{0};  // sums go here, so that reads are not optimised away
void keep(uint64_t sum) { kept.fetch_add(sum, std::memory_order_relaxed); }

// Pages never written all map to one page of zeros, which the cache holds.
void fill(std::byte* data, size_t bytes) {
  auto* words = reinterpret_cast<uint64_t*>(data);
  for (size_t i = 0; i < bytes / 8; ++i) words[i] = i * 0x9e3779b97f4a7c15ull;
}

constexpr size_t page = 4096, megabyte = size_t{1} << 20;
constexpr size_t chunk = 4 * megabyte;  // of memory, read by one worker at a time

double cached_reads(ThreadPool& pool, uint32_t isa, size_t bytes_per_thread) {
  const size_t bytes = std::max(bytes_per_thread / page, size_t{1}) * page;
  std::vector<Storage> own(static_cast<size_t>(pool.size()));
  pool.run([&](int worker, int) {
    Storage& buffer = own[static_cast<size_t>(worker)];
    buffer = Storage::allocate(bytes);
    fill(buffer.data, bytes);
  });
  const ReadLoop read = choose_read_loop(isa);
  const double rate =
      best_rate(pool, [&](int worker) { keep(read(own[static_cast<size_t>(worker)].data, bytes)); });
  return rate * static_cast<double>(bytes);
}

}  // namespace

size_t cache_bytes(int level) {
  size_t largest = 0;
  for (int index = 0; index < 8; ++index) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index);
    int found = 0;
    size_t value = 0;
    char unit = 0;
    if (!(std::ifstream(folder + "/level") >> found) || found != level) continue;
    if (!(std::ifstream(folder + "/size") >> value >> unit)) continue;
    largest = std::max(largest, value * (unit == 'K' ? size_t{1} << 10 : unit == 'M' ? megabyte : 1));
  }
  return largest;
}

size_t last_level_cache_bytes() {
  for (int level = 4; level > 0; --level)
    if (const size_t bytes = cache_bytes(level)) return bytes;
  return 0;
}

size_t bytes_beyond_caches() {
  const size_t wanted = std::max(512 * megabyte, 2 * last_level_cache_bytes());
  const auto page_bytes = static_cast<size_t>(::sysconf(_SC_PAGESIZE)),
             free_pages = static_cast<size_t>(std::max(0L, ::sysconf(_SC_AVPHYS_PAGES)));
  return std::max(std::min(wanted, free_pages * page_bytes / 4), 16 * megabyte);
}

MemoryReads::MemoryReads(ThreadPool& writers)
    : buffer_(Storage::allocate(bytes_beyond_caches() / chunk * chunk)) {
  std::atomic<size_t> next{0};
  writers.run([&](int, int) {
    for (size_t at; (at = next.fetch_add(chunk)) < buffer_.bytes;) fill(buffer_.data + at, chunk);
  });
}

double MemoryReads::bytes_per_s(ThreadPool& pool, uint32_t isa) const {
  std::atomic<size_t> next{0};
  const ReadLoop read = choose_read_loop(isa);
  const double rate = best_rate(pool, [&](int) {
    keep(read(buffer_.data + next.fetch_add(chunk, std::memory_order_relaxed) % buffer_.bytes, chunk));
  });
  return rate * static_cast<double>(chunk);
}

static size_t second_level_bytes() {
  const size_t known = cache_bytes(2);
  return known > 0 ? known : megabyte / 2;
}

void measure_caches(ThreadPool& pool, uint32_t isa, Roof& roof) {
  roof.l2_bytes_per_s = cached_reads(pool, isa, second_level_bytes() / 2);
  measure_l3(pool, isa, roof);
}

void measure_l3(ThreadPool& pool, uint32_t isa, Roof& roof) {
  const size_t l2 = second_level_bytes(), l3 = cache_bytes(3);
  if (l3 == 0) return;
  // Beyond the second level of every thread, yet within the third.
  const auto threads = static_cast<size_t>(pool.size());
  const size_t total = std::min(std::max(16 * megabyte, 2 * l2 * threads), l3 / 4 * 3);
  roof.l3_bytes_per_s = cached_reads(pool, isa, total / threads);
}

static double rate_of(ThreadPool& pool, const ComputeLoop& loop) {
  constexpr int64_t rounds = 20'000;  // below a millisecond each
  return best_rate(pool, [&](int) { loop.run(rounds); }) * static_cast<double>(rounds) * loop.ops_per_round;
}

void measure_compute(ThreadPool& pool, uint32_t isa, Roof& roof) {
  for (const ComputeLoop& loop : compute_loops())
    if ((loop.isa & ~isa) == 0 && roof.*loop.roof <= 0) roof.*loop.roof = rate_of(pool, loop);
}

void measure_compute(ThreadPool& pool, uint32_t isa, const RoofField& field, Roof& roof) {
  for (const ComputeLoop& loop : compute_loops())
    if ((loop.isa & ~isa) == 0 && loop.roof == field.value && roof.*loop.roof <= 0)
      roof.*loop.roof = rate_of(pool, loop);
}

static const RoofField& field(double Roof::*value) {
  return *std::find_if(std::begin(roof_fields), std::end(roof_fields),
                       [&](const RoofField& f) { return f.value == value; });
}
static const RoofField& compute_roof(uint32_t isa, Products products) {
  switch (products) {
    case Products::bf16:
      return field(isa & isa_amx ? &Roof::amx_bf16_flops_per_s : &Roof::avx512bf16_flops_per_s);
    case Products::int8:
      return field(isa & isa_amx          ? &Roof::amx_int8_ops_per_s
                   : isa & isa_avx512vnni ? &Roof::avx512vnni_ops_per_s
                   : isa & isa_avxvnni    ? &Roof::avxvnni_ops_per_s
                   : isa & isa_avx2       ? &Roof::avx2_int8_ops_per_s
                                          : &Roof::f32_flops_per_s);  // NEON: no roof of its own yet
    case Products::f32:
      break;
  }
  return field(&Roof::f32_flops_per_s);
}

const RoofField& compute_roof(uint32_t isa, const LinearPath& path) {
  return compute_roof(isa, path.products());
}
const RoofField& compute_roof(uint32_t isa, const AttentionPath& path) {
  return compute_roof(isa, path.products);
}

double measure_empty_region(ThreadPool& pool) {
  constexpr size_t regions = 2001;
  std::vector<double> seconds(regions);
  for (double& s : seconds) {
    std::atomic<int> here{0};  // parts wait for each other, or the first thread would do those of the late
    const auto start = Clock::now();
    pool.run([&](int, int parts) {
      here.fetch_add(1, std::memory_order_relaxed);
      while (here.load(std::memory_order_relaxed) < parts) std::this_thread::yield();
    });
    s = seconds_since(start);
  }
  std::nth_element(seconds.begin(), seconds.begin() + regions / 2, seconds.end());
  return seconds[regions / 2];
}

Roof measure_roof(ThreadPool& pool, const MemoryReads& reads, uint32_t isa) {
  Roof roof;
  roof.read_bytes_per_s = reads.bytes_per_s(pool, isa);
  measure_caches(pool, isa, roof);
  measure_compute(pool, isa, roof);
  return roof;
}

Roof measure_roof(int threads, uint32_t isa) {
  ThreadPool pool(threads > 0 ? threads : physical_cores());
  const Roof roof = measure_roof(pool, MemoryReads(pool), isa);
  std::ofstream("/proc/self/clear_refs") << "5";  // forgets the peak
  return roof;
}

}  // namespace lathe
