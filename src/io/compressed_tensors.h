// Names that compressed-tensors and those that follow it give to weights.
#pragma once

#include <string>
#include <string_view>

namespace lathe {

// "model.layers.0.mlp.up_proj" of "model.layers.0.mlp.up_proj.weight"; Error for any other name.
std::string module_of(std::string_view entry);

}  // namespace lathe
