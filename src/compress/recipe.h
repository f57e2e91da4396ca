// A recipe is a list of steps with arguments and seeds: `lathe run recipe.yaml` reproduces the model's bytes.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "compress/policy.h"
#include "compress/rotate.h"
#include "core/json.h"
#include "quant/cache_numerics.h"

namespace lathe {

struct Recipe {
  std::string model;        // as given on the command line: "builtin" or a path
  std::string source_hash;  // of the input's weights; empty: not checked
  std::string result_hash;  // of the output's; `lathe run` fails when it differs. Empty: not checked
  uint64_t seed = 0;
  std::vector<std::pair<std::string, Json>> steps;  // {"quantize", {...}}
};

std::string to_yaml(const Recipe&);
Recipe parse_recipe(std::string_view yaml, std::string_view where);  // InputError with the line

// The text that a method looks at, by path and by the hash of the bytes used.
struct CalibrationText {
  std::string path, sha256;
  int64_t max_tokens = 0;  // of the text's beginning; 0: all of it
  int64_t context = 256;   // tokens of a sequence
};

struct QuantizeStep {
  Assignment assignment;
  ScaleRule scales = {};
  std::string method = "rtn";  // compress/method.h
  CalibrationText text = {};   // no path: nothing needs one
  std::vector<Policy> policies = {};
  Fused fused = Fused::error;       // where there are policies
  Reasons why = {};                 // parameters that policies decided
  std::string observer = "minmax";  // of static scales of activations: compress/observers.h
};

bool finds_input_scales(const Assignment&);  // whether some weight has one, for which it takes a text
bool has_mx_blocks(const Assignment&);       // whether some weight has an exponent per block: MXFP4, MXFP8
MxRule parse_mx_rule(std::string_view name, std::string_view where);  // InputError on no name of a rule

// The quantize step: a default format, per-module exceptions, then policies. Written is the assignment before
// policies; read, the one after.
Json quantize_step(const Model&, const QuantizeStep&);
QuantizeStep parse_quantize_step(const Json&, const Model&, std::string_view where);

// The kv_cache step: compress/cache_scales.h.
struct CacheStep {
  CacheNumerics numerics = CacheNumerics::fp8;
  CalibrationText text = {};
};
Json cache_step(const CacheStep&);
CacheStep parse_cache_step(const Json&, std::string_view where);

// The rotate step: compress/rotate.h.
Json rotate_step(const Rotations&);
Rotations parse_rotate_step(const Json&, std::string_view where);

}  // namespace lathe
