// What this machine can do at most: bytes read per second, and operations per second of each compute type.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/tensor.h"
#include "core/thread_pool.h"

namespace lathe {

// Of all threads together. Measured in the same run as the speed it is compared with: these machines are
// noisy. A multiply-add counts two operations. 0: this CPU does not have it, or LATHE_ISA forbids it.
struct Roof {
  double read_bytes_per_s = 0;        // streaming a buffer far larger than the last-level cache
  double l3_bytes_per_s = 0;          // reading some 16 MB again and again, split over the threads
  double l2_bytes_per_s = 0;          // each thread reading half of its second-level cache
  double f32_flops_per_s = 0;         // fused multiply-adds in registers, of the widest vectors allowed
  double avx512bf16_flops_per_s = 0;  // vdpbf16ps
  double avx512vnni_ops_per_s = 0;    // vpdpbusd on 512-bit vectors: int8 products, int32 sums
  double avxvnni_ops_per_s = 0;       // the same on 256-bit vectors
  double avx2_int8_ops_per_s = 0;     // vpmaddubsw and the 16-bit sum of its products
  double amx_bf16_flops_per_s = 0;    // tdpbf16ps on 2 x 2 tiles
  double amx_int8_ops_per_s = 0;      // tdpbssd on 2 x 2 tiles
};

// The fields of a Roof, for those who print, store or load all of them.
struct RoofField {
  std::string_view name;   // for scripts
  std::string_view label;  // for people
  double Roof::*value;
  std::string_view unit;  // of value * 1e-9: "GB/s", "GFLOP/s", "GOP/s"
};
inline constexpr RoofField roof_fields[] = {
    {"read_bytes_per_s", "reads from memory", &Roof::read_bytes_per_s, "GB/s"},
    {"l3_bytes_per_s", "reads from the third-level cache", &Roof::l3_bytes_per_s, "GB/s"},
    {"l2_bytes_per_s", "reads from second-level caches", &Roof::l2_bytes_per_s, "GB/s"},
    {"f32_flops_per_s", "f32 multiply-adds", &Roof::f32_flops_per_s, "GFLOP/s"},
    {"avx512bf16_flops_per_s", "bf16 AVX-512 products", &Roof::avx512bf16_flops_per_s, "GFLOP/s"},
    {"avx512vnni_ops_per_s", "int8 AVX-512 VNNI products", &Roof::avx512vnni_ops_per_s, "GOP/s"},
    {"avxvnni_ops_per_s", "int8 AVX-VNNI products", &Roof::avxvnni_ops_per_s, "GOP/s"},
    {"avx2_int8_ops_per_s", "int8 AVX2 products", &Roof::avx2_int8_ops_per_s, "GOP/s"},
    {"amx_bf16_flops_per_s", "bf16 AMX products", &Roof::amx_bf16_flops_per_s, "GFLOP/s"},
    {"amx_int8_ops_per_s", "int8 AMX products", &Roof::amx_int8_ops_per_s, "GOP/s"},
};

// The compute roof of one way to run a linear layer, or attention, with the features `isa`: that of the
// path's Products.
struct LinearPath;
struct AttentionPath;
const RoofField& compute_roof(uint32_t isa, const LinearPath&);
const RoofField& compute_roof(uint32_t isa, const AttentionPath&);

// About two seconds. threads 0: physical cores; isa: features of core/cpu.h that may be used. Forgets the
// peak_memory_bytes() of this process so far, because its buffer is no model's memory.
Roof measure_roof(int threads, uint32_t isa);

// Its parts. Compute: the fields that end in flops_per_s and ops_per_s, those that are above zero already
// left out; caches: l3 and l2; l3 alone stays 0 where there is no third level.
void measure_compute(ThreadPool&, uint32_t isa, Roof&);
void measure_caches(ThreadPool&, uint32_t isa, Roof&);
void measure_l3(ThreadPool&, uint32_t isa, Roof&);
// One field of compute alone.
void measure_compute(ThreadPool&, uint32_t isa, const RoofField&, Roof&);

// Bytes per second that threads read from memory; the buffer is made once (about a second) and may be read by
// pools of several sizes.
class MemoryReads {
 public:
  explicit MemoryReads(ThreadPool& writers);
  double bytes_per_s(ThreadPool&, uint32_t isa) const;

 private:
  Storage buffer_;
};
// measure_roof() with a buffer that is there already. The peak stays.
Roof measure_roof(ThreadPool&, const MemoryReads&, uint32_t isa);

// Seconds, median: what handing an empty task to every thread, each on its own, and waiting for all costs.
double measure_empty_region(ThreadPool&);

size_t cache_bytes(int level);    // of one cache of that level; 0 where the system does not say
size_t last_level_cache_bytes();  // 0 where the system does not say
size_t bytes_beyond_caches();     // more than any cache holds, but at most a quarter of free memory

}  // namespace lathe
