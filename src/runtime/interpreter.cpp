#include "runtime/interpreter.h"

#include <map>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/attention_work.h"
#include "kernels/routing.h"
#include "kernels/tables.h"
#include "quant/columns.h"
#include "runtime/attention_args.h"
#include "runtime/expert_rows.h"
#include "runtime/gating.h"
#include "runtime/kv_type.h"
#include "runtime/rope_angles.h"
#include "runtime/transposed.h"

namespace lathe {
namespace {

int64_t vocab_of(const Graph& g) {
  for (NodeId id : g.order())
    if (const auto* e = std::get_if<op::Embedding>(&g.node(id).op)) return e->vocab;
  fail("graph: no embedding");
}

}  // namespace

// Every value is a whole f32 tensor; kernels come from the tables, whose last rows are the plain loops.
struct Walker::Impl {
  Impl(const Model& m, uint32_t features, int threads)
      : model_(m),
        graph_(m.graph),
        isa_(features),
        elementwise_(choose_elementwise(features)),
        pool_(threads),
        scratch_(Storage::allocate(kernel_scratch_bytes * static_cast<size_t>(threads))) {}

  void run(const Batch& batch, NodeId id, Values& values, Observer* observer) {
    batch_ = &batch;
    values_ = &values;
    const Node& node = graph_.node(id);
    std::vector<Tensor> inputs;
    for (ValueId v : node.inputs)
      if (v != graph_.tokens()) inputs.push_back(values.at(v));
    if (observer) observer->before(node, inputs);
    for (ValueId v : node.outputs) {
      const Shape shape = {rows(v), graph_.value(v).cols};
      Tensor& value = values[v];  // of an earlier run: fresh pages cost as much as a cheap node
      if (value.shape != shape || value.storage.keep.use_count() != 1)
        value = Tensor::zeros(DType::f32, shape);
    }
    std::visit([&](const auto& op) { compute(op, node); }, node.op);
    if (!observer) return;
    std::vector<Tensor> outputs;
    for (ValueId v : node.outputs) outputs.push_back(values.at(v));
    observer->after(node, outputs);
  }
  void forget() { packed_.clear(); }

 private:
  struct Packed {
    const LinearKernel* kernel = nullptr;
    Weight weight;
    float input_scale = 0;
    Columns columns;
  };

  int64_t rows(ValueId v) const {
    const ValueInfo& info = graph_.value(v);
    if (info.taken == v) return experts_seen(graph_.node(info.producer)).entries();
    if (info.taken >= 0) {  // as many as what it is made of, or as it has where that is gone
      const auto from = values_->find(graph_.node(info.producer).inputs[0]);
      return (from == values_->end() ? values_->at(v) : from->second).shape[0];
    }
    return static_cast<int64_t>(graph_.value(v).rows == Rows::outputs ? batch_->outputs.size()
                                                                      : batch_->tokens.size());
  }
  int64_t cols(ValueId v) const { return graph_.value(v).cols; }
  // Of a take_routed or an add_routed.
  ExpertRows experts_seen(const Node& node) const {
    const auto* take = std::get_if<op::TakeRouted>(&node.op);
    return experts_seen(node.inputs[1], take ? take->expert : std::get<op::AddRouted>(node.op).expert, 1);
  }
  ExpertRows experts_seen(ValueId weights, int64_t first, int64_t experts) const {
    ExpertRows found(rows(weights), experts, experts);
    found.find(values_->at(weights).as<float>().data(), rows(weights), cols(weights), first, experts);
    return found;
  }
  const float* in(const Node& node, size_t i) { return values_->at(node.inputs[i]).as<float>().data(); }
  float* out(const Node& node, size_t i = 0) {
    return values_->at(node.outputs[i]).as_mutable<float>().data();
  }
  std::vector<float> param(const Node& node, size_t i) const {
    return read_all(model_.weights.find(node.params.at(i))->second);
  }
  template <class Run, class Args>
  void parallel(Run kernel, const Args& args) {
    pool_.run([&](int worker, int workers) {
      kernel(args, {worker, workers, scratch_.data + static_cast<size_t>(worker) * kernel_scratch_bytes});
    });
  }
  const Packed& packed(const std::string& name) {
    Packed& p = packed_[name];
    if (p.kernel) return p;
    const Weight& stored = model_.weights.find(name)->second;
    p.columns = columns_of(stored);
    p.kernel = &choose_linear(p.columns.leave(stored.numerics), stored.rows(), stored.cols(), isa_);
    p.input_scale = input_scale(stored);
    const Packing& wanted = packing(p.kernel->packing);
    const bool as_stored = stored.packing == &wanted && p.columns.empty();
    p.weight = as_stored ? stored : repack(stored, wanted, p.columns);
    return p;
  }

  void compute(const op::Embedding&, const Node& node) {
    const Weight& table = model_.weights.find(node.params[0])->second;
    const int64_t width = cols(node.outputs[0]);
    for (size_t r = 0; r < batch_->tokens.size(); ++r)
      read_rows(table, batch_->tokens[r], 1, out(node) + static_cast<int64_t>(r) * width);
  }
  // y = x W^T + bias, x rounded first where the weight's numerics say so.
  void linear(const Node& node, const std::string& param_name, const float* bias, int64_t n, float* y) {
    linear(param_name, in(node, 0), rows(node.outputs[0]), cols(node.inputs[0]), bias, n, y);
  }
  void linear(const std::string& param_name, const float* x, int64_t m, int64_t k, const float* bias,
              int64_t n, float* y) {
    if (m == 0) return;
    const Packed& matrix = packed(param_name);
    const LinearPath& path = matrix.kernel->path(true);
    auto part = [&](size_t i) -> const void* {
      return i < matrix.weight.parts.size() ? matrix.weight.parts[i].storage.data : nullptr;
    };
    const int group = matrix.weight.numerics.group;
    LinearArgs args{.codes = part(0),
                    .scales = part(1),
                    .zeros = part(2),
                    .x = x,
                    .bias = bias,
                    .y = y,
                    .m = m,
                    .n = n,
                    .k = k,
                    .group = group ? group : k,
                    .x_stride = k,
                    .y_stride = n};
    std::vector<float> taken;
    if (const Columns& columns = matrix.columns; !columns.empty()) {
      taken.resize(static_cast<size_t>(m * k));
      parallel(elementwise_.take_columns,
               TakeColumnsArgs{.x = args.x,
                               .from = columns.from.empty() ? nullptr : columns.from.data(),
                               .scales = columns.scales.empty() ? nullptr : columns.scales.data(),
                               .out = taken.data(),
                               .rows = m,
                               .cols = k,
                               .x_stride = k,
                               .out_stride = k});
      args.x = taken.data();
    }
    Storage rows_for_kernel;
    if (path.rows) {
      rows_for_kernel = Storage::allocate(path.rows->bytes(m, k));
      parallel(path.rows->run, PackRowsArgs{.x = args.x,
                                            .m = m,
                                            .k = k,
                                            .x_stride = k,
                                            .out = rows_for_kernel.data,
                                            .scale = matrix.input_scale,
                                            .to = matrix.weight.numerics.activations});
      args.packed_x = rows_for_kernel.data;
    }
    parallel(path.run, args);
  }
  void compute(const op::Linear& op, const Node& node) {
    const std::vector<float> bias = op.bias ? param(node, 1) : std::vector<float>();
    linear(node, node.params[0], op.bias ? bias.data() : nullptr, cols(node.outputs[0]), out(node));
  }
  void compute(const op::MultiLinear& op, const Node& node) {
    const size_t parts = node.outputs.size();
    for (size_t i = 0; i < parts; ++i) {
      const std::vector<float> bias = op.bias ? param(node, parts + i) : std::vector<float>();
      linear(node, node.params[i], op.bias ? bias.data() : nullptr, cols(node.outputs[i]), out(node, i));
    }
  }
  void compute(const op::GatedLinear&, const Node& node) {
    gated(node, 0, 0, {}, in(node, 0), rows(node.outputs[0]), cols(node.inputs[0]), cols(node.outputs[0]),
          out(node));
  }
  // Parameters i and i + 1; their biases are `biases` further on, 0: none.
  void gated(const Node& node, size_t i, size_t biases, const op::SiluMul& activation, const float* x,
             int64_t m, int64_t k, int64_t n, float* y) {
    std::vector<float> up(static_cast<size_t>(m * n));
    for (const size_t matrix : {i, i + 1}) {
      const std::vector<float> bias = biases > 0 ? param(node, matrix + biases) : std::vector<float>();
      linear(node.params[matrix], x, m, k, biases > 0 ? bias.data() : nullptr, n,
             matrix == i ? y : up.data());
    }
    multiply(activation, {.a = y,
                          .b = up.data(),
                          .out = y,
                          .rows = m,
                          .cols = n,
                          .a_stride = n,
                          .b_stride = n,
                          .out_stride = n});
  }
  void multiply(const op::SiluMul& activation, const BinaryArgs& args) {
    pool_.run([&](int worker, int workers) {
      lathe::multiply(elementwise_, activation, args, {worker, workers, nullptr});
    });
  }
  void compute(const op::Route& op, const Node& node) {
    parallel(route, RouteArgs{.logits = in(node, 0),
                              .weights = out(node),
                              .rows = rows(node.outputs[0]),
                              .experts = cols(node.outputs[0]),
                              .top_k = op.top_k,
                              .sigmoid = op.sigmoid,
                              .normalize = op.normalize,
                              .scale = op.scale});
  }
  void take(const ExpertRows& seen, int64_t expert, const float* x, int64_t width, float* y) {
    const Range entries = seen.entries_of(expert);
    parallel(take_rows, TakeRowsArgs{.x = x,
                                     .from = seen.rows().data() + entries.begin,
                                     .out = y,
                                     .rows = entries.end - entries.begin,
                                     .cols = width});
  }
  void combine(const ExpertRows& seen, const Node& node, const float* y) {
    parallel(combine_rows, CombineArgs{.base = in(node, 0),
                                       .y = y,
                                       .scales = seen.weights().data(),
                                       .first = seen.first().data(),
                                       .entries = seen.by_row().data(),
                                       .out = out(node),
                                       .rows = rows(node.outputs[0]),
                                       .cols = cols(node.outputs[0])});
  }
  void compute(const op::TakeRouted&, const Node& node) {
    take(experts_seen(node), 0, in(node, 0), cols(node.outputs[0]), out(node));
  }
  void compute(const op::AddRouted&, const Node& node) { combine(experts_seen(node), node, in(node, 2)); }
  void compute(const op::Experts& op, const Node& node) {
    const size_t matrices = op.matrices(node.params.size()), biases = op.bias ? matrices : 0;
    const auto experts = static_cast<int64_t>(matrices / 3);
    const ExpertRows seen = experts_seen(node.inputs[2], op.first, experts);
    const int64_t k = cols(node.inputs[1]), n = cols(node.outputs[0]);
    std::vector<float> x, between, y(static_cast<size_t>(seen.entries() * n));
    for (int64_t e = 0; e < experts; ++e) {
      const Range entries = seen.entries_of(e);
      const int64_t m = entries.end - entries.begin;
      x.resize(static_cast<size_t>(m * k));
      between.resize(static_cast<size_t>(m * op.width));
      take(seen, e, in(node, 1), k, x.data());
      const auto gate = static_cast<size_t>(3 * e), down = gate + 2;
      gated(node, gate, biases, op.activation, x.data(), m, k, op.width, between.data());
      const std::vector<float> bias = op.bias ? param(node, down + biases) : std::vector<float>();
      linear(node.params[down], between.data(), m, op.width, op.bias ? bias.data() : nullptr, n,
             y.data() + entries.begin * n);
    }
    combine(seen, node, y.data());
  }
  void compute(const op::RmsNorm& norm, const Node& node) {
    const std::vector<float> weight = param(node, 0);
    const int64_t width = cols(node.inputs[0]);
    parallel(elementwise_.rms_norm, RmsNormArgs{.x = in(node, 0),
                                                .weight = weight.data(),
                                                .out = out(node),
                                                .rows = rows(node.inputs[0]),
                                                .cols = width,
                                                .width = norm.width ? norm.width : width,
                                                .x_stride = width,
                                                .out_stride = width,
                                                .eps = norm.eps});
  }
  void compute(const op::AddRmsNorm& norm, const Node& node) {
    const std::vector<float> weight = param(node, 0);
    const int64_t width = cols(node.inputs[0]);
    parallel(elementwise_.add_rms_norm, AddRmsNormArgs{.a = in(node, 0),
                                                       .b = in(node, 1),
                                                       .weight = weight.data(),
                                                       .sum = out(node, 0),
                                                       .out = out(node, 1),
                                                       .rows = rows(node.inputs[0]),
                                                       .cols = width,
                                                       .stride = width,
                                                       .eps = norm.eps});
  }
  void compute(const op::LowRank& low, const Node& node) {
    const int64_t k = cols(node.inputs[1]), n = cols(node.outputs[0]);
    const std::vector<float> a = param(node, 0), b = transposed(param(node, 1), n);
    LowRankArgs args{.x = nullptr,
                     .a = a.data(),
                     .b = b.data(),
                     .base = nullptr,
                     .out = nullptr,
                     .rows = 0,
                     .k = k,
                     .n = n,
                     .rank = low.rank,
                     .x_stride = k,
                     .out_stride = n,
                     .scale = low.scale};
    std::copy_n(in(node, 0), rows(node.outputs[0]) * n, out(node));
    if (graph_.value(node.outputs[0]).taken >= 0) {  // of an expert's layer: a correction, of all its rows
      args.rows = rows(node.outputs[0]);
      args.x = in(node, 1);
      args.base = args.out = out(node);
      return parallel(elementwise_.low_rank, args);
    }
    const bool outputs = graph_.value(node.outputs[0]).rows == Rows::outputs;
    each_sequence(*batch_, outputs, [&](int64_t begin, int64_t end, size_t sequence) {
      if (low.adapter != 0 && low.adapter != batch_->adapter(sequence)) return;
      args.rows = end - begin;
      args.x = in(node, 1) + begin * k;
      args.base = args.out = out(node) + begin * n;
      parallel(elementwise_.low_rank, args);
    });
  }
  void hadamard(int size, ValueId v, const float* x, float* y) {
    const int64_t width = cols(v);
    parallel(elementwise_.hadamard, HadamardArgs{.x = x,
                                                 .out = y,
                                                 .rows = rows(v),
                                                 .cols = width,
                                                 .size = size,
                                                 .x_stride = width,
                                                 .out_stride = width});
  }
  void compute(const op::Hadamard& h, const Node& node) {
    hadamard(h.size, node.inputs[0], in(node, 0), out(node));
  }
  void rotate(const op::Rope& rope, ValueId v, const float* x, float* y) {
    const size_t half = rope.inv_freq.size();
    std::vector<float> cos(batch_->positions.size() * half), sin(cos.size());
    rope_angles(rope, batch_->positions, cos.data(), sin.data());
    const int64_t width = cols(v);
    parallel(elementwise_.rope, RopeArgs{.x = x,
                                         .cos = cos.data(),
                                         .sin = sin.data(),
                                         .out = y,
                                         .rows = rows(v),
                                         .cols = width,
                                         .head_dim = rope.head_dim,
                                         .x_stride = width,
                                         .out_stride = width});
  }
  void compute(const op::Rope& rope, const Node& node) {
    rotate(rope, node.inputs[0], in(node, 0), out(node));
  }
  // Keys (side 0) or values (1) of all rows in the model's cache numerics; empty: floats, as they are.
  std::vector<std::byte> rounded(const AttentionKernel& kernel, const op::Attention& a, const Node& node,
                                 size_t side, const float* x) {
    const KvType type = kv_type_of(a);
    if (type == KvType::f32) return {};
    const std::vector<float> scales =
        a.cache.has_scales() ? param(node, node.params.size() - 2 + side) : std::vector<float>();
    const int64_t bytes = kv_row_bytes(type, a.head_dim), heads = rows(node.inputs[0]) * a.kv_heads;
    std::vector<std::byte> out(static_cast<size_t>(heads * bytes));
    for (int64_t i = 0; i < heads; ++i)
      kernel.write_kv(type, x + i * a.head_dim, a.head_dim, out.data() + i * bytes,
                      kv_scale(scales, i % a.kv_heads));
    return out;
  }
  void attend(const op::Attention& a, const Node& node, const float* q, const float* k) {
    const std::vector<float> sinks = a.sinks ? param(node, 0) : std::vector<float>();
    std::vector<AttentionSequence> sequences;
    for (size_t s = 0; s + 1 < batch_->starts.size(); ++s) {
      const int64_t begin = batch_->starts[s], n = batch_->starts[s + 1] - begin;
      sequences.push_back({begin, n, 0, n, &batch_->starts[s]});  // its keys are one block from its first row
    }
    AttentionArgs args = attention_args(a, sinks.data());
    const KvType type = kv_type_of(a);
    const AttentionKernel& kernel = choose_attention(a.head_dim, type, isa_);
    const std::vector<std::byte> keys = rounded(kernel, a, node, 0, k),
                                 values = rounded(kernel, a, node, 1, in(node, 2));
    args.q = q;
    args.k = keys.empty() ? static_cast<const void*>(k) : keys.data();
    args.v = values.empty() ? static_cast<const void*>(in(node, 2)) : values.data();
    args.out = out(node);
    args.kv = batch_rows(a, type, static_cast<int64_t>(batch_->tokens.size()));
    const AttentionPath& path = kernel.path(true);
    AttentionWork work;
    work.share_out(args, sequences, path, pool_.size());
    parallel(path.run, args);
  }
  void compute(const op::Attention& a, const Node& node) { attend(a, node, in(node, 0), in(node, 1)); }
  void compute(const op::RopeAttention& a, const Node& node) {
    std::vector<float> rotated[2];
    for (size_t i : {0u, 1u}) {
      const ValueId v = node.inputs[i];
      rotated[i].resize(static_cast<size_t>(rows(v) * cols(v)));
      rotate(a.rope, v, in(node, i), rotated[i].data());
      if (a.hadamard > 0) hadamard(a.hadamard, v, rotated[i].data(), rotated[i].data());
    }
    attend(a.attention, node, rotated[0].data(), rotated[1].data());
  }
  void compute(const op::TakeRows&, const Node& node) {
    const int64_t width = cols(node.inputs[0]);
    for (size_t r = 0; r < batch_->outputs.size(); ++r)
      std::copy_n(in(node, 0) + batch_->outputs[r] * width, width,
                  out(node) + static_cast<int64_t>(r) * width);
  }
  BinaryArgs binary(const Node& node) {
    const int64_t width = cols(node.outputs[0]);
    return {.a = in(node, 0),
            .b = node.inputs.size() > 1 ? in(node, 1) : nullptr,
            .out = out(node),
            .rows = rows(node.outputs[0]),
            .cols = width,
            .a_stride = width,
            .b_stride = width,
            .out_stride = width};
  }
  void compute(const op::Silu&, const Node& node) { parallel(elementwise_.silu, binary(node)); }
  void compute(const op::Add&, const Node& node) { parallel(elementwise_.add, binary(node)); }
  void compute(const op::Mul&, const Node& node) { parallel(elementwise_.mul, binary(node)); }
  void compute(const op::SiluMul& op, const Node& node) { multiply(op, binary(node)); }

  const Model& model_;
  const Graph& graph_;
  uint32_t isa_;
  const ElementwiseKernels& elementwise_;
  ThreadPool pool_;
  Storage scratch_;
  std::map<std::string, Packed> packed_;
  const Batch* batch_ = nullptr;
  Values* values_ = nullptr;
};

Walker::Walker(const Model& model, uint32_t isa, int threads)
    : impl_(std::make_unique<Impl>(model, isa, threads)) {}
Walker::Walker(Walker&&) noexcept = default;
Walker::~Walker() = default;

void Walker::run(const Batch& batch, std::span<const NodeId> nodes, Values& values, Observer* observer) {
  for (const NodeId id : nodes) impl_->run(batch, id, values, observer);
}

void Walker::forget() { impl_->forget(); }

Tensor interpret(const Model& model, const Batch& batch, Observer* observer) {
  check(batch, vocab_of(model.graph));
  if (!batch.slots.empty() || !batch.tables.empty())
    fail("interpret: sequences attend within the batch; there is no KV cache here");
  Walker walker(model);
  Walker::Values values;
  for (const NodeId id : model.graph.order()) {
    walker.run(batch, {&id, 1}, values, observer);
    walker.forget();  // one dequantized weight at a time
  }
  return values.at(model.graph.output());
}

}  // namespace lathe
