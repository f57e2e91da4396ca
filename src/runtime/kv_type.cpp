#include "runtime/kv_type.h"

namespace lathe {

KvType kv_type_of(const op::Attention& a, std::optional<KvType> asked) {
  if (asked) return *asked;
  switch (a.cache.numerics) {
    case CacheNumerics::fp8:
      return KvType::fp8;
    case CacheNumerics::int8:
      return KvType::int8;
    case CacheNumerics::nvfp4:
      return KvType::nvfp4;
    case CacheNumerics::floats:
      break;
  }
  return KvType::f32;
}

KvType kv_type_of(const Graph& graph, std::optional<KvType> asked) {
  for (const NodeId id : graph.order())
    if (const auto* a = std::get_if<op::Attention>(&graph.node(id).op)) return kv_type_of(*a, asked);
  return asked.value_or(KvType::f32);
}

}  // namespace lathe
