// How long a generated token waits for each unit's weights, in each format: measured on this machine.
#pragma once

#include <vector>

#include "search/candidate.h"

namespace lathe {

// Seconds of one row times the unit's matrices, per format of the unit, by the kernel that a plan would take,
// from memory that no cache holds. Matrices taller than 4,096 rows are timed at that height and scaled. A
// table that is only looked up takes nothing.
std::vector<std::vector<double>> decode_seconds(const Model&, const std::vector<Unit>&,
                                                const std::vector<Format>& menu, int threads);

}  // namespace lathe
