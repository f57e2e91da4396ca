// What a token takes of the KV cache, read off the graph.
#pragma once

#include <optional>

#include "graph/graph.h"
#include "kernels/attention.h"

namespace lathe {

// Keys and values of all layers, held as asked for, else as the model says.
int64_t kv_bytes_per_token(const Graph&, std::optional<KvType>);

}  // namespace lathe
