// AutoGPTQ's, GPTQModel's and AutoAWQ's quantization_config: one format for all modules, exceptions by
// pattern. What desc_act says is in the tensors too (g_idx), and there it is exact.
#include <initializer_list>

#include "core/error.h"
#include "core/keys.h"
#include "io/quant_methods.h"

namespace lathe {
namespace {

// What AutoGPTQ, GPTQModel, AutoAWQ, transformers and AutoRound write. Read, by one of several names, or
// changing the numbers if they said something else:
constexpr KnownKey read_keys[] = {"quant_method",
                                  "method",
                                  "bits",
                                  "w_bit",
                                  "group_size",
                                  "q_group_size",
                                  "checkpoint_format",
                                  "format",
                                  {"data_type", "\"int\""},
                                  {"rotation", "null"},
                                  {"adapter", "null"},
                                  {"is_marlin_format", "false"}};
// What tensors say themselves: the order of columns, and which modules are quantized.
constexpr KnownKey tensor_keys[] = {"desc_act",
                                    "lm_head",
                                    "modules_to_not_convert",
                                    "block_name_to_quantize",
                                    "modules_in_block_to_quantize",
                                    "module_name_preceding_first_block",
                                    "to_quant_block_names",
                                    "quant_block_list"};
// How the numbers were found.
constexpr KnownKey method_keys[] = {"damp_percent",
                                    "damp_auto_increment",
                                    "static_groups",
                                    "true_sequential",
                                    "act_group_aware",
                                    "hyb_act",
                                    "mse",
                                    "gptaq",
                                    "foem",
                                    "v2",
                                    "hessian",
                                    "fallback",
                                    "failsafe",
                                    "smoother",
                                    "smooth",
                                    "dataset",
                                    "tokenizer",
                                    "batch_size",
                                    "model_seqlen",
                                    "max_input_length",
                                    "pad_token_id",
                                    "cache_block_outputs",
                                    "amp",
                                    "enable_minmax_tuning",
                                    "enable_norm_bias_tuning",
                                    "enable_quanted_input",
                                    "gradient_accumulate_steps",
                                    "iters",
                                    "lr",
                                    "minmax_lr",
                                    "low_gpu_mem_usage",
                                    "nsamples",
                                    "seqlen",
                                    "train_bs"};
// Who wrote them, and how they may be computed.
constexpr KnownKey origin_keys[] = {"meta",
                                    "quantizer",
                                    "autoround_version",
                                    "model_name_or_path",
                                    "model_file_base_name",
                                    "awq_gemm_checkpoint",
                                    "backend",
                                    "use_exllama",
                                    "disable_exllama",
                                    "exllama_config",
                                    "use_cuda_fp16",
                                    "scale_dtype",
                                    "do_fuse",
                                    "fuse_max_seq_len",
                                    "modules_to_fuse"};
constexpr KnownKey gptq_keys[] = {"sym", "dynamic", "pack_dtype"};
// transformers' AwqConfig has all of its GPTQConfig: zero points are zero_point's and the tensors' say.
constexpr KnownKey awq_keys[] = {
    "version", "zero_point", {"dynamic", "null"}, {"pack_dtype", "\"int32\""}, "sym"};
// Of a rule of "dynamic": the first five are read.
constexpr KnownKey rule_keys[] = {"bits",
                                  "w_bit",
                                  "group_size",
                                  "q_group_size",
                                  "sym",
                                  "desc_act",
                                  "static_groups",
                                  "damp_percent",
                                  "damp_auto_increment",
                                  "true_sequential",
                                  "mse",
                                  "act_group_aware",
                                  "hyb_act",
                                  "gptaq",
                                  "foem",
                                  "hessian",
                                  "fallback",
                                  "failsafe",
                                  "smoother",
                                  "smooth",
                                  {"adapter", "null"}};

void check_all(const Json& q, std::span<const KnownKey> own, const std::string& where) {
  std::vector<KnownKey> all(own.begin(), own.end());
  for (const std::span<const KnownKey> some :
       std::initializer_list<std::span<const KnownKey>>{read_keys, tensor_keys, method_keys, origin_keys})
    all.insert(all.end(), some.begin(), some.end());
  check_keys(q, all, where);
  check_names(q, "modules_to_not_convert", where);
}

// In lower case: what all names of a key say. Empty where there is none.
std::string same_of(const Json& q, std::initializer_list<const char*> names, const std::string& where) {
  std::string found;
  for (const char* name : names) {
    std::string text = get_string_or(q, name, where, "");
    for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    if (!text.empty() && !found.empty() && text != found)
      throw input_error(fmt::format("{}: {}", where, name), fmt::format("'{}' as before", printable(found)),
                        fmt::format("'{}'", printable(text)));
    if (!text.empty()) found = text;
  }
  return found;
}

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
  check_all(q, gptq_keys, where);
  const std::string said = same_of(q, {"checkpoint_format", "format"}, where),
                    format = said.empty() ? "gptq" : said;
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
    check_keys(changes, rule_keys, at);
    out.target_pattern(pattern.starts_with("+:") ? pattern.substr(2) : pattern,
                       out.add(gptq_scheme(changes, all, at)), at);
  }
}

void parse_awq(const Json& q, const std::string& where, QuantConfig& out) {
  check_all(q, awq_keys, where);
  const std::string version = same_of(q, {"version", "checkpoint_format", "format"}, where);
  if (!version.empty() && version != "gemm")
    throw input_error(where, "version gemm", fmt::format("'{}'", printable(version)),
                      "the others are a kernel's own order; save the model as gemm");
  if (const int bits = integer_of(q, {"bits", "w_bit"}, where, 1, 32, 4); bits != 4)
    throw input_error(where + ": bits", "4", std::to_string(bits));
  const bool zeros = get_bool_or(q, "zero_point", where, true);
  out.target_class(out.add(
      {"awq", &packing("awq.gemm"), Numerics::integer(4, group_of(q, where, 128), zeros, DType::f16)}));
}

}  // namespace lathe
