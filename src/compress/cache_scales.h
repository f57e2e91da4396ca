// The scales of a model's keys and values, from a text.
#pragma once

#include <cstdint>
#include <span>

#include "core/cpu.h"
#include "models/model.h"

namespace lathe {

struct CacheCalibration {
  int64_t context = 256;  // tokens of a sequence
  int threads = 0;        // 0: physical cores
  uint32_t isa = allowed_features();
};

// Of every layer, one scale of keys, as its attention reads them (rotated), and one of values: the largest
// magnitude over the text becomes the largest code, as in compressed-tensors and ModelOpt; 1 where all are 0.
// Scales that the model had are replaced; they round nothing meanwhile. Sequences of `context` tokens, the
// last one shorter. InputError without tokens.
void calibrate_cache(Model&, CacheNumerics, std::span<const int32_t> tokens, const CacheCalibration&);

}  // namespace lathe
