#include "engine/kv_size.h"

#include "runtime/kv_type.h"

namespace lathe {

int64_t kv_bytes_per_token(const Graph& graph, std::optional<KvType> asked) {
  int64_t bytes = 0;
  for (const NodeId id : graph.order())
    if (const auto* a = std::get_if<op::Attention>(&graph.node(id).op))
      bytes += 2 * a->kv_heads * kv_row_bytes(kv_type_of(*a, asked), a->head_dim);
  return bytes;
}

}  // namespace lathe
