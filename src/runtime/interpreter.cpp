#include "runtime/interpreter.h"

#include <map>

#include "core/error.h"
#include "kernels/ref/ref.h"
#include "quant/activations.h"
#include "runtime/rope_angles.h"

namespace lathe {
namespace {

// One walk: every value is a whole f32 tensor, every weight is dequantized where it is read.
class Walk {
 public:
  Walk(const Model& model, const Batch& batch) : model_(model), graph_(model.graph), batch_(batch) {}

  Tensor run(Observer* observer) {
    for (NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      std::vector<Tensor> inputs;
      for (ValueId v : node.inputs)
        if (v != graph_.tokens()) inputs.push_back(values_.at(v));
      if (observer) observer->before(node, inputs);
      for (ValueId v : node.outputs) values_[v] = Tensor::zeros(DType::f32, {rows(v), graph_.value(v).cols});
      std::visit([&](const auto& op) { compute(op, node); }, node.op);
      if (observer) {
        std::vector<Tensor> outputs;
        for (ValueId v : node.outputs) outputs.push_back(values_.at(v));
        observer->after(node, outputs);
      }
    }
    return values_.at(graph_.output());
  }

 private:
  int64_t rows(ValueId v) const {
    return static_cast<int64_t>(graph_.value(v).rows == Rows::outputs ? batch_.outputs.size()
                                                                      : batch_.tokens.size());
  }
  int64_t cols(ValueId v) const { return graph_.value(v).cols; }
  const float* in(const Node& node, size_t i) { return values_.at(node.inputs[i]).as<float>().data(); }
  float* out(const Node& node, size_t i = 0) {
    return values_.at(node.outputs[i]).as_mutable<float>().data();
  }
  std::vector<float> param(const Node& node, size_t i) const {
    return read_all(model_.weights.find(node.params.at(i))->second);
  }

  void compute(const op::Embedding&, const Node& node) {
    const Weight& table = model_.weights.find(node.params[0])->second;
    const int64_t width = cols(node.outputs[0]);
    for (size_t r = 0; r < batch_.tokens.size(); ++r)
      read_rows(table, batch_.tokens[r], 1, out(node) + static_cast<int64_t>(r) * width);
  }
  // y = x W^T + bias, x rounded first where the weight's numerics say so.
  void linear(const Node& node, const std::string& param_name, const float* bias, int64_t n, float* y) {
    const Weight& w = model_.weights.find(param_name)->second;
    const std::vector<float> weight = read_all(w);
    const int64_t k = cols(node.inputs[0]), m = rows(node.outputs[0]);
    const float* x = in(node, 0);
    std::vector<float> rounded;
    if (w.numerics.activations == Numerics::Activations::int8_per_row) {
      rounded.resize(static_cast<size_t>(m * k));
      for (int64_t r = 0; r < m; ++r) round_row_to_int8(x + r * k, k, rounded.data() + r * k);
      x = rounded.data();
    }
    linear_ref({.codes = weight.data(),
                .scales = nullptr,
                .zeros = nullptr,
                .x = x,
                .bias = bias,
                .y = y,
                .m = m,
                .n = n,
                .k = k,
                .group = k,
                .x_stride = k,
                .y_stride = n},
               {});
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
    const int64_t n = cols(node.outputs[0]), m = rows(node.outputs[0]);
    std::vector<float> up(static_cast<size_t>(m * n));
    linear(node, node.params[0], nullptr, n, out(node));
    linear(node, node.params[1], nullptr, n, up.data());
    silu_mul_ref({.a = out(node),
                  .b = up.data(),
                  .out = out(node),
                  .rows = m,
                  .cols = n,
                  .a_stride = n,
                  .b_stride = n,
                  .out_stride = n},
                 {});
  }
  void compute(const op::RmsNorm& norm, const Node& node) {
    const std::vector<float> weight = param(node, 0);
    const int64_t width = cols(node.inputs[0]);
    rms_norm_ref({.x = in(node, 0),
                  .weight = weight.data(),
                  .out = out(node),
                  .rows = rows(node.inputs[0]),
                  .cols = width,
                  .width = norm.width ? norm.width : width,
                  .x_stride = width,
                  .out_stride = width,
                  .eps = norm.eps},
                 {});
  }
  void compute(const op::AddRmsNorm& norm, const Node& node) {
    const std::vector<float> weight = param(node, 0);
    const int64_t width = cols(node.inputs[0]);
    add_rms_norm_ref({.a = in(node, 0),
                      .b = in(node, 1),
                      .weight = weight.data(),
                      .sum = out(node, 0),
                      .out = out(node, 1),
                      .rows = rows(node.inputs[0]),
                      .cols = width,
                      .stride = width,
                      .eps = norm.eps},
                     {});
  }
  void rotate(const op::Rope& rope, ValueId v, const float* x, float* y) {
    const size_t half = rope.inv_freq.size();
    std::vector<float> cos(batch_.positions.size() * half), sin(cos.size());
    rope_angles(rope, batch_.positions, cos.data(), sin.data());
    const int64_t width = cols(v);
    rope_ref({.x = x,
              .cos = cos.data(),
              .sin = sin.data(),
              .out = y,
              .rows = rows(v),
              .cols = width,
              .head_dim = rope.head_dim,
              .x_stride = width,
              .out_stride = width},
             {});
  }
  void compute(const op::Rope& rope, const Node& node) {
    rotate(rope, node.inputs[0], in(node, 0), out(node));
  }
  void attend(const op::Attention& a, const Node& node, const float* q, const float* k) {
    const int64_t q_cols = cols(node.inputs[0]), kv_cols = cols(node.inputs[1]);
    for (size_t s = 0; s + 1 < batch_.starts.size(); ++s) {
      const int64_t begin = batch_.starts[s], n = batch_.starts[s + 1] - begin;
      attention_ref({.q = q + begin * q_cols,
                     .k = k + begin * kv_cols,
                     .v = in(node, 2) + begin * kv_cols,
                     .out = out(node) + begin * q_cols,
                     .rows = n,
                     .keys = n,
                     .first = 0,
                     .q_stride = q_cols,
                     .kv_stride = kv_cols,
                     .kv_head_stride = a.head_dim,
                     .out_stride = q_cols,
                     .heads = a.heads,
                     .kv_heads = a.kv_heads,
                     .head_dim = a.head_dim,
                     .window = a.window,
                     .scale = a.scale},
                    {});
    }
  }
  void compute(const op::Attention& a, const Node& node) { attend(a, node, in(node, 0), in(node, 1)); }
  void compute(const op::RopeAttention& a, const Node& node) {
    std::vector<float> rotated[2];
    for (size_t i : {0u, 1u}) {
      const ValueId v = node.inputs[i];
      rotated[i].resize(static_cast<size_t>(rows(v) * cols(v)));
      rotate(a.rope, v, in(node, i), rotated[i].data());
    }
    attend(a.attention, node, rotated[0].data(), rotated[1].data());
  }
  void compute(const op::TakeRows&, const Node& node) {
    const int64_t width = cols(node.inputs[0]);
    for (size_t r = 0; r < batch_.outputs.size(); ++r)
      std::copy_n(in(node, 0) + batch_.outputs[r] * width, width,
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
  void compute(const op::Silu&, const Node& node) { silu_ref(binary(node), {}); }
  void compute(const op::Add&, const Node& node) { add_ref(binary(node), {}); }
  void compute(const op::Mul&, const Node& node) { mul_ref(binary(node), {}); }
  void compute(const op::SiluMul&, const Node& node) { silu_mul_ref(binary(node), {}); }

  const Model& model_;
  const Graph& graph_;
  const Batch& batch_;
  std::map<ValueId, Tensor> values_;
};

int64_t vocab_of(const Graph& g) {
  for (NodeId id : g.order())
    if (const auto* e = std::get_if<op::Embedding>(&g.node(id).op)) return e->vocab;
  fail("graph: no embedding");
}

}  // namespace

Tensor interpret(const Model& model, const Batch& batch, Observer* observer) {
  check(batch, vocab_of(model.graph));
  if (!batch.slots.empty()) fail("interpret: sequences attend within the batch; there is no KV cache here");
  return Walk(model, batch).run(observer);
}

}  // namespace lathe
