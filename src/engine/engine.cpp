#include "engine/engine.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <tuple>
#include <utility>

#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "engine/kv_size.h"
#include "engine/step_cost.h"
#include "engine/stop_text.h"
#include "engine/told.h"
#include "models/adapter.h"

namespace lathe {
namespace {

constexpr int64_t default_sequences_of_context = 8;
constexpr int64_t most_logprobs = 100;

// Whether prompts and decoding give other bits for the same token (docs/decisions/005).
bool phases_differ(const Plan& plan) {
  return std::ranges::any_of(plan.choices(), [](const Plan::Choice& c) { return c.prompts != c.decode; });
}

// A request whose first choice may still have to be forked into the others.
struct Job {
  uint64_t id;
  std::shared_ptr<const Request> request;  // of all prompts that were submitted together
  std::vector<int32_t> prompt;
  int64_t max_tokens;  // what the request says, within the context
  Engine::Emit emit;
  std::shared_ptr<grammar::Work> masks;  // its choices' budget, where there is a grammar
  // Of the prompt, while it is computed; null: not asked for.
  std::shared_ptr<std::vector<TokenScore>> scores;
  Clock::time_point submitted;
  int64_t first_choice;  // among those of all prompts that were submitted together
};

// One choice of a request.
struct Running {
  Sequence sequence;
  std::shared_ptr<const Job> job;
  int64_t choice;
  Sampler sampler;
  StreamDecoder decoder;
  StopText stops;
  std::optional<GrammarMatcher> matcher;  // once the grammar applies
  int64_t generated = 0, thought = 0;     // tokens, and those of thoughts
  bool thinking;
  bool begun = false;  // it was in a step
  double waited = 0;   // seconds before that

  Running(std::shared_ptr<const Job> j, int64_t c, const Tokenizer& tokenizer)
      : job(std::move(j)),
        choice(c),
        sampler(seeded(job->request->sampling, c)),
        decoder(tokenizer, !job->request->special_tokens),
        stops(job->request->stop),
        thinking(job->request->thoughts.close >= 0 && job->request->thoughts.open < 0) {}

  void think(int32_t token) {
    const Request::Thoughts& t = job->request->thoughts;
    if (t.close < 0) return;
    if (token == t.close)
      thinking = false;
    else if (thinking)
      ++thought;
    else
      thinking = token == t.open;
  }
  bool has_thought_enough() const { return thinking && thought >= job->request->thoughts.tokens; }

  static Sampling seeded(Sampling s, int64_t choice) {
    s.seed += static_cast<uint64_t>(choice);
    return s;
  }
};

// log p of a token whose logit is x is x - log_total.
double log_total(std::span<const float> logits) {
  const auto largest = static_cast<double>(*std::ranges::max_element(logits));
  double total = 0;
  for (const float x : logits) total += std::exp(static_cast<double>(x) - largest);
  return largest + std::log(total);
}

TokenScore score(int32_t token, std::span<const float> logits, int64_t alternatives) {
  const double total = log_total(logits);
  const auto of = [&](float x) { return static_cast<float>(static_cast<double>(x) - total); };
  const float own = logits[static_cast<size_t>(token)];
  TokenScore s{.logprob = of(own), .rank = 1, .top = {}};
  const auto n = std::min<size_t>(static_cast<size_t>(alternatives), logits.size());
  // Few get past the last of the best so far; equals stay in the order of their ids.
  for (size_t i = 0; i < logits.size(); ++i) {
    const float x = logits[i];
    s.rank += x > own;
    if (s.top.size() == n && (n == 0 || !(x > s.top.back().logprob))) continue;
    if (s.top.size() == n) s.top.pop_back();
    const auto at = std::ranges::find_if(s.top, [&](const TokenLogprob& t) { return x > t.logprob; });
    s.top.insert(at, {static_cast<int32_t>(i), x});
  }
  for (TokenLogprob& t : s.top) t.logprob = of(t.logprob);
  return s;
}

// Where a token was drawn from what is left of them.
TokenScore drawn(const Sampler& sampler, int32_t token, int64_t alternatives) {
  TokenScore s{.logprob = std::log(sampler.chance(token)), .rank = 1, .top = {}};
  for (const auto& [id, chance] : sampler.likeliest(alternatives)) s.top.push_back({id, std::log(chance)});
  return s;
}

bool ends_with(std::span<const int32_t> tokens, std::span<const int32_t> end) {
  return tokens.size() >= end.size() && std::ranges::equal(tokens.last(end.size()), end);
}

// The text is complete and nothing may follow.
bool exhausted(GrammarMatcher& matcher) {
  return matcher.complete() && std::ranges::all_of(matcher.mask(), [](uint64_t word) { return word == 0; });
}

}  // namespace

std::string_view finish_name(Finish finish) {
  switch (finish) {
    case Finish::none:
      return "";
    case Finish::stop:
      return "stop";
    case Finish::length:
      return "length";
    case Finish::cancelled:
      return "abort";
    case Finish::failed:
      return "error";
  }
  return "";
}

struct Engine::Impl {
  EngineOptions options;
  Tokenizer tokenizer;
  int64_t vocab;
  int adapter_count;
  Plan plan;
  bool exact;  // sharing must tell prompts from answers
  KvBlocks blocks;
  Scheduler scheduler;
  std::map<uint64_t, std::unique_ptr<Running>> running;  // by Sequence::id
  uint64_t last_sequence = 0;
  std::vector<int32_t> tokens, positions, starts, outputs, adapters, slots;  // of the batch
  std::vector<std::span<const int32_t>> tables;
  double plan_seconds = 0;          // of this step
  uint64_t sampled = 0;             // tokens of this step
  std::vector<uint64_t> computing;  // numbers of the requests in it
  std::vector<float> adjusted;      // a row of logits with stop tokens out of reach

  mutable std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  std::vector<std::shared_ptr<const Job>> submitted;
  std::vector<uint64_t> cancelled;
  uint64_t last_job = 0;
  EngineStats stats;

  static EngineOptions completed(const Model& model, EngineOptions o) {
    const int64_t longest = model.max_context();
    if (o.context <= 0 || o.context > longest) {
      if (o.context > longest)
        warn("the model's context is {}: --context {} is cut to that", longest, o.context);
      o.context = longest;
    }
    if (o.sequences < 1 || o.sequences > most_sampled_outputs)
      throw input_error("sequences", fmt::format("1 to {}", most_sampled_outputs),
                        std::to_string(o.sequences));
    if (o.block_tokens < 1 || o.step_tokens < 1 || o.mixed_prompt < 0 || o.waiting < 1)
      throw input_error("engine", "positive limits", "a limit below 1");
    o.step_tokens = std::max(o.step_tokens, o.sequences);
    return o;
  }

  static int64_t block_count(const Model& model, const EngineOptions& o) {
    const int64_t whole = (o.context + o.block_tokens - 1) / o.block_tokens;
    if (o.kv_bytes == 0) return whole * default_sequences_of_context;
    const int64_t bytes = kv_bytes_per_token(model.graph, o.kv) * o.block_tokens;
    const int64_t blocks = static_cast<int64_t>(o.kv_bytes) / bytes;
    if (blocks < whole)
      throw input_error("the KV cache",
                        fmt::format("at least {} bytes, for {} tokens of context", whole * bytes, o.context),
                        fmt::format("{} bytes", o.kv_bytes),
                        "give it more memory, or choose a smaller --context");
    return blocks;
  }

  static Target target(const Model& model, const EngineOptions& o) {
    Target t;
    t.threads = o.threads;
    t.max_tokens = o.step_tokens;
    t.max_outputs = most_sampled_outputs;
    t.kv = o.kv;
    t.kv_blocks = block_count(model, o);
    t.slots = o.sequences;
    t.block_tokens = o.block_tokens;
    return t;
  }

  Impl(const Model& model, const Tokenizer& t, const EngineOptions& given)
      : options(completed(model, given)),
        tokenizer(t),
        adapter_count(adapters_of(model.graph)),
        plan(Plan::compile(model, target(model, options))),
        exact(phases_differ(plan)),
        blocks(plan.kv_blocks(), options.block_tokens, std::random_device()()),
        scheduler(blocks, limits(), options.context) {
    vocab = plan.graph().value(plan.graph().output()).cols;
    stats.blocks = stats.free_blocks = blocks.size();
  }

  StepLimits limits() {
    StepLimits l;
    l.tokens = options.step_tokens;
    l.sequences = options.sequences;
    l.outputs = most_sampled_outputs;
    l.prompt_rows = options.step_tokens;
    l.mixed_prompt = options.mixed_prompt;
    if (options.mixed_prompt == 0) {
      const MeasuredSteps measured = measure_steps(plan, options.step_tokens, options.sequences);
      l.cost = measured.cost;
      l.prompt_rows = measured.prompt_rows;
    }
    return l;
  }

  // InputError where one of them cannot run.
  void check(const Request&, const std::vector<std::vector<int32_t>>& prompts) const;

  // Adapters change keys and values.
  static uint64_t space_of(const Request& r) {
    return r.space + static_cast<uint64_t>(r.adapter) * 0x9e3779b97f4a7c15ull;
  }

  void accept(std::shared_ptr<const Job> job) {
    auto r = std::make_unique<Running>(job, 0, tokenizer);
    Sequence& s = r->sequence;
    s.id = ++last_sequence;
    s.tokens = job->prompt;
    s.prompt = s.size();
    s.priority = job->request->priority;
    s.width = job->request->choices;
    s.scores = job->scores != nullptr;
    // Without a prefix cache, every sequence has a space of its own.
    s.origin.space = options.prefix_cache ? space_of(*job->request) : s.id;
    if (exact) s.origin.prompt = s.prompt;
    r->sampler.see(s.tokens);
    scheduler.add(s);
    running.emplace(s.id, std::move(r));
  }

  void take_inbox() {
    std::vector<std::shared_ptr<const Job>> jobs;
    std::vector<uint64_t> gone;
    {
      const std::lock_guard lock(mutex);
      jobs.swap(submitted);
      gone.swap(cancelled);
    }
    for (auto& job : jobs) accept(std::move(job));
    for (const uint64_t id : gone) {
      std::vector<Running*> of;
      for (const auto& [key, r] : running)
        if (r->job->id == id) of.push_back(r.get());
      for (Running* r : of) {
        Event event;
        event.finish = Finish::cancelled;
        end(*r, std::move(event));
      }
    }
  }

  void refuse_late() {
    if (options.longest_wait.count() == 0 || scheduler.waiting() == 0) return;
    const Clock::time_point earliest = Clock::now() - options.longest_wait;
    std::vector<Running*> late;
    for (const auto& [key, r] : running)
      if (!r->begun && r->job->submitted < earliest) late.push_back(r.get());
    for (Running* r : late) {
      Event event;
      event.finish = Finish::failed;
      event.busy = true;
      event.error = fmt::format("the request waited for {} ms, and others are before it still",
                                options.longest_wait.count());
      end(*r, std::move(event));
    }
  }

  // The last event of a choice, or of all choices of a request that has not been forked yet.
  void end(Running& r, Event event) {
    const std::shared_ptr<const Job> job = r.job;
    event.request = job->id;
    event.generated = r.generated;
    event.cached = r.sequence.hits;
    event.waited = r.waited;
    event.text += r.stops.push(r.decoder.finish(), r.generated > job->request->min_tokens);
    if (r.stops.stopped() && event.finish == Finish::length) {
      event.finish = Finish::stop;
      event.stop = r.stops.matched();
    }
    event.text += r.stops.finish();
    if (r.generated == 0) event.prompt = job->scores;
    const int64_t first = r.choice, width = r.sequence.width;
    scheduler.remove(r.sequence);
    running.erase(r.sequence.id);
    for (int64_t c = first; c < first + width; ++c) {
      event.choice = c;
      tell(*job, event);
    }
  }

  // What a listener throws is its request's end, not the engine's.
  void tell(const Job& job, Event event) {
    event.choice += job.first_choice;
    try {
      job.emit(event);
    } catch (const std::exception& e) {
      warn("engine: request {} is cancelled: its listener failed: {}", job.id, printable(e.what()));
      const std::lock_guard lock(mutex);
      cancelled.push_back(job.id);
    }
  }

  // Those that a failed step computed; all, where it failed before it knew them.
  void fail_step(const char* why) {
    warn("engine: a step failed: {}", printable(why));
    std::vector<Running*> failed;
    for (const auto& [id, r] : running)
      if (computing.empty() || std::ranges::count(computing, r->job->id)) failed.push_back(r.get());
    for (Running* r : failed) {
      Event event;
      event.finish = Finish::failed;
      event.error = internal_error;
      end(*r, std::move(event));
    }
  }

  void run(const Step& step) {
    for (const BlockCopy& copy : step.copies) plan.copy_block(copy.from, copy.to);
    tokens.clear(), positions.clear(), outputs.clear(), tables.clear(), adapters.clear(), slots.clear();
    starts.assign(1, 0);
    for (const auto* works : {&step.prompts, &step.decodes})
      for (const Work& w : *works) {
        const Sequence& s = *w.sequence;
        for (int64_t i = w.first; i < w.first + w.count; ++i) {
          tokens.push_back(s.tokens[static_cast<size_t>(i)]);
          positions.push_back(static_cast<int32_t>(i));
        }
        starts.push_back(static_cast<int32_t>(tokens.size()));
        tables.push_back(s.table.blocks);
        slots.push_back(s.slot);
        const Job& job = *running.at(s.id)->job;
        adapters.push_back(job.request->adapter);
        computing.push_back(job.id);
        for (int64_t i = w.outputs; i > 0; --i) outputs.push_back(starts.back() - static_cast<int32_t>(i));
      }
    Batch batch{
        .tokens = tokens, .positions = positions, .starts = starts, .slots = slots, .outputs = outputs};
    batch.prompts = static_cast<int64_t>(step.prompts.size());
    batch.tables = tables;
    batch.adapters = adapters;
    const auto begin = Clock::now();
    const std::span<const float> all = plan.run(batch).as<float>();
    plan_seconds = seconds_since(begin);

    const auto row = [&](size_t i) {
      return all.subspan(i * static_cast<size_t>(vocab), static_cast<size_t>(vocab));
    };
    std::vector<std::pair<Running*, size_t>> sampling;  // with its row of logits
    size_t next = 0;
    for (const auto* works : {&step.prompts, &step.decodes})
      for (const Work& w : *works) {
        Running* r = running.at(w.sequence->id).get();
        if (!std::exchange(r->begun, true)) r->waited = seconds_since(r->job->submitted) - plan_seconds;
        if (w.sequence->scores)
          score_prompt(*r, w, [&](int64_t i) { return row(next + static_cast<size_t>(i)); });
        next += static_cast<size_t>(w.outputs);
        if (w.samples) sampling.emplace_back(r, next - 1);
      }
    scheduler.done();
    for (const auto& [r, i] : sampling) {
      r->sequence.scores = false;  // the prompt's are known
      for (Running* other : fork(*r)) choose(*other, row(i));
      choose(*r, row(i));
    }
  }

  // The row of a token says what was expected behind it. A sequence that was preempted computes some again.
  template <class Row>
  void score_prompt(Running& r, const Work& w, Row row) {
    const std::vector<int32_t>& prompt = r.job->prompt;
    for (int64_t i = 0; i < w.count; ++i) {
      const auto next = static_cast<size_t>(w.first + i) + 1;
      if (next >= prompt.size()) break;
      (*r.job->scores)[next - 1] = score(prompt[next], row(i), r.job->request->prompt_logprobs);
    }
  }

  // The other choices of a request whose prompt was just computed.
  std::vector<Running*> fork(Running& first) {
    std::vector<Running*> others;
    const int64_t width = first.sequence.width;
    first.sequence.width = 1;
    for (int64_t c = 1; c < width; ++c) {
      auto r = std::make_unique<Running>(first.job, c, tokenizer);
      Sequence& s = r->sequence;
      s.id = ++last_sequence;
      s.tokens = first.sequence.tokens;
      s.prompt = first.sequence.prompt;
      s.priority = first.sequence.priority;
      s.origin = first.sequence.origin;
      r->begun = true;
      r->waited = first.waited;
      r->sampler.see(s.tokens);
      scheduler.add_fork(first.sequence, s);
      plan.copy_slot(first.sequence.slot, s.slot);
      others.push_back(r.get());
      running.emplace(s.id, std::move(r));
    }
    return others;
  }

  // The logits with what may not come next out of reach.
  std::span<const float> allowed(Running& r, std::span<const float> logits) {
    const Request& request = *r.job->request;
    if (r.has_thought_enough()) {
      adjusted.assign(logits.size(), -INFINITY);
      adjusted[static_cast<size_t>(request.thoughts.close)] = 0;
      return adjusted;
    }
    const bool early = r.generated < request.min_tokens, listed = !request.allowed_tokens.empty();
    if (!request.grammar && !listed && request.bad_words.empty() && (!early || request.stop_tokens.empty()))
      return logits;
    adjusted.assign(logits.begin(), logits.end());
    if (listed) {
      std::ranges::fill(adjusted, -INFINITY);
      for (const int32_t t : request.allowed_tokens)
        adjusted[static_cast<size_t>(t)] = logits[static_cast<size_t>(t)];
    }
    const std::span<const int32_t> written =
        std::span(r.sequence.tokens).last(static_cast<size_t>(r.generated));
    for (const std::vector<int32_t>& word : request.bad_words)
      if (ends_with(written, std::span(word).first(word.size() - 1)))
        adjusted[static_cast<size_t>(word.back())] = -INFINITY;
    bool may_end = !early;
    if (r.matcher) {
      const std::span<const uint64_t> mask = r.matcher->mask();
      for (size_t i = 0; i < adjusted.size(); ++i)
        if (i / 64 >= mask.size() || !(mask[i / 64] >> (i % 64) & 1)) adjusted[i] = -INFINITY;
      may_end &= r.matcher->complete();
    } else if (request.grammar) {
      may_end &= !request.must_reach_grammar;
    }
    if (request.grammar || early)
      for (const int32_t t : request.stop_tokens)
        if (t >= 0 && t < vocab)
          adjusted[static_cast<size_t>(t)] = may_end ? logits[static_cast<size_t>(t)] : -INFINITY;
    if (std::ranges::all_of(adjusted, [](float x) { return !(x > -INFINITY); }))
      throw input_error("the request", "a token that may come next", "none that all its bounds allow");
    return adjusted;
  }

  // The grammar takes a token. True when the text must end here.
  static bool advance(Running& r, int32_t token) {
    const Request& request = *r.job->request;
    if (r.matcher) {
      if (!r.matcher->accept(token)) fail("the grammar does not take token {}, which it allowed", token);
      return exhausted(*r.matcher);
    }
    if (request.grammar && token == request.grammar_after) {
      r.matcher.emplace(request.grammar, r.job->masks);
      return exhausted(*r.matcher);
    }
    return false;
  }

  void choose(Running& r, std::span<const float> logits) {
    const Request& request = *r.job->request;
    Event event;
    event.request = r.job->id;
    event.choice = r.choice;
    if (r.generated == 0) event.prompt = r.job->scores;
    if (r.job->max_tokens == 0) {
      event.finish = Finish::length;
      return end(r, event);
    }
    try {
      if (request.grammar && request.grammar_after < 0 && r.generated == 0) {
        r.matcher.emplace(request.grammar, r.job->masks);
        if (exhausted(*r.matcher)) {  // only the empty text is allowed
          event.finish = Finish::stop;
          return end(r, event);
        }
      }
      event.token = r.sampler.pick(allowed(r, logits));
      if (request.logprobs >= 0)
        event.score = request.drawn_logprobs ? drawn(r.sampler, event.token, request.logprobs)
                                             : score(event.token, logits, request.logprobs);
    } catch (const std::exception& e) {
      event.token = -1;
      event.finish = Finish::failed;
      std::tie(event.error, event.refused) = told(e);
      return end(r, event);
    }
    r.sampler.wrote(event.token);
    r.think(event.token);
    r.sequence.tokens.push_back(event.token);
    event.generated = ++r.generated;
    event.cached = r.sequence.hits;
    event.waited = r.waited;
    ++sampled;
    if (std::ranges::count(request.stop_tokens, event.token)) {
      event.stop_token = true;
      event.finish = Finish::stop;
      return end(r, event);
    }
    // Heads are often padded beyond the vocabulary.
    if (event.token < tokenizer.vocab_size())
      event.text = r.stops.push(r.decoder.push(event.token), r.generated > request.min_tokens);
    if (r.stops.stopped()) {
      event.finish = Finish::stop;
      event.stop = r.stops.matched();
      return end(r, event);
    }
    try {
      if (advance(r, event.token)) {
        event.finish = Finish::stop;
        return end(r, event);
      }
    } catch (const std::exception& e) {  // too ambiguous from here on
      event.finish = Finish::failed;
      std::tie(event.error, event.refused) = told(e);
      return end(r, event);
    }
    if (r.generated == r.job->max_tokens) {
      event.finish = Finish::length;
      return end(r, event);
    }
    tell(*r.job, event);
  }

  bool step() {
    computing.clear();
    try {
      return step_once();
    } catch (const std::exception& e) {
      fail_step(e.what());
      return true;
    }
  }

  bool step_once() {
    const auto start = Clock::now();
    take_inbox();
    refuse_late();
    const Step& next = scheduler.next();
    plan_seconds = 0;
    sampled = 0;
    if (!next.empty()) run(next);
    const std::lock_guard lock(mutex);
    stats.running = scheduler.running();
    stats.waiting = scheduler.waiting() + static_cast<int64_t>(submitted.size());
    stats.free_blocks = blocks.free_blocks();
    if (next.empty()) return false;
    ++stats.steps;
    stats.generated_tokens += sampled;
    stats.cached_tokens += static_cast<uint64_t>(next.cached);
    stats.prompt_tokens += static_cast<uint64_t>(next.computed);
    stats.preemptions += next.preempted.size();
    stats.step_seconds += seconds_since(start);
    stats.plan_seconds += plan_seconds;
    return true;
  }
};

Engine::Engine(const Model& model, const Tokenizer& tokenizer, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(model, tokenizer, options)) {}
Engine::~Engine() = default;

uint64_t Engine::submit(Request request, Emit emit) {
  std::vector<std::vector<int32_t>> prompts(1);
  prompts[0].swap(request.prompt);
  return submit(request, std::move(prompts), emit);
}

uint64_t Engine::submit(const Request& request, std::vector<std::vector<int32_t>> prompts, const Emit& emit) {
  Impl& i = *impl_;
  i.check(request, prompts);
  const auto shared = std::make_shared<const Request>(request);
  std::vector<std::shared_ptr<Job>> jobs;
  for (std::vector<int32_t>& prompt : prompts) {
    const auto length = static_cast<int64_t>(prompt.size());
    auto job = std::make_shared<Job>(
        Job{0, shared, std::move(prompt), std::min(request.max_tokens, i.options.context - length), emit,
            nullptr, nullptr, Clock::now(), request.choices * static_cast<int64_t>(jobs.size())});
    if (request.grammar) job->masks = request.grammar->budget();
    if (request.prompt_logprobs >= 0)
      job->scores = std::make_shared<std::vector<TokenScore>>(static_cast<size_t>(length) - 1);
    jobs.push_back(std::move(job));
  }

  const std::lock_guard lock(i.mutex);
  const auto more = static_cast<int64_t>(jobs.size());
  if (i.stats.waiting + more > i.options.waiting)
    throw Busy(fmt::format("{} requests are waiting already", i.stats.waiting));
  i.stats.waiting += more;  // until the next step counts them
  ++i.last_job;
  for (auto& job : jobs) {
    job->id = i.last_job;
    i.submitted.push_back(std::move(job));
  }
  i.changed.notify_one();
  return i.last_job;
}

void Engine::Impl::check(const Request& request, const std::vector<std::vector<int32_t>>& prompts) const {
  if (prompts.empty() || static_cast<int64_t>(prompts.size()) > options.waiting)
    throw input_error("prompt", fmt::format("1 to {} of them", options.waiting),
                      std::to_string(prompts.size()));
  const int64_t answer = request.max_tokens == 0 ? 0 : 1;  // its least length
  const int32_t most = static_cast<int32_t>(vocab) - 1;
  for (const std::vector<int32_t>& prompt : prompts) {
    if (prompt.empty()) throw input_error("prompt", "at least one token", "none");
    const auto length = static_cast<int64_t>(prompt.size());
    if (options.context - length < answer)
      throw input_error("prompt",
                        fmt::format("at most {} tokens within the context", options.context - answer),
                        std::to_string(length));
    for (const int32_t token : prompt)
      if (token < 0 || token > most)
        throw input_error("prompt", fmt::format("tokens of 0 to {}", most), std::to_string(token));
  }
  const auto range = [](std::string_view name, int64_t value, int64_t least, int64_t largest) {
    if (value < least || value > largest)
      throw input_error(name, fmt::format("{} to {}", least, largest), std::to_string(value));
  };
  range("max_tokens", request.max_tokens, 0, INT64_MAX);
  range("min_tokens", request.min_tokens, 0, INT64_MAX);
  range("n", request.choices, 1, options.sequences);
  range("adapter", request.adapter, 0, adapter_count);
  range("thoughts.close", request.thoughts.close, -1, most);
  range("logprobs", request.logprobs, -1, most_logprobs);
  range("prompt_logprobs", request.prompt_logprobs, -1, most_logprobs);
  for (const int32_t token : request.allowed_tokens) range("allowed_token_ids", token, 0, most);
  for (const auto& word : request.bad_words) {
    range("bad_words: tokens", static_cast<int64_t>(word.size()), 1, INT64_MAX);
    for (const int32_t token : word) range("bad_words", token, 0, most);
  }
  for (const auto& [token, bias] : request.sampling.logit_bias)
    if (token < 0 || token > most || !std::isfinite(bias))
      throw input_error("logit_bias", fmt::format("finite numbers for tokens of 0 to {}", most),
                        fmt::format("{} for {}", bias, token));
  if (request.grammar) GrammarMatcher(request.grammar);  // refuses what is too ambiguous from the start
}

void Engine::cancel(uint64_t request) {
  const std::lock_guard lock(impl_->mutex);
  impl_->cancelled.push_back(request);
  impl_->changed.notify_one();
}

bool Engine::step() { return impl_->step(); }

bool Engine::wait(std::chrono::milliseconds longest) {
  std::unique_lock lock(impl_->mutex);
  return impl_->changed.wait_for(lock, longest,
                                 [&] { return !impl_->submitted.empty() || !impl_->cancelled.empty(); });
}

EngineStats Engine::stats() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->stats;
}

int64_t Engine::context() const { return impl_->options.context; }
int64_t Engine::sequences() const { return impl_->options.sequences; }
const Plan& Engine::plan() const { return impl_->plan; }

}  // namespace lathe
