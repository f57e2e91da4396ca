// How fast a model runs, in tokens per second and as a per cent of this machine's measured roof.
#pragma once

#include <cstdint>
#include <string>

#include "eval/roof.h"
#include "models/model.h"
#include "runtime/plan.h"

namespace lathe {

size_t peak_memory_bytes();  // the most this process ever had in memory: anonymous + file pages

struct SpeedOptions {
  int64_t prompt_tokens = 512, gen_tokens = 64, batch = 1;
  int repeats = 3;             // the median is reported
  Target target;               // threads, ISA, KV type, max_tokens (of a chunk), cache and tuning are read
  const Roof* roof = nullptr;  // measured by the caller in this run; null: measured here, around every pass
};

struct Speed {
  double prefill_tokens_per_s = 0, decode_tokens_per_s = 0, ttft_ms = 0;
  // Medians of the passes, each against the roofs right before and after it.
  double prefill_percent_of_roof = 0;  // of the time that its arithmetic takes at the roofs of its kernels
  double decode_percent_of_roof = 0;   // of the bandwidth roof, counting weight and KV bytes
  // The same bytes against reads from the third-level cache, where it holds the weights; 0 where it does not,
  // or its bandwidth is not known.
  double decode_percent_of_l3 = 0;
  int threads = 0, prefill_threads = 0;
  int64_t batch = 1, prompt_tokens = 0, gen_tokens = 0;
  std::string logits_hash;        // of the last prefill row and every decode step, first repeat
  size_t peak_memory_bytes = 0;   // anonymous + file pages of this process at its peak
  size_t model_memory_bytes = 0;  // packed weights + KV + arena: what the memory constraint counts
  bool fits_cache =
      false;  // the last-level cache holds the weights: decoding may then exceed 100 % of the roof
  Roof roof;
  const RoofField* prefill_roof = nullptr;  // the compute roof of most of the prompt's arithmetic
};

Speed measure_speed(const Model&, const SpeedOptions&);

}  // namespace lathe
