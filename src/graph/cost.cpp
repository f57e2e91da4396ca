#include "graph/cost.h"

#include <algorithm>
#include <cmath>

namespace lathe {
namespace {

// Keys that `tokens` queries after `context` earlier keys see, summed over the queries.
double visible_keys(const Workload& w, const op::Attention& a) {
  double sum = 0;
  for (int64_t i = 0; i < w.tokens; ++i) {
    const int64_t before = w.context + i + 1, after = a.causal ? 0 : w.tokens - 1 - i;
    sum += static_cast<double>(a.window > 0 ? std::min<int64_t>(before, a.window) +
                                                  std::min<int64_t>(after, a.window - 1)
                                            : before + after);
  }
  return sum;
}

// Of all rows, where a matrix of weights says which experts see them.
double share_by(const Graph& g, ValueId weights) {
  const NodeId made_by = g.value(weights).producer;
  const auto* route = made_by < 0 ? nullptr : std::get_if<op::Route>(&g.node(made_by).op);
  return route ? static_cast<double>(route->top_k) / static_cast<double>(g.value(weights).cols) : 1;
}

// Of the expert that computes a value; -1: none does.
ValueId weights_of(const Graph& g, ValueId v) {
  const ValueId taken = g.value(v).taken;
  return taken < 0 ? -1 : g.node(g.value(taken).producer).inputs[1];
}

// The probability that any of the rows reaches an expert: its weights are read then.
double touched(double share, double rows) { return 1 - std::pow(1 - share, rows); }

}  // namespace

Cost& Cost::operator+=(const Cost& o) {
  flops += o.flops;
  weight_bytes += o.weight_bytes;
  activation_bytes += o.activation_bytes;
  kv_bytes += o.kv_bytes;
  return *this;
}

double share_of_rows(const Graph& g, ValueId v) {
  const ValueId weights = weights_of(g, v);
  return weights < 0 ? 1 : share_by(g, weights);
}

Cost cost(const Graph& g, const Node& node, const Workload& w,
          const std::function<double(const std::string&)>& bytes_of) {
  auto all_rows = [&](ValueId v) {  // of which an expert sees a share
    const ValueId from = weights_of(g, v);
    return static_cast<double>(g.value(from < 0 ? v : from).rows == Rows::outputs ? w.outputs : w.tokens);
  };
  auto rows_of = [&](ValueId v) { return share_of_rows(g, v) * all_rows(v); };
  auto width = [&](ValueId v) { return static_cast<double>(g.value(v).cols); };
  const ValueId in = node.inputs[0], out = node.outputs[0];
  const double elements = rows_of(out) * width(out);

  Cost c;
  for (ValueId v : node.inputs) c.activation_bytes += 4 * rows_of(v) * width(v);
  for (ValueId v : node.outputs) c.activation_bytes += 4 * rows_of(v) * width(v);
  auto attention = [&](const op::Attention& a) {
    const double keys = visible_keys(w, a);
    c.flops = 4 * keys * a.heads * a.head_dim;  // q k^T and p v
    const int64_t reach =
        a.window > 0 ? std::min<int64_t>(w.context + w.tokens, a.window + w.tokens) : w.context + w.tokens;
    c.kv_bytes = 2.0 * 4 * static_cast<double>(reach) * a.kv_heads * a.head_dim;
  };
  std::visit(overloaded{
                 [&](const op::Embedding& e) {
                   // Only the rows looked up are read.
                   c.weight_bytes = bytes_of(node.params[0]) /
                                    static_cast<double>(std::max<int64_t>(e.vocab, 1)) *
                                    static_cast<double>(w.tokens);
                 },
                 [&](const op::Linear&) {
                   c.flops = 2 * elements * width(in);
                   for (const std::string& p : node.params) c.weight_bytes += bytes_of(p);
                 },
                 [&](const op::MultiLinear&) {
                   for (ValueId v : node.outputs) c.flops += 2 * rows_of(v) * width(v) * width(in);
                   for (const std::string& p : node.params) c.weight_bytes += bytes_of(p);
                 },
                 [&](const op::GatedLinear&) {
                   c.flops = 4 * elements * width(in) + 5 * elements;
                   for (const std::string& p : node.params) c.weight_bytes += bytes_of(p);
                 },
                 [&](const op::Route&) { c.flops = 5 * elements; },
                 [&](const op::TakeRouted&) {},
                 [&](const op::AddRouted&) { c.flops = 2 * rows_of(node.inputs[2]) * width(node.inputs[2]); },
                 [&](const op::Experts& e) {
                   const double all = all_rows(out), share = share_by(g, node.inputs[2]);
                   for (const std::string& p : node.params) c.weight_bytes += bytes_of(p);
                   c.weight_bytes *= touched(share, all);
                   c.flops = static_cast<double>(node.params.size() / e.params_each()) * share * all *
                             (6 * width(out) * static_cast<double>(e.width) + 2 * width(out));
                 },
                 [&](const op::LowRank& low) {
                   c.flops = 2 * low.rank * (rows_of(out) * width(node.inputs[1]) + elements);
                   for (const std::string& p : node.params) c.weight_bytes += bytes_of(p);
                 },
                 [&](const op::Hadamard& h) { c.flops = elements * (1 + std::log2(h.size)); },
                 [&](const op::RmsNorm&) { c.flops = 4 * elements; },
                 [&](const op::AddRmsNorm&) { c.flops = 5 * elements; },
                 [&](const op::Rope&) { c.flops = 3 * elements; },
                 [&](const op::Silu&) { c.flops = 4 * elements; },
                 [&](const op::SiluMul&) { c.flops = 5 * elements; },
                 [&](const op::Add&) { c.flops = elements; },
                 [&](const op::Mul&) { c.flops = elements; },
                 [&](const op::TakeRows&) {},
                 [&](const op::Attention& a) { attention(a); },
                 [&](const op::RopeAttention& a) {
                   attention(a.attention);
                   const double rotated = elements + rows_of(node.inputs[1]) * width(node.inputs[1]);
                   c.flops += (3 + (a.hadamard > 0 ? 1 + std::log2(a.hadamard) : 0)) * rotated;
                 },
             },
             node.op);
  if (g.value(in).rows == Rows::routed) c.weight_bytes *= touched(share_of_rows(g, in), all_rows(in));
  return c;
}

Cost total_cost(const Graph& g, const Workload& w,
                const std::function<double(const std::string&)>& bytes_of) {
  Cost sum;
  for (NodeId id : g.order()) sum += cost(g, g.node(id), w, bytes_of);
  return sum;
}

}  // namespace lathe
