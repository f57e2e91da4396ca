// How many rows of a prompt fit beside decoding before they are what a step waits for.
#pragma once

#include "runtime/plan.h"

namespace lathe {

// The most rows of a prompt, a power of two from 16 to `most`, that take no longer than a decoding step of
// one row: then a prompt that arrives at most doubles the time between the tokens of others. Measured on the
// plan's own cache, which must be paged and not in use; some ten steps.
int64_t prompt_rows_of_a_decode_step(Plan&, int64_t most);

}  // namespace lathe
