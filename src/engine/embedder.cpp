#include "engine/embedder.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <mutex>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "engine/busy.h"
#include "engine/told.h"
#include "runtime/plan.h"

namespace lathe {
namespace {

constexpr int64_t default_longest = 2048;

// Up to what the head reads: the last hidden state after its norm.
Model without_head(const Model& model) {
  Model headless = model;
  const NodeId head = headless.graph.value(headless.graph.output()).producer;
  if (!std::holds_alternative<op::Linear>(headless.graph.node(head).op))
    throw input_error("embeddings", "a model that ends with a linear head", "another end");
  headless.graph.set_output(headless.graph.node(head).inputs[0]);
  headless.graph.prune();
  const auto shapes = headless.graph.param_shapes();
  std::erase_if(headless.weights, [&](const auto& w) { return !shapes.contains(w.first); });
  return headless;
}

Target target(int threads, int64_t longest) {
  Target t;
  t.threads = threads;
  t.max_tokens = t.max_outputs = longest;
  return t;
}

struct Job {
  uint64_t id;
  std::vector<std::vector<int32_t>> texts;
  Embedder::Done done;
  Embedder::Result result;
};

void add(std::vector<double>& to, std::span<const float> row) {
  for (size_t i = 0; i < row.size(); ++i) to[i] += static_cast<double>(row[i]);
}

std::vector<float> unit(const std::vector<double>& v) {
  double squares = 0;
  for (const double x : v) squares += x * x;
  if (!std::isfinite(squares) || squares == 0) fail("an embedding whose length is not a positive number");
  std::vector<float> out;
  for (const double x : v) out.push_back(static_cast<float>(x / std::sqrt(squares)));
  return out;
}

}  // namespace

struct Embedder::Impl {
  EmbedderOptions options;
  Plan plan;
  int64_t dimensions, vocab;
  std::mutex mutex;  // guards what follows
  std::deque<std::unique_ptr<Job>> jobs;
  uint64_t stepping = 0;  // the job that is not among them meanwhile; 0: none, or it was cancelled
  uint64_t last_job = 0;

  static EmbedderOptions completed(const Model& model, EmbedderOptions o) {
    if (o.longest <= 0) o.longest = default_longest;
    o.longest = std::min(o.longest, model.max_context());
    return o;
  }

  Impl(const Model& model, const EmbedderOptions& given)
      : options(completed(model, given)),
        plan(Plan::compile(without_head(model), target(options.threads, options.longest))) {
    dimensions = plan.graph().value(plan.graph().output()).cols;
    vocab = model.graph.value(model.graph.output()).cols;
  }

  // As many texts as a run has rows for, and no more than `most`.
  void embed_some(Job& job, size_t most) {
    std::vector<int32_t> tokens, positions, starts{0}, outputs;
    const size_t first = job.result.vectors.size();
    size_t end = first;
    while (end < job.texts.size() && end - first < most &&
           tokens.size() + job.texts[end].size() <= static_cast<size_t>(options.longest)) {
      const auto& text = job.texts[end++];
      for (size_t i = 0; i < text.size(); ++i) {
        const bool wanted =
            options.pooling == Pooling::mean || i == (options.pooling == Pooling::cls ? 0 : text.size() - 1);
        if (wanted) outputs.push_back(static_cast<int32_t>(tokens.size()));
        tokens.push_back(text[i]);
        positions.push_back(static_cast<int32_t>(i));
      }
      starts.push_back(static_cast<int32_t>(tokens.size()));
    }
    Batch batch{.tokens = tokens, .positions = positions, .starts = starts, .slots = {}, .outputs = outputs};
    batch.prompts = static_cast<int64_t>(end - first);
    const std::span<const float> rows = plan.run(batch).as<float>();
    const auto width = static_cast<size_t>(dimensions);
    size_t row = 0;
    for (size_t text = first; text < end; ++text) {
      std::vector<double> sum(width, 0);
      const size_t count = options.pooling == Pooling::mean ? job.texts[text].size() : 1;
      for (size_t i = 0; i < count; ++i) add(sum, rows.subspan(row++ * width, width));
      job.result.vectors.push_back(unit(sum));
    }
  }

  bool step(size_t most) {
    std::unique_ptr<Job> job;
    {
      const std::lock_guard lock(mutex);
      if (jobs.empty()) return false;
      job = std::move(jobs.front());
      jobs.pop_front();
      stepping = job->id;
    }
    try {
      embed_some(*job, most);
    } catch (const std::exception& e) {
      std::tie(job->result.error, job->result.refused) = told(e);
    }
    {
      const std::lock_guard lock(mutex);
      if (std::exchange(stepping, 0) == 0) return true;
      if (job->result.error.empty() && job->result.vectors.size() < job->texts.size()) {
        jobs.push_back(std::move(job));  // behind those that wait: a large request does not keep small ones
        return true;
      }
    }
    try {
      job->done(job->result);
    } catch (const std::exception& e) {
      warn("embedder: the listener of request {} failed: {}", job->id, printable(e.what()));
    }
    return true;
  }
};

Embedder::Embedder(const Model& model, const EmbedderOptions& options)
    : impl_(std::make_unique<Impl>(model, options)) {}
Embedder::~Embedder() = default;

uint64_t Embedder::submit(std::vector<std::vector<int32_t>> texts, Done done) {
  Impl& i = *impl_;
  if (texts.empty()) throw input_error("input", "at least one text", "none");
  for (const auto& text : texts) {
    if (text.empty() || static_cast<int64_t>(text.size()) > i.options.longest)
      throw input_error("input", fmt::format("texts of 1 to {} tokens", i.options.longest),
                        std::to_string(text.size()));
    for (const int32_t token : text)
      if (token < 0 || token >= i.vocab)
        throw input_error("input", fmt::format("tokens of 0 to {}", i.vocab - 1), std::to_string(token));
  }
  const std::lock_guard lock(i.mutex);
  if (i.jobs.size() >= i.options.waiting)
    throw Busy(fmt::format("{} requests are waiting already", i.jobs.size()));
  i.jobs.push_back(std::make_unique<Job>(Job{++i.last_job, std::move(texts), std::move(done), {}}));
  return i.last_job;
}

void Embedder::cancel(uint64_t request) {
  const std::lock_guard lock(impl_->mutex);
  std::erase_if(impl_->jobs, [&](const auto& job) { return job->id == request; });
  if (impl_->stepping == request) impl_->stepping = 0;
}

bool Embedder::step(size_t most_texts) { return impl_->step(std::max<size_t>(most_texts, 1)); }
int64_t Embedder::dimensions() const { return impl_->dimensions; }
int64_t Embedder::longest() const { return impl_->options.longest; }

}  // namespace lathe
