// op::Hadamard in a graph: transforms that the runtime executes because no weight can take them (R3 and R4 of
// SpinQuant, https://arxiv.org/abs/2405.16406), and compressed-tensors' transform_config, where files say so.
#pragma once

#include <map>
#include <string>

#include "models/model.h"

namespace lathe {

// The module that an attention is inside of: "model.layers.3.self_attn".
std::string scope_of(const Node& attention);

// Of a matrix that wide: the largest power of two that divides the columns. Of 4,864 = 19 * 256 columns each
// run of 256 is transformed by itself.
int hadamard_size(int64_t cols);

// Puts the node in front of all readers of the value; returns what they read now.
ValueId add_hadamard(Graph&, ValueId, const std::string& name, int size);

// A node for every online transform of the config's quantization_config.transform_config; those that are
// folded into weights (weight_input, weight_output) were folded by who wrote the file. Returns the tensors
// that files of others hold for them, and the size of each. InputError naming what is not "hadamard", is at
// the output of a layer, or finds no module.
std::map<std::string, int> add_transforms(Graph&, const Json& config);
// InputError unless it is Sylvester's matrix of that size, not yet divided by its root.
void require_sylvester(const Weight&, int size, const std::string& where);

// The transform_config for a graph; an empty object without such nodes.
Json transform_config(const Graph&);
// InputError, naming a node and why it cannot be: "GGUF has no place for it".
void refuse_hadamards(const Graph&, std::string_view why);

}  // namespace lathe
