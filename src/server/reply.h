// One request from its first event to its last byte: what the shapes of all APIs share.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "server/api_error.h"
#include "server/fields.h"
#include "server/http.h"
#include "server/service.h"

namespace lathe {

std::string random_id(std::string_view prefix);  // "prefix" and 32 hexadecimal digits
int64_t seconds_now();                           // since 1970
std::string json_text(const Json&);              // what is not UTF-8 as U+FFFD

// Choices of all prompts in one row. Events come on the engine's thread.
class Reply {
 public:
  Reply(const Service&, std::shared_ptr<HttpExchange>, bool stream, const Request&, size_t prompts);
  virtual ~Reply() = default;

  // When a choice fails, the answer is its error, and the others are cancelled.
  void take(const Event&);
  void abandon() { abandoned_ = true; }  // nobody listens any more

 protected:
  // Called in order. An event with a finish is the last of its choice.
  virtual void tell(size_t choice, const Event&) = 0;
  virtual void end() = 0;  // every choice has ended
  virtual void fail(const ApiError&);

  void start_stream();  // once; then event() may be called
  bool started() const { return started_; }
  void event(const Json&, std::string_view name = {});
  void send(const Json&);

  size_t choice_count() const { return choices_.size(); }
  size_t prompt_tokens() const { return prompt_tokens_; }
  size_t cached_tokens() const { return cached_; }
  size_t generated_tokens() const;
  // Seconds of a choice: before the first step of its prompt, until its first token, until its last.
  struct Times {
    double queue = 0, prefill = 0, decode = 0;
  };
  Times times(size_t choice) const;
  // OpenAI's, with its name for either kind of tokens.
  Json usage() const;
  // A stream has it where the client asks: in a chunk of its own at the end, or in each.
  void read_stream_options(const Fields&);
  void add_usage(Json& chunk) const;  // null where it comes at the end
  void end_stream(Json last);         // with the usage, where it is asked for; then [DONE]

  const Service& service_;
  const std::shared_ptr<HttpExchange> exchange_;
  const bool stream_;
  const std::string model_;  // as the client named it: the model, or an adapter

 private:
  friend void submit(Service&, const Request&, const std::vector<std::vector<int32_t>>&,
                     const std::shared_ptr<Reply>&);
  using Clock = std::chrono::steady_clock;
  struct Choice {
    size_t tokens = 0;
    double waited = 0;
    Clock::time_point first, last;  // tokens
  };
  void observe(size_t choice, const Event&);
  void fail_all(const Event&, const ApiError&);

  const size_t per_prompt_;
  const Clock::time_point arrived_ = Clock::now();
  std::vector<Choice> choices_;
  std::set<std::string_view> finishes_;
  bool include_usage_ = false, usage_always_ = false;
  size_t open_, prompt_tokens_ = 0, cached_ = 0;
  bool started_ = false;
  std::atomic<bool> abandoned_ = false;
};

// One request to the engine for each prompt: all of them, or none. They are cancelled when the client leaves.
void submit(Service&, const Request&, const std::vector<std::vector<int32_t>>& prompts,
            const std::shared_ptr<Reply>&);

}  // namespace lathe
