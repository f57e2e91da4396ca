// What a token takes of the KV cache, read off the graph.
#pragma once

#include "graph/graph.h"
#include "kernels/attention.h"

namespace lathe {

int64_t kv_bytes_per_token(const Graph&, KvType);  // keys and values of all layers

}  // namespace lathe
