#include "graph/builder.h"

#include "core/error.h"

namespace lathe {

Scope::~Scope() {
  builder_->path_.resize(length_);
  builder_->block_ = block_;
}

Scope Builder::scope(std::string_view segment) {
  const size_t length = path_.size();
  if (!path_.empty()) path_ += '.';
  path_ += segment;
  return Scope(this, length, block_);
}

Scope Builder::block(std::string_view list, int index) {
  const size_t length = path_.size();
  if (!path_.empty()) path_ += '.';
  path_ += fmt::format("{}.{}", list, index);
  const int outer = block_;
  block_ = index;
  return Scope(this, length, outer);
}

std::string Builder::path(std::string_view name) const {
  return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
}

std::string Builder::unique(std::string_view name) {
  const std::string base = path(name);
  std::string candidate = base;
  for (int i = 2; !given_.insert(candidate).second; ++i) candidate = fmt::format("{}.{}", base, i);
  return candidate;
}

Value Builder::record(Op op, std::string name, std::vector<ValueId> inputs, std::vector<std::string> params,
                      int64_t cols) {
  Node node;
  node.op = std::move(op);
  node.name = std::move(name);
  node.inputs = std::move(inputs);
  node.params = std::move(params);
  node.block = block_;
  const int64_t widths[] = {cols};
  return {this, graph_.insert(-1, std::move(node), widths)};
}

Value Builder::embedding(std::string_view name, Value ids, int64_t vocab, int64_t cols) {
  const std::string p = path(name);
  return record(op::Embedding{vocab}, p, {ids.id}, {p + ".weight"}, cols);
}

Value Builder::linear(std::string_view name, Value x, int64_t cols, bool bias) {
  const std::string p = path(name);
  std::vector<std::string> params{p + ".weight"};
  if (bias) params.push_back(p + ".bias");
  return record(op::Linear{bias}, p, {x.id}, std::move(params), cols);
}

Value Builder::linear_tied(std::string_view embedding, Value x, int64_t vocab) {
  return record(op::Linear{}, path("lm_head"), {x.id}, {path(embedding) + ".weight"}, vocab);
}

Value Builder::rms_norm(std::string_view name, Value x, const op::RmsNorm& attributes) {
  const std::string p = path(name);
  const int64_t cols = graph_.value(x.id).cols;
  if (attributes.width && cols % attributes.width)
    fail("{}: {} columns in runs of {}", p, cols, attributes.width);
  return record(attributes, p, {x.id}, {p + ".weight"}, cols);
}

Value Builder::rope(std::string_view name, Value x, const op::Rope& attributes) {
  return record(attributes, path(name), {x.id}, {}, graph_.value(x.id).cols);
}

Value Builder::attention(Value q, Value k, Value v, const op::Attention& attributes) {
  std::vector<std::string> params;
  if (attributes.sinks) params.push_back(path("sinks"));
  return record(attributes, unique("attention"), {q.id, k.id, v.id}, std::move(params),
                graph_.value(q.id).cols);
}

Value Builder::route(std::string_view name, Value logits, const op::Route& attributes) {
  const int64_t experts = graph_.value(logits.id).cols;
  if (attributes.top_k < 1 || attributes.top_k > experts)
    fail("{}: top {} of {} experts", path(name), attributes.top_k, experts);
  return record(attributes, path(name), {logits.id}, {}, experts);
}

Value Builder::take_routed(Value x, Value weights, int expert) {
  return record(op::TakeRouted{expert}, unique("take_routed"), {x.id, weights.id}, {},
                graph_.value(x.id).cols);
}

Value Builder::add_routed(Value base, Value weights, int expert, Value y) {
  return record(op::AddRouted{expert}, unique("add_routed"), {base.id, weights.id, y.id}, {},
                graph_.value(base.id).cols);
}

Value Builder::silu(Value x) {
  return record(op::Silu{}, unique("silu"), {x.id}, {}, graph_.value(x.id).cols);
}

Value Builder::silu_mul(Value a, Value b, const op::SiluMul& attributes) {
  return record(attributes, unique("silu_mul"), {a.id, b.id}, {}, graph_.value(a.id).cols);
}

Value Builder::take_rows(Value x) {
  return record(op::TakeRows{}, unique("take_rows"), {x.id}, {}, graph_.value(x.id).cols);
}

Value Builder::add(Value a, Value b) {
  return record(op::Add{}, unique("add"), {a.id, b.id}, {}, graph_.value(a.id).cols);
}

Value Builder::mul(Value a, Value b) {
  return record(op::Mul{}, unique("mul"), {a.id, b.id}, {}, graph_.value(a.id).cols);
}

Graph Builder::finish(Value logits) && {
  graph_.set_output(logits.id);
  return std::move(graph_);
}

}  // namespace lathe
