#include "search/search.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>

#include "core/log.h"
#include "search/allocate.h"

namespace lathe {
namespace {

using Clock = std::chrono::steady_clock;
constexpr double infinity = std::numeric_limits<double>::infinity();

// Differences in bytes below this share of the base model are not worth a trial.
constexpr double grain = 0.002;

std::string duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  return s >= 60 ? fmt::format("{}m{:02}s", s / 60, s % 60) : fmt::format("{}s", s);
}

class Search {
 public:
  Search(Study& study, const Constraints& constraints, int max_trials)
      : study_(study),
        constraints_(constraints),
        max_trials_(max_trials),
        smallest_(!constraints.bounds_resources()) {}

  SearchResult run() {
    measure(study_.as_is(), Trial::Kind::base, "base", "what the others are compared with");
    try_uniform_formats();
    if (!spent()) {
      predict();
      match_uniform_formats();
      if (smallest_)
        aim_at_quality(1);
      else
        aim_at_resources();
      refine();
    }
    if (spent() && result_.stopped.empty())
      result_.stopped =
          fmt::format("the limit of {} trials was reached; --max-trials allows more", max_trials_);
    judge();
    complete_table();
    return std::move(result_);
  }

 private:
  std::vector<Trial>& trials() { return result_.trials; }
  const Trial& base() const { return result_.trials.front(); }
  bool spent() const { return std::ssize(result_.trials) > max_trials_; }  // the base is not counted
  double quality_stress(const Trial& t) const {
    return stress(check_quality(constraints_, t.search, base().search));
  }
  double resource_stress(const Trial& t) const {
    return stress(check_resources(constraints_, t.memory_bytes, t.speed ? &*t.speed : nullptr));
  }
  double grain_bytes() const { return grain * static_cast<double>(base().bytes); }

  // The trial of a choice, measured now unless it was before. Prints a line for each.
  size_t measure(const Choice& choice, Trial::Kind kind, std::string name, std::string why) {
    if (const auto known = index_.find(choice); known != index_.end()) return known->second;
    const bool from_journal = study_.measured(choice, Excerpt::search);
    const auto begin = Clock::now();
    Trial t;
    t.kind = kind;
    t.choice = choice;
    t.bytes = study_.bytes(choice);
    t.bits_per_weight = study_.bits_per_weight(choice);
    t.name = name.empty() ? fmt::format("mixed {:.3f} bits", t.bits_per_weight) : std::move(name);
    t.why = std::move(why);
    t.predicted_kl = allocation_ ? predicted_kl(result_.sensitivity, choice) : 0;
    t.search = study_.quality(choice, Excerpt::search);
    t.memory_bytes = study_.memory_bytes(choice);
    if (constraints_.bounds_speed()) t.speed = study_.speed(choice);
    index_[choice] = trials().size();
    trials().push_back(std::move(t));
    if (!from_journal) {
      seconds_ += std::chrono::duration<double>(Clock::now() - begin).count();
      ++measured_;
    }
    announce(trials().back(), from_journal);
    return trials().size() - 1;
  }

  // In tokens of one trial: the other trials, and the sensitivities where they are not known yet.
  double trials_left(int64_t done) const {
    const double sensitivities = allocation_
                                     ? 0
                                     : static_cast<double>(std::ssize(study_.units()) *
                                                           std::ssize(study_.tokens(Excerpt::sensitivity))) /
                                           static_cast<double>(std::ssize(study_.tokens(Excerpt::search)));
    return static_cast<double>(max_trials_ - done) + sensitivities;
  }

  void announce(const Trial& t, bool from_journal) const {
    const auto done = static_cast<int64_t>(result_.trials.size()) - 1;
    std::string left;
    if (measured_ > 0 && done < max_trials_)
      left = fmt::format(", {} left at most", duration(seconds_ / measured_ * trials_left(done)));
    if (t.kind == Trial::Kind::base)
      info("base: {}, perplexity {:.3f} +- {:.3f} on {} tokens of the calibration text",
           format_bytes(static_cast<double>(t.bytes)), t.search.perplexity, t.search.perplexity_stderr,
           t.search.tokens);
    else
      info("trial {}/{}{}: {}: {}, KL {:.5f}, perplexity {:+.2f} %{}", done, max_trials_, left, t.name,
           format_bytes(static_cast<double>(t.bytes)), t.search.kl_mean,
           100 * ppl_increase(t.search, base().search), from_journal ? " (from the journal)" : "");
  }

  // Every format on every unit, with and without the vocabulary's tables. The finest formats come first, so
  // that a small --max-trials still meets its limits.
  void try_uniform_formats() {
    const std::vector<Format>& menu = study_.menu();
    for (const bool tables : {true, false})
      for (int f = 1; f < static_cast<int>(menu.size()); ++f) {
        if (spent()) return;
        const Choice choice = uniform(study_.units(), f, tables);
        if (choice.empty()) continue;
        measure(choice, Trial::Kind::uniform, menu[static_cast<size_t>(f)].name + (tables ? " + tables" : ""),
                "a uniform format");
      }
  }

  // Sensitivities, corrected by the uniform trials, and from them the best allocation for every budget.
  void predict() {
    info("sensitivity of {} units, {} tokens each", study_.units().size(),
         study_.tokens(Excerpt::sensitivity).size());
    result_.sensitivity = measure_sensitivity(study_);
    Sensitivity& s = result_.sensitivity;
    for (const Trial& t : trials())
      if (t.kind == Trial::Kind::uniform &&
          std::ranges::find(t.choice, 0) == t.choice.end())  // it covers every unit
        calibrate(s, t.choice, t.search.kl_mean);
    std::vector<std::vector<Item>> items;
    for (size_t u = 0; u < study_.units().size(); ++u) {
      items.emplace_back();
      for (size_t i = 0; i < study_.units()[u].bytes.size(); ++i)
        items.back().push_back({study_.units()[u].bytes[i], s.cost[u][i]});
    }
    allocation_.emplace(items);
    fixed_bytes_ = base().bytes;
    for (const Unit& unit : study_.units()) fixed_bytes_ -= unit.bytes[0];
    for (Trial& t : trials()) t.predicted_kl = predicted_kl(s, t.choice);
  }

  std::optional<Choice> within_bytes(double bytes) const {
    if (bytes < static_cast<double>(fixed_bytes_)) return std::nullopt;
    return allocation_->within_bytes(static_cast<size_t>(bytes) - fixed_bytes_);
  }

  // For each uniform format that no other uniform one beats: the best mixture of no more bytes.
  void match_uniform_formats() {
    std::vector<size_t> front;
    for (size_t i = 0; i < trials().size(); ++i)
      if (trials()[i].kind == Trial::Kind::uniform && !beaten_by_uniform(trials(), trials()[i]))
        front.push_back(i);
    for (const size_t i : front) {
      if (spent()) return;
      if (const auto choice = within_bytes(static_cast<double>(trials()[i].bytes)))
        measure(*choice, Trial::Kind::mixed, "", fmt::format("no more bytes than {}", trials()[i].name));
    }
  }

  // Fewest bytes whose measured stress is at most `margin`: bisection along the predicted allocations, by
  // predicted KL.
  void aim_at_quality(double margin) {
    double good = 0, bad = infinity;  // predicted KL of allocations known to pass and to fail
    const auto log_distance = [&](const Trial& t) { return std::abs(std::log(quality_stress(t) / margin)); };
    const Trial* nearest = nullptr;  // the trial that says best how predicted KL and stress relate hereabouts
    for (const Trial& t : trials())
      if (t.predicted_kl > 0 && quality_stress(t) > 0 && std::isfinite(quality_stress(t)) &&
          (!nearest || log_distance(t) < log_distance(*nearest)))
        nearest = &t;
    double next = nearest ? nearest->predicted_kl * margin / quality_stress(*nearest) : 0;
    for (int step = 0; step < 8 && !spent(); ++step) {
      const auto choice = allocation_->within_cost(next);
      if (!choice) return;
      const size_t i = measure(*choice, Trial::Kind::mixed, "",
                               fmt::format("fewest bytes at a predicted KL of {:.4g}", next));
      const Trial& t = trials()[i];
      const double s = quality_stress(t);
      if (s <= margin)
        good = std::max(good, next);
      else
        bad = std::min(bad, t.predicted_kl);
      const auto smallest_good = allocation_->within_cost(good), smallest_bad = allocation_->within_cost(bad);
      if (static_cast<double>(study_.bytes(*smallest_good)) -
              static_cast<double>(study_.bytes(*smallest_bad)) <
          grain_bytes())
        return;
      next = s > 0 && std::isfinite(s) ? t.predicted_kl * margin / s : infinity;
      if (next <= good || next >= bad)
        next = bad == infinity ? 2 * good : good == 0 ? bad / 2 : std::sqrt(good * bad);
    }
  }

  // Most bytes that meet the limits on memory and speed: bisection along the predicted allocations, by bytes.
  void aim_at_resources() {
    if (resource_stress(base()) <= 1) return;  // the base fits: nothing to lose, and nothing has less KL
    const size_t least =
        measure(*allocation_->within_cost(infinity), Trial::Kind::mixed, "", "the fewest bytes there are");
    double good = static_cast<double>(trials()[least].bytes), good_stress = resource_stress(trials()[least]);
    if (good_stress > 1) return;
    double bad = static_cast<double>(base().bytes), bad_stress = resource_stress(base());
    for (const Trial& t : trials())
      if (const double s = resource_stress(t), b = static_cast<double>(t.bytes); s <= 1 && b > good)
        good = b, good_stress = s;
    for (const Trial& t : trials())
      if (const double s = resource_stress(t), b = static_cast<double>(t.bytes); s > 1 && b > good && b < bad)
        bad = b, bad_stress = s;
    for (int step = 0; step < 8 && !spent() && bad - good > grain_bytes(); ++step) {
      const double share =
          std::clamp((1 - good_stress) / std::max(bad_stress - good_stress, 1e-9), 0.05, 0.95);
      const double next = good + share * (bad - good);
      const auto choice = within_bytes(next);
      if (!choice) return;
      const Trial& t =
          trials()[measure(*choice, Trial::Kind::mixed, "", fmt::format("at most {}", format_bytes(next)))];
      if (resource_stress(t) <= 1)
        good = next, good_stress = resource_stress(t);
      else
        bad = std::min(next, static_cast<double>(t.bytes)), bad_stress = resource_stress(t);
    }
  }

  // The best trial so far by the goal, judged on the calibration text. Nothing when none meets the limits.
  std::optional<size_t> best(double margin = 1) const {
    std::optional<size_t> found;
    for (size_t i = 0; i < result_.trials.size(); ++i) {
      const Trial& t = result_.trials[i];
      if (quality_stress(t) > margin || resource_stress(t) > 1 || beaten_by_uniform(result_.trials, t))
        continue;
      if (!found || better(t, result_.trials[*found])) found = i;
    }
    return found;
  }

  bool better(const Trial& a, const Trial& b) const {
    return smallest_ ? std::pair(static_cast<double>(a.bytes), a.search.kl_mean) <
                           std::pair(static_cast<double>(b.bytes), b.search.kl_mean)
                     : std::pair(a.search.kl_mean, static_cast<double>(a.bytes)) <
                           std::pair(b.search.kl_mean, static_cast<double>(b.bytes));
  }

  // One unit changed, or one made smaller and another finer: what the predictions, being predictions, may
  // have missed.
  struct Move {
    Choice choice;
    double bytes = 0, cost = 0;  // of the whole model, cost as predicted
  };
  std::vector<Move> moves(const Trial& from) const {
    const std::vector<Unit>& units = study_.units();
    struct Change {
      size_t unit;
      int option;
      double bytes, cost;
    };
    std::vector<Change> smaller, finer;
    for (size_t u = 0; u < units.size(); ++u)
      for (size_t i = 0; i < units[u].bytes.size(); ++i) {
        const auto now = static_cast<size_t>(from.choice[u]);
        if (i == now) continue;
        const Change c{u, static_cast<int>(i),
                       static_cast<double>(units[u].bytes[i]) - static_cast<double>(units[u].bytes[now]),
                       result_.sensitivity.cost[u][i] - result_.sensitivity.cost[u][now]};
        (c.bytes < 0 ? smaller : finer).push_back(c);
      }
    std::vector<Move> out;
    const auto add = [&](std::initializer_list<const Change*> changes) {
      Move m{from.choice, static_cast<double>(from.bytes), from.predicted_kl};
      for (const Change* c : changes) {
        m.choice[c->unit] = c->option;
        m.bytes += c->bytes;
        m.cost += c->cost;
      }
      if (promising(from, m) && !index_.contains(m.choice)) out.push_back(std::move(m));
    };
    for (const Change& a : smaller) {
      add({&a});
      for (const Change& b : finer)
        if (a.unit != b.unit) add({&a, &b});
    }
    if (!smallest_)
      for (const Change& b : finer) add({&b});
    const auto key = [&](const Move& m) {
      return smallest_ ? std::pair(m.bytes, m.cost) : std::pair(m.cost, m.bytes);
    };
    std::ranges::sort(out, [&](const Move& a, const Move& b) {
      return std::pair(key(a), a.choice) < std::pair(key(b), b.choice);
    });
    return out;
  }

  // Worth a trial: predicted to reach the goal, give or take three per cent, which is about how well KL is
  // predicted.
  bool promising(const Trial& from, const Move& m) const {
    constexpr double tolerance = 1.03;
    if (smallest_) {
      if (m.bytes >= static_cast<double>(from.bytes) - grain_bytes()) return false;
      Quality expected = base().search;
      expected.kl_mean = from.search.kl_mean * m.cost / from.predicted_kl;
      expected.nll += nll_per_kl() * expected.kl_mean;
      return stress(check_quality(constraints_, expected, base().search)) <= tolerance;
    }
    double most = 0;  // bytes that are known to fit
    for (const Trial& t : result_.trials)
      if (resource_stress(t) <= 1) most = std::max(most, static_cast<double>(t.bytes));
    return m.bytes <= most && m.cost <= tolerance * from.predicted_kl;
  }

  // How the loss rises with KL: the line through the origin and all trials. One trial's loss is too noisy to
  // predict by.
  double nll_per_kl() const {
    double products = 0, squares = 0;
    for (const Trial& t : result_.trials) {
      products += t.search.kl_mean * (t.search.nll - base().search.nll);
      squares += t.search.kl_mean * t.search.kl_mean;
    }
    return squares > 0 ? products / squares : 0;
  }

  void refine() {
    constexpr int patience = 3;
    int failures = 0;
    for (;;) {
      const auto now = best();
      if (!now) {
        result_.stopped = "no candidate meets the limits, and none that would is predicted";
        return;
      }
      const Trial from = trials()[*now];
      if (from.kind == Trial::Kind::base) {
        result_.stopped = smallest_ ? "nothing smaller than the base meets the limits"
                                    : "the base fits as it is, and nothing has less KL";
        return;
      }
      const std::vector<Move> open = moves(from);
      if (open.empty() || failures >= patience) {
        result_.stopped =
            open.empty()
                ? "no other choice of formats is predicted to be better"
                : fmt::format("{} changes in a row, the most promising first, brought nothing better",
                              failures);
        return;
      }
      if (spent()) return;
      measure(open.front().choice, Trial::Kind::mixed, "", fmt::format("near {}", from.name));
      failures = best() == now ? failures + 1 : 0;
    }
  }

  // The verdict, on text that the search never saw. A candidate that fails there gives way to the best one of
  // a wider margin on the calibration text; how far it failed is not looked at.
  void judge() {
    std::optional<size_t> last;
    for (const double margin : {1.0, 0.9, 0.8, 0.65, 0.5, 0.3, 0.0}) {
      if (margin < 1 && margin > 0 && smallest_ && allocation_) aim_at_quality(margin);
      const auto candidate = best(margin);
      if (!candidate || candidate == last) continue;
      last = candidate;
      if (verdict(*candidate)) return;
      if (!smallest_) break;  // the others have a higher KL already
      info("{} misses the limits on the held-out text; trying a safer one", trials()[*candidate].name);
    }
    if (last) return;
    // Nothing met the limits on the calibration text: keep what came nearest.
    const auto worst = [&](const Trial& t) { return std::max(quality_stress(t), resource_stress(t)); };
    size_t nearest = 0;
    for (size_t i = 1; i < trials().size(); ++i)
      if (worst(trials()[i]) < worst(trials()[nearest])) nearest = i;
    verdict(nearest);
  }

  bool verdict(size_t i) {
    const Quality& reference = held_out(0);
    Trial& t = trials()[i];
    result_.verdicts.push_back(i);
    result_.chosen = i;
    result_.bounds = check_quality(constraints_, held_out(i), reference);
    for (Bound& b : check_resources(constraints_, t.memory_bytes, t.speed ? &*t.speed : nullptr))
      result_.bounds.push_back(std::move(b));
    return result_.met = stress(result_.bounds) <= 1;
  }

  const Quality& held_out(size_t i) {
    Trial& t = trials()[i];
    if (!t.held_out) t.held_out = study_.quality(t.choice, Excerpt::held_out);
    return *t.held_out;
  }

  // What is shown beside the chosen one: the base and the uniform formats next to it in bytes, two on either
  // side. The choice is made: this cannot change it. Speeds that no limit needed are measured here, one right
  // after the other, because machines drift.
  void complete_table() {
    std::vector<size_t> smaller, larger;
    for (size_t i = 0; i < trials().size(); ++i) {
      const Trial& t = trials()[i];
      if (t.kind != Trial::Kind::uniform || i == result_.chosen || beaten_by_uniform(trials(), t)) continue;
      (t.bytes <= trials()[result_.chosen].bytes ? smaller : larger).push_back(i);
    }
    const auto bytes = [&](size_t i) { return trials()[i].bytes; };
    std::ranges::sort(smaller, std::greater(), bytes);
    std::ranges::sort(larger, std::less(), bytes);
    std::vector<size_t> shown = {0, result_.chosen};
    for (const auto* side : {&smaller, &larger})
      shown.insert(shown.end(), side->begin(), side->begin() + std::min<ptrdiff_t>(2, std::ssize(*side)));
    for (const size_t i : shown) held_out(i);
    for (const size_t i : shown)
      if (Trial& t = trials()[i]; !t.speed) t.speed = study_.speed(t.choice);
  }

  Study& study_;
  const Constraints& constraints_;
  int max_trials_;
  bool smallest_;  // the goal: fewest bytes; otherwise least KL
  SearchResult result_;
  std::map<Choice, size_t> index_;
  std::optional<Allocation> allocation_;
  size_t fixed_bytes_ = 0;  // norms and biases: in no unit
  double seconds_ = 0;
  int64_t measured_ = 0;
};

}  // namespace

bool beaten_by_uniform(const std::vector<Trial>& trials, const Trial& t) {
  return std::ranges::any_of(trials, [&](const Trial& u) {
    return u.kind == Trial::Kind::uniform && u.choice != t.choice && u.bytes <= t.bytes &&
           u.search.kl_mean <= t.search.kl_mean;
  });
}

SearchResult search(Study& study, const Constraints& constraints, int max_trials) {
  SearchResult result = Search(study, constraints, max_trials).run();
  result.goal = constraints.bounds_resources() ? "the least KL that meets every limit"
                                               : "the fewest bytes that meet every limit";
  return result;
}

}  // namespace lathe
