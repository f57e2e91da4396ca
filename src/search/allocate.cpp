#include "search/allocate.h"

#include <algorithm>
#include <tuple>

namespace lathe {

Allocation::Allocation(const std::vector<std::vector<Item>>& units, size_t resolution) {
  fronts_.push_back({State{}});
  for (const std::vector<Item>& items : units) {
    const std::vector<State>& before = fronts_.back();
    std::vector<State> sums;
    sums.reserve(before.size() * items.size());
    for (size_t s = 0; s < before.size(); ++s)
      for (size_t i = 0; i < items.size(); ++i)
        sums.push_back({before[s].bytes + items[i].bytes, before[s].cost + items[i].cost,
                        static_cast<int32_t>(s), static_cast<int32_t>(i)});
    std::ranges::sort(sums, [](const State& a, const State& b) {
      return std::tie(a.bytes, a.cost, a.parent, a.item) < std::tie(b.bytes, b.cost, b.parent, b.item);
    });

    std::vector<State> front;
    for (const State& s : sums)
      if (front.empty() || s.cost < front.back().cost) front.push_back(s);
    if (front.size() > resolution) {
      const size_t lowest = front.front().bytes, range = front.back().bytes - lowest;
      const auto step = [&](const State& s) {
        return static_cast<size_t>(static_cast<double>(s.bytes - lowest) / static_cast<double>(range) *
                                   static_cast<double>(resolution - 1));
      };
      std::vector<State> thin = {
          front.front()};  // the smallest stays: the tightest budget must not become infeasible
      for (size_t i = 1; i < front.size(); ++i)
        if (i + 1 == front.size() || step(front[i]) != step(front[i + 1])) thin.push_back(front[i]);
      front = std::move(thin);
    }
    fronts_.push_back(std::move(front));
  }
}

std::vector<int> Allocation::backtrack(const State& last) const {
  std::vector<int> items(fronts_.size() - 1);
  const State* state = &last;
  for (size_t u = items.size(); u-- > 0;) {
    items[u] = state->item;
    state = &fronts_[u][static_cast<size_t>(state->parent)];
  }
  return items;
}

std::optional<std::vector<int>> Allocation::within_bytes(size_t budget) const {
  const std::vector<State>& front = fronts_.back();
  const auto over = std::ranges::find_if(front, [&](const State& s) { return s.bytes > budget; });
  if (over == front.begin()) return std::nullopt;
  return backtrack(*std::prev(over));
}

std::optional<std::vector<int>> Allocation::within_cost(double budget) const {
  const std::vector<State>& front = fronts_.back();
  const auto good = std::ranges::find_if(front, [&](const State& s) { return s.cost <= budget; });
  if (good == front.end()) return std::nullopt;
  return backtrack(*good);
}

}  // namespace lathe
