// What was measured, on what, how. The only thing commands hand each other; search reads it, people read it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "eval/quality.h"
#include "eval/speed.h"

namespace lathe {

struct Metric {
  std::string name;
  double value = 0;
  std::string unit;
  double error = 0;  // one standard error; 0: none known
};

struct Report {
  struct Row {
    std::string node;
    std::vector<Metric> metrics;
  };
  std::string subject;         // model and recipe, by hash
  Json provenance;             // version, machine, ISA, threads, kernels chosen, datasets by hash, seed
  std::vector<Metric> totals;  // perplexity, KL, bytes, tokens/s, per cent of roof
  std::vector<Row> nodes;      // per layer: format, bytes, sensitivity
};

Json to_json(const Report&);
// The flat objects of `eval --json` and `bench --json`; their key names are a contract with scripts.
Json to_json(const Quality&);
Json to_json(const Speed&);
// CPU, features, cores, memory, operating system, Lathe's version.
Json describe_machine(int threads, uint32_t isa);
// "0.1.0".
std::string_view version();

}  // namespace lathe
