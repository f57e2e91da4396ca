// How configs say which numbers a KV cache holds.
#include "core/error.h"
#include "core/log.h"
#include "io/quant_methods.h"

namespace lathe {
namespace {

struct Row {
  CacheNumerics numerics;
  std::string_view type;
  int bits;
};
constexpr Row rows[] = {
    {CacheNumerics::fp8, "float", 8}, {CacheNumerics::int8, "int", 8}, {CacheNumerics::nvfp4, "float", 4}};

constexpr std::string_view strategies[] = {"token", "tensor", "attn_head"};  // of CacheScales

}  // namespace

CacheScheme parse_cache_scheme(const Json& scheme, const std::string& where) {
  check_args(scheme, where);
  const std::string type = get_string_or(scheme, "type", where, "int"),
                    strategy = get_string_or(scheme, "strategy", where, "tensor");
  const int64_t bits = get_int_or(scheme, "num_bits", where, 1, 32, 8);
  const Json* dynamic = find(scheme, "dynamic");
  const bool known = strategy == "tensor" || strategy == "attn_head" || strategy == "token" ||
                     (strategy == "tensor_group" && bits == 4);
  for (const Row& row : rows)
    if (known && row.type == type && row.bits == bits && get_bool_or(scheme, "symmetric", where, true))
      return {row.numerics, dynamic && *dynamic == true ? CacheScales::row
                            : strategy == "attn_head"   ? CacheScales::head
                                                        : CacheScales::layer};
  warn("{}: {} bits of {}, {}, are not computed; keys and values stay as they are, which is more exact",
       where, bits, printable(type), printable(strategy));
  return {};
}

// All keys of compressed-tensors' schema that every version since 0.9 knows.
Json cache_scheme_json(const CacheScheme& cache) {
  for (const Row& row : rows)
    if (row.numerics == cache.numerics)
      return {{"actorder", nullptr},
              {"block_structure", nullptr},
              {"dynamic", cache.scales == CacheScales::row},
              {"group_size", nullptr},
              {"num_bits", row.bits},
              {"observer", "minmax"},
              {"observer_kwargs", Json::object()},
              {"strategy", strategies[static_cast<size_t>(cache.scales)]},
              {"symmetric", true},
              {"type", row.type}};
  return nullptr;
}

}  // namespace lathe
