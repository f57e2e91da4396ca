// What a step takes on this machine, as the scheduler wants to know it.
#pragma once

#include "engine/scheduler.h"
#include "runtime/plan.h"

namespace lathe {

struct MeasuredSteps {
  StepCost cost;
  int64_t prompt_rows;  // of a step: more at once are not faster, or take too long
};

// Measured on the plan's own cache, which must be paged and not in use: about two seconds, or what the
// smallest steps take. `most_rows` and `most_sequences` are those of a step.
MeasuredSteps measure_steps(Plan&, int64_t most_rows, int64_t most_sequences);

}  // namespace lathe
