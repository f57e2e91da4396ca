// Steps of mixtures of experts. Those that a rewrite fused run side by side: every worker has its part of
// each expert's matrices and waits for the others only between gate and up, and down. What is not fused runs
// one layer of one expert after the other.
#include <algorithm>

#include "core/error.h"
#include "kernels/routing.h"
#include "runtime/gating.h"
#include "runtime/plan_impl.h"

namespace lathe {
namespace {

Plan::Choice plain(std::string_view name) {
  const std::string kernel(name);
  return {.node = {}, .kernel = kernel, .packing = "f32", .prompts = kernel, .decode = kernel};
}

}  // namespace

void Plan::Impl::build_route(const Node& node, const op::Route& op) {
  chose(node, plain("route"));
  const ValueId weights = node.outputs[0];
  RouteArgs args{.logits = buffer(node.inputs[0]),
                 .weights = buffer(weights),
                 .rows = 0,
                 .experts = cols(weights),
                 .top_k = op.top_k,
                 .sigmoid = op.sigmoid,
                 .normalize = op.normalize,
                 .scale = op.scale};
  add_step([this, args, weights](const Batch& b) mutable {
    args.rows = rows(weights, b);
    elementwise(args.rows * args.experts, [&](const Share& share) { route(args, share); });
  });
}

void Plan::Impl::build_take_routed(const Node& node, const op::TakeRouted& op) {
  chose(node, plain("copy"));
  const ValueId weights = node.inputs[1], y = node.outputs[0];
  TakeRowsArgs args{
      .x = buffer(node.inputs[0]), .from = nullptr, .out = buffer(y), .rows = 0, .cols = cols(y)};
  ExpertRows& seen = experts_seen.emplace(y, ExpertRows(most_rows(weights), 1, 1)).first->second;
  add_step([this, args, weights, expert = op.expert, &seen](const Batch& b) mutable {
    seen.find(buffer(weights), rows(weights, b), cols(weights), expert, 1);
    args.from = seen.rows().data();
    args.rows = seen.entries();
    elementwise(args.rows * args.cols, [&](const Share& share) { take_rows(args, share); });
  });
}

void Plan::Impl::build_add_routed(const Node& node, const op::AddRouted& op) {
  chose(node, plain("sum"));
  const ValueId taken = graph.value(node.inputs[2]).taken, sum = node.outputs[0];
  const Node* take = taken < 0 ? nullptr : &graph.node(graph.value(taken).producer);
  if (!take || take->inputs[1] != node.inputs[1] || std::get<op::TakeRouted>(take->op).expert != op.expert)
    fail("{}: rows that are not those of expert {}", node.name, op.expert);
  CombineArgs args{.base = buffer(node.inputs[0]),
                   .y = buffer(node.inputs[2]),
                   .scales = nullptr,
                   .first = nullptr,
                   .entries = nullptr,
                   .out = buffer(sum),
                   .rows = 0,
                   .cols = cols(sum)};
  add_step([this, args, sum, &seen = experts_seen.at(taken)](const Batch& b) mutable {
    args.scales = seen.weights().data();
    args.first = seen.first().data();
    args.entries = seen.by_row().data();
    args.rows = rows(sum, b);
    elementwise(args.rows * args.cols, [&](const Share& share) { combine_rows(args, share); });
  });
}

namespace {

constexpr size_t alignment = 64;
size_t aligned(size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

constexpr size_t roles = 3;  // gate, up, down

// Kernels pad the rows that they pack: `lists` of them, `rows` in all, take no more than this.
size_t packed_lists_bytes(const RowPacking& packing, int64_t lists, int64_t rows, int64_t cols) {
  return aligned(packing.bytes(rows, cols)) + static_cast<size_t>(lists) * aligned(packing.bytes(1, cols));
}

}  // namespace

class Plan::Impl::ExpertsStep {
 public:
  ExpertsStep(Impl& plan, const Node& node, const op::Experts& op)
      : plan_(plan),
        weights_(node.inputs[2]),
        sum_(node.outputs[0]),
        op_(op),
        experts_(static_cast<int64_t>(matrices_of(node) / roles)),
        in_(plan.cols(node.inputs[1])),
        out_(plan.cols(sum_)),
        most_rows_(plan.most_rows(sum_)),
        most_entries_(most_rows_ * op.top_k),
        most_lists_(std::min(most_entries_, 2 * experts_)),
        seen_(most_rows_, op.top_k, experts_) {
    for (size_t i = 0; i < node.params.size(); ++i)
      if (i < matrices_of(node))
        matrices_.push_back(&plan.packed.at(node.params[i]));
      else
        biases_.push_back(plan.vectors.at(node.params[i]).data());
    up_apart_ = any([&](int64_t e, Phase phase) { return !same_rows(e, phase); });
    lists_.reserve(static_cast<size_t>(most_lists_));
  }

  // Bytes of the buffers that use() wants.
  std::vector<size_t> buffers() const {
    const auto floats = [](int64_t n) { return static_cast<size_t>(n) * sizeof(float); };
    std::vector<size_t> bytes = {floats(most_entries_ * std::max(in_, out_)),
                                 floats(most_entries_ * op_.width),
                                 multiplies_apart() ? floats(most_entries_ * op_.width) : 0};
    for (size_t role = 0; role < roles; ++role) {
      bytes.push_back(takes_columns(role) ? floats(most_entries_ * cols(role)) : 0);
      bytes.push_back(packed_bytes(role));
    }
    return bytes;
  }
  void use(const Node& node, std::vector<float*> buffers) {
    const std::vector<size_t> bytes = this->buffers();
    for (size_t i = 0; i < bytes.size(); ++i)
      if (bytes[i] == 0) buffers[i] = nullptr;
    x_ = plan_.buffer(node.inputs[1]);
    rows_ = buffers[0];
    between_ = buffers[1];
    up_ = buffers[2];
    for (size_t role = 0; role < roles; ++role) {
      taken_[role] = buffers[3 + 2 * role];
      packed_[role] = reinterpret_cast<std::byte*>(buffers[4 + 2 * role]);
    }
    base_ = plan_.buffer(node.inputs[0]);
    result_ = plan_.buffer(sum_);
  }

  void run(const Batch& b, const ElementwiseKernels& kernels) {
    const int64_t rows = plan_.rows(sum_, b);
    seen_.find(plan_.buffer(weights_), rows, plan_.cols(weights_), op_.first, experts_);
    make_lists(plan_.rows_of(sum_, Phase::prefill, b).end);
    if (!lists_.empty()) compute(kernels);
    combine(rows);
  }

 private:
  void compute(const ElementwiseKernels& kernels) {
    gather();
    prepare(0, rows_, kernels);
    if (up_apart_) prepare(1, rows_, kernels);
    gate_and_up(kernels);
    prepare(2, between_, kernels);
    plan_.parallel([&](const Share& share) {
      for (const List& list : lists_) path(list, 2).run(arguments(list, 2, between_, rows_), share);
    });
  }

  // The rows of one expert that belong to one phase.
  struct List {
    int64_t expert;
    Phase phase;
    Range entries;
    size_t packed[roles] = {};  // where its rows begin
    int64_t rows() const { return entries.end - entries.begin; }
  };

  int64_t cols(size_t role) const { return role == 2 ? op_.width : in_; }
  const Packed& matrix(int64_t expert, size_t role) const {
    return *matrices_[static_cast<size_t>(expert) * roles + role];
  }
  const LinearPath& path(const List& list, size_t role) const {
    return matrix(list.expert, role).path(list.phase);
  }
  // Gate, up and their product in one kernel, which has no biases and no limit.
  bool gated(int64_t expert, Phase phase) const {
    return !op_.bias && op_.activation.limit == 0 && runs_gated(matrix(expert, 0), matrix(expert, 1), phase);
  }
  template <class Test>
  bool any(Test test) const {
    for (int64_t e = 0; e < experts_; ++e)
      for (Phase phase : phases)
        if (test(e, phase)) return true;
    return false;
  }
  // Gate and up mostly want their rows alike.
  bool same_rows(int64_t e, Phase phase) const {
    const Packed &gate = matrix(e, 0), &up = matrix(e, 1);
    return gate.path(phase).rows == up.path(phase).rows && gate.input_scale == up.input_scale &&
           gate.weight.numerics.activations == up.weight.numerics.activations && gate.columns == up.columns;
  }
  bool multiplies_apart() const {
    return any([&](int64_t e, Phase phase) { return !gated(e, phase); });
  }
  bool uses(size_t role) const { return role != 1 || up_apart_; }
  bool takes_columns(size_t role) const {
    return uses(role) && any([&](int64_t e, Phase) { return matrix(e, role).columns >= 0; });
  }
  size_t packed_bytes(size_t role) const {
    size_t most = 0;
    for (int64_t e = 0; uses(role) && e < experts_; ++e)
      for (Phase phase : phases)
        if (const RowPacking* rows = matrix(e, role).path(phase).rows)
          most = std::max(most, packed_lists_bytes(*rows, most_lists_, most_entries_, cols(role)));
    return most;
  }

  void make_lists(int64_t first_decoding) {
    lists_.clear();
    size_t at[roles] = {};
    for (int64_t e = 0; e < experts_; ++e) {
      const Range all = seen_.entries_of(e), prompts = seen_.entries_below(e, first_decoding);
      for (const auto& [phase, entries] :
           {std::pair{Phase::prefill, prompts}, {Phase::decode, Range{prompts.end, all.end}}}) {
        if (entries.begin == entries.end) continue;
        List list{e, phase, entries};
        for (size_t role = 0; role < roles; ++role) {
          list.packed[role] = at[role];
          if (const RowPacking* rows = matrix(e, role).path(phase).rows; rows && uses(role))
            at[role] += aligned(rows->bytes(list.rows(), cols(role)));
        }
        lists_.push_back(list);
      }
    }
  }

  void gather() {
    const TakeRowsArgs args{
        .x = x_, .from = seen_.rows().data(), .out = rows_, .rows = seen_.entries(), .cols = in_};
    plan_.elementwise(args.rows * args.cols, [&](const Share& share) { take_rows(args, share); });
  }

  // x of all lists as the matrices of a role want it: columns taken, then rows packed.
  void prepare(size_t role, const float* x, const ElementwiseKernels& kernels) {
    const int64_t k = cols(role), all = seen_.entries() * k;
    if (taken_[role])
      plan_.elementwise(all, [&](const Share& share) {
        for (const List& list : lists_) {
          const Packed& m = matrix(list.expert, role);
          if (m.columns < 0) continue;
          const Columns& c = plan_.columns_of_x(m);
          kernels.take_columns({.x = x + list.entries.begin * k,
                                .from = c.from.empty() ? nullptr : c.from.data(),
                                .scales = c.scales.empty() ? nullptr : c.scales.data(),
                                .out = taken_[role] + list.entries.begin * k,
                                .rows = list.rows(),
                                .cols = k,
                                .x_stride = k,
                                .out_stride = k},
                               share);
        }
      });
    if (!packed_[role]) return;
    plan_.elementwise(all, [&](const Share& share) {
      for (const List& list : lists_) {
        const RowPacking* rows = path(list, role).rows;
        if (!rows) continue;
        const Packed& m = matrix(list.expert, role);
        rows->run({.x = (m.columns < 0 ? x : taken_[role]) + list.entries.begin * k,
                   .m = list.rows(),
                   .k = k,
                   .x_stride = k,
                   .out = packed_[role] + list.packed[role],
                   .scale = m.input_scale,
                   .to = m.weight.numerics.activations},
                  share);
      }
    });
  }

  LinearArgs arguments(const List& list, size_t role, const float* x, float* y) const {
    const Packed& m = matrix(list.expert, role);
    const size_t from = uses(role) ? role : 0;
    const int64_t k = cols(role), n = role == 2 ? out_ : op_.width;
    const int group = m.weight.numerics.group;
    LinearArgs args{.codes = nullptr,
                    .scales = nullptr,
                    .zeros = nullptr,
                    .x = (m.columns < 0 ? x : taken_[from]) + list.entries.begin * k,
                    .bias = op_.bias ? biases_[static_cast<size_t>(list.expert) * roles + role] : nullptr,
                    .y = y + list.entries.begin * n,
                    .m = list.rows(),
                    .n = n,
                    .k = k,
                    .group = group ? group : k,
                    .x_stride = k,
                    .y_stride = n};
    if (path(list, role).rows) args.packed_x = packed_[from] + list.packed[from];
    m.bind(args);
    return args;
  }

  void gate_and_up(const ElementwiseKernels& kernels) {
    plan_.parallel([&](const Share& share) {
      for (const List& list : lists_) {
        GatedArgs args{arguments(list, 0, rows_, between_), arguments(list, 1, rows_, between_)};
        if (gated(list.expert, list.phase)) {
          path(list, 0).gated(args, share);
          continue;
        }
        args.up.y = up_ + list.entries.begin * op_.width;
        path(list, 0).run(args.gate, share);
        path(list, 1).run(args.up, share);
      }
    });
    if (!up_) return;
    plan_.elementwise(seen_.entries() * op_.width, [&](const Share& share) {
      for (const List& list : lists_) {
        if (gated(list.expert, list.phase)) continue;
        float* y = between_ + list.entries.begin * op_.width;
        multiply(kernels, op_.activation,
                 {.a = y,
                  .b = up_ + list.entries.begin * op_.width,
                  .out = y,
                  .rows = list.rows(),
                  .cols = op_.width,
                  .a_stride = op_.width,
                  .b_stride = op_.width,
                  .out_stride = op_.width},
                 share);
      }
    });
  }

  void combine(int64_t rows) {
    const CombineArgs args{.base = base_,
                           .y = rows_,
                           .scales = seen_.weights().data(),
                           .first = seen_.first().data(),
                           .entries = seen_.by_row().data(),
                           .out = result_,
                           .rows = rows,
                           .cols = out_};
    plan_.elementwise(rows * out_, [&](const Share& share) { combine_rows(args, share); });
  }

  Impl& plan_;
  ValueId weights_, sum_;
  op::Experts op_;
  int64_t experts_, in_, out_, most_rows_, most_entries_, most_lists_;
  ExpertRows seen_;
  std::vector<const Packed*> matrices_;
  std::vector<const float*> biases_;  // of each matrix, where there are any
  bool up_apart_ = false;             // some up wants its rows otherwise than its gate
  std::vector<List> lists_;
  const float *x_ = nullptr, *base_ = nullptr;
  float* rows_ = nullptr;     // of each entry: x, later what down makes of it
  float* between_ = nullptr;  // of each entry: what down reads
  float* up_ = nullptr;       // where gate and up do not run as one
  float* taken_[roles] = {};
  std::byte* packed_[roles] = {};
  float* result_ = nullptr;
};

std::vector<size_t> Plan::Impl::bytes_of_experts(const Node& node, const op::Experts& op) {
  return ExpertsStep(*this, node, op).buffers();
}

void Plan::Impl::build_experts(const Node& node, const op::Experts& op, const ElementwiseKernels& kernels) {
  for (size_t i = 0; i < matrices_of(node); ++i) chose(node, node.params[i]);
  auto step = std::make_shared<ExpertsStep>(*this, node, op);
  step->use(node, locals.at(node.id));
  add_step([step, &kernels](const Batch& b) { step->run(b, kernels); });
}

}  // namespace lathe
