// What changes only the speed of a plan, chosen by measuring it in place: on the plan's own weights, on this
// machine. Kept between runs by CPU, features, cores and the formats and shapes of the model's weights.
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

// The result of an earlier tune(); nothing where there is none, or where it is of another model or machine. A
// file that does not make sense costs a warning. `folder` empty: no cache.
std::optional<Tuning> load_tuning(const fs::path& folder, const Model&, uint32_t isa);
void store_tuning(const fs::path& folder, const Model&, uint32_t isa, const Tuning&);

}  // namespace lathe
