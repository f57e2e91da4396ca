// Where every value and every packed x lies in the arena.
#include <algorithm>

#include "core/error.h"
#include "runtime/plan_impl.h"

namespace lathe {

// When a node's steps run, as lifetimes count: several nodes in a chain of row steps (plan_rows.cpp) run at
// one time, since a worker may be at the last of them while another is at the first.
struct Moment {
  int rows;  // of taking and packing rows for linear layers
  int rest;
};
template <class O, class... Any>
constexpr bool is_any = (std::is_same_v<O, Any> || ...);

Plan::Impl::RowSteps Plan::Impl::row_steps(const Op& op) {
  return std::visit(
      []<class O>(const O&) -> RowSteps {
        if constexpr (is_any<O, op::RmsNorm, op::AddRmsNorm, op::Hadamard, op::Rope, op::Silu, op::Add,
                             op::Mul, op::SiluMul>) {
          return {.begins = true, .ends = true};
        } else if constexpr (is_any<O, op::Attention, op::RopeAttention>) {
          return {.begins = true};
        } else if constexpr (is_any<O, op::Linear, op::MultiLinear>) {
          return {.packs = true};
        } else if constexpr (is_any<O, op::GatedLinear>) {
          return {.packs = true, .ends = true};
        } else {
          static_assert(is_any<O, op::Embedding, op::TakeRows, op::Route, op::TakeRouted, op::AddRouted,
                               op::Experts, op::LowRank>,
                        "where does building this op call add_row_step()?");
          return {};
        }
      },
      op);
}

void Plan::Impl::check_row_steps(const Node& node, size_t steps_before, size_t links_before) const {
  const RowSteps known = row_steps(node.op);
  const bool joined = steps_before > 0 && steps[steps_before - 1].chain.size() > links_before,
             ended = (joined || steps.size() > steps_before) && !steps.back().chain.empty();
  if ((joined && !known.packs && !known.begins) || (ended && !known.ends))
    fail("{}: {} has row steps where its buffers do not know of any", node.name, op_name(node.op));
}

static std::vector<Moment> moments_of(const Graph& graph) {
  std::vector<Moment> moments;
  bool after_rows = false;  // the last step goes by rows
  for (NodeId id : graph.order()) {
    const int last = moments.empty() ? -1 : moments.back().rest;
    const Plan::Impl::RowSteps row_steps = Plan::Impl::row_steps(graph.node(id).op);
    const int rest = row_steps.begins && after_rows ? last : last + 1;
    moments.push_back({after_rows ? last : rest, rest});
    after_rows = row_steps.ends;
  }
  return moments;
}

void Plan::Impl::plan_packed_rows() {
  const std::vector<Moment> moments = moments_of(graph);
  size_t index = 0;
  for (NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    const auto [first, step] = moments[index++];
    for (Phase phase : phases)
      if (const RowPacking* packing = packed_output(node, phase)) {  // written here, not packed by a reader
        const ValueId y = node.outputs[0];
        packed_rows[{y, phase, packing, 0, Activations::as_they_are, -1}] = {
            id, {step, step, packing->bytes(most_rows(y), cols(y))}, nullptr, true};
      }
    const bool packs_its_own = std::holds_alternative<op::Experts>(node.op);
    for (size_t i = 0; i < (packs_its_own ? 0 : matrices_of(node)); ++i)
      for (Phase phase : phases) {
        const Packed& matrix = packed.at(node.params[i]);
        const RowPacking* packing = matrix.path(phase).rows;
        const ValueId x = node.inputs[0];
        const int64_t most = most_rows(x);
        bool reads_x = !packing;
        if (packing) {
          auto [it, fresh] = packed_rows.try_emplace(
              {x, phase, packing, matrix.input_scale, matrix.weight.numerics.activations, matrix.columns});
          if (fresh) it->second = {id, {first, step, packing->bytes(most, cols(x))}, nullptr, false};
          it->second.lifetime.last = step;
          reads_x = fresh;
        }
        if (matrix.columns < 0 || !reads_x) continue;
        auto [it, fresh] = taken_rows.try_emplace({x, matrix.columns});
        if (fresh) it->second.lifetime = {first, step, static_cast<size_t>(most * cols(x)) * sizeof(float)};
        it->second.lifetime.last = step;
      }
  }
}

// Of attention: rotated queries and keys, then keys and values as they are rounded, which is less than as
// floats, open keys before them.
std::vector<size_t> Plan::Impl::bytes_of_locals(const Node& node) {
  const auto like = [&](ValueId v) { return static_cast<size_t>(most_rows(v) * cols(v)) * sizeof(float); };
  if (std::holds_alternative<op::GatedLinear>(node.op)) return {like(node.outputs[0])};
  if (const auto* experts = std::get_if<op::Experts>(&node.op)) return bytes_of_experts(node, *experts);
  std::vector<size_t> bytes;
  const auto* fused = std::get_if<op::RopeAttention>(&node.op);
  if (fused) bytes = {like(node.inputs[0]), like(node.inputs[1])};
  const op::Attention* attention = fused ? &fused->attention : std::get_if<op::Attention>(&node.op);
  if (!attention) return bytes;
  const KvType type = kv_type_of(*attention, target.kv);
  if (keys_in_spans(type)) bytes.push_back(like(node.inputs[1]) / 2);  // in bf16
  if (type != KvType::f32) bytes.insert(bytes.end(), {like(node.inputs[1]), like(node.inputs[2])});
  return bytes;
}

void Plan::Impl::place_buffers() {
  std::vector<Lifetime> lifetimes;
  std::vector<ValueId> values;
  std::map<ValueId, size_t> index;
  std::vector<std::pair<NodeId, Lifetime>> own;
  const std::vector<Moment> moments = moments_of(graph);
  size_t at = 0;
  for (NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    const int step = moments[at++].rest;
    for (ValueId v : node.inputs)
      if (v != graph.tokens()) lifetimes[index.at(v)].last = step;
    for (ValueId v : node.outputs) {
      index[v] = values.size();
      values.push_back(v);
      lifetimes.push_back({step, step, static_cast<size_t>(most_rows(v) * cols(v)) * sizeof(float)});
    }
    for (const size_t bytes : bytes_of_locals(node)) own.emplace_back(id, Lifetime{step, step, bytes});
  }
  lifetimes[index.at(graph.output())].last = moments.back().rest + 1;
  for (auto& [key, rows] : packed_rows) lifetimes.push_back(rows.lifetime);
  for (auto& [key, rows] : taken_rows) lifetimes.push_back(rows.lifetime);
  for (auto& [node, lifetime] : own) lifetimes.push_back(lifetime);
  const Placement placement = place(lifetimes);
  arena = Storage::allocate(placement.bytes);
  size_t next = values.size();
  for (auto& [key, rows] : packed_rows) rows.data = arena.data + placement.offsets[next++];
  for (auto& [key, rows] : taken_rows)
    rows.data = reinterpret_cast<float*>(arena.data + placement.offsets[next++]);
  for (auto& [node, lifetime] : own)
    locals[node].push_back(reinterpret_cast<float*>(arena.data + placement.offsets[next++]));
  for (size_t i = 0; i < values.size(); ++i)
    buffers[values[i]] = reinterpret_cast<float*>(arena.data + placement.offsets[i]);
}

}  // namespace lathe
