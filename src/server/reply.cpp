#include "server/reply.h"

#include <algorithm>
#include <random>

#include "core/log.h"
#include "server/api_error.h"

namespace lathe {
namespace {

void check_limits(const ServiceLimits& limits, const Request& request,
                  const std::vector<std::vector<int32_t>>& prompts) {
  const auto count = static_cast<int64_t>(prompts.size());
  if (count * request.choices > limits.choices)
    throw ApiError::bad_request(fmt::format("n: expected at most {} choices of all prompts, found {}",
                                            limits.choices, count * request.choices),
                                "n");
  for (const auto& prompt : prompts)
    if (limits.prompt_tokens > 0 && static_cast<int64_t>(prompt.size()) > limits.prompt_tokens)
      throw ApiError::bad_request(
          fmt::format("prompt: expected at most {} tokens, found {}", limits.prompt_tokens, prompt.size()),
          "prompt");
}

}  // namespace

std::string random_id(std::string_view prefix) {
  static thread_local std::mt19937_64 random{std::random_device()()};
  return fmt::format("{}{:016x}{:016x}", prefix, random(), random());
}

int64_t seconds_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string json_text(const Json& j) { return j.dump(-1, ' ', false, Json::error_handler_t::replace); }

Reply::Reply(const Service& service, std::shared_ptr<HttpExchange> exchange, bool stream,
             const Request& request, size_t prompts)
    : service_(service),
      exchange_(std::move(exchange)),
      stream_(stream),
      model_(request.adapter > 0 ? service.adapters.at(static_cast<size_t>(request.adapter) - 1)
                                 : service.model),
      per_prompt_(static_cast<size_t>(request.choices)),
      choices_(prompts * per_prompt_),
      open_(choices_.size()) {}

void Reply::take(const Event& e) {
  const auto index = static_cast<size_t>(e.choice);
  observe(index, e);
  if (abandoned_) return;
  if (e.finish == Finish::failed)
    return fail_all(e, e.refused ? ApiError::bad_request(e.error)
                       : e.busy  ? ApiError(429, "rate_limit_error", e.error)
                                 : ApiError(500, "server_error", e.error));
  try {
    tell(index, e);
    if (open_ == 0) end();
  } catch (const std::exception& wrong) {
    warn("an answer failed: {}", printable(wrong.what()));
    fail_all(e, ApiError::internal());
  }
}

void Reply::fail_all(const Event& e, const ApiError& error) {
  abandoned_ = true;
  service_.engine.cancel(e.request);
  fail(error);
}

void Reply::observe(size_t index, const Event& e) {
  Choice& c = choices_[index];
  const auto now = Clock::now();
  const auto since = [&](Clock::time_point then) {
    return std::chrono::duration<double>(now - then).count();
  };
  // The choices of a prompt have one prompt's hits.
  if (c.tokens == 0 && index % per_prompt_ == 0) cached_ += static_cast<size_t>(e.cached);
  c.waited = e.waited;
  if (e.token >= 0) {
    if (c.tokens == 0) {
      service_.metrics.first_token(since(arrived_));
      c.first = now;
    } else {
      service_.metrics.next_token(since(c.last));
    }
    c.last = now;
  }
  c.tokens = static_cast<size_t>(e.generated);
  if (e.finish == Finish::none) return;
  service_.metrics.request_done(e.finish, since(arrived_), prompt_tokens_, c.tokens);
  if (c.tokens > 0) {
    const Times t = times(index);
    service_.metrics.phases(t.queue, t.prefill, t.decode);
  }
  finishes_.insert(finish_name(e.finish));
  if (--open_ > 0) return;
  Json said = {{"model", model_},
               {"prompt_tokens", prompt_tokens_},
               {"cached_tokens", cached_},
               {"generated_tokens", generated_tokens()},
               {"finish", finishes_}};
  if (choices_[0].tokens > 0)
    said["ttft_seconds"] = std::chrono::duration<double>(choices_[0].first - arrived_).count();
  exchange_->annotate(said);
}

Reply::Times Reply::times(size_t choice) const {
  const Choice& c = choices_[choice];
  const auto seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
  return {.queue = c.waited,
          .prefill = std::max(0., seconds(c.first - arrived_) - c.waited),
          .decode = seconds(c.last - c.first)};
}

size_t Reply::generated_tokens() const {
  size_t all = 0;
  for (const Choice& c : choices_) all += c.tokens;
  return all;
}

Json Reply::usage() const {
  return {{"prompt_tokens", prompt_tokens_},
          {"completion_tokens", generated_tokens()},
          {"total_tokens", prompt_tokens_ + generated_tokens()},
          {"prompt_tokens_details", {{"cached_tokens", cached_}}}};
}

void Reply::read_stream_options(const Fields& f) {
  const Json* given = f.find("stream_options");
  if (!given) return;
  const Fields options(*given, "stream_options");
  include_usage_ = options.boolean("include_usage", false);
  usage_always_ = options.boolean("continuous_usage_stats", false);
}

void Reply::add_usage(Json& chunk) const {
  if (include_usage_) chunk["usage"] = usage_always_ ? usage() : Json();
}

void Reply::end_stream(Json last) {
  if (include_usage_) {
    last["usage"] = usage();
    event(last);
  }
  exchange_->write("data: [DONE]\n\n");
  exchange_->finish();
}

void Reply::start_stream() {
  if (started_) return;
  started_ = true;
  exchange_->start(200, "text/event-stream", {{"Cache-Control", "no-cache"}});
}

void Reply::event(const Json& j, std::string_view name) {
  exchange_->write((name.empty() ? "" : fmt::format("event: {}\n", name)) + "data: " + json_text(j) + "\n\n");
}

void Reply::send(const Json& j) { exchange_->send(200, "application/json", json_text(j)); }

void Reply::fail(const ApiError& error) {
  if (!started_)
    return exchange_->send(error.status(), "application/json", json_text(error.body()), error.headers());
  event(error.body());
  exchange_->finish();
}

void submit(Service& service, const Request& request, const std::vector<std::vector<int32_t>>& prompts,
            const std::shared_ptr<Reply>& reply) {
  check_limits(service.limits, request, prompts);
  for (const auto& prompt : prompts) reply->prompt_tokens_ += prompt.size();
  const uint64_t id = service.engine.submit(request, prompts, [reply](const Event& e) { reply->take(e); });
  reply->exchange_->on_gone([&engine = service.engine, reply, id] {
    reply->abandon();
    engine.cancel(id);
  });
}

}  // namespace lathe
