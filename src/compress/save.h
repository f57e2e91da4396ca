// The parts of save() of quantize.h.
#pragma once

#include "compress/quantize.h"
#include "io/writer.h"

namespace lathe {

// What it writes, in order.
std::vector<PlannedEntry> planned_entries(const Model&, const Assignment&);

// quantize_weight() into what an earlier one returned, where that has the form of the result; else as that.
Weight quantize_into(Weight into, ThreadPool&, const Weight& from, const Numerics&, ScaleRule,
                     float largest = -1);

}  // namespace lathe
