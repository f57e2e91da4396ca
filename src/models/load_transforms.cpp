// compressed-tensors' transform_config, read into a graph.
#include <algorithm>
#include <bit>
#include <set>

#include "core/error.h"
#include "core/keys.h"
#include "io/module_pattern.h"
#include "models/hadamard.h"

namespace lathe {
namespace {

constexpr int64_t most_columns = 10'000'000;

// Modules by name, by regular expression or, of linear layers, by class.
class Targets {
 public:
  Targets(const Json& apply, const char* key, const std::string& where) {
    const Json list = apply.value(key, Json::array());
    for (const Json& target : list.is_array() ? list : Json::array({list})) {
      if (!target.is_string())
        throw input_error(fmt::format("{}: {}", where, key), "strings", target.type_name());
      const std::string text = target.get<std::string>();
      if (text.starts_with("re:"))
        patterns_.emplace_back(text.substr(3), where);
      else
        names_.insert(text);
    }
  }
  bool have(const std::string& module, bool linear) const {
    return names_.contains(module) || (linear && names_.contains("Linear")) ||
           std::ranges::any_of(patterns_, [&](const ModulePattern& p) { return p.matches(module); });
  }

 private:
  std::set<std::string> names_;
  std::vector<ModulePattern> patterns_;
};

// Reads schemes, and remembers at which inputs of which nodes they want a transform.
class Reader {
 public:
  explicit Reader(Graph& graph) : graph_(graph) {}

  void read(const std::string& name, const Json& scheme, const std::string& where) {
    check_keys(scheme, {"type", "apply", "randomize", "requires_grad", "head_dim", "precision"}, where);
    const std::string type = get_string(scheme, "type", where);
    const bool online = std::ranges::any_of(scheme.value("apply", Json::array()), [](const Json& a) {
      return !a.is_object() || !a.value("location", "").starts_with("weight_");
    });
    if (!online) return;  // any matrix may have been folded
    if (type != "hadamard")
      throw input_error(where + ": type", "hadamard, where it is applied at run time",
                        fmt::format("'{}'", printable(type)));
    if (get_bool_or(scheme, "randomize", where, false))
      throw input_error(where + ": randomize", "false", "true");
    const int64_t size = get_int_or(scheme, "head_dim", where, 1, most_columns, 0);
    for (const Json& apply : scheme.at("apply")) {
      check_keys(apply, {"targets", "location", "inverse", "ignore"}, where + ".apply");
      read_apply(name, apply, size, where + ".apply");
    }
  }

  std::map<std::string, int> insert() {
    for (const auto& [at, size] : wanted_) {
      const Node node = graph_.node(at.first);
      const ValueId v = node.inputs[at.second];
      if (turned_.contains(v)) continue;  // by an earlier reader
      for (const NodeId user : graph_.users(v)) {
        const std::vector<ValueId>& inputs = graph_.node(user).inputs;
        const auto input = static_cast<size_t>(std::ranges::find(inputs, v) - inputs.begin());
        const auto other = wanted_.find({user, input});
        if (other == wanted_.end() || other->second != size)
          throw input_error(fmt::format("transform_config: {}", graph_.node(user).name),
                            fmt::format("the transform that {} has, which reads the same", node.name),
                            "another or none");
      }
      const bool attention = std::holds_alternative<op::Attention>(node.op);
      const std::string name = attention ? fmt::format("{}.{}_hadamard", scope_of(node), "qk"[at.second])
                                         : node.name + ".hadamard";
      turned_.insert(add_hadamard(graph_, v, name, size));
    }
    return std::move(tensors_);
  }

 private:
  void read_apply(const std::string& name, const Json& apply, int64_t size, const std::string& where) {
    const std::string location = get_string(apply, "location", where);
    if (location == "weight_input" || location == "weight_output") return;
    const Targets targets(apply, "targets", where), ignored(apply, "ignore", where);
    bool found = false;
    const auto want = [&](const Node& node, const std::string& module, size_t input, int64_t columns) {
      const int64_t n = size == 0 ? columns : size;
      if (columns % n != 0 || !std::has_single_bit(static_cast<uint64_t>(n)))
        throw input_error(fmt::format("{}: {}", where, module),
                          fmt::format("a power of two that divides {} columns", columns),
                          fmt::format("{}", n));
      if (!wanted_.emplace(std::pair{node.id, input}, static_cast<int>(n)).second)
        throw input_error(fmt::format("{}: {}", where, module), "one transform of an input", "two");
      tensors_.emplace(fmt::format("{}.{}_{}.weight", module, name, location), static_cast<int>(n));
      found = true;
    };
    for (const NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      const auto* attention = std::get_if<op::Attention>(&node.op);
      const bool linear = std::holds_alternative<op::Linear>(node.op);
      if (!linear && !attention) continue;
      const std::string module = linear ? node.name : scope_of(node);
      if (!targets.have(module, linear) || ignored.have(module, linear)) continue;
      if (linear && location == "input")
        want(node, module, 0, graph_.value(node.inputs[0]).cols);
      else if (attention && location == "q_attn")
        want(node, module, 0, attention->head_dim);
      else if (attention && location == "k_cache")
        want(node, module, 1, attention->head_dim);
    }
    if (!found)
      throw input_error(where, "a layer whose input, or an attention whose q_attn and k_cache, it transforms",
                        fmt::format("none at '{}' of its targets", printable(location)),
                        "outputs of layers are not transformed at run time");
  }

  Graph& graph_;
  std::map<std::pair<NodeId, size_t>, int> wanted_;  // of an input of a node: the size
  std::map<std::string, int> tensors_;
  std::set<ValueId> turned_;
};

}  // namespace

std::map<std::string, int> add_transforms(Graph& graph, const Json& config) {
  for (const char* key : {"quantization_config", "compression_config"}) {
    if (!config.contains(key) || !config[key].is_object()) continue;
    const std::string where = fmt::format("config.json: {}.transform_config", key);
    const Json transforms = config[key].value("transform_config", Json());
    if (transforms.is_null() || transforms.empty()) continue;
    check_keys(transforms, {"config_groups"}, where);
    Reader reader(graph);
    const Json groups = transforms.value("config_groups", Json::object());
    if (!groups.is_object()) throw input_error(where + ".config_groups", "an object", groups.type_name());
    for (const auto& [name, scheme] : groups.items())
      reader.read(name, scheme, fmt::format("{}.config_groups.{}", where, printable(name)));
    return reader.insert();
  }
  return {};
}

void require_sylvester(const Weight& weight, int size, const std::string& where) {
  const Shape shape = {size, size};
  if (weight.shape != shape) throw input_error(where, to_string(shape), to_string(weight.shape));
  std::vector<float> row(static_cast<size_t>(size));
  for (int64_t r = 0; r < size; ++r) {
    read_rows(weight, r, 1, row.data());
    for (int64_t c = 0; c < size; ++c) {
      const float expected = std::popcount(static_cast<uint64_t>(r & c)) % 2 == 0 ? 1.0f : -1.0f;
      if (row[static_cast<size_t>(c)] != expected)
        throw input_error(where, "Sylvester's matrix, as 'hadamard' means",
                          fmt::format("{} at [{}, {}]", row[static_cast<size_t>(c)], r, c),
                          "learned and random transforms are not executed");
    }
  }
}

}  // namespace lathe
