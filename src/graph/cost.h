// What a graph costs, op by op: the arithmetic of rooflines and budgets.
#pragma once

#include <functional>

#include "graph/graph.h"

namespace lathe {

// How much runs: `tokens` new rows over `context` keys already there (attention), of which `outputs` reach
// the head.
struct Workload {
  int64_t tokens = 1, context = 0, outputs = 1;
};

struct Cost {
  double flops = 0;             // a multiply-add counts two
  double weight_bytes = 0;      // read once per step; of experts on average, where no expert is preferred
  double activation_bytes = 0;  // inputs and outputs, f32
  double kv_bytes = 0;          // keys and values read
  Cost& operator+=(const Cost&);
};

// The share of its rows that a value has: 1, but for what an expert computes, top_k / experts where none is
// preferred.
double share_of_rows(const Graph&, ValueId);

// `bytes_of` says how many bytes a parameter takes as stored.
Cost cost(const Graph&, const Node&, const Workload&,
          const std::function<double(const std::string&)>& bytes_of);
Cost total_cost(const Graph&, const Workload&, const std::function<double(const std::string&)>& bytes_of);

}  // namespace lathe
