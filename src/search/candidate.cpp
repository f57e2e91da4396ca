#include "search/candidate.h"

#include <algorithm>
#include <map>

#include "compress/edges.h"
#include "core/error.h"
#include "eval/support.h"

namespace lathe {
namespace {

std::string unit_name(const std::vector<std::string>& params) {
  std::vector<std::string> modules = params;
  for (std::string& m : modules) m = module_path(m);
  constexpr size_t named = 8;
  const size_t more = modules.size() > named ? modules.size() - named : 0;
  modules.resize(modules.size() - more);
  return joint_name(modules) + (more > 0 ? fmt::format(" and {} more", more) : "");
}

// What the layers that read a value share with others: those that read the same one, and, as a layer has more
// experts than anybody can measure, those of all its experts.
struct Shared {
  ValueId value;
  bool behind;  // further on in an expert
  auto operator<=>(const Shared&) const = default;
};
Shared shared_by(const Graph& graph, ValueId input) {
  const ValueId taken = graph.value(input).taken;
  if (taken < 0) return {input, false};
  return {graph.node(graph.value(taken).producer).inputs[1], taken != input};
}

bool routes(const Graph& graph, const Node& linear) {
  return std::ranges::any_of(graph.users(linear.outputs[0]),
                             [&](NodeId id) { return std::holds_alternative<op::Route>(graph.node(id).op); });
}

// Matrices by the activation they multiply, in the order of the graph. A table that is read twice appears
// once.
std::vector<Unit> group_params(const Graph& graph) {
  std::vector<Unit> units;
  std::map<std::string, size_t> unit_of_param;
  std::map<Shared, size_t> unit_of_input;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    const bool embedding = std::holds_alternative<op::Embedding>(node.op);
    if (!embedding && !std::holds_alternative<op::Linear>(node.op)) continue;
    if (routes(graph, node)) continue;  // stays as it is
    const std::string& param = node.params[0];
    const bool table = embedding || graph.output() == node.outputs[0];
    if (auto known = unit_of_param.find(param); known != unit_of_param.end()) {
      units[known->second].table |= table;
      continue;
    }
    const auto [slot, fresh] = unit_of_input.try_emplace(shared_by(graph, node.inputs[0]), units.size());
    if (fresh) units.emplace_back();
    Unit& unit = units[slot->second];
    unit.params.push_back(param);
    unit.table |= table;
    unit_of_param[param] = slot->second;
  }
  return units;
}

}  // namespace

std::vector<Format> format_menu(DType scale, SmallFloats floats) {
  std::vector<Format> menu = {{"as is", {}}};
  const Numerics offers[] = {Numerics::integer(8, 0, false, scale),  Numerics::integer(4, 32, true, scale),
                             Numerics::integer(4, 32, false, scale), Numerics::integer(4, 64, true, scale),
                             Numerics::integer(4, 64, false, scale), Numerics::integer(4, 128, true, scale),
                             Numerics::integer(4, 128, false, scale)};
  for (const Numerics& n : offers) menu.push_back({to_string(n), n});
  add_small_floats(menu, scale, floats);
  return menu;
}

void add_small_floats(std::vector<Format>& menu, DType scale, SmallFloats floats) {
  constexpr int64_t usual = 4096;  // rows and columns: kernels take any whole groups
  for (const Numerics& n : {Numerics::fp8(scale), Numerics::nvfp4(), Numerics::mxfp4()})
    if (floats.emulated || support_of(n, usual, usual, floats.isa).support == Support::native)
      menu.push_back({to_string(n), n});
}

std::vector<Unit> find_units(const Model& model, const std::vector<Format>& menu) {
  std::vector<Unit> units = group_params(model.graph);
  for (Unit& unit : units) {
    unit.name = unit_name(unit.params);
    size_t now = 0;
    for (const std::string& p : unit.params) {
      const Weight& w = model.weights.at(p);
      now += w.bytes();
      unit.weights += w.rows() * w.cols();
    }
    unit.formats = {0};
    unit.bytes = {now};
    for (int f = 1; f < static_cast<int>(menu.size()); ++f) {
      const Numerics& n = menu[static_cast<size_t>(f)].numerics;
      size_t bytes = 0;
      const bool fits = std::ranges::all_of(unit.params, [&](const std::string& p) {
        const Weight& w = model.weights.at(p);
        bytes += packed_bytes(n, storage_packing(n), w.shape);
        return n.group == 0 || w.cols() % n.group == 0;
      });
      if (!fits || bytes >= now) continue;
      unit.formats.push_back(f);
      unit.bytes.push_back(bytes);
    }
  }
  return units;
}

Assignment assignment(const std::vector<Unit>& units, const std::vector<Format>& menu, const Choice& choice) {
  Assignment out;
  for (size_t u = 0; u < units.size(); ++u) {
    const int format = units[u].formats.at(static_cast<size_t>(choice.at(u)));
    if (format == 0) continue;
    for (const std::string& p : units[u].params) out[p] = menu[static_cast<size_t>(format)].numerics;
  }
  return out;
}

size_t stored_bytes(const Model& model, const std::vector<Unit>& units, const Choice& choice) {
  size_t bytes = model.bytes();
  for (size_t u = 0; u < units.size(); ++u)
    bytes = bytes - units[u].bytes[0] + units[u].bytes.at(static_cast<size_t>(choice.at(u)));
  return bytes;
}

Choice uniform(const std::vector<Unit>& units, int format, bool tables) {
  Choice choice;
  for (const Unit& unit : units) {
    const auto it = std::ranges::find(unit.formats, unit.table && !tables ? 0 : format);
    if (it == unit.formats.end()) return {};
    choice.push_back(static_cast<int>(it - unit.formats.begin()));
  }
  return choice;
}

}  // namespace lathe
