#include "runtime/tune.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "core/cpu.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/log.h"
#include "core/rng.h"
#include "runtime/plan_impl.h"

namespace lathe {
namespace {

constexpr int64_t schema = 1;
constexpr double worth = 1.02;  // times faster than the default, to replace it
constexpr int64_t prompt_tokens = 1024, prompt_m = 128;
constexpr int decode_steps = 12, passes = 3;
constexpr int64_t checked_rows[] = {1, 3, 40};  // of x, for which candidates must give the same bits

using Clock = std::chrono::steady_clock;
template <class F>
double seconds_of(F&& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}
template <class F>
double fastest(int calls, F&& work) {
  double best = INFINITY;
  for (int i = 0; i < calls; ++i) best = std::min(best, seconds_of(work));
  return best;
}

// All matrices of one format and shape.
struct Alike {
  const LinearKernel* kernel;
  std::vector<const Plan::Impl::Packed*> matrices;
};

// Runs a path on matrices as a plan does, for m random rows of x.
class Trial {
 public:
  Trial(Plan::Impl& plan, const Alike& alike, int64_t m)
      : plan_(plan),
        alike_(alike),
        m_(m),
        n_(alike.matrices[0]->weight.rows()),
        k_(alike.matrices[0]->weight.cols()),
        y_(static_cast<size_t>(m * n_)) {
    Rng rng(1);
    x_.resize(static_cast<size_t>(m * k_));
    for (float& f : x_) f = rng.normal();
  }
  void run(const LinearPath& path, const Plan::Impl::Packed& matrix) {
    if (path.rows && packed_.bytes < path.rows->bytes(m_, k_))
      packed_ = Storage::allocate(path.rows->bytes(m_, k_));
    if (path.rows) {
      const PackRowsArgs args{.x = x_.data(),
                              .m = m_,
                              .k = k_,
                              .x_stride = k_,
                              .out = packed_.data,
                              .scale = matrix.input_scale,
                              .to = matrix.weight.numerics.activations};
      plan_.parallel([&](const Share& share) { path.rows->run(args, share); });
    }
    const int group = matrix.weight.numerics.group;
    LinearArgs args{};
    args.x = x_.data();
    args.packed_x = packed_.data;
    args.y = y_.data();
    args.m = m_, args.n = n_, args.k = k_;
    args.group = group ? group : k_;
    args.x_stride = k_;
    args.y_stride = n_;
    matrix.bind(args);
    plan_.parallel([&](const Share& share) { path.run(args, share); });
  }
  std::vector<float> result(const LinearPath& path) {
    std::fill(y_.begin(), y_.end(), NAN);
    run(path, *alike_.matrices[0]);
    return y_;
  }
  double pass(const LinearPath& path) {
    return seconds_of([&] {
      for (const auto* matrix : alike_.matrices) run(path, *matrix);
    });
  }

 private:
  Plan::Impl& plan_;
  const Alike& alike_;
  int64_t m_, n_, k_;
  std::vector<float> x_, y_;
  Storage packed_;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// The fastest row for one phase that gives the bits of the first that accepts.
std::optional<Tuning::Row> best_row(Plan::Impl& plan, const Alike& alike, Phase phase) {
  const bool prompt = phase == Phase::prefill;
  const LinearPath& usual = alike.kernel->path(prompt);
  const Weight& weight = alike.matrices[0]->weight;
  std::vector<const LinearKernel*> candidates;
  for (const LinearKernel& row : linear_kernels()) {
    const LinearPath& path = row.path(prompt);
    if (&row == alike.kernel || row.packing != alike.kernel->packing || (row.isa & ~plan.target.isa) != 0 ||
        !row.accepts(weight.numerics, weight.rows(), weight.cols()) || path.run == usual.run)
      continue;
    const bool same = std::all_of(std::begin(checked_rows), std::end(checked_rows), [&](int64_t m) {
      Trial trial(plan, alike, m);
      const std::vector<float> expected = trial.result(usual);
      return same_bits(trial.result(path), expected);
    });
    if (same) candidates.push_back(&row);
  }
  if (candidates.empty()) return std::nullopt;
  Trial trial(plan, alike, prompt ? prompt_m : 1);
  std::vector<double> seconds(candidates.size(), INFINITY);
  double first = INFINITY;
  trial.pass(usual);
  for (int i = 0; i < passes; ++i) {  // in turns, so that a slow moment of the machine hits all alike
    first = std::min(first, trial.pass(usual));
    for (size_t c = 0; c < candidates.size(); ++c)
      seconds[c] = std::min(seconds[c], trial.pass(candidates[c]->path(prompt)));
  }
  const auto best = std::min_element(seconds.begin(), seconds.end());
  if (first < worth * *best) return std::nullopt;
  return Tuning::Row{std::string(candidates[static_cast<size_t>(best - seconds.begin())]->name),
                     first / *best};
}

void tune_rows(Plan::Impl& plan, Tuning& tuning) {
  std::map<std::string, Alike> kinds;
  for (const auto& [name, matrix] : plan.packed) {
    Alike& alike = kinds[Tuning::kind_of(matrix.weight)];
    alike.kernel = matrix.kernel;
    alike.matrices.push_back(&matrix);
  }
  for (const auto& [kind, alike] : kinds)
    for (Phase phase : phases)
      if (auto row = best_row(plan, alike, phase)) tuning.rows[{kind, phase}] = *row;
}

std::vector<int> thread_counts(int most) {
  std::vector<int> counts;
  for (int n = 1; n < most; n += most <= 4 ? 1 : std::max(1, most / 4)) counts.push_back(n);
  counts.push_back(most);
  return counts;
}

// The choice with the least seconds, unless the usual one is nearly as fast.
template <class T, class F>
T fastest_of(const std::vector<T>& choices, T usual, F&& seconds_with) {
  const double base = seconds_with(usual);
  T best = usual;
  double least = base / worth;
  for (const T& choice : choices)
    if (choice != usual)
      if (const double s = seconds_with(choice); s < least) least = s, best = choice;
  return best;
}

int most_threads(const Target& limits) { return limits.threads > 0 ? limits.threads : physical_cores(); }

// What a tuning is of.
Json key_of(const Model& model, const Target& limits) {
  Sha256 shapes;
  for (const auto& [name, weight] : model.weights)
    shapes.add(fmt::format("{} {} {} {}\n", name, to_string(weight.numerics),
                           dtype_name(weight.numerics.dtype), to_string(weight.shape)));
  return {{"schema", schema},
          {"cpu", cpu_model()},
          {"features", describe_features(limits.isa)},
          {"cores", physical_cores()},
          {"threads", most_threads(limits)},
          {"weights", shapes.hex()}};
}

fs::path path_of(const fs::path& folder, const Json& key) {
  return folder / fmt::format("tune-{}.json", sha256(key.dump()).substr(0, 16));
}

constexpr std::string_view phase_names[] = {"prefill", "decode"};

}  // namespace

Tuning tune(const Model& model, const Target& limits) {
  const int64_t room = model.max_context() - decode_steps - 1, prompt = std::min(prompt_tokens, room);
  if (prompt < 1) fail("tune: a context of {} tokens is too short to time", model.max_context());
  const int most = most_threads(limits);
  Plan plan = Plan::compile(model, {.threads = most,
                                    .isa = limits.isa,
                                    .max_tokens = prompt,
                                    .max_outputs = 1,
                                    .slots = 1,
                                    .context = prompt + decode_steps + 1});
  Tuning tuning;
  tune_rows(*plan.impl_, tuning);

  Rng rng(2);
  const auto vocab = static_cast<uint64_t>(plan.impl_->vocab);
  std::vector<int32_t> tokens(static_cast<size_t>(prompt));
  for (int32_t& t : tokens) t = static_cast<int32_t>(rng.below(vocab));
  const auto prefill = [&](int64_t length, int64_t chunk) {
    for (int64_t at = 0; at < length; at += chunk) {
      const int64_t n = std::min(chunk, length - at);
      plan.run(SingleSequence(std::span(tokens).subspan(static_cast<size_t>(at), static_cast<size_t>(n)),
                              static_cast<int32_t>(at), at + n == length ? 1 : 0, true));
    }
  };
  const auto decode = [&] {
    for (int32_t step = 0; step < decode_steps; ++step)
      plan.run(
          SingleSequence({tokens.data(), 1}, static_cast<int32_t>(prompt) + step, 1, true, Phase::decode));
  };
  prefill(prompt, prompt);  // touches every page
  decode();
  tuning.threads = fastest_of(thread_counts(most), most, [&](int n) {
    plan.impl_->set_threads(n, n);
    return fastest(passes, decode);
  });
  const int64_t some = std::min<int64_t>(prompt, 256);
  tuning.prefill_threads = fastest_of(thread_counts(most), most, [&](int n) {
    plan.impl_->set_threads(n, n);
    return fastest(2, [&] { prefill(some, some); });
  });
  plan.impl_->set_threads(tuning.threads, tuning.prefill_threads);
  tuning.chunk = fastest_of(std::vector<int64_t>{128, 256, 512, 1024}, default_chunk,
                            [&](int64_t n) { return fastest(2, [&] { prefill(prompt, n); }); });
  return tuning;
}

std::optional<Tuning> load_tuning(const fs::path& folder, const Model& model, const Target& limits) {
  if (folder.empty()) return std::nullopt;
  const Json key = key_of(model, limits);
  const fs::path path = path_of(folder, key);
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::nullopt;
  try {
    const std::string where = path.string();
    const Json json = read_json(path);
    if (!json.is_object() || json.value("key", Json()) != key)
      throw input_error(where, "a tuning of this model and machine", "another");
    Tuning t;
    t.threads = static_cast<int>(get_int(json, "threads", where, 1, 1 << 20));
    t.prefill_threads = static_cast<int>(get_int(json, "prefill_threads", where, 1, 1 << 20));
    t.chunk = get_int(json, "chunk", where, 1, 1 << 20);
    for (const Json& row : json.value("rows", Json::array())) {
      const std::string phase = get_string(row, "phase", where);
      if (phase != phase_names[0] && phase != phase_names[1])
        throw input_error(where, "a phase, prefill or decode", printable(phase));
      t.rows[{get_string(row, "kind", where), phase == phase_names[0] ? Phase::prefill : Phase::decode}] = {
          get_string(row, "kernel", where), get_number(row, "times_faster", where)};
    }
    return t;
  } catch (const InputError& e) {
    warn("{}; it is ignored, --tune measures again", printable(e.what(), 300));
    return std::nullopt;
  }
}

void store_tuning(const fs::path& folder, const Model& model, const Target& limits, const Tuning& t) {
  if (folder.empty()) return;
  const Json key = key_of(model, limits);
  Json rows = Json::array();
  for (const auto& [of, row] : t.rows)
    rows.push_back({{"kind", of.first},
                    {"phase", phase_names[of.second == Phase::prefill ? 0 : 1]},
                    {"kernel", row.kernel},
                    {"times_faster", row.times_faster}});
  const Json json = {{"key", key},
                     {"threads", t.threads},
                     {"prefill_threads", t.prefill_threads},
                     {"chunk", t.chunk},
                     {"rows", std::move(rows)}};
  try {
    fs::create_directories(folder);
    write_file_atomically(path_of(folder, key), json.dump(2) + "\n");
  } catch (const std::exception& e) {
    warn("{}; this tuning is not kept", printable(e.what(), 300));
  }
}

}  // namespace lathe
