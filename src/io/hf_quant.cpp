// transformers' own quantization methods.
#include <algorithm>

#include "core/error.h"
#include "core/keys.h"
#include "core/log.h"
#include "io/compressed_tensors.h"
#include "io/quant_methods.h"
#include "io/writer.h"
#include "quant/activations.h"

namespace lathe {
namespace {

// What transformers and AutoFP8 write. Modules that are converted or not have tensors that say so.
constexpr KnownKey fp8_keys[] = {"quant_method",
                                 "fmt",
                                 "activation_scheme",
                                 "weight_block_size",
                                 "scale_fmt",
                                 {"expert_dtype", "\"fp8\""},
                                 {"kv_cache_scheme", "null"},
                                 "modules_to_not_convert",
                                 "modules_to_convert",
                                 "ignored_layers",
                                 "dequantize"};  // how to load it
constexpr KnownKey mxfp4_keys[] = {"quant_method", "modules_to_not_convert", "dequantize"};
// Of its own arithmetic (llm_int8_*, bnb_4bit_compute_dtype) and storage none changes what codes mean.
constexpr KnownKey bitsandbytes_keys[] = {"quant_method",
                                          "load_in_4bit",
                                          "_load_in_4bit",
                                          {"load_in_8bit", "false"},
                                          {"_load_in_8bit", "false"},
                                          "bnb_4bit_quant_type",
                                          "bnb_4bit_use_double_quant",
                                          "bnb_4bit_compute_dtype",
                                          "bnb_4bit_quant_storage",
                                          "llm_int8_enable_fp32_cpu_offload",
                                          "llm_int8_has_fp16_weight",
                                          "llm_int8_skip_modules",
                                          "llm_int8_threshold"};

}  // namespace

// Rows and columns of a block that shares a scale.
std::pair<int, int> block_size(const Json& given, const std::string& where) {
  const bool pair = given.is_array() && given.size() == 2 &&
                    std::ranges::all_of(given, [](const Json& n) { return n.is_number_integer(); });
  const int64_t rows = pair ? given[0].get<int64_t>() : 0, cols = pair ? given[1].get<int64_t>() : 0;
  if (rows < 1 || cols < 1 || rows > 1 << 20 || cols > 1 << 20)
    throw input_error(where, "rows and columns of a block, [128, 128]", printable(given.dump(), 40));
  return {static_cast<int>(rows), static_cast<int>(cols)};
}

// quant_method "fp8" of transformers: blocks with weight_scale_inv, or one weight_scale. Dynamic activations
// have a scale for each row and block of columns, or for each row.
void parse_hf_fp8(const Json& q, const std::string& where, QuantConfig& out) {
  check_keys(q, fp8_keys, where);
  for (const char* key : {"modules_to_not_convert", "modules_to_convert", "ignored_layers"})
    check_names(q, key, where);
  if (const std::string fmt = get_string_or(q, "fmt", where, "e4m3"); fmt != "e4m3" && fmt != "float8_e4m3fn")
    throw input_error(where, "fmt e4m3", fmt::format("'{}'", printable(fmt)));
  const std::string activations = get_string_or(q, "activation_scheme", where, "dynamic");
  if (activations != "dynamic" && activations != "static")
    throw input_error(where, "activation_scheme dynamic or static",
                      fmt::format("'{}'", printable(activations)));
  const bool given = activations == "static";
  const std::string scales = get_string_or(q, "scale_fmt", where, "float");
  if (scales != "float" && scales != "ue8m0")
    throw input_error(where, "scale_fmt float or ue8m0", fmt::format("'{}'", printable(scales)));
  const bool rounded_scales = !given && scales == "ue8m0";
  if (rounded_scales)
    warn(
        "{}: activations whose scales are powers of two are not computed; they stay as they are, which is "
        "more exact",
        where);
  const Json* block = find(q, "weight_block_size");
  if (!block) {
    Numerics n = Numerics::fp8_tensor(DType::f32);
    if (!rounded_scales) n = n.over(given ? Activations::fp8_static : Activations::fp8_per_row);
    out.target_class(out.add({"fp8", &packing("ct.fp8"), n}));
    return;
  }
  const auto [rows, cols] = block_size(*block, where + ".weight_block_size");
  Numerics n = Numerics::grid(Numerics::Kind::e4m3, cols, DType::f32, rows);
  if (given || (!rounded_scales && cols == columns_per_scale(Activations::fp8_groups)))
    n.activations = given ? Activations::fp8_static : Activations::fp8_groups;
  else if (!rounded_scales)  // one scale for as many columns as a block of weights has
    warn("{}: activations in groups of {} are not computed; they stay as they are, which is more exact",
         where, cols);
  out.target_class(out.add({"fp8", &packing("hf.fp8"), n}));
}

// quant_method "bitsandbytes": only nf4, whose group size is beside each weight.
void parse_bitsandbytes(const Json& q, const std::string& where, QuantConfig& out) {
  check_keys(q, bitsandbytes_keys, where);
  check_names(q, "llm_int8_skip_modules", where);
  const std::string type = get_string_or(q, "bnb_4bit_quant_type", where, "fp4");
  if (!get_bool_or(q, "load_in_4bit", where, false) || type != "nf4" ||
      get_bool_or(q, "bnb_4bit_use_double_quant", where, false))
    throw input_error(where, "load_in_4bit, bnb_4bit_quant_type nf4 and no double quantization",
                      printable(q.dump(), 200));
  out.target_class(out.add({"bitsandbytes", &packing("bnb.nf4"), Numerics::nf4()}));
}

// gpt-oss: experts in blocks of 32, everything else as it is.
void parse_hf_mxfp4(const Json& q, const std::string& where, QuantConfig& out) {
  check_keys(q, mxfp4_keys, where);
  check_names(q, "modules_to_not_convert", where);
  out.target_class(out.add({"mxfp4", &packing("openai.mxfp4"), Numerics::mxfp4()}));
}

// The schema of transformers' BitsAndBytesConfig. It has no room for a second format.
Json bitsandbytes_config(const std::vector<PlannedEntry>& entries) {
  Json dense = Json::array();
  for (const PlannedEntry& entry : entries) {
    if (!entry.numerics.is_dense() && entry.packing->name != "bnb.nf4")
      throw input_error(entry.name, "nf4 for every quantized weight beside another one in nf4",
                        to_string(entry.numerics),
                        "bitsandbytes' format, the only one with nf4, holds no other numbers");
    if (entry.numerics.is_dense() && entry.shape.size() == 2) dense.push_back(module_of(entry.name));
  }
  return {{"quant_method", "bitsandbytes"},
          {"load_in_4bit", true},
          {"load_in_8bit", false},
          {"bnb_4bit_quant_type", "nf4"},
          {"bnb_4bit_use_double_quant", false},
          {"bnb_4bit_compute_dtype", "bfloat16"},
          {"bnb_4bit_quant_storage", "uint8"},
          {"llm_int8_skip_modules", std::move(dense)}};
}

}  // namespace lathe
