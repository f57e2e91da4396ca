// What changes only the speed of a plan, chosen by measuring it in place: on the plan's own weights, on this
// machine. Kept between runs by CPU, features, cores, the most threads that may be used, and the formats and
// shapes of all the model's weights: which row is fastest for one of them is also a matter of the others,
// which share the caches with it.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "core/file.h"
#include "models/model.h"
#include "runtime/plan.h"

namespace lathe {

// Measures: some seconds to a minute. Of the target, `isa` and `threads` (the most that may be used) are
// read. A row of a kernel table is a candidate where it reads the weights as they are packed and gives the
// same bits as the first row that accepts, on these very weights: text never changes by tuning. The first
// row, all cores and chunks of default_chunk tokens stay where nothing else is faster by 2 %.
Tuning tune(const Model&, const Target&);

// The result of an earlier tune(); nothing where there is none, or where it is of another model, machine or
// limit of threads. A file that does not make sense costs a warning. `folder` empty: no cache.
std::optional<Tuning> load_tuning(const fs::path& folder, const Model&, const Target&);
void store_tuning(const fs::path& folder, const Model&, const Target&, const Tuning&);

}  // namespace lathe
