// op::LowRank behind linear layers: corrections of what rounding did to their weights, stored with the model,
// and adapters (models/adapter.h).
#pragma once

#include "models/model.h"

namespace lathe {

inline constexpr int64_t most_rank = 1024;  // as the kernels have room for

// Puts the node behind the layer, and behind others that are there already. Its parameters are "<name>.a"
// [rank, in] and "<name>.b" [out, rank]; their weights are the caller's business.
void add_low_rank(Graph&, NodeId linear, const std::string& name, const op::LowRank&);

// The correction of "model.layers.0.mlp.up_proj" is the node "model.layers.0.mlp.up_proj.low_rank", for all
// rows, with tensors of its parameters' names in the checkpoint.
std::string correction_of(std::string_view module);
// A node for every tensor "<module>.low_rank.a" among these. InputError, naming the tensor, without such a
// layer or with a rank that is none.
void add_corrections(Graph&, const Checkpoint&);
// Whether a parameter is a factor of a correction.
bool is_correction(const Graph&, std::string_view param);
// Weights that all corrections of a graph hold: they are no parameters of the model, only bytes.
int64_t correction_weights(const Graph&);
// InputError, naming a layer that has one and why that cannot be: "GGUF has no place for it".
void refuse_corrections(const Graph&, std::string_view why);

}  // namespace lathe
