#include <cmath>
#include <set>

#include "core/error.h"
#include "io/safetensors.h"
#include "models/adapter.h"
#include "models/hadamard.h"
#include "models/low_rank.h"

namespace lathe {
namespace {

constexpr std::string_view prefix = "base_model.model.", a_suffix = ".lora_A.weight",
                           b_suffix = ".lora_B.weight";

struct AdapterConfig {
  int64_t rank = 0;
  float scale = 1;
};

bool empty_or_null(const Json& config, const char* key) {
  const auto it = config.find(key);
  return it == config.end() || it->is_null() || ((it->is_object() || it->is_array()) && it->empty());
}

AdapterConfig read_config(const fs::path& file) {
  const Json config = read_json(file);
  const auto refuse = [&](std::string_view expected, const std::string& found) {
    throw input_error(file.string(), expected, printable(found, 80));
  };
  if (!config.is_object()) refuse("an object", config.type_name());
  if (const Json type = config.value("peft_type", Json()); type != "LORA")
    refuse("peft_type LORA", type.dump());
  for (const char* key : {"use_dora", "fan_in_fan_out", "lora_bias"})
    if (const Json j = config.value(key, Json()); !j.is_null() && j != false)
      refuse(std::string("no ") + key, j.dump());
  if (const Json bias = config.value("bias", Json("none")); bias != "none") refuse("bias none", bias.dump());
  for (const char* key : {"modules_to_save", "rank_pattern", "alpha_pattern", "target_parameters"})
    if (!empty_or_null(config, key)) refuse(std::string("no ") + key, config[key].dump());
  AdapterConfig c;
  const Json r = config.value("r", Json()), alpha = config.value("lora_alpha", Json());
  if (!r.is_number_integer() || r.get<int64_t>() < 1 || r.get<int64_t>() > most_rank)
    refuse(fmt::format("r of 1 to {}", most_rank), r.dump());
  c.rank = r.get<int64_t>();
  if (!alpha.is_number()) refuse("a number lora_alpha", alpha.dump());
  const Json rslora = config.value("use_rslora", Json(false));
  if (!rslora.is_boolean()) refuse("use_rslora true or false", rslora.dump());
  const auto rank = static_cast<double>(c.rank);
  c.scale = static_cast<float>(alpha.get<double>() / (rslora.get<bool>() ? std::sqrt(rank) : rank));
  if (!std::isfinite(c.scale)) refuse("lora_alpha within the range of floats", alpha.dump());
  return c;
}

// One factor of a layer, checked.
Weight load_factor(const SafetensorsFile& file, const fs::path& where, const std::string& name,
                   const Shape& shape) {
  const auto found = file.items().find(name);
  if (found == file.items().end())
    throw input_error(where.string(), fmt::format("a tensor '{}'", printable(name)), "none");
  if (found->second.shape != shape)
    throw input_error(fmt::format("{}: {}", where.string(), printable(name)),
                      fmt::format("shape {}", to_string(shape)), to_string(found->second.shape),
                      "is this adapter made for this model?");
  if (!is_float(found->second.dtype))
    throw input_error(fmt::format("{}: {}", where.string(), printable(name)), "floats",
                      std::string(dtype_name(found->second.dtype)));
  Weight weight = dense_weight(file.load(name));
  for (const float f : read_all(weight))
    if (!std::isfinite(f))
      throw input_error(fmt::format("{}: {}", where.string(), printable(name)), "finite numbers",
                        fmt::format("{}", f));
  return weight;
}

}  // namespace

void add_adapter(Model& model, const fs::path& directory, int number) {
  refuse_hadamards(model.graph, "adapters are made for layers whose inputs are not transformed");
  const AdapterConfig config = read_config(directory / "adapter_config.json");
  const fs::path where = directory / "adapter_model.safetensors";
  const SafetensorsFile file = SafetensorsFile::open(where);

  std::set<std::string, std::less<>> left;
  for (const auto& [name, item] : file.items()) left.insert(name);
  const std::vector<NodeId> order(model.graph.order().begin(), model.graph.order().end());
  for (const NodeId id : order) {
    const Node linear = model.graph.node(id);
    if (!std::holds_alternative<op::Linear>(linear.op)) continue;
    const std::string a = fmt::format("{}{}{}", prefix, linear.name, a_suffix),
                      b = fmt::format("{}{}{}", prefix, linear.name, b_suffix);
    if (!left.contains(a) && !left.contains(b)) continue;
    if (model.graph.value(linear.outputs[0]).taken >= 0)
      throw input_error(fmt::format("{}: {}", where.string(), printable(a)),
                        "adapters of layers that see all rows", "one of an expert",
                        "merge it into the weights before quantizing");
    const int64_t in = model.graph.value(linear.inputs[0]).cols,
                  out = model.graph.value(linear.outputs[0]).cols;
    const std::string name = fmt::format("{}.adapter_{}", linear.name, number);
    model.weights[name + ".a"] = load_factor(file, where, a, {config.rank, in});
    model.weights[name + ".b"] = load_factor(file, where, b, {out, config.rank});
    left.erase(a);
    left.erase(b);
    add_low_rank(model.graph, id, name, {static_cast<int>(config.rank), config.scale, number});
  }
  if (!left.empty())
    throw input_error(fmt::format("{}: {}", where.string(), printable(*left.begin())),
                      "the lora_A or lora_B of a linear layer of this model", "no such layer");
}

int adapters_of(const Graph& graph) {
  int most = 0;
  for (const NodeId id : graph.order())
    if (const auto* low = std::get_if<op::LowRank>(&graph.node(id).op)) most = std::max(most, low->adapter);
  return most;
}

}  // namespace lathe
