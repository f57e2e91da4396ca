// Integers between bounds, as an expression over their digits.
#pragma once

#include <cstdint>
#include <optional>

#include "text/grammar/expr.h"

namespace lathe::grammar {

// low <= n <= high, in decimal without leading zeros. Nothing when there is none.
ExprPtr integer_range(std::optional<int64_t> low, std::optional<int64_t> high);

}  // namespace lathe::grammar
