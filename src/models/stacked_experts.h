// gpt-oss keeps the experts of a layer in one tensor. Here each has its own parameters, as everywhere: views
// of some of that tensor's elements.
#pragma once

#include <map>
#include <string_view>

#include "models/names.h"

namespace lathe {

// Adds the parameters that an entry of all experts holds, and is true; false where the entry is none.
//   gate_up_proj       mxfp4 [experts, 2 width, hidden], or floats [experts, hidden, 2 width]:
//                      experts.7.gate_proj.weight and up_proj.weight, gate in row 0, 2, ..., up in row 1, 3,
//                      ...
//   down_proj          mxfp4 [experts, hidden, width], or floats [experts, width, hidden]
//   gate_up_proj_bias  floats [experts, 2 width];  down_proj_bias  floats [experts, hidden]
// Hugging Face: transformers/models/gpt_oss/modeling_gpt_oss.py, GptOssExperts; integrations/mxfp4.py.
// InputError where the shape is no such stack of as many experts as the config says.
bool split_experts(const Entry&, const Json& config, std::map<std::string, Binding, std::less<>>&);

// Whether that parameter is a matrix of one expert which Hugging Face's code reads from such a stack and from
// nowhere else.
bool is_stacked_elsewhere(std::string_view param, const Json& config);

}  // namespace lathe
