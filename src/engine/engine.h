// Many requests on one model: continuous batching over a paged KV cache with a prefix cache.
//
// The text of a request depends on the request alone: not on what else runs, how its prompt is cut, what the
// prefix cache holds or whether it was preempted (docs/decisions/005 and 006).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/busy.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "runtime/plan.h"
#include "text/token_mask.h"
#include "text/tokenizer.h"

namespace lathe {

struct Request {
  std::vector<int32_t> prompt;
  Sampling sampling;                    // choice i draws with seed + i
  int64_t max_tokens = 256;             // 0: none is written, and the prompt may fill the context
  int64_t min_tokens = 0;               // neither a stop token nor a stop string ends the text before
  std::vector<int32_t> stop_tokens;     // end the text and are not shown; never chosen before min_tokens
  std::vector<std::string> stop;        // end the text and are not shown
  std::vector<int32_t> allowed_tokens;  // only these are chosen; none: all
  std::vector<std::vector<int32_t>> bad_words;  // the last of such a row is never chosen behind the others
  // What the text must be: before it is complete no stop token is chosen, and where nothing more may follow
  // it ends, whatever min_tokens says. Where `grammar_after` is a token, from behind the first of these on:
  // an answer behind a model's thoughts, say, or a call of a tool. Null: anything.
  std::shared_ptr<TokenMasks> grammar = nullptr;
  int32_t grammar_after = -1;
  bool must_reach_grammar = true;  // no stop token comes before it
  // Thoughts begin with the answer, or behind the token `open` where there is one. Once they have so many
  // tokens, `close` is the next; -1: they may be as long as they will.
  struct Thoughts {
    int32_t open = -1, close = -1;
    int64_t tokens = 0;
  } thoughts = {};
  bool special_tokens = false;  // are shown in the text
  int64_t choices = 1;          // texts to one prompt
  // Of the chosen token and so many of the likeliest, as the model has them: before biases, penalties and
  // grammars; -1: none.
  int64_t logprobs = -1;
  // The same of the prompt's tokens behind the first (Event::prompt). Then no prefix comes from the cache.
  int64_t prompt_logprobs = -1;
  // `logprobs` are of what the token was drawn from: behind biases, cuts and all.
  bool drawn_logprobs = false;
  int adapter = 0;     // of the model's (models/adapter.h); 0: none
  int priority = 0;    // lower goes first
  uint64_t space = 0;  // requests of different spaces share no cached prefix
};

enum class Finish : uint8_t { none, stop, length, cancelled, failed };
std::string_view finish_name(
    Finish);  // as OpenAI's and vLLM's clients read it: "stop", "length", "abort", "error"

struct TokenLogprob {
  int32_t token;
  float logprob;
};

// What the model expected where a token stands.
struct TokenScore {
  float logprob = 0;              // of the token
  int64_t rank = 1;               // 1: none is likelier
  std::vector<TokenLogprob> top;  // likeliest first, as many as the request asked for
};

// A token of a choice, or its end, or both. Texts add up to the whole; a token may have none yet.
struct Event {
  uint64_t request = 0;
  int64_t choice = 0;
  int32_t token = -1;       // -1: none
  bool stop_token = false;  // it is one: not shown
  std::string text;
  TokenScore score;  // where the request asked
  // Of a choice's first event, where the request asked: of all tokens of the prompt but the first.
  std::shared_ptr<const std::vector<TokenScore>> prompt;
  Finish finish = Finish::none;
  std::string stop;       // the stop string that ended it
  std::string error;      // why it failed
  bool refused = false;   // by the request's fault: it asks for what cannot be done
  bool busy = false;      // it waited longer than EngineOptions::longest_wait: another time, perhaps
  int64_t cached = 0;     // prompt tokens that the prefix cache had
  int64_t generated = 0;  // so far, the ending stop token included
  double waited = 0;      // seconds from submit() to the first step of its prompt; 0: there was none
};

struct EngineOptions {
  int threads = 0;      // 0: physical cores
  int64_t context = 0;  // longest prompt and answer together; 0: the model's
  // Memory of the KV cache, without open keys (KvType::int4_channel); 0: room for eight sequences of the
  // whole context.
  size_t kv_bytes = 0;
  int64_t block_tokens = 32;
  std::optional<KvType> kv = {};              // none: as the model says
  int64_t sequences = 64;                     // running at once; at most most_sampled_outputs
  int64_t step_tokens = 512;                  // rows of a step
  int64_t mixed_prompt = 0;                   // StepLimits::mixed_prompt
  int64_t waiting = 1024;                     // requests that wait; more are refused
  std::chrono::milliseconds longest_wait{0};  // for the first step of a prompt; 0: any time
  bool prefix_cache = true;
};

struct EngineStats {
  int64_t running = 0, waiting = 0, blocks = 0, free_blocks = 0;
  uint64_t steps = 0, prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0, preemptions = 0;
  double step_seconds = 0, plan_seconds = 0;  // all so far; the difference is the engine's own
};

class Engine {
 public:
  using Emit = std::function<void(const Event&)>;

  // InputError when the KV cache cannot hold one sequence of the whole context.
  Engine(const Model&, const Tokenizer&, const EngineOptions&);
  ~Engine();

  // From any thread. Returns the request's number. Events come on the thread that steps, in order; an ending
  // one per choice is the last. InputError when the prompt is empty, has unknown tokens or leaves no room for
  // an answer, or a number is out of range; Busy when too many wait. An Emit that throws gets no more events.
  uint64_t submit(Request, Emit);
  // The same request for each of some prompts: all of them are taken, or none. They share one number;
  // choice c of prompt p is choice p * choices + c of their events, and draws as it would alone.
  uint64_t submit(const Request&, std::vector<std::vector<int32_t>> prompts, const Emit&);
  void cancel(uint64_t request);  // from any thread; unknown numbers are ignored

  // One step of all that runs; false when there was nothing to do. From one thread. An exception in it is
  // logged and fails what it ran, one of an Emit cancels its request; neither leaves it.
  bool step();
  // Until something was submitted or cancelled since the last step; false: it took longer.
  bool wait(std::chrono::milliseconds);

  EngineStats stats() const;  // from any thread
  int64_t context() const;
  int64_t sequences() const;  // that may run at once
  const Plan& plan() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lathe
