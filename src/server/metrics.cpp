#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace lathe {
namespace {

using namespace prometheus;

const Histogram::BucketBoundaries first_token_bounds = {
    .001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560};
const Histogram::BucketBoundaries next_token_bounds = {.001, .0025, .005, .01, .025, .05, .075, .1,  .15, .2,
                                                       .3,   .4,    .5,   .75, 1,    2.5, 5,    7.5, 10,  20};
const Histogram::BucketBoundaries request_bounds = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10, 15,
                                                    20, 30, 40, 50, 60,  120, 240, 480, 960};
const Histogram::BucketBoundaries token_bounds = {1,   2,    5,    10,   20,    50,    100,   200,
                                                  500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

// What the engine counts already, read when somebody asks.
struct EngineLine {
  const char *name, *help;
  MetricType type;
  double (*value)(const EngineStats&);
};
constexpr EngineLine engine_lines[] = {
    {"vllm:num_requests_running", "Sequences in the current step", MetricType::Gauge,
     [](const EngineStats& s) { return static_cast<double>(s.running); }},
    {"vllm:num_requests_waiting", "Requests that wait to run", MetricType::Gauge,
     [](const EngineStats& s) { return static_cast<double>(s.waiting); }},
    {"vllm:kv_cache_usage_perc", "Part of the KV blocks in use, 0 to 1", MetricType::Gauge,
     [](const EngineStats& s) {
       return s.blocks ? static_cast<double>(s.blocks - s.free_blocks) / static_cast<double>(s.blocks) : 0;
     }},
    {"vllm:prompt_tokens_total", "Rows of prompts computed", MetricType::Counter,
     [](const EngineStats& s) { return static_cast<double>(s.prompt_tokens); }},
    {"vllm:generation_tokens_total", "Tokens generated", MetricType::Counter,
     [](const EngineStats& s) { return static_cast<double>(s.generated_tokens); }},
    {"vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache", MetricType::Counter,
     [](const EngineStats& s) { return static_cast<double>(s.prompt_tokens + s.cached_tokens); }},
    {"vllm:prefix_cache_hits_total", "Prompt tokens that the prefix cache had", MetricType::Counter,
     [](const EngineStats& s) { return static_cast<double>(s.cached_tokens); }},
    {"vllm:num_preemptions_total", "Sequences that gave up their blocks", MetricType::Counter,
     [](const EngineStats& s) { return static_cast<double>(s.preemptions); }},
    {"lathe:engine_steps_total", "Steps", MetricType::Counter,
     [](const EngineStats& s) { return static_cast<double>(s.steps); }},
    {"lathe:engine_step_seconds_total", "Time in steps", MetricType::Counter,
     [](const EngineStats& s) { return s.step_seconds; }},
    {"lathe:engine_plan_seconds_total", "Time in the plan's share of them", MetricType::Counter,
     [](const EngineStats& s) { return s.plan_seconds; }},
};

}  // namespace

struct Metrics::Impl {
  Labels labels;
  Registry registry;
  Histogram &first_token, &next_token, &request, &prompt_tokens, &generated_tokens, &queue, &prefill, &decode;
  Family<Counter>&success, &answers;
  Counter& left;

  Histogram& histogram(const char* name, const char* help, const Histogram::BucketBoundaries& bounds) {
    return BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, bounds);
  }
  Family<Counter>& counters(const char* name, const char* help) {
    return BuildCounter().Name(name).Help(help).Register(registry);
  }
  explicit Impl(const std::string& model)
      : labels{{"model_name", model}},
        first_token(histogram("vllm:time_to_first_token_seconds", "From arrival to the first token",
                              first_token_bounds)),
        next_token(histogram("vllm:inter_token_latency_seconds", "From token to token", next_token_bounds)),
        request(histogram("vllm:e2e_request_latency_seconds", "From arrival to the end", request_bounds)),
        prompt_tokens(histogram("vllm:request_prompt_tokens", "Tokens of a prompt", token_bounds)),
        generated_tokens(histogram("vllm:request_generation_tokens", "Tokens of an answer", token_bounds)),
        queue(histogram("vllm:request_queue_time_seconds", "From arrival to the first step", request_bounds)),
        prefill(
            histogram("vllm:request_prefill_time_seconds", "From there to the first token", request_bounds)),
        decode(histogram("vllm:request_decode_time_seconds", "From there to the last", request_bounds)),
        success(counters("vllm:request_success_total", "Requests by how they ended")),
        answers(counters("lathe:http_responses_total", "Answers by their status")),
        left(counters("lathe:client_disconnects_total", "Clients that left before their answer's end")
                 .Add(labels)) {}
};

Metrics::Metrics(const std::string& model) : impl_(std::make_unique<Impl>(model)) {}
Metrics::~Metrics() = default;
void Metrics::first_token(double seconds) { impl_->first_token.Observe(seconds); }
void Metrics::next_token(double seconds) { impl_->next_token.Observe(seconds); }
void Metrics::request_done(Finish finish, double seconds, size_t prompt_tokens, size_t generated_tokens) {
  Labels labels = impl_->labels;
  labels["finished_reason"] = finish_name(finish);
  impl_->success.Add(labels).Increment();
  impl_->request.Observe(seconds);
  impl_->prompt_tokens.Observe(static_cast<double>(prompt_tokens));
  impl_->generated_tokens.Observe(static_cast<double>(generated_tokens));
}

void Metrics::phases(double queue, double prefill, double decode) {
  impl_->queue.Observe(queue);
  impl_->prefill.Observe(prefill);
  impl_->decode.Observe(decode);
}
void Metrics::answered(int status) {
  Labels labels = impl_->labels;
  labels["code"] = std::to_string(status);
  impl_->answers.Add(labels).Increment();
}
void Metrics::client_left() { impl_->left.Increment(); }

std::string Metrics::text(const EngineStats& stats) const {
  std::vector<MetricFamily> all = impl_->registry.Collect();
  for (const EngineLine& line : engine_lines) {
    ClientMetric metric;
    for (const auto& [name, value] : impl_->labels) metric.label.push_back({name, value});
    (line.type == MetricType::Gauge ? metric.gauge.value : metric.counter.value) = line.value(stats);
    all.push_back({line.name, line.help, line.type, {std::move(metric)}});
  }
  return TextSerializer().Serialize(all);
}

}  // namespace lathe
