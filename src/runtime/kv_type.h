// How a plan holds keys and values: as asked for, else in the model's own numerics.
#pragma once

#include <optional>

#include "graph/graph.h"
#include "kernels/attention.h"

namespace lathe {

KvType kv_type_of(const op::Attention&, std::optional<KvType> asked = {});
// Of all layers, where they agree; else of the first.
KvType kv_type_of(const Graph&, std::optional<KvType> asked = {});

}  // namespace lathe
