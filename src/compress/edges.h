// What compression reads off the edges of a graph: which layers share an input, and where a scale per channel
// can be moved from one weight into another.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace lathe {

// The linear layers that read one activation: they share its statistics, and runtimes fuse them.
struct InputGroup {
  ValueId input = -1;
  std::vector<NodeId> nodes;  // in the order of the graph
  int block = -1;
};
// In the order of their first layer.
std::vector<InputGroup> input_groups(const Graph&);

// "model.layers.3.self_attn.{q,k,v}_proj" of a list of module paths: what they share is written once.
std::string joint_name(const std::vector<std::string>& modules);
std::string joint_name(const Graph&, const InputGroup&);

// The weight that makes a group's input linearly, channel by channel: the input can be divided by s, and the
// group's columns multiplied, without changing the function (SmoothQuant, AWQ). Either a norm's vector, or
// rows of a linear layer: v for o (through the attention), up for down (through the product with the gate).
struct FoldSite {
  std::string param;            // its rows (or, of a vector, elements) are divided
  std::string bias;             // of that layer, divided likewise; empty: none
  std::vector<int32_t> row_of;  // for each channel of the input, the row that makes it; several share one
                                // where query heads share a key head, and then share a scale
  int64_t rows = 0;
  std::string correction = {};  // the B of that layer's low-rank correction, divided likewise; empty: none
};
// Nothing when the input, or what it is made from, is read by anything else than low-rank corrections, whose
// A then takes what the columns take.
std::optional<FoldSite> fold_site(const Graph&, const InputGroup&);

}  // namespace lathe
