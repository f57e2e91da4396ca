// What is computed, on what, called what. Nothing about how, where, how fast or in which format.
#pragma once

#include <cstdint>
#include <map>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ops.h"

namespace lathe {

using NodeId = int32_t;
using ValueId = int32_t;

// What a row is: one token, one row whose logits are wanted, or one row that an expert sees: how many there
// are of those, the run tells.
enum class Rows : uint8_t { tokens, outputs, routed };

// Every activation is a matrix [rows, cols]; heads are column ranges. Hence no reshape and no transpose.
struct ValueInfo {
  Rows rows = Rows::tokens;
  int64_t cols = 0;      // 0: the token ids themselves
  NodeId producer = -1;  // -1: the graph's input
  ValueId taken = -1;    // of Rows::routed: the value of the op::TakeRouted whose rows these are
};

struct Node {
  NodeId id = -1;  // stable: edits never renumber
  Op op;
  std::string name;  // Hugging Face module path: "model.layers.3.mlp.up_proj"
  std::vector<ValueId> inputs, outputs;
  std::vector<std::string> params;  // "model.layers.3.mlp.up_proj.weight"; shared names are tied weights
  int block = -1;                   // decoder block, for sweeps and reports
};

class Graph {
 public:
  Graph();                                                  // one value: the token ids, value 0
  std::span<const NodeId> order() const { return order_; }  // topological
  const Node& node(NodeId) const;
  const ValueInfo& value(ValueId) const;
  std::vector<NodeId> users(ValueId) const;
  NodeId find(std::string_view name) const;  // -1: none
  ValueId output() const { return output_; }
  ValueId tokens() const { return 0; }

  // Adds a node before `before` (-1: at the end), assigning id and `cols.size()` outputs; returns the first
  // output. Rows are inherited from the first input (TakeRows and TakeRouted change them). Inputs must exist
  // already.
  ValueId insert(NodeId before, Node, std::span<const int64_t> cols);
  void set_output(ValueId value) { output_ = value; }
  void replace(ValueId old_value, ValueId new_value);  // in every reader, and as the output
  void prune();                                        // drops what the output does not need

  // Shapes of parameters as the ops imply them: name -> [rows, cols] or [n]. Tied names appear once; Error
  // when two readers disagree.
  std::map<std::string, std::vector<int64_t>, std::less<>> param_shapes() const;

 private:
  std::map<NodeId, Node> nodes_;
  std::vector<NodeId> order_;
  std::vector<ValueInfo> values_;
  std::vector<std::vector<NodeId>> readers_;  // of each value, each once, in no order
  ValueId output_ = -1;
  NodeId next_ = 0;
};

// The text form: `lathe inspect --graph`, golden files and graphs that tests write by hand.
std::ostream& operator<<(std::ostream&, const Graph&);
std::string to_string(const Graph&);
Graph parse_graph(std::string_view);  // round-trips operator<<; InputError with the line on bad text

}  // namespace lathe
