// Which parameters become which numbers.
#include <algorithm>
#include <fnmatch.h>
#include <set>

#include "compress/quantize.h"
#include "core/error.h"

namespace lathe {
namespace {

// What each matrix of the graph is to the model. A table that the embedding and the head share is the head.
struct Matrix {
  std::vector<std::string> modules;  // names it goes by: its own path, and those of the nodes that read it
  bool embedding = false, head = false;
};

std::map<std::string, Matrix, std::less<>> matrices(const Graph& graph) {
  std::map<std::string, Matrix, std::less<>> found;
  for (NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    const bool linear = std::holds_alternative<op::Linear>(node.op);
    if (!linear && !std::holds_alternative<op::Embedding>(node.op)) continue;
    Matrix& m = found[node.params[0]];
    m.modules.push_back(module_path(node.params[0]));
    if (node.name != m.modules.back()) m.modules.push_back(node.name);
    if (!linear) m.embedding = true;
    if (node.outputs[0] == graph.output()) m.head = true;
  }
  return found;
}

bool matches(const Matrix& m, const std::string& glob) {
  return std::any_of(m.modules.begin(), m.modules.end(),
                     [&](const std::string& name) { return ::fnmatch(glob.c_str(), name.c_str(), 0) == 0; });
}

bool selected(const Matrix& m, const Selection& s) {
  if (m.head) return s.head;
  if (m.embedding) return s.embeddings;
  return true;
}

}  // namespace

std::string module_path(std::string_view param) {
  constexpr std::string_view suffix = ".weight";
  return std::string(param.ends_with(suffix) ? param.substr(0, param.size() - suffix.size()) : param);
}

DType scale_dtype(const Json& config) {
  // Newer transformers call it "dtype".
  const std::string name = get_string_or(config, config.contains("torch_dtype") ? "torch_dtype" : "dtype",
                                         "config.json", "bfloat16");
  if (name == "float32") return DType::f32;
  if (name == "float16") return DType::f16;
  return DType::bf16;
}

void require_whole_groups(const std::string& param, const Weight& w, const Numerics& n) {
  if (n.group == 0 || n.block_rows != 1 || w.cols() % n.group == 0) return;  // blocks may be ragged
  int largest = 1;
  while (largest * 2 < n.group && w.cols() % (largest * 2) == 0) largest *= 2;
  throw input_error(
      param, fmt::format("columns in whole groups of {}", n.group), fmt::format("{} columns", w.cols()),
      fmt::format("use --group-size {} or 0 (per channel), or --keep '{}'", largest, module_path(param)));
}

Assignment assign_all(const Model& model, const Numerics& numerics, const Selection& selection) {
  Assignment assignment;
  std::set<std::string> used;
  for (const auto& [param, matrix] : matrices(model.graph)) {
    bool kept = false;
    for (const std::string& glob : selection.keep)
      if (matches(matrix, glob)) {
        used.insert(glob);
        kept = true;
      }
    if (kept || !selected(matrix, selection)) continue;
    require_whole_groups(param, model.weights.at(param), numerics);
    assignment[param] = numerics;
  }
  for (const std::string& glob : selection.keep)
    if (!used.contains(glob))
      throw input_error("--keep", "a glob over module paths such as 'model.layers.0.*'",
                        fmt::format("'{}', which matches none", printable(glob)),
                        "`lathe inspect --graph MODEL` lists them");
  return assignment;
}

size_t assigned_bytes(const Model& model, const Assignment& assignment) {
  size_t bytes = 0;
  for (const auto& [name, weight] : model.weights) {
    const auto it = assignment.find(name);
    bytes += it == assignment.end() ? weight.bytes()
                                    : packed_bytes(it->second, storage_packing(it->second), weight.shape);
  }
  return bytes;
}

}  // namespace lathe
