// Formats by module: globs over module paths, in order. "Vision int8, language int4, head bf16" is three of
// them.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "compress/quantize.h"

namespace lathe {

// Every matrix that the glob matches gets the format, the head and tables too; the last policy that matches
// decides.
struct Policy {
  std::string glob;    // as fnmatch(3): "lm_head", "*.mlp.*"
  std::string format;  // as parse_format()
};
// "GLOB=FORMAT". InputError on anything else.
Policy parse_policy(std::string_view text);

// "keep" (nothing: as it is), "bf16", "f16", "f32", or a scheme of parse_scheme() with ":g32" for its groups
// and ":asym" for zero points: "w4a16:g32:asym". InputError naming `where` on anything else.
std::optional<Numerics> parse_format(std::string_view text, DType scale, std::string_view where);

// Layers that read one input (q, k and v; gate and up) are one matrix to other runtimes, which then want one
// format. What to do where they have several: nothing, InputError, or the format of most bytes for all.
enum class Fused : uint8_t { apart, error, promote };
inline constexpr std::string_view fused_names[] = {"apart", "error", "promote"};
Fused parse_fused(std::string_view name, std::string_view where);

// Changes an assignment by policies. Returns why, for every parameter that a policy or a promotion decided.
// InputError, naming it, on a glob that matches nothing and on layers that have to agree and do not.
using Reasons = std::map<std::string, std::string, std::less<>>;
Reasons apply_policies(const Model&, std::span<const Policy>, Fused, std::string_view where, Assignment&);

}  // namespace lathe
