#include "text/grammar/integer_range.h"

#include <algorithm>
#include <string>

namespace lathe::grammar {

namespace {

ExprPtr digit(char first, char last) {
  return characters({static_cast<char32_t>(first), static_cast<char32_t>(last)});
}

// Numbers of as many digits as `low` and `high` have.
ExprPtr same_length(const std::string& low, const std::string& high) {
  if (low.empty()) return bytes("");
  const std::string low_rest = low.substr(1), high_rest = high.substr(1);
  if (low[0] == high[0]) return sequence({digit(low[0], low[0]), same_length(low_rest, high_rest)});
  const std::string zeros(low_rest.size(), '0'), nines(low_rest.size(), '9');
  std::vector<ExprPtr> items = {sequence({digit(low[0], low[0]), same_length(low_rest, nines)}),
                                sequence({digit(high[0], high[0]), same_length(zeros, high_rest)})};
  if (high[0] - low[0] > 1) {
    const auto free = static_cast<int64_t>(low_rest.size());
    items.push_back(sequence({digit(static_cast<char>(low[0] + 1), static_cast<char>(high[0] - 1)),
                              repeat(digit('0', '9'), free, free)}));
  }
  return alternatives(std::move(items));
}

// 0 <= low <= high.
ExprPtr natural_range(uint64_t low, std::optional<uint64_t> high) {
  std::vector<ExprPtr> items;
  const std::string first = std::to_string(low), last = high ? std::to_string(*high) : first;
  for (size_t length = first.size(); length <= last.size(); ++length) {
    std::string from = "1" + std::string(length - 1, '0'), to(length, '9');
    if (length == first.size()) from = first;
    if (high && length == last.size()) to = last;
    items.push_back(same_length(from, to));
  }
  if (!high) {
    const auto more = static_cast<int64_t>(first.size());
    items.push_back(sequence({digit('1', '9'), repeat(digit('0', '9'), more, -1)}));
  }
  return alternatives(std::move(items));
}

uint64_t magnitude(int64_t n) { return n < 0 ? ~static_cast<uint64_t>(n) + 1 : static_cast<uint64_t>(n); }

}  // namespace

ExprPtr integer_range(std::optional<int64_t> low, std::optional<int64_t> high) {
  std::vector<ExprPtr> items;
  if (low && high && *low > *high) return nothing();
  if (!high || *high >= 0) {
    const auto from = magnitude(std::max<int64_t>(low.value_or(0), 0));
    items.push_back(natural_range(from, high ? std::optional(magnitude(*high)) : std::nullopt));
  }
  if (!low || *low < 0) {
    const auto from = magnitude(std::min<int64_t>(high.value_or(-1), -1));
    items.push_back(
        sequence({bytes("-"), natural_range(from, low ? std::optional(magnitude(*low)) : std::nullopt)}));
  }
  return alternatives(std::move(items));
}

}  // namespace lathe::grammar
