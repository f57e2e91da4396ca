#include "export/onnx.h"

#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "export/onnx_weights.h"
#include "io/writer.h"
#include "models/kv_cache.h"

namespace lathe {
namespace {

struct TypeRow {
  std::string_view name;
  DType type;
};
constexpr TypeRow types[] = {{"f32", DType::f32}, {"f16", DType::f16}, {"bf16", DType::bf16}};

const std::string batch = "batch_size", sequence = "sequence_length", past = "past_sequence_length",
                  total = "total_sequence_length";

// One overload per op: a missing one does not compile. Activations are [rows, cols] here too, rows being
// batch * sequence; only attention knows better.
class Exporter {
 public:
  Exporter(const Model& model, const Checkpoint& from, const DType* dense, const fs::path& directory)
      : model_(model), from_(from), dense_(dense), out_(directory), progress_("writing", bytes_of(model)) {}

  OnnxSummary run() {
    out_.input("input_ids", OnnxType::i64, {batch, sequence});
    out_.input("attention_mask", OnnxType::i64, {batch, total});
    out_.input("position_ids", OnnxType::i64, {batch, sequence});
    values_[model_.graph.tokens()] = rows_of("input_ids");
    const ValueId logits = model_.graph.output();
    out_.output("logits", OnnxType::f32, {batch, sequence, model_.graph.value(logits).cols});
    for (const NodeId id : model_.graph.order()) {
      const Node& node = model_.graph.node(id);
      out_.scope(scope_ = node.name);
      values_[node.outputs[0]] = std::visit([&](const auto& op) { return write(op, node); }, node.op);
    }
    out_.scope(scope_ = "");
    out_.add({.op = "Reshape",
              .inputs = {values_.at(logits), shape({model_.graph.value(logits).cols})},
              .output = "logits"});
    warn_of_dequantized();
    summary_.bytes = out_.finish("decoder", "");
    return summary_;
  }

 private:
  static int64_t bytes_of(const Model& model) { return static_cast<int64_t>(model.bytes()); }

  std::string in(const Node& node, size_t i) const { return values_.at(node.inputs[i]); }
  std::string reshape(const std::string& x, const std::vector<int64_t>& to) {
    return out_.add("Reshape", {x, out_.numbers(to)});
  }
  std::string rows_of(const std::string& x) { return reshape(x, {-1}); }
  std::string transpose(const std::string& x, std::vector<int64_t> order) {
    return out_.add({.op = "Transpose", .inputs = {x}, .attributes = {{"perm", std::move(order)}}});
  }
  std::string concat(std::vector<std::string> parts, int64_t axis, const std::string& name = "") {
    return out_.add(
        {.op = "Concat", .inputs = std::move(parts), .attributes = {{"axis", axis}}, .output = name});
  }
  std::string slice(const std::string& x, int64_t begin, int64_t end, int64_t axis) {
    return out_.add("Slice", {x, out_.numbers({begin}), out_.numbers({end}), out_.numbers({axis})});
  }
  std::string cast(const std::string& x, OnnxType to) {
    return out_.add({.op = "Cast", .inputs = {x}, .attributes = {{"to", static_cast<int64_t>(to)}}});
  }

  // What many nodes read is written for the first of them, outside of any module.
  std::string once(const std::string& key, const std::string& scope,
                   const std::function<std::string()>& make) {
    if (const auto found = shared_.find(key); found != shared_.end()) return found->second;
    out_.scope(scope);
    std::string made = make();
    out_.scope(scope_);
    return shared_[key] = std::move(made);
  }

  // [batch, sequence, then these]
  std::string shape(const std::vector<int64_t>& rest) {
    return concat({once("shape", "", [&] { return out_.add("Shape", {"input_ids"}); }), out_.numbers(rest)},
                  0);
  }

  // --- Parameters

  std::string vector(const std::string& param) {
    if (!vectors_.insert(param).second) return param;
    const Weight& w = model_.weights.at(param);
    out_.tensor(param, OnnxType::f32, {w.cols()}, std::as_bytes(std::span<const float>(read_all(w))));
    done(param, w);
    return param;
  }

  const OnnxWeight& matrix(const std::string& param) {
    if (const auto found = written_.find(param); found != written_.end()) return found->second;
    const Weight& w = model_.weights.at(param);
    const OnnxWeight as = write_onnx_weight(out_, param, w, dense_);
    ++summary_.forms[std::string(as.form->name)];
    if (as.form == &onnx_forms().back()) ++dequantized_[to_string(w.numerics)];
    done(param, w);
    return written_[param] = as;
  }

  void done(const std::string& param, const Weight& w) {
    progress_.advance(static_cast<int64_t>(w.bytes()), param);
    if (from_.find(param)) from_.forget(param);
  }

  void warn_of_dequantized() const {
    for (const auto& [numerics, count] : dequantized_)
      warn("{} matrices in {} are written as f32: ONNX has no form for these numbers here", count, numerics);
  }

  // --- Ops

  std::string write(const op::Embedding&, const Node& node) {
    const OnnxWeight& table = matrix(node.params[0]);
    return table.form->gather(out_, table, in(node, 0));
  }

  std::string write(const op::Linear& linear, const Node& node) {
    const OnnxWeight& w = matrix(node.params[0]);
    return w.form->linear(out_, w, in(node, 0), linear.bias ? vector(node.params[1]) : "");
  }

  std::string write(const op::RmsNorm& norm, const Node& node) {
    std::string x = in(node, 0);
    if (norm.width != 0) x = reshape(x, {-1, norm.width});
    const std::string mean =
        out_.add("ReduceMean", {out_.add("Pow", {x, out_.number(2.0f)}), out_.numbers({-1})});
    const std::string root = out_.add("Sqrt", {out_.add("Add", {mean, out_.number(norm.eps)})});
    const std::string y = out_.add("Mul", {out_.add("Div", {x, root}), vector(node.params[0])});
    return norm.width != 0 ? reshape(y, {-1, model_.graph.value(node.outputs[0]).cols}) : y;
  }

  // cos or sin of position * frequency, [rows, 1, head size / 2]
  std::string angles(const op::Rope& rope, const char* function) {
    std::string key = fmt::format("{} {}", function, rope.scale);
    for (const float f : rope.inv_freq) key += fmt::format(" {}", f);
    return once(key, "rope", [&] {
      const std::string positions = cast(reshape("position_ids", {-1, 1, 1}), OnnxType::f32);
      const std::string angle =
          out_.add("Mul", {positions, out_.reals(rope.inv_freq, {1, 1, std::ssize(rope.inv_freq)})});
      const std::string wave = out_.add(function, {angle});
      return rope.scale == 1 ? wave : out_.add("Mul", {wave, out_.number(rope.scale)});
    });
  }

  std::string write(const op::Rope& rope, const Node& node) {
    const int64_t cols = model_.graph.value(node.outputs[0]).cols, half = rope.head_dim / 2;
    const std::string cos = angles(rope, "Cos"), sin = angles(rope, "Sin");
    const std::string x = reshape(in(node, 0), {-1, cols / rope.head_dim, rope.head_dim});
    const std::string a = slice(x, 0, half, 2), b = slice(x, half, rope.head_dim, 2);
    const auto product = [&](const std::string& p, const std::string& q) { return out_.add("Mul", {p, q}); };
    return reshape(concat({out_.add("Sub", {product(a, cos), product(b, sin)}),
                           out_.add("Add", {product(b, cos), product(a, sin)})},
                          2),
                   {-1, cols});
  }

  std::string write(const op::Silu&, const Node& node) {
    return out_.add("Mul", {in(node, 0), out_.add("Sigmoid", {in(node, 0)})});
  }
  std::string write(const op::Add&, const Node& node) { return out_.add("Add", {in(node, 0), in(node, 1)}); }
  std::string write(const op::Mul&, const Node& node) { return out_.add("Mul", {in(node, 0), in(node, 1)}); }

  // Every row's logits are wanted: readers take those that they need.
  std::string write(const op::TakeRows&, const Node& node) { return in(node, 0); }

  // 0 where a query sees a key, the lowest float elsewhere: [batch, 1, 1, sequence, total]
  std::string mask(const op::Attention& attention) {
    return once(fmt::format("mask {} {}", attention.window, attention.causal), "mask", [&] {
      const auto length = [&](const std::string& of) {
        return out_.add("Gather", {out_.add("Shape", {of}), out_.number(int64_t{1})});
      };
      const auto range = [&](const std::string& begin, const std::string& end) {
        return out_.add("Range", {begin, end, out_.number(int64_t{1})});
      };
      const std::string keys = length("attention_mask");
      const std::string first = out_.add("Sub", {keys, length("input_ids")});
      const std::string j = range(out_.number(int64_t{0}), keys);
      const std::string i = out_.add("Unsqueeze", {range(first, keys), out_.numbers({1})});
      std::string sees =
          out_.add("Unsqueeze", {cast("attention_mask", OnnxType::boolean), out_.numbers({1, 2, 3})});
      if (attention.causal) sees = out_.add("And", {sees, out_.add("LessOrEqual", {j, i})});
      if (attention.window != 0) {
        const std::string distance = out_.add("Abs", {out_.add("Sub", {i, j})});
        sees = out_.add("And", {sees, out_.add("Less", {distance, out_.number(int64_t{attention.window})})});
      }
      return out_.add("Where", {sees, out_.number(0.0f), out_.number(std::numeric_limits<float>::lowest())});
    });
  }

  // The cache with this step's rows [rows, key heads * head size] behind it: [batch, key heads, total, size]
  std::string cached(const std::string& rows, const op::Attention& a, const char* kind) {
    const std::string name = fmt::format("{}.{}", attentions_, kind);
    const auto dims = [&](const std::string& length) {
      return std::vector<OnnxDim>{batch, int64_t{a.kv_heads}, length, int64_t{a.head_dim}};
    };
    out_.input("past_key_values." + name, OnnxType::f32, dims(past));
    out_.output("present." + name, OnnxType::f32, dims(total));
    const std::string now =
        transpose(out_.add("Reshape", {rows, shape({a.kv_heads, a.head_dim})}), {0, 2, 1, 3});
    return concat({"past_key_values." + name, now}, 2, "present." + name);
  }

  // Queries of the heads that share keys lie side by side: [batch, key heads, heads per key head, sequence,
  // head size].
  std::string write(const op::Attention& a, const Node& node) {
    const int64_t shared = a.heads / a.kv_heads;
    const std::string see = mask(a);
    const std::string k = out_.add("Unsqueeze", {cached(in(node, 1), a, "key"), out_.numbers({2})});
    const std::string v = out_.add("Unsqueeze", {cached(in(node, 2), a, "value"), out_.numbers({2})});
    ++attentions_;
    std::string q = out_.add("Reshape", {in(node, 0), shape({a.kv_heads, shared, a.head_dim})});
    q = out_.add("Mul", {transpose(q, {0, 2, 3, 1, 4}), out_.number(a.scale)});
    std::string scores = out_.add("MatMul", {q, transpose(k, {0, 1, 2, 4, 3})});
    if (a.soft_cap != 0) {
      const std::string cap = out_.number(a.soft_cap);
      scores = out_.add("Mul", {out_.add("Tanh", {out_.add("Div", {scores, cap})}), cap});
    }
    scores = out_.add("Add", {scores, see});
    if (a.sinks) scores = concat({scores, sinks(a, node, scores)}, -1);
    std::string weights =
        out_.add({.op = "Softmax", .inputs = {scores}, .attributes = {{"axis", int64_t{-1}}}});
    if (a.sinks) weights = slice(weights, 0, -1, 4);
    const std::string y = transpose(out_.add("MatMul", {weights, v}), {0, 3, 1, 2, 4});
    return reshape(y, {-1, int64_t{a.heads} * a.head_dim});
  }

  // A column beside the scores: [batch, key heads, heads per key head, sequence, 1]
  std::string sinks(const op::Attention& a, const Node& node, const std::string& scores) {
    const std::string column = reshape(vector(node.params[0]), {1, a.kv_heads, a.heads / a.kv_heads, 1, 1});
    const std::string first = slice(scores, 0, 1, 4);
    return out_.add("Expand", {column, out_.add("Shape", {first})});
  }

  std::string write(const op::LowRank& low, const Node& node) {
    if (low.adapter == 0) {
      const auto linear = [&](size_t param, const std::string& x) {
        const OnnxWeight& w = matrix(node.params[param]);
        return w.form->linear(out_, w, x, "");
      };
      const std::string y = linear(1, linear(0, in(node, 1)));
      return out_.add("Add",
                      {in(node, 0), low.scale == 1 ? y : out_.add("Mul", {y, out_.number(low.scale)})});
    }
    fail("{}: an adapter has no place in an exported model; merge it into the weights first", node.name);
  }
  // H of 2^m is the product of those of its halves' sizes: the run as a matrix, turned on either side.
  std::string write(const op::Hadamard& h, const Node& node) {
    int right = 1;
    while (right * right < h.size) right *= 2;
    const int left = h.size / right;
    const auto matrix = [&](int n) {
      return once(fmt::format("hadamard {}", n), "hadamard", [&] {
        std::vector<float> values;
        for (int r = 0; r < n; ++r)
          for (int c = 0; c < n; ++c)
            values.push_back((std::popcount(static_cast<unsigned>(r & c)) % 2 == 0 ? 1.0f : -1.0f) /
                             std::sqrt(static_cast<float>(n)));
        return out_.reals(values, {n, n});
      });
    };
    const std::string x = reshape(in(node, 0), {-1, left, right});
    const std::string y = out_.add("MatMul", {matrix(left), out_.add("MatMul", {x, matrix(right)})});
    return reshape(y, {-1, model_.graph.value(node.outputs[0]).cols});
  }
  std::string write(const op::Route& route, const Node& node) {
    const std::string logits = in(node, 0);
    const int64_t experts = model_.graph.value(node.outputs[0]).cols;
    std::string weights =
        route.sigmoid
            ? out_.add("Sigmoid", {logits})
            : out_.add({.op = "Softmax", .inputs = {logits}, .attributes = {{"axis", int64_t{-1}}}});
    if (route.top_k < experts) {
      // Of equals TopK too takes the first.
      const auto [most, which] = out_.add_pair({.op = "TopK",
                                                .inputs = {weights, out_.numbers({route.top_k})},
                                                .attributes = {{"axis", int64_t{-1}}}});
      const std::string zeros = out_.add("Mul", {weights, out_.number(0.0f)});
      weights = out_.add(
          {.op = "ScatterElements", .inputs = {zeros, which, most}, .attributes = {{"axis", int64_t{1}}}});
    }
    if (route.normalize)
      weights = out_.add("Div", {weights, out_.add("ReduceSum", {weights, out_.numbers({1})})});
    return route.scale == 1 ? weights : out_.add("Mul", {weights, out_.number(route.scale)});
  }

  // The rows that an expert sees, [n] i64, and their weights [n, 1].
  struct Routed {
    std::string rows, weights;
  };
  const Routed& routed(const ValueId weights, int expert) {
    const auto [found, first] = routed_.try_emplace({weights, expert});
    if (first) {
      const std::string column = out_.add({.op = "Gather",
                                           .inputs = {values_.at(weights), out_.number(int64_t{expert})},
                                           .attributes = {{"axis", int64_t{1}}}});
      found->second.rows = reshape(out_.add("NonZero", {column}), {-1});
      found->second.weights = reshape(out_.add("Gather", {column, found->second.rows}), {-1, 1});
    }
    return found->second;
  }
  std::string write(const op::TakeRouted& take, const Node& node) {
    return out_.add("Gather", {in(node, 0), routed(node.inputs[1], take.expert).rows});
  }
  std::string write(const op::AddRouted& add, const Node& node) {
    const Routed& seen = routed(node.inputs[1], add.expert);
    return out_.add(
        {.op = "ScatterND",
         .inputs = {in(node, 0), reshape(seen.rows, {-1, 1}), out_.add("Mul", {in(node, 2), seen.weights})},
         .attributes = {{"reduction", std::string("add")}}});
  }
  std::string write(const op::Experts&, const Node& node) { fused(node); }
  // Without a limit it is made by plans; with one it is gpt-oss' own activation.
  std::string write(const op::SiluMul& op, const Node& node) {
    if (op.limit == 0) fused(node);
    const std::string most = out_.number(op.limit);
    const std::string gate = out_.add("Clip", {in(node, 0), "", most});
    const std::string up = out_.add("Clip", {in(node, 1), out_.number(-op.limit), most});
    const std::string open = out_.add("Sigmoid", {out_.add("Mul", {gate, out_.number(op.alpha)})});
    return out_.add("Mul", {out_.add("Mul", {gate, open}), out_.add("Add", {up, out_.number(1.0f)})});
  }
  std::string write(const op::GatedLinear&, const Node& node) { fused(node); }
  std::string write(const op::AddRmsNorm&, const Node& node) { fused(node); }
  std::string write(const op::MultiLinear&, const Node& node) { fused(node); }
  std::string write(const op::RopeAttention&, const Node& node) { fused(node); }
  [[noreturn]] static void fused(const Node& node) {
    fail("{}: {} is made by plans and has no place in a model", node.name, op_name(node.op));
  }

  const Model& model_;
  const Checkpoint& from_;
  const DType* dense_;
  OnnxFile out_;
  Progress progress_;
  OnnxSummary summary_;
  std::map<ValueId, std::string> values_;
  std::map<std::string, OnnxWeight> written_;
  std::set<std::string> vectors_;
  std::map<std::string, std::string> shared_;
  std::map<std::pair<ValueId, int>, Routed> routed_;  // by weights and expert
  std::map<std::string, int64_t> dequantized_;
  std::string scope_;
  int attentions_ = 0;
};

}  // namespace

std::vector<std::string> onnx_types() {
  std::vector<std::string> names = {"stored"};
  for (const TypeRow& row : types) names.emplace_back(row.name);
  return names;
}

OnnxSummary export_onnx(const Model& given, const Checkpoint& from, const OnnxExport& options,
                        const fs::path& directory) {
  const Model model = without_cache(given, "ONNX");
  const DType* dense = nullptr;
  for (const TypeRow& row : types)
    if (row.name == options.type) dense = &row.type;
  if (!dense && options.type != "stored")
    throw input_error("--type", fmt::format("one of {}", fmt::join(onnx_types(), ", ")),
                      fmt::format("'{}'", printable(options.type)));
  OnnxSummary summary = Exporter(model, from, dense, directory).run();
  Json config = model.config;
  config.erase("quantization_config");
  write_file_atomically(directory / "config.json", config.dump(2) + "\n");
  if (from.is_gguf())
    warn("{}: the tokenizer stays in the GGUF file; bring a tokenizer.json", from.path().string());
  else
    copy_companions(from.path(), directory);
  return summary;
}

}  // namespace lathe
