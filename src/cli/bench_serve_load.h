// What a load generator sends and when: arrivals at a rate, all at once, or as a recorded trace has them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace lathe {

struct Arrival {
  double at = 0;  // seconds after the start
  int64_t input_tokens = 0, output_tokens = 0;
  std::vector<int64_t>
      blocks;  // names of the prompt's parts of `trace_block_tokens`; equal names, equal tokens
};
constexpr int64_t trace_block_tokens = 512;  // of Mooncake's traces

struct LoadOptions {
  int64_t requests = 0;  // 0: 100; all of a trace
  double rate = 0;       // a second, exponential gaps between them (a Poisson process); 0: all at once
  int64_t input_tokens = 0, output_tokens = 0;  // 0: 256 and 128; what a trace has
  uint64_t seed = 0;
};
std::vector<Arrival> synthetic_arrivals(const LoadOptions&);

// Azure's CSV (TIMESTAMP,ContextTokens,GeneratedTokens) or Mooncake's JSON lines (timestamp in ms,
// input_length, output_length, hash_ids). Lengths are cut to those of the options, where these have any,
// times divided by `speedup`. InputError names the line that is neither.
std::vector<Arrival> trace_arrivals(const fs::path&, const LoadOptions&, double speedup);

// The prompt of request `index`, the same for the same seed.
class Prompts {
 public:
  // Random ids of [first_id, vocab); `shared` of them are the beginning of every prompt. With a text, that
  // many tokens at `bytes_per_token`, from random places.
  Prompts(uint64_t seed, int64_t vocab, int64_t shared, std::string text);
  Json prompt(size_t index, const Arrival&) const;  // a list of tokens, or a string

 private:
  static constexpr int64_t first_id = 100, bytes_per_token = 4;
  void append_ids(std::vector<int32_t>&, uint64_t stream, int64_t count) const;
  std::string slice(uint64_t stream, int64_t tokens) const;
  uint64_t seed_;
  int64_t vocab_, shared_;
  std::string text_;
};

}  // namespace lathe
