// AutoGPTQ's, GPTQModel's and AutoAWQ's quantization_config: one format for all modules, exceptions by
// pattern. What desc_act says is in the tensors too (g_idx), and there it is exact.
#include <initializer_list>

#include "core/error.h"
#include "io/quant_methods.h"

namespace lathe {
namespace {

// The first of several names for the same key.
int integer_of(const Json& q, std::initializer_list<const char*> keys, const std::string& where, int64_t lo,
               int64_t hi, int fallback) {
  for (const char* key : keys)
    if (find(q, key)) return static_cast<int>(get_int(q, key, where, lo, hi));
  return fallback;
}

// 0: per row, which configs call -1.
int group_of(const Json& q, const std::string& where, int fallback) {
  const int group =
      integer_of(q, {"group_size", "q_group_size"}, where, -1, 1 << 20, fallback ? fallback : -1);
  if (group == 0) throw input_error(where + ": group_size", "-1 or a positive number", "0");
  return group < 0 ? 0 : group;
}

// Symmetric numbers have no zero points that matter: all are in the middle, and reading checks it.
QuantScheme gptq_scheme(const Json& q, const QuantScheme& otherwise, const std::string& where) {
  QuantScheme out = otherwise;
  const Numerics& n = otherwise.numerics;
  const int bits = integer_of(q, {"bits", "w_bit"}, where, 2, 8, n.is_integer() ? n.bits : 0);
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8)
    throw input_error(where + ": bits", "2, 3, 4 or 8", bits ? std::to_string(bits) : "none");
  const bool asymmetric =
      !get_bool_or(q, "sym", where, !n.is_integer() || n.offset == Numerics::Offset::none);
  out.numerics =
      Numerics::integer(bits, group_of(q, where, n.is_integer() ? n.group : 0), asymmetric, DType::f16);
  return out;
}

}  // namespace

void parse_gptq(const Json& q, const std::string& where, QuantConfig& out) {
  const std::string format = get_string_or(q, "checkpoint_format", where, "gptq");
  if (format != "gptq" && format != "gptq_v2")
    throw input_error(where, "checkpoint_format gptq or gptq_v2", fmt::format("'{}'", printable(format)),
                      "others are a kernel's own order; save the model as gptq");
  if (const std::string words = get_string_or(q, "pack_dtype", where, "int32"); words != "int32")
    throw input_error(where, "pack_dtype int32", fmt::format("'{}'", printable(words)));
  const QuantScheme all =
      gptq_scheme(q, {"gptq", &packing(format == "gptq" ? "gptq.v1" : "gptq.v2"), {}}, where);
  out.target_class(out.add(all));

  const Json* dynamic = find(q, "dynamic");
  if (!dynamic) return;
  if (!dynamic->is_object())
    throw input_error(where + ": dynamic", "an object or null", dynamic->type_name());
  for (const auto& [pattern, changes] : dynamic->items()) {
    const std::string at = fmt::format("{}: dynamic '{}'", where, printable(pattern));
    if (pattern.starts_with("-:"))
      continue;  // such modules are not quantized, and have no tensors that say so
    if (!changes.is_object()) throw input_error(at, "an object", changes.type_name());
    out.target_pattern(pattern.starts_with("+:") ? pattern.substr(2) : pattern,
                       out.add(gptq_scheme(changes, all, at)), at);
  }
}

void parse_awq(const Json& q, const std::string& where, QuantConfig& out) {
  std::string version = get_string_or(q, "version", where, "gemm");
  for (char& c : version) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  if (version != "gemm")
    throw input_error(where, "version gemm", fmt::format("'{}'", printable(version)),
                      "the others are a kernel's own order; save the model as gemm");
  if (const int bits = integer_of(q, {"bits", "w_bit"}, where, 1, 32, 4); bits != 4)
    throw input_error(where + ": bits", "4", std::to_string(bits));
  const bool zeros = get_bool_or(q, "zero_point", where, true);
  out.target_class(out.add(
      {"awq", &packing("awq.gemm"), Numerics::integer(4, group_of(q, where, 128), zeros, DType::f16)}));
}

}  // namespace lathe
