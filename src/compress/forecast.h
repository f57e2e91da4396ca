// What rounding to nearest takes, before it starts: the calibrated sweep has its own (compress/sweep.h).
#pragma once

#include "compress/quantize.h"

namespace lathe {

struct RoundingForecast {
  size_t bytes_read = 0, bytes_written = 0;
  size_t memory = 0;   // bytes at most, beside the mapped checkpoint
  double seconds = 0;  // of computing; the disk may take longer over bytes_read and bytes_written
};

// Of save() with these arguments, by timing some rows of one weight of each format, and a hash (some
// milliseconds): cores that other programs take make the real thing slower.
RoundingForecast forecast_rounding(const Model&, const Assignment&, ScaleRule, int threads = 0);

}  // namespace lathe
