#include "compress/rotate.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include "compress/edges.h"
#include "compress/linalg.h"
#include "core/cpu.h"
#include "core/error.h"
#include "core/rng.h"
#include "models/hadamard.h"
#include "models/low_rank.h"

namespace lathe {
namespace {

// A matrix while it is worked on.
struct Matrix {
  std::vector<double> values;
  int64_t rows = 0, cols = 0;
};

Matrix read_matrix(const Weight& w) {
  const std::vector<float> values = read_all(w);
  Matrix m{{values.begin(), values.end()}, w.rows(), w.cols()};
  if (w.shape.size() == 1) std::swap(m.rows, m.cols);  // a bias is a column: one element per output
  return m;
}

Weight to_weight(const Matrix& m, const Shape& shape) {
  std::vector<float> values(m.values.size());
  std::ranges::transform(m.values, values.begin(), [](double v) { return static_cast<float>(v); });
  return dense_weight(Tensor::of<float>(DType::f32, shape, values));
}

// x H / sqrt(n), n a power of two.
void hadamard(double* x, int64_t n) {
  for (int64_t half = 1; half < n; half *= 2)
    for (int64_t i = 0; i < n; i += 2 * half)
      for (int64_t j = i; j < i + half; ++j) {
        const double a = x[j], b = x[j + half];
        x[j] = a + b;
        x[j + half] = a - b;
      }
  const double scale = 1 / std::sqrt(static_cast<double>(n));
  for (int64_t i = 0; i < n; ++i) x[i] *= scale;
}

class Rotator {
 public:
  Rotator(Model& model, const Rotations& what, int threads)
      : model_(model), what_(what), pool_(threads > 0 ? threads : physical_cores()) {}

  void run() {
    if (what_.residual) {
      untie();
      rotate_residual();
    }
    if (what_.heads) rotate_heads();
    if (what_.products) transform_products();
    if (what_.keys) transform_keys();
  }

 private:
  const Graph& graph() const { return model_.graph; }

  // The head's own copy of a table that the embedding shares with it.
  void untie() {
    const ValueId logits = graph().output();
    const Node& head = graph().node(graph().value(logits).producer);
    if (!std::holds_alternative<op::Linear>(head.op)) return;
    const std::string shared = head.params[0];
    bool tied = false;
    for (const NodeId id : graph().order())
      tied = tied || (std::holds_alternative<op::Embedding>(graph().node(id).op) &&
                      graph().node(id).params[0] == shared);
    if (!tied) return;
    model_.config["tie_word_embeddings"] = false;
    model_.graph = define(model_.config);
    const Node& now = graph().node(graph().value(graph().output()).producer);
    model_.weights.insert_or_assign(now.params[0], model_.weights.at(shared));
  }

  static bool passes_on(const Node& node) {
    return std::holds_alternative<op::Add>(node.op) || std::holds_alternative<op::TakeRows>(node.op) ||
           std::holds_alternative<op::AddRouted>(node.op);
  }

  // All values that are sums with the embedding's output: what R1 turns.
  std::set<ValueId> residual_stream() const {
    std::set<ValueId> stream;
    for (bool grew = true; grew;) {
      grew = false;
      for (const NodeId id : graph().order()) {
        const Node& node = graph().node(id);
        std::vector<ValueId> together = node.outputs;
        if (passes_on(node)) {
          together.insert(together.end(), node.inputs.begin(), node.inputs.end());
          if (std::holds_alternative<op::AddRouted>(node.op))
            std::erase(together, node.inputs[1]);  // weights
          if (std::ranges::none_of(together, [&](ValueId v) { return stream.contains(v); })) continue;
        } else if (!std::holds_alternative<op::Embedding>(node.op)) {
          continue;
        }
        for (const ValueId v : together) grew = stream.insert(v).second || grew;
      }
    }
    return stream;
  }

  [[noreturn]] static void refuse(const Node& node, std::string_view what) {
    throw input_error(node.name, "norms, additions and linear layers around the residual stream",
                      fmt::format("{}, {}", op_name(node.op), what),
                      "leave out the residual rotation: --only heads");
  }

  void rotate_residual() {
    const std::set<ValueId> stream = residual_stream();
    const Rotation r(graph().value(*stream.begin()).cols, what_.seed);
    std::set<std::string> done;
    for (const ValueId v : stream) {
      const Node& maker = graph().node(graph().value(v).producer);
      if (std::holds_alternative<op::Linear>(maker.op)) {
        for (const std::string& p : maker.params)
          once(done, p, [&](Matrix& m) { turn_outputs(m, r, 0, m.rows); });
      } else if (std::holds_alternative<op::Embedding>(maker.op)) {
        once(done, maker.params[0], [&](Matrix& m) { turn_inputs(m, r, m.cols); });
      } else if (!passes_on(maker)) {
        refuse(maker, "which writes to it");
      }
      for (const NodeId id : graph().users(v)) {
        const Node& reader = graph().node(id);
        if (std::holds_alternative<op::RmsNorm>(reader.op)) {
          turn_behind_norm(reader, r, done);
        } else if (std::holds_alternative<op::Linear>(reader.op)) {
          once(done, reader.params[0], [&](Matrix& m) { turn_inputs(m, r, m.cols); });
        } else if (!passes_on(reader)) {
          refuse(reader, "which reads it");
        }
      }
    }
  }

  // Of a value, or of some rows of it.
  std::vector<NodeId> readers_of(ValueId v) const {
    std::vector<NodeId> readers;
    for (const NodeId id : graph().users(v)) {
      const Op& op = graph().node(id).op;
      if (!std::holds_alternative<op::TakeRows>(op) && !std::holds_alternative<op::TakeRouted>(op)) {
        readers.push_back(id);
        continue;
      }
      for (const NodeId behind : readers_of(graph().node(id).outputs[0])) readers.push_back(behind);
    }
    return readers;
  }

  // The norm's vector moves into the layers that read it: what is left of it does not care about rotations.
  void turn_behind_norm(const Node& norm, const Rotation& r, std::set<std::string>& done) {
    const op::RmsNorm& op = std::get<op::RmsNorm>(norm.op);
    if (op.width != 0 && op.width != graph().value(norm.inputs[0]).cols) refuse(norm, "of parts of it");
    const std::vector<float> gain = read_all(model_.weights.at(norm.params[0]));
    for (const NodeId id : readers_of(norm.outputs[0])) {
      const Node& reader = graph().node(id);
      if (!std::holds_alternative<op::Linear>(reader.op)) refuse(reader, "which reads the norm of it");
      once(done, reader.params[0], [&](Matrix& m) {
        for (int64_t i = 0; i < m.rows * m.cols; ++i)
          m.values[static_cast<size_t>(i)] *= static_cast<double>(gain[static_cast<size_t>(i % m.cols)]);
        turn_inputs(m, r, m.cols);
      });
    }
    Weight& vector = model_.weights.at(norm.params[0]);
    const std::vector<float> ones(gain.size(), 1.0f);
    Weight unit = make_weight(Numerics::dense(vector.numerics.dtype), packing("dense"), vector.shape);
    unit.packing->pack({unit.numerics, 1, std::ssize(ones), ones, {}, {}, {}}, 0, unit);
    vector = std::move(unit);
  }

  void rotate_heads() {
    std::set<std::string> done;
    for (const InputGroup& group : input_groups(graph())) {
      const NodeId maker = graph().value(group.input).producer;
      const auto* a = maker < 0 ? nullptr : std::get_if<op::Attention>(&graph().node(maker).op);
      const auto site = a ? fold_site(graph(), group) : std::nullopt;
      if (!site) continue;
      const Rotation r(a->head_dim, what_.seed + 1);
      const auto turn_v = [&](Matrix& m) {
        for (int64_t head = 0; head < a->kv_heads; ++head)
          turn_outputs(m, r, head * a->head_dim, a->head_dim);
      };
      once(done, site->param, turn_v);
      if (!site->bias.empty()) once(done, site->bias, turn_v);
      for (const NodeId id : group.nodes)
        once(done, graph().node(id).params[0], [&](Matrix& m) { turn_inputs(m, r, a->head_dim); });
    }
  }

  // Blocks of fewer columns spread nothing worth the name.
  static constexpr int least_hadamard = 8;
  static int size_for(const Node& node, int64_t cols, const char* option) {
    const int size = hadamard_size(cols);
    if (size < least_hadamard)
      throw input_error(node.name, fmt::format("columns in a multiple of {}", least_hadamard),
                        fmt::format("{}", cols), fmt::format("leave out {}", option));
    return size;
  }

  // In front of layers whose input is a product of two: where no other weight is linear in all of it.
  void transform_products() {
    const std::vector<InputGroup> groups = input_groups(graph());
    bool any = false;
    for (const InputGroup& group : groups) {
      const NodeId maker = graph().value(group.input).producer;
      if (maker < 0 || !std::holds_alternative<op::Mul>(graph().node(maker).op) ||
          graph().users(group.input).size() != group.nodes.size())
        continue;
      const Node first = graph().node(group.nodes[0]);
      const int size = size_for(first, graph().value(group.input).cols, "--r4");
      std::set<std::string> done;
      for (const NodeId id : group.nodes)
        once(done, graph().node(id).params[0], [&](Matrix& m) { turn_inputs(m, hadamard, size); });
      add_hadamard(model_.graph, group.input, first.name + ".hadamard", size);
      any = true;
    }
    if (!any)
      throw input_error("rotate", "layers that read a product, as down_proj does", "none", "leave out --r4");
  }

  // Queries and keys alike: their products stay.
  void transform_keys() {
    const std::vector<NodeId> order(graph().order().begin(), graph().order().end());
    for (const NodeId id : order) {
      const auto* a = std::get_if<op::Attention>(&graph().node(id).op);
      if (!a) continue;
      const Node node = graph().node(id);
      const int size = size_for(node, a->head_dim, "--r3");
      for (const size_t input : {0u, 1u})
        add_hadamard(model_.graph, node.inputs[input],
                     fmt::format("{}.{}_hadamard", scope_of(node), "qk"[input]), size);
    }
  }

  // Edits a weight that was not edited yet.
  template <class Edit>
  void once(std::set<std::string>& done, const std::string& param, Edit edit) {
    if (!done.insert(param).second) return;
    Weight& weight = model_.weights.at(param);
    Matrix m = read_matrix(weight);
    edit(m);
    weight = to_weight(m, weight.shape);
  }

  // W R on every run of `width` columns.
  void turn_inputs(Matrix& m, const Rotation& r, int64_t width) {
    turn_inputs(
        m, [&](double* x, int64_t) { r.apply(x); }, width);
  }
  template <class Turn>
  void turn_inputs(Matrix& m, Turn turn, int64_t width) {
    for_each_item(pool_, (m.rows + 63) / 64, [&](int64_t item) {
      for (int64_t row = item * 64; row < std::min(m.rows, item * 64 + 64); ++row)
        for (int64_t c = 0; c < m.cols; c += width) turn(m.values.data() + row * m.cols + c, width);
    });
  }

  // R^T W on rows [first, first + n).
  void turn_outputs(Matrix& m, const Rotation& r, int64_t first, int64_t n) {
    for_each_item(pool_, (m.cols + 63) / 64, [&](int64_t item) {
      std::vector<double> column(static_cast<size_t>(n));
      for (int64_t c = item * 64; c < std::min(m.cols, item * 64 + 64); ++c) {
        double* top = m.values.data() + first * m.cols + c;
        for (int64_t i = 0; i < n; ++i) column[static_cast<size_t>(i)] = top[i * m.cols];
        r.apply(column.data());
        for (int64_t i = 0; i < n; ++i) top[i * m.cols] = column[static_cast<size_t>(i)];
      }
    });
  }

  Model& model_;
  const Rotations& what_;
  ThreadPool pool_;
};

}  // namespace

Rotation::Rotation(int64_t n, uint64_t seed) : n_(n), power_(n & -n) {
  Rng rng(seed);
  for (int64_t i = 0; i < n; ++i) signs_.push_back((rng.next() & 1) != 0 ? 1.0 : -1.0);
  const int64_t odd = n / power_;
  for (int64_t i = 0; i < odd; ++i)  // DCT-II, orthonormal: row i, column j
    for (int64_t j = 0; j < odd; ++j)
      cosines_.push_back(std::sqrt((j == 0 ? 1.0 : 2.0) / static_cast<double>(odd)) *
                         std::cos(std::numbers::pi * (static_cast<double>(i) + 0.5) * static_cast<double>(j) /
                                  static_cast<double>(odd)));
}

void Rotation::apply(double* x) const {
  for (int64_t i = 0; i < n_; ++i) x[i] *= signs_[static_cast<size_t>(i)];
  for (int64_t begin = 0; begin < n_; begin += power_) hadamard(x + begin, power_);
  const int64_t odd = n_ / power_;
  if (odd == 1) return;
  std::vector<double> line(static_cast<size_t>(odd));
  for (int64_t k = 0; k < power_; ++k) {
    for (int64_t i = 0; i < odd; ++i) line[static_cast<size_t>(i)] = x[i * power_ + k];
    for (int64_t j = 0; j < odd; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < odd; ++i)
        sum += line[static_cast<size_t>(i)] * cosines_[static_cast<size_t>(i * odd + j)];
      x[j * power_ + k] = sum;
    }
  }
}

void rotate(Model& model, const Rotations& what, int threads) {
  refuse_corrections(model.graph, "a rotation would leave it as it is");
  refuse_hadamards(model.graph, "a model is rotated once");
  Rotator(model, what, threads).run();
}

}  // namespace lathe
