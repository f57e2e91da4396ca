#include "compress/matrices.h"

#include <algorithm>
#include <fnmatch.h>

#include "compress/quantize.h"

namespace lathe {

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
    for (const NodeId reader : graph.users(node.outputs[0]))
      if (std::holds_alternative<op::Route>(graph.node(reader).op)) m.router = true;
  }
  return found;
}

bool Matrix::matches(const std::string& glob) const {
  return std::ranges::any_of(
      modules, [&](const std::string& name) { return ::fnmatch(glob.c_str(), name.c_str(), 0) == 0; });
}

}  // namespace lathe
