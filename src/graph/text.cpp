// The text form of a graph. One line per node:
//
//   %4 = rms_norm model.layers.0.norm(%3) {eps=1e-05} [model.layers.0.norm.weight] : tokens x 64
//
// preceded by "block N" where the decoder block changes, and closed by "return %N".
#include <algorithm>
#include <charconv>
#include <sstream>

#include "core/error.h"
#include "graph/graph.h"

namespace lathe {
namespace {

// Attributes are listed once per op, read by the printer and by the parser alike. A visitor is called with
// (name, field, default): the printer leaves defaults out.
template <class V>
void attributes(op::Embedding& o, V&& v) {
  v("vocab", o.vocab, int64_t{0});
}
template <class V>
void attributes(op::Linear& o, V&& v) {
  v("bias", o.bias, false);
}
template <class V>
void attributes(op::RmsNorm& o, V&& v) {
  v("width", o.width, 0);
  v("eps", o.eps, 0.0f);
}
template <class V>
void attributes(op::AddRmsNorm& o, V&& v) {
  v("eps", o.eps, 0.0f);
}
template <class V>
void attributes(op::Rope& o, V&& v) {
  v("head_dim", o.head_dim, 0);
  v("scale", o.scale, 1.0f);
  v("inv_freq", o.inv_freq, std::vector<float>{});
}
template <class V>
void attributes(op::Attention& o, V&& v) {
  v("heads", o.heads, 0);
  v("kv_heads", o.kv_heads, 0);
  v("head_dim", o.head_dim, 0);
  v("window", o.window, 0);
  v("scale", o.scale, 0.0f);
  v("causal", o.causal, true);
  v("soft_cap", o.soft_cap, 0.0f);
  v("sinks", o.sinks, false);
  v("cache", o.cache.numerics, CacheNumerics::floats);
  v("cache_scales", o.cache.scales, CacheScales::layer);
}
template <class V>
void attributes(op::Route& o, V&& v) {
  v("top_k", o.top_k, 0);
  v("sigmoid", o.sigmoid, false);
  v("normalize", o.normalize, false);
  v("scale", o.scale, 1.0f);
}
template <class V>
void attributes(op::TakeRouted& o, V&& v) {
  v("expert", o.expert, -1);
}
template <class V>
void attributes(op::AddRouted& o, V&& v) {
  v("expert", o.expert, -1);
}
template <class V>
void attributes(op::SiluMul& o, V&& v) {
  v("limit", o.limit, 0.0f);
  v("alpha", o.alpha, 1.0f);
}
template <class V>
void attributes(op::Experts& o, V&& v) {
  v("first", o.first, 0);
  v("top_k", o.top_k, 0);
  v("width", o.width, int64_t{0});
  v("bias", o.bias, false);
  attributes(o.activation, v);
}
template <class V>
void attributes(op::LowRank& o, V&& v) {
  v("rank", o.rank, 0);
  v("scale", o.scale, 1.0f);
  v("adapter", o.adapter, 0);
}
template <class V>
void attributes(op::Hadamard& o, V&& v) {
  v("size", o.size, 0);
}
template <class V>
void attributes(op::MultiLinear& o, V&& v) {
  v("bias", o.bias, false);
}
template <class V>
void attributes(op::RopeAttention& o, V&& v) {
  attributes(o.attention, v);
  v("rope_head_dim", o.rope.head_dim, 0);
  v("rope_scale", o.rope.scale, 1.0f);
  v("inv_freq", o.rope.inv_freq, std::vector<float>{});
  v("hadamard", o.hadamard, 0);
}
template <class V>
void attributes(op::Silu&, V&&) {}
template <class V>
void attributes(op::Add&, V&&) {}
template <class V>
void attributes(op::Mul&, V&&) {}
template <class V>
void attributes(op::TakeRows&, V&&) {}
template <class V>
void attributes(op::GatedLinear&, V&&) {}

constexpr std::string_view row_names[] = {"tokens", "outputs", "routed"};

std::string format(CacheNumerics n) { return std::string(to_string(n)); }
std::string format(CacheScales s) { return std::string(to_string(s)); }
std::string format(bool b) { return b ? "true" : "false"; }
std::string format(int v) { return fmt::format("{}", v); }
std::string format(int64_t v) { return fmt::format("{}", v); }
std::string format(float v) {
  return fmt::format("{}", v);
}  // shortest form that reads back to the same float
std::string format(const std::vector<float>& values) { return fmt::format("[{}]", fmt::join(values, " ")); }

// `numbers` renames values in printing order, so that an edited graph prints without gaps and reads back to
// the same text.
void print_node(std::ostream& out, const Graph& g, const Node& node, std::map<ValueId, int>& numbers) {
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    const int number = static_cast<int>(numbers.size());
    out << (i ? ", %" : "%") << (numbers[node.outputs[i]] = number);
  }
  out << " = " << op_name(node.op) << ' ' << node.name << '(';
  for (size_t i = 0; i < node.inputs.size(); ++i) out << (i ? ", %" : "%") << numbers.at(node.inputs[i]);
  out << ')';
  std::string text;
  Op copy = node.op;
  std::visit(
      [&](auto& o) {
        attributes(o, [&](std::string_view name, auto& field, auto standard) {
          if (field != standard)
            text += fmt::format("{}{}={}", text.empty() ? "" : ", ", name, format(field));
        });
      },
      copy);
  if (!text.empty()) out << " {" << text << '}';
  if (!node.params.empty()) out << " [" << fmt::format("{}", fmt::join(node.params, ", ")) << ']';
  out << " : " << row_names[static_cast<size_t>(g.value(node.outputs[0]).rows)];
  for (size_t i = 0; i < node.outputs.size(); ++i) out << (i ? ", " : " x ") << g.value(node.outputs[i]).cols;
  out << '\n';
}

// A cursor over one line; every failure names the line.
class Line {
 public:
  Line(std::string_view text, int number) : text_(text), number_(number) {}

  [[noreturn]] void bad(std::string_view expected) const {
    throw input_error(fmt::format("graph text, line {}", number_), expected,
                      fmt::format("'{}'", printable(text_.substr(at_), 40)));
  }
  bool accept(std::string_view token) {
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    return true;
  }
  void expect(std::string_view token) {
    if (!accept(token)) bad(fmt::format("'{}'", token));
  }
  std::string_view until(std::string_view stops) {
    const size_t end = std::min(text_.find_first_of(stops, at_), text_.size());
    const std::string_view token = text_.substr(at_, end - at_);
    at_ = end;
    return token;
  }
  template <class T>
  T number() {
    T value{};
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
    if (error != std::errc()) bad("a number");
    at_ = static_cast<size_t>(end - text_.data());
    return value;
  }
  bool done() const { return at_ == text_.size(); }

 private:
  std::string_view text_;
  size_t at_ = 0;
  int number_;
};

void parse(Line& line, bool& field) { field = line.accept("true") || (line.expect("false"), false); }
template <class Enum, size_t n>
void parse_name(Line& line, Enum& field, const std::string_view (&names)[n]) {
  for (size_t i = 0; i < n; ++i)
    if (line.accept(names[i])) return void(field = static_cast<Enum>(i));
  line.bad(fmt::format("one of {}", fmt::join(names, ", ")));
}
void parse(Line& line, CacheNumerics& field) { parse_name(line, field, cache_numerics_names); }
void parse(Line& line, CacheScales& field) { parse_name(line, field, cache_scales_names); }
void parse(Line& line, int& field) { field = line.number<int>(); }
void parse(Line& line, int64_t& field) { field = line.number<int64_t>(); }
void parse(Line& line, float& field) { field = line.number<float>(); }
void parse(Line& line, std::vector<float>& field) {
  line.expect("[");
  while (!line.accept("]")) {
    field.push_back(line.number<float>());
    line.accept(" ");
  }
}

// The op called `name`, default-made: walks the variant's alternatives.
template <size_t I = 0>
Op make_op(std::string_view name, const Line& line) {
  if constexpr (I == std::variant_size_v<Op>) {
    line.bad(fmt::format("a known op, not '{}'", printable(name)));
  } else {
    Op op = std::variant_alternative_t<I, Op>{};
    return op_name(op) == name ? op : make_op<I + 1>(name, line);
  }
}

Node parse_node(Line& line, std::vector<ValueId>& outputs, std::vector<int64_t>& cols) {
  Node node;
  do {
    line.expect("%");
    outputs.push_back(line.number<ValueId>());
  } while (line.accept(", "));
  line.expect(" = ");
  const std::string_view op = line.until(" ");
  node.op = make_op(op, line);
  line.expect(" ");
  node.name = line.until("(");
  line.expect("(");
  do {
    line.expect("%");
    node.inputs.push_back(line.number<ValueId>());
  } while (line.accept(", "));
  line.expect(")");
  if (line.accept(" {")) {
    do {
      const std::string_view key = line.until("=");
      line.expect("=");
      bool known = false;
      std::visit(
          [&](auto& o) {
            attributes(o, [&](std::string_view name, auto& field, auto) {
              if (name == key) parse(line, field), known = true;
            });
          },
          node.op);
      if (!known) line.bad(fmt::format("an attribute of {}, not '{}'", op, printable(key)));
    } while (line.accept(", "));
    line.expect("}");
  }
  if (line.accept(" [")) {
    do node.params.emplace_back(line.until(",]"));
    while (line.accept(", "));
    line.expect("]");
  }
  line.expect(" : ");
  if (!std::ranges::any_of(row_names, [&](std::string_view rows) { return line.accept(rows); }))
    line.bad(fmt::format("{}", fmt::join(row_names, " or ")));
  line.expect(" x ");
  do cols.push_back(line.number<int64_t>());
  while (line.accept(", "));
  if (!line.done()) line.bad("the end of the line");
  return node;
}

// Operands and parameters an op takes, so that readers may index them without looking.
struct Arity {
  size_t inputs, params, outputs;
};

size_t attention_params(const op::Attention& o) {
  return (o.sinks ? 1u : 0u) + (o.cache.has_scales() ? 2u : 0u);
}

// `params`, `outputs`: of the node at hand, for ops that have any number.
Arity arity(const Op& op, size_t params, size_t outputs) {
  return std::visit(overloaded{
                        [](const op::Embedding&) {
                          return Arity{1, 1, 1};
                        },
                        [](const op::Linear& o) {
                          return Arity{1, o.bias ? 2u : 1u, 1};
                        },
                        [](const op::RmsNorm&) {
                          return Arity{1, 1, 1};
                        },
                        [](const op::Rope&) {
                          return Arity{1, 0, 1};
                        },
                        [](const op::Silu&) {
                          return Arity{1, 0, 1};
                        },
                        [](const op::Add&) {
                          return Arity{2, 0, 1};
                        },
                        [](const op::Mul&) {
                          return Arity{2, 0, 1};
                        },
                        [](const op::TakeRows&) {
                          return Arity{1, 0, 1};
                        },
                        [](const op::Attention& o) {
                          return Arity{3, attention_params(o), 1};
                        },
                        [](const op::Route&) {
                          return Arity{1, 0, 1};
                        },
                        [](const op::TakeRouted&) {
                          return Arity{2, 0, 1};
                        },
                        [](const op::AddRouted&) {
                          return Arity{3, 0, 1};
                        },
                        [](const op::LowRank&) {
                          return Arity{2, 2, 1};
                        },
                        [](const op::Hadamard&) {
                          return Arity{1, 0, 1};
                        },
                        [](const op::SiluMul&) {
                          return Arity{2, 0, 1};
                        },
                        [](const op::GatedLinear&) {
                          return Arity{1, 2, 1};
                        },
                        [](const op::AddRmsNorm&) {
                          return Arity{2, 1, 2};
                        },
                        [&](const op::MultiLinear& o) {
                          return Arity{1, o.bias ? 2 * outputs : outputs, outputs};
                        },
                        [&](const op::Experts& o) {
                          const size_t each = o.params_each();
                          return Arity{3, std::max<size_t>(1, params / each) * each, 1};
                        },
                        [](const op::RopeAttention& o) {
                          return Arity{3, attention_params(o.attention), 1};
                        },
                    },
                    op);
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Graph& g) {
  std::map<ValueId, int> numbers{{g.tokens(), 0}};
  int block = -1;
  for (NodeId id : g.order()) {
    const Node& node = g.node(id);
    if (node.block != block) out << "block " << (block = node.block) << '\n';
    print_node(out, g, node, numbers);
  }
  return out << "return %" << numbers.at(g.output()) << '\n';
}

std::string to_string(const Graph& g) {
  std::ostringstream out;
  out << g;
  return out.str();
}

Graph parse_graph(std::string_view text) {
  Graph g;
  std::map<ValueId, ValueId> renamed{{0, 0}};  // numbers in the text -> ours
  int block = -1, number = 0;
  bool returned = false;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    Line line(text.substr(0, end), ++number);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.done()) continue;
    if (returned) line.bad("nothing after 'return'");
    auto known = [&](ValueId v) {
      auto it = renamed.find(v);
      if (it == renamed.end()) line.bad(fmt::format("a value made before, not %{}", v));
      return it->second;
    };
    if (line.accept("block ")) {
      block = line.number<int>();
    } else if (line.accept("return %")) {
      g.set_output(known(line.number<ValueId>()));
      returned = true;
    } else {
      std::vector<ValueId> outputs;
      std::vector<int64_t> cols;
      Node node = parse_node(line, outputs, cols);
      node.block = block;
      const Arity a = arity(node.op, node.params.size(), outputs.size());
      if (node.inputs.size() != a.inputs || node.params.size() != a.params || outputs.size() != a.outputs ||
          cols.size() != a.outputs)
        line.bad(fmt::format("{} with {} inputs, {} parameters and {} outputs", op_name(node.op), a.inputs,
                             a.params, a.outputs));
      for (int64_t c : cols)
        if (c < 1) line.bad("positive column counts");
      for (ValueId& input : node.inputs) input = known(input);
      const ValueId first = g.insert(-1, std::move(node), cols);
      for (size_t i = 0; i < outputs.size(); ++i)
        if (!renamed.emplace(outputs[i], first + static_cast<ValueId>(i)).second)
          line.bad(fmt::format("a new value, not %{} again", outputs[i]));
    }
  }
  if (!returned) throw input_error("graph text", "a line 'return %N'", "none");
  return g;
}

}  // namespace lathe
