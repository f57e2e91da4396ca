// The matrices of a graph and the names that they go by: what globs over modules are matched with.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace lathe {

// What a matrix is to the model. A table that the embedding and the head share is the head.
struct Matrix {
  std::vector<std::string> modules;  // names it goes by: its own path, and those of the nodes that read it
  bool embedding = false, head = false, router = false;

  bool matches(const std::string& glob) const;  // as fnmatch(3), any of the names
};

// By parameter: every weight of a linear layer, every table.
std::map<std::string, Matrix, std::less<>> matrices(const Graph&);

}  // namespace lathe
