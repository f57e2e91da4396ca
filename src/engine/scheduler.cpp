#include "engine/scheduler.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "core/error.h"

namespace lathe {
namespace {

constexpr int64_t prompt_row_step = 8;  // kernels hold so many rows in registers: fewer cost the same
constexpr int64_t most_cuts = 2;        // of a prompt that fits a step, beside decoding

}  // namespace

Scheduler::Scheduler(KvBlocks& blocks, const StepLimits& limits, int64_t longest)
    : blocks_(blocks), limits_(limits), longest_(longest) {
  if (limits.tokens < 1 || limits.prompt_rows < 1 || limits.mixed_prompt < 0 || limits.sequences < 1 ||
      limits.recompute_rows < 1 || limits.outputs < limits.sequences)
    throw Error("Scheduler: every limit of a step must be positive, and every sequence have an output");
  if (blocks.blocks_for(longest) > blocks.size())
    throw Error(fmt::format("Scheduler: expected blocks for {} tokens, found {} blocks of {}", longest,
                            blocks.size(), blocks.block_tokens()));
}

void Scheduler::insert(std::vector<Sequence*>& list, Sequence& s) {
  const auto before = [](const Sequence* a, const Sequence* b) {
    return a->priority != b->priority ? a->priority < b->priority : a->id < b->id;
  };
  list.insert(std::upper_bound(list.begin(), list.end(), &s, before), &s);
}

void Scheduler::add(Sequence& s) {
  if (s.size() > longest_ || s.prompt < 1 || s.prompt > s.size() || s.width < 1 ||
      s.width > limits_.sequences)
    throw Error(fmt::format("Scheduler: expected 1 to {} tokens and a width of at most {}, found {} and {}",
                            longest_, limits_.sequences, s.size(), s.width));
  insert(waiting_, s);
}

void Scheduler::add_fork(const Sequence& of, Sequence& s) {
  blocks_.fork(of.table, s.table);
  s.computed = of.computed;
  s.cached = of.cached;
  s.reached = of.reached;
  s.hits = of.hits;
  run(s);
}

void Scheduler::run(Sequence& s) {
  if (free_slots_.empty()) free_slots_.push_back(slots_++);
  s.slot = free_slots_.back();
  free_slots_.pop_back();
  insert(running_, s);
}

void Scheduler::stop(Sequence& s) {
  blocks_.release(s.table);
  s.computed = 0;
  if (std::erase(running_, &s) > 0) free_slots_.push_back(std::exchange(s.slot, -1));
}

void Scheduler::remove(Sequence& s) {
  stop(s);
  std::erase(waiting_, &s);
}

void Scheduler::preempt(Sequence& s) {
  stop(s);
  insert(waiting_, s);
  step_.preempted.push_back(&s);
}

// Blocks for the first `tokens` tokens, if need be those of the least important. False: it was `s` itself.
bool Scheduler::grow(Sequence& s, int64_t tokens) {
  while (!blocks_.reserve(s.table, s.computed, tokens, step_.copies)) {
    Sequence& victim = *running_.back();
    preempt(victim);
    if (&victim == &s) return false;
  }
  return true;
}

// Most important first, so whoever gives up its blocks has no work in this step yet.
void Scheduler::take_decodes(int64_t& budget) {
  for (size_t i = 0; i < running_.size() && budget > 0; ++i) {
    Sequence& s = *running_[i];
    if (!s.decodes()) continue;
    const int64_t count = std::min({s.size() - s.computed, budget, limits_.recompute_rows});
    if (!grow(s, s.computed + count)) break;
    const bool samples = s.computed + count == s.size();
    step_.decodes.push_back({&s, s.computed, count, samples, samples});
    budget -= count;
  }
}

int64_t Scheduler::rows_beside_decoding() const {
  if (limits_.mixed_prompt > 0) return limits_.mixed_prompt;
  const auto next = std::ranges::find_if_not(running_, &Sequence::decodes);
  if (next == running_.end()) return 0;
  const auto decodes = static_cast<double>(step_.decodes.size());
  const auto prompts = static_cast<double>(std::ranges::count_if(running_, std::not_fn(&Sequence::decodes)));
  const StepCost& cost = limits_.cost;
  const double share = std::max(1., limits_.prompt_weight * prompts / decodes);
  const double seconds = share * (cost.decode + cost.stream * decodes) - cost.prompt;
  const double row = cost.row + cost.key * static_cast<double>((*next)->computed);
  const auto rows = static_cast<int64_t>(
      std::clamp(seconds / std::max(row, 1e-9), 0., static_cast<double>(limits_.prompt_rows)));
  const int64_t own = (*next)->prompt - (*next)->cached;
  const int64_t least = own <= limits_.prompt_rows ? (own + most_cuts - 1) / most_cuts : 0;
  return std::max({rows / prompt_row_step * prompt_row_step, least, prompt_row_step});
}

void Scheduler::take_prompts(int64_t& budget) {
  budget = std::min(budget, limits_.prompt_rows);
  if (!step_.decodes.empty()) budget = std::min(budget, rows_beside_decoding());
  int64_t spare = std::max<int64_t>(0, limits_.outputs - running());  // each may need one
  for (Sequence* s : running_) {
    if (budget == 0) break;
    if (s->decodes()) continue;
    int64_t count = std::min(s->prompt - s->computed, budget);
    if (s->scores) {
      count = std::min(count, 1 + spare);
      spare -= count - 1;
    }
    const bool samples = s->computed + count == s->size();
    step_.prompts.push_back({s, s->computed, count, samples, s->scores ? count : samples});
    const int64_t first_time = std::max<int64_t>(0, s->computed + count - s->reached);
    s->reached += first_time;
    step_.computed += first_time;
    budget -= count;
  }
}

// All of a sequence's tokens must fit, and a block more for each that runs, or it would soon be preempted. In
// order: nobody starves behind shorter ones.
void Scheduler::admit() {
  int64_t width = 0;
  for (const Sequence* s : running_) width += s->decodes() ? 1 : s->width;
  while (!waiting_.empty()) {
    Sequence& s = *waiting_.front();
    if (width + s.width > limits_.sequences) break;
    const int64_t cached = s.scores ? 0 : blocks_.attach(s.tokens, s.origin, s.table);
    const int64_t spare = running_.empty() ? 0 : width;
    const int64_t missing = blocks_.blocks_for(s.size()) - static_cast<int64_t>(s.table.blocks.size());
    if (missing + spare > blocks_.free_blocks() ||
        !blocks_.reserve(s.table, cached, s.size(), step_.copies)) {
      blocks_.release(s.table);
      break;
    }
    s.computed = cached;
    s.cached = std::min(cached, s.prompt);
    const int64_t hits = std::max<int64_t>(0, s.cached - s.reached);
    s.hits += hits;
    s.reached += hits;
    step_.cached += hits;
    waiting_.erase(waiting_.begin());
    run(s);
    width += s.width;
  }
}

const Step& Scheduler::next() {
  const bool short_of_blocks = !step_.preempted.empty();
  step_ = {};
  if (!short_of_blocks || running_.empty()) admit();
  int64_t budget = limits_.tokens;
  take_decodes(budget);
  take_prompts(budget);
  return step_;
}

void Scheduler::done() {
  for (const auto* works : {&step_.prompts, &step_.decodes})
    for (const Work& w : *works) {
      w.sequence->computed += w.count;
      blocks_.publish(w.sequence->table, w.sequence->tokens, w.sequence->computed, w.sequence->origin);
    }
}

}  // namespace lathe
