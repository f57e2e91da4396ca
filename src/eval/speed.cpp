#include "eval/speed.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>
#include <numeric>
#include <optional>
#include <vector>

#include "core/clock.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/rng.h"
#include "graph/cost.h"
#include "kernels/tables.h"
#include "runtime/kv_type.h"

namespace lathe {
namespace {

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x.size() % 2 ? x[x.size() / 2] : (x[x.size() / 2 - 1] + x[x.size() / 2]) / 2;
}

std::span<const float> row_of(const Tensor& logits, int64_t row) {
  return logits.as<float>().subspan(static_cast<size_t>(row * logits.cols()),
                                    static_cast<size_t>(logits.cols()));
}

void add(Sha256& hash, std::span<const float> row) { hash.add(row.data(), row.size_bytes()); }

struct Times {
  double first_token = 0, prefill = 0, decode = 0;  // seconds; prefill is of all sequences
};

// One prompt of random tokens per sequence, then greedy decoding of all of them together.
class Session {
 public:
  Session(Plan& plan, const SpeedOptions& options, int64_t chunk)
      : plan_(plan), options_(options), chunk_(chunk) {
    const auto vocab = static_cast<uint64_t>(plan.graph().value(plan.graph().output()).cols);
    Rng rng(0);
    prompts_.resize(static_cast<size_t>(options.batch));
    for (auto& prompt : prompts_) {
      prompt.resize(static_cast<size_t>(options.prompt_tokens));
      for (int32_t& token : prompt) token = static_cast<int32_t>(rng.below(vocab));
    }
  }

  // `hash` takes the last prompt row and each decode step of sequence 0; the clock stands still meanwhile.
  Times run(Sha256* hash) {
    Times times;
    std::vector<int32_t> last(prompts_.size());
    for (size_t s = 0; s < prompts_.size(); ++s) {
      const auto start = Clock::now();
      const auto row = row_of(prefill(static_cast<int32_t>(s)), 0);
      last[s] = best(row);
      times.prefill += seconds_since(start);
      if (s > 0) continue;
      times.first_token = times.prefill;
      if (hash) add(*hash, row);
    }
    for (int64_t step = 0; step < options_.gen_tokens; ++step) {
      const auto start = Clock::now();
      const Tensor& logits = decode(last, options_.prompt_tokens + step);
      for (size_t s = 0; s < last.size(); ++s) last[s] = best(row_of(logits, static_cast<int64_t>(s)));
      times.decode += seconds_since(start);
      if (hash) add(*hash, row_of(logits, 0));
    }
    return times;
  }

 private:
  int32_t best(std::span<const float> row) const {
    return static_cast<int32_t>(most_likely(row, choose_elementwise(options_.target.isa)));
  }

  const Tensor& prefill(int32_t slot) {
    const std::vector<int32_t>& prompt = prompts_[static_cast<size_t>(slot)];
    const auto total = static_cast<int64_t>(prompt.size());
    std::vector<int32_t> positions(prompt.size());
    std::iota(positions.begin(), positions.end(), 0);
    const Tensor* logits = nullptr;
    for (int64_t begin = 0; begin < total; begin += chunk_) {
      const int64_t n = std::min(chunk_, total - begin);
      const int32_t starts[] = {0, static_cast<int32_t>(n)}, slots[] = {slot},
                    outputs[] = {static_cast<int32_t>(n - 1)};
      const bool wanted = begin + n == total;
      logits = &plan_.run(
          {.tokens = std::span(prompt).subspan(static_cast<size_t>(begin), static_cast<size_t>(n)),
           .positions = std::span(positions).subspan(static_cast<size_t>(begin), static_cast<size_t>(n)),
           .starts = starts,
           .slots = slots,
           .outputs = std::span(outputs).first(wanted ? 1 : 0),
           .prompts = 1});
    }
    return *logits;
  }

  const Tensor& decode(std::span<const int32_t> tokens, int64_t position) {
    const size_t n = tokens.size();
    std::vector<int32_t> positions(n, static_cast<int32_t>(position)), rows(n + 1);
    std::iota(rows.begin(), rows.end(), 0);
    const auto sequences = std::span<const int32_t>(rows).first(n);
    return plan_.run(
        {.tokens = tokens, .positions = positions, .starts = rows, .slots = sequences, .outputs = sequences});
  }

  Plan& plan_;
  const SpeedOptions& options_;
  int64_t chunk_;
  std::vector<std::vector<int32_t>> prompts_;
};

// Bytes of each parameter as the plan packed it.
std::map<std::string, double, std::less<>> packed_sizes(const Model& model, const Plan& plan) {
  std::map<std::string, double, std::less<>> bytes;
  for (const auto& [name, weight] : model.weights) bytes[name] = static_cast<double>(weight.bytes());
  for (const Plan::Choice& choice : plan.choices()) {
    if (choice.param.empty()) continue;
    const auto weight = model.weights.find(choice.param);
    if (weight == model.weights.end()) continue;
    bytes[choice.param] = static_cast<double>(
        packed_bytes(weight->second.numerics, packing(choice.packing), weight->second.shape));
  }
  return bytes;
}

const op::Attention* attention_of(const Op& op) {
  if (const auto* fused = std::get_if<op::RopeAttention>(&op)) return &fused->attention;
  return std::get_if<op::Attention>(&op);
}

// The compute roof of each node of linear layers and attention of a prompt, by the kernel that the plan
// chose; of several layers in one node, that of the last.
std::map<std::string, const RoofField*, std::less<>> prompt_roofs(const Plan& plan, const Target& target) {
  std::map<std::string, const RoofField*, std::less<>> roofs;
  for (const Plan::Choice& choice : plan.choices())
    for (const LinearKernel& row : linear_kernels())
      if (row.name == choice.kernel && !choice.param.empty())
        roofs[choice.node] = &compute_roof(row.isa, row.path(true));
  for (NodeId id : plan.graph().order()) {
    const Node& node = plan.graph().node(id);
    if (const op::Attention* a = attention_of(node.op)) {
      const AttentionKernel& row = choose_attention(a->head_dim, kv_type_of(*a, target.kv), target.isa);
      roofs[node.name] = &compute_roof(row.isa, row.path(true));
    }
  }
  return roofs;
}

// A prompt's operations by the roof of the kernel that does them; all but linear layers and attention
// computes in f32.
using Operations = std::map<const RoofField*, double>;

Operations prompt_operations(const Plan& plan, const Target& target, const Workload& work, const Roof& roof) {
  const auto roofs = prompt_roofs(plan, target);
  const RoofField& f32 = compute_roof(0, LinearPath{});
  Operations operations;
  for (NodeId id : plan.graph().order()) {
    const Node& node = plan.graph().node(id);
    const auto found = roofs.find(node.name);
    const bool known = found != roofs.end() && roof.*found->second->value > 0;
    operations[known ? found->second : &f32] +=
        cost(plan.graph(), node, work, [](const std::string&) { return 0.0; }).flops;
  }
  return operations;
}

double seconds_at(const Roof& roof, const Operations& operations) {
  double seconds = 0;
  for (const auto& [field, count] : operations) seconds += count / (roof.*field->value);
  return seconds;
}

const RoofField* most_of(const Operations& operations) {
  return std::max_element(operations.begin(), operations.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

// What the machine can do at this moment. A busy host gives and takes half of its speed within a minute, so a
// pass is compared with what was measured right before and after it.
class MomentaryRoof {
 public:
  MomentaryRoof(int threads, uint32_t isa) : pool_(threads), isa_(isa), reads_(pool_) {}

  Roof measure() { return measure_roof(pool_, reads_, isa_); }

  // The fields that matter to a model. `l3`: reads from the third-level cache too.
  Roof measure(const Operations& operations, bool l3) {
    Roof roof;
    roof.read_bytes_per_s = reads_.bytes_per_s(pool_, isa_);
    if (l3) measure_l3(pool_, isa_, roof);
    for (const auto& [field, count] : operations) measure_compute(pool_, isa_, *field, roof);
    return roof;
  }

 private:
  ThreadPool pool_;
  uint32_t isa_;
  MemoryReads reads_;
};

// The medians of the fields that the moments measured; the others stay.
void take_medians(const std::vector<Roof>& moments, Roof& roof) {
  for (const RoofField& f : roof_fields) {
    std::vector<double> rates;
    for (const Roof& moment : moments) rates.push_back(moment.*f.value);
    if (const double rate = median(rates); rate > 0) roof.*f.value = rate;
  }
}

Roof mean(const Roof& a, const Roof& b) {
  Roof out;
  for (const RoofField& f : roof_fields) out.*f.value = (a.*f.value + b.*f.value) / 2;
  return out;
}

// Bytes of keys and values as the plan holds them, over those in f32, which cost() counts.
double kv_share(const Model& model, std::optional<KvType> kv) {
  for (NodeId id : model.graph.order())
    if (const op::Attention* a = attention_of(model.graph.node(id).op))
      return static_cast<double>(kv_row_bytes(kv_type_of(*a, kv), a->head_dim)) /
             static_cast<double>(kv_row_bytes(KvType::f32, a->head_dim));
  return 1;
}

// Weights are read once per step whatever the batch, but for those of experts, of which more rows reach more;
// keys and values once per sequence.
double bytes_of_decoding(const Model& model, const Plan& plan, const SpeedOptions& options) {
  const auto sizes = packed_sizes(model, plan);
  const auto bytes_of = [&](const std::string& param) {
    const auto found = sizes.find(param);
    return found == sizes.end() ? 0.0 : found->second;
  };
  double bytes = 0;
  for (int64_t step = 0; step < options.gen_tokens; ++step) {
    Workload work{.tokens = 1, .context = options.prompt_tokens + step, .outputs = 1};
    const Cost one = total_cost(model.graph, work, bytes_of);
    work.tokens = work.outputs = options.batch;
    bytes += total_cost(model.graph, work, bytes_of).weight_bytes +
             static_cast<double>(options.batch) * kv_share(model, options.target.kv) * one.kv_bytes;
  }
  return bytes;
}

void check(const Model& model, const SpeedOptions& o) {
  if (o.prompt_tokens < 1 || o.gen_tokens < 1 || o.batch < 1 || o.repeats < 1)
    throw input_error("bench", "at least 1 prompt token, generated token, sequence and repeat",
                      fmt::format("{}, {}, {} and {}", o.prompt_tokens, o.gen_tokens, o.batch, o.repeats));
  if (o.prompt_tokens + o.gen_tokens > model.max_context())
    throw input_error("--prompt-tokens plus --gen-tokens",
                      fmt::format("at most the model's context of {}", model.max_context()),
                      std::to_string(o.prompt_tokens + o.gen_tokens));
}

}  // namespace

size_t peak_memory_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word != "VmHWM:") continue;
    size_t kilobytes = 0;
    status >> kilobytes;
    return kilobytes * 1024;
  }
  return 0;
}

Speed measure_speed(const Model& model, const SpeedOptions& options) {
  check(model, options);
  Target target = options.target;
  target.max_tokens = std::max(std::min<int64_t>(options.prompt_tokens, target.max_tokens), options.batch);
  target.max_outputs = options.batch;
  target.slots = options.batch;
  target.context = options.prompt_tokens + options.gen_tokens;
  Plan plan = Plan::compile(model, target);

  // The first pass touches every page, fills the caches and is hashed; it is not timed.
  Session session(plan, options, target.max_tokens);
  Sha256 hash;
  session.run(&hash);

  Speed speed;
  speed.peak_memory_bytes = peak_memory_bytes();  // before the roof's buffer exists
  std::optional<MomentaryRoof> momentary;
  if (!options.roof) momentary.emplace(plan.threads(), target.isa);
  speed.roof = momentary ? momentary->measure() : *options.roof;
  speed.fits_cache = plan.weight_bytes() <= last_level_cache_bytes();
  const Operations prompt = prompt_operations(
      plan, target, {.tokens = options.prompt_tokens, .context = 0, .outputs = 1}, speed.roof);
  const double decode_bytes = bytes_of_decoding(model, plan, options);

  std::vector<double> first_token, prefill, decode, prefill_share, decode_share, l3_share;
  const auto roofs = [&] { return momentary ? momentary->measure(prompt, speed.fits_cache) : speed.roof; };
  std::vector<Roof> moments = {roofs()};
  for (int i = 0; i < options.repeats; ++i) {
    if (momentary && speed.fits_cache) session.run(nullptr);  // the roofs' buffer took the cache
    const Times times = session.run(nullptr);
    moments.push_back(roofs());
    const Roof roof = mean(moments.end()[-2], moments.back());
    first_token.push_back(times.first_token);
    prefill.push_back(times.prefill);
    decode.push_back(times.decode);
    prefill_share.push_back(static_cast<double>(options.batch) * seconds_at(roof, prompt) / times.prefill);
    decode_share.push_back(decode_bytes / times.decode / roof.read_bytes_per_s);
    if (speed.fits_cache && roof.l3_bytes_per_s > 0)
      l3_share.push_back(decode_bytes / times.decode / roof.l3_bytes_per_s);
  }

  speed.threads = plan.threads();
  speed.prefill_threads = plan.prefill_threads();
  speed.batch = options.batch;
  speed.prompt_tokens = options.prompt_tokens;
  speed.gen_tokens = options.gen_tokens;
  speed.logits_hash = hash.hex();
  speed.ttft_ms = 1000 * median(first_token);
  speed.prefill_tokens_per_s = static_cast<double>(options.batch * options.prompt_tokens) / median(prefill);
  speed.decode_tokens_per_s = static_cast<double>(options.batch * options.gen_tokens) / median(decode);
  speed.model_memory_bytes = plan.weight_bytes() + plan.kv_bytes() + plan.arena_bytes();
  speed.prefill_roof = most_of(prompt);
  take_medians(moments, speed.roof);  // what is reported is what the passes were compared with
  speed.prefill_percent_of_roof = 100 * median(prefill_share);
  speed.decode_percent_of_roof = 100 * median(decode_share);
  if (!l3_share.empty()) speed.decode_percent_of_l3 = 100 * median(l3_share);
  plan.keep_packed();
  return speed;
}

}  // namespace lathe
