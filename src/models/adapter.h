// LoRA adapters (https://arxiv.org/abs/2106.09685) in the files of Hugging Face's PEFT.
#pragma once

#include "models/model.h"

namespace lathe {

// Puts the adapter in `directory` (adapter_config.json, adapter_model.safetensors) behind the linear layers
// that it names, as op::LowRank of that number: from 1, for the sequences whose batch asks for it; 0: for
// all. The weights that the model has stay as they are, in whatever format. InputError on what would not be
// the adapter's function: another kind than LoRA, DoRA, biases, modules of its own, per-layer ranks, tensors
// without a layer, shapes that do not fit.
void add_adapter(Model&, const fs::path& directory, int number);

// The largest number of an adapter in a graph; 0: none.
int adapters_of(const Graph&);

}  // namespace lathe
