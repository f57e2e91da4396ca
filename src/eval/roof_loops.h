// The inner loops that roofs are measured with: the only definition of each, one row per compute type and
// ISA.
#pragma once

#include <cstddef>
#include <span>

#include "eval/roof.h"

namespace lathe {

// Works in registers only, in enough independent chains to hide latency.
struct ComputeLoop {
  double Roof::*roof;    // the compute type
  uint32_t isa;          // features it needs
  double ops_per_round;  // a multiply-add counts two
  void (*run)(int64_t rounds);
};
std::span<const ComputeLoop> compute_loops();  // of one compute type, the widest first

// Reads [data, data + bytes), bytes a multiple of 4096, with the widest vectors of `isa`; returns a sum that
// depends on every byte.
using ReadLoop = uint64_t (*)(const std::byte* data, size_t bytes);
ReadLoop choose_read_loop(uint32_t isa);

}  // namespace lathe
