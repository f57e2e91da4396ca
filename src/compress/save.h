// save() of quantize.h for whoever reads back what was written.
#pragma once

#include "compress/quantize.h"
#include "io/writer.h"

namespace lathe {

struct Saved {
  std::string hash;       // as save() returns it
  uint64_t checksum = 0;  // of the same names, dtypes, shapes and bytes; core/checksum.h
};
Saved save_and_sum(const Model&, const Checkpoint& from, const Assignment&, ScaleRule,
                   const fs::path& directory, int threads = 0);
// What it writes, in order.
std::vector<PlannedEntry> planned_entries(const Model&, const Assignment&);
// What that would return for these weights as they are. A tenth of the time of hash_of().
uint64_t checksum_of(const Model&);

}  // namespace lathe
