#include "search/study.h"

#include <algorithm>
#include <numeric>

#include "core/checksum.h"
#include "core/error.h"
#include "core/file.h"
#include "core/hash.h"
#include "core/rng.h"
#include "eval/report.h"
#include "graph/cost.h"

namespace lathe {
namespace {

// Another build's kernels and plans take another time and other memory, whatever its version says.
std::string of_this_build(std::string_view kind) {
  static const std::string program = checksum(Mapping("/proc/self/exe").bytes());
  return fmt::format("{} of build {}", kind, program);
}

// One list of fields for both directions: what the journal holds is exactly what was measured.
template <class Q, class F>
requires std::same_as<std::remove_const_t<Q>, Quality>
void each_field(Q& q, F&& field) {
  field("tokens", q.tokens);
  field("nll", q.nll);
  field("nll_stderr", q.nll_stderr);
  field("perplexity", q.perplexity);
  field("perplexity_stderr", q.perplexity_stderr);
  field("tokens_compared", q.tokens_compared);
  field("kl_mean", q.kl_mean);
  field("kl_stderr", q.kl_stderr);
  field("kl_p99", q.kl_p99);
  field("kl_reverse_mean", q.kl_reverse_mean);
  field("top1_agreement", q.top1_agreement);
}

template <class S, class F>
requires std::same_as<std::remove_const_t<S>, Speed>
void each_field(S& s, F&& field) {
  field("prefill_tokens_per_s", s.prefill_tokens_per_s);
  field("decode_tokens_per_s", s.decode_tokens_per_s);
  field("ttft_ms", s.ttft_ms);
  field("prefill_percent_of_roof", s.prefill_percent_of_roof);
  field("decode_percent_of_roof", s.decode_percent_of_roof);
  field("threads", s.threads);
  field("batch", s.batch);
  field("prompt_tokens", s.prompt_tokens);
  field("gen_tokens", s.gen_tokens);
  field("logits_hash", s.logits_hash);
  field("peak_memory_bytes", s.peak_memory_bytes);
  field("model_memory_bytes", s.model_memory_bytes);
  field("roof_read_bytes_per_s", s.roof.read_bytes_per_s);
  field("roof_f32_flops_per_s", s.roof.f32_flops_per_s);
  field("weights_fit_cache", s.fits_cache);
}

template <class T>
Json encode(const T& measured) {
  Json json = Json::object();
  each_field(measured, [&](const char* name, const auto& value) { json[name] = value; });
  return json;
}

template <class T>
T decode(const Json& json) {
  T measured;
  each_field(measured, [&](const char* name, auto& value) { json.at(name).get_to(value); });
  return measured;
}

struct Memory {
  size_t bytes = 0;
};
template <class M, class F>
requires std::same_as<std::remove_const_t<M>, Memory>
void each_field(M& m, F&& field) { field("bytes", m.bytes); }

// Of the base model, kept in place of running it beside every candidate.
constexpr int64_t most_logits = int64_t{1} << 29;

std::string_view excerpt_name(Excerpt excerpt) {
  switch (excerpt) {
    case Excerpt::sensitivity:
      return "quality.sensitivity";
    case Excerpt::search:
      return "quality.search";
    case Excerpt::held_out:
      return "quality.held_out";
  }
  return "";
}

// Enough text for a small model to be done in seconds, and not less than a large one needs: every position
// compares two whole distributions, so a few thousand are plenty. By operations, not by the clock: budgets
// must not depend on timing.
int64_t default_search_tokens(const Model& model) {
  const double flops = total_cost(model.graph, {}, [](const std::string&) { return 0.0; }).flops;
  return std::clamp<int64_t>(static_cast<int64_t>(1e11 / std::max(flops, 1.0)), 2048, 8192);
}

}  // namespace

std::vector<int32_t> draw_windows(std::span<const int32_t> tokens, int64_t window, int64_t budget,
                                  uint64_t seed) {
  const int64_t whole = static_cast<int64_t>(tokens.size()) / window;
  const int64_t wanted = std::max<int64_t>(1, budget / window);
  if (whole <= wanted)
    return {tokens.begin(),
            tokens.begin() + std::min<ptrdiff_t>(std::ssize(tokens), std::max<ptrdiff_t>(budget, 2))};
  std::vector<int64_t> order(static_cast<size_t>(whole));
  std::iota(order.begin(), order.end(), 0);
  Rng rng(seed);
  for (int64_t i = 0; i < wanted; ++i)
    std::swap(order[static_cast<size_t>(i)],
              order[static_cast<size_t>(i) + rng.below(static_cast<uint64_t>(whole - i))]);
  order.resize(static_cast<size_t>(wanted));
  std::ranges::sort(order);
  std::vector<int32_t> drawn;
  for (const int64_t w : order) {
    const auto part = tokens.subspan(static_cast<size_t>(w * window), static_cast<size_t>(window));
    drawn.insert(drawn.end(), part.begin(), part.end());
  }
  return drawn;
}

Study::Study(const Model& base, std::vector<Unit> units, std::vector<Format> menu, StudyOptions options,
             const Text& calibration, const Text& held_out, const std::string& model_hash,
             const std::filesystem::path& journal)
    : base_(base),
      units_(std::move(units)),
      menu_(std::move(menu)),
      options_(options),
      journal_path_(journal) {
  const int64_t longest = base_.max_context();
  const auto fill = [](int64_t& value, int64_t fallback) { value = value > 0 ? value : fallback; };
  fill(options_.search_tokens, default_search_tokens(base_));
  fill(options_.eval_tokens, 2 * options_.search_tokens);
  fill(options_.context, std::min<int64_t>(longest, 4096));
  fill(options_.gen_tokens, std::min<int64_t>(32, std::max<int64_t>(longest / 4, 1)));
  fill(options_.prompt_tokens, std::min<int64_t>(512, longest - options_.gen_tokens));
  window_ = std::min<int64_t>(window_, longest);
  if (options_.context > longest)
    throw input_error("--context", fmt::format("at most the model's {} tokens", longest),
                      std::to_string(options_.context));
  if (options_.prompt_tokens + options_.gen_tokens > longest)
    throw input_error("--prompt-tokens", fmt::format("at most {}", longest - options_.gen_tokens),
                      std::to_string(options_.prompt_tokens), "the model's context holds no more");
  search_ = draw_windows(calibration.tokens, window_, options_.search_tokens, options_.seed);
  sensitivity_ = draw_windows(search_, window_, options_.search_tokens / 4, options_.seed);
  held_out_ = draw_windows(held_out.tokens, window_, options_.eval_tokens, options_.seed);

  if (options_.target.threads <= 0) options_.target.threads = physical_cores();
  const Json machine = describe_machine(options_.target.threads, options_.target.isa);
  key_ = {{"model", model_hash},
          {"calibration", calibration.sha256},
          {"held_out", held_out.sha256},
          {"search_tokens", options_.search_tokens},
          {"eval_tokens", options_.eval_tokens},
          {"window", window_},
          {"context", options_.context},
          {"prompt_tokens", options_.prompt_tokens},
          {"gen_tokens", options_.gen_tokens},
          {"seed", options_.seed},
          {"scale_search", options_.scale_search == ScaleSearch::mse ? "mse" : "absmax"},
          {"cpu", machine.at("cpu")},
          {"features", machine.at("features")},
          {"threads", options_.target.threads},
          {"version", version()}};
  journal_.emplace(journal, key_);
  resumed_ = journal_->count(excerpt_name(Excerpt::search));
}

std::span<const int32_t> Study::tokens(Excerpt excerpt) const {
  if (excerpt == Excerpt::held_out) return held_out_;
  return excerpt == Excerpt::search ? search_ : sensitivity_;
}

std::string Study::subject(const Choice& choice) const {
  Json meaning = Json::object();
  for (const auto& [param, numerics] : assignment(units_, menu_, choice))
    meaning[param] = fmt::format("{} {}", to_string(numerics), dtype_name(numerics.dtype));
  return sha256(meaning.dump());
}

template <class Measured, class Measure>
Measured Study::once(std::string_view kind, const Choice& choice, Measure measure) {
  const std::string id = subject(choice);
  if (const auto known = journal_->find(kind, id)) {
    try {
      return decode<Measured>(*known);
    } catch (const Json::exception&) {
      throw input_error(journal_path_.string(), fmt::format("{} records of this version", kind),
                        "something else", "delete it to start afresh");
    }
  }
  const Measured measured = measure();
  journal_->record(kind, id, encode(measured));
  return measured;
}

const Model& Study::build(const Choice& choice) {
  if (!built_ || built_choice_ != choice) {
    built_.reset();  // before the next one is made: memory holds one candidate at a time
    Model model = base_;
    quantize(model, assignment(units_, menu_, choice), options_.scale_search, options_.target.threads);
    built_ = std::move(model);
    built_choice_ = choice;
  }
  return *built_;
}

Quality Study::quality(const Choice& choice, Excerpt excerpt) {
  return once<Quality>(excerpt_name(excerpt), choice, [&] {
    Target scoring = options_.target;
    scoring.max_tokens = scoring.max_outputs = window_;
    scoring.slots = 1;
    scoring.context = 0;
    if (!base_plan_) base_plan_ = Plan::compile(base_, scoring);
    const BaseLogits* base = base_logits(excerpt);
    Plan plan = Plan::compile(build(choice), scoring);
    // Sensitivities have a progress bar of their own.
    const QualityOptions options{.context = window_,
                                 .progress = excerpt == Excerpt::sensitivity ? "" : "scoring"};
    return base ? evaluate(plan, tokens(excerpt), options, *base)
                : evaluate(plan, tokens(excerpt), options, &*base_plan_);
  });
}

const BaseLogits* Study::base_logits(Excerpt excerpt) {
  const auto known = base_logits_.find(excerpt);
  if (known != base_logits_.end()) return &known->second;
  int64_t bytes = 0;
  const auto add = [&](Excerpt e) {
    bytes += std::ssize(tokens(e)) * base_.graph.value(base_.graph.output()).cols * 4;
  };
  for (const auto& [kept, logits] : base_logits_) add(kept);
  add(excerpt);
  if (bytes > most_logits) return nullptr;
  return &base_logits_.try_emplace(excerpt, *base_plan_, tokens(excerpt), window_).first->second;
}

Target Study::serving() const {
  Target target = options_.target;
  target.max_tokens = std::min<int64_t>(512, options_.context);
  target.max_outputs = 1;
  target.slots = 1;
  target.context = options_.context;
  return target;
}

size_t Study::memory_bytes(const Choice& choice) {
  return once<Memory>(of_this_build("memory"), choice,
                      [&] {
                        const Plan plan = Plan::compile(build(choice), serving());
                        return Memory{plan.weight_bytes() + plan.kv_bytes() + plan.arena_bytes()};
                      })
      .bytes;
}

Speed Study::speed(const Choice& choice) {
  return once<Speed>(of_this_build("speed"), choice, [&] {
    if (!roof_) roof_ = measure_roof(options_.target.threads, options_.target.isa);
    SpeedOptions options;
    options.prompt_tokens = options_.prompt_tokens;
    options.gen_tokens = options_.gen_tokens;
    options.target = options_.target;
    options.roof = &*roof_;
    return measure_speed(build(choice), options);
  });
}

double Study::bits_per_weight(const Choice& choice) const {
  double weights = 0;
  for (const auto& [name, weight] : base_.weights)
    weights += static_cast<double>(weight.rows() * weight.cols());
  return 8 * static_cast<double>(bytes(choice)) / weights;
}

std::vector<Plan::Choice> Study::kernels(const Choice& choice) {
  const Plan plan = Plan::compile(build(choice), serving());
  return {plan.choices().begin(), plan.choices().end()};
}

bool Study::measured(const Choice& choice, Excerpt excerpt) const {
  return journal_->find(excerpt_name(excerpt), subject(choice)).has_value();
}

int64_t Study::held_out_reads() const { return journal_->count(excerpt_name(Excerpt::held_out)); }

}  // namespace lathe
