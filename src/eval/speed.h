// How fast a model runs, in tokens per second and as a per cent of this machine's measured roof.
#pragma once

#include <cstdint>
#include <string>

#include "models/model.h"
#include "runtime/plan.h"

namespace lathe {

// Measured in the same run as the speed it is compared with: these machines are noisy.
struct Roof {
  double read_bytes_per_s = 0;  // streaming a buffer far larger than the last-level cache, all threads
  double f32_flops_per_s = 0;   // fused multiply-adds in registers, all threads, at the plan's ISA level
};
Roof measure_roof(int threads, uint32_t isa);  // threads 0: physical cores. Resets peak_memory_bytes().

size_t last_level_cache_bytes();  // 0 where the system does not say
size_t peak_memory_bytes();       // the most this process ever had in memory: anonymous + file pages

struct SpeedOptions {
  int64_t prompt_tokens = 512, gen_tokens = 64, batch = 1;
  int repeats = 3;             // the median is reported
  Target target;               // threads and ISA are read
  const Roof* roof = nullptr;  // measured by the caller in this run; null: measured here, after the model
};

struct Speed {
  double prefill_tokens_per_s = 0, decode_tokens_per_s = 0, ttft_ms = 0;
  double prefill_percent_of_roof = 0;  // of the FLOP roof
  double decode_percent_of_roof = 0;   // of the bandwidth roof, counting weight and KV bytes
  int threads = 0;
  int64_t batch = 1, prompt_tokens = 0, gen_tokens = 0;
  std::string logits_hash;        // of the last prefill row and every decode step, first repeat
  size_t peak_memory_bytes = 0;   // anonymous + file pages of this process at its peak
  size_t model_memory_bytes = 0;  // packed weights + KV + arena: what the memory constraint counts
  bool fits_cache =
      false;  // the last-level cache holds the weights: decoding may then exceed 100 % of the roof
  Roof roof;
};

Speed measure_speed(const Model&, const SpeedOptions&);

}  // namespace lathe
