#include "export/gguf.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>

#include "core/cpu.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "export/gguf_mix.h"
#include "export/gguf_tokenizer.h"
#include "io/gguf_writer.h"
#include "io/model_name.h"
#include "models/definitions.h"
#include "models/hadamard.h"
#include "models/kv_cache.h"
#include "models/low_rank.h"
#include "models/names.h"
#include "quant/round_blocks.h"

namespace lathe {
namespace {

// Rows [row, row + rows) of `from` in the numbers and bytes of `to`.
void convert_strip(const Weight& from, int64_t row, int64_t rows, const float* importance, Codes& between,
                   Weight& to) {
  std::vector<float> values(static_cast<size_t>(rows * from.cols()));
  read_rows(from, row, rows, values.data(), between);
  if (!to.numerics.is_dense())
    return to.packing->pack(round_blocks(values.data(), rows, from.cols(), to.numerics, importance), row, to);
  if (to.numerics.dtype == DType::f16)
    for (const float v : values)
      if (std::fabs(v) > 65504) throw InputError(fmt::format("{} does not fit f16; choose --type bf16", v));
  Codes strip;
  strip.numerics = to.numerics;
  strip.rows = rows;
  strip.cols = from.cols();
  strip.values = std::move(values);
  to.packing->pack(strip, row, to);
}

Weight as_type(ThreadPool& pool, const Weight& from, const GgufType& type, const float* importance) {
  const Packing& wanted = packing(type.packing);
  const bool same = from.numerics.weights_alone() == type.numerics;
  if (from.packing == &wanted && from.numerics == type.numerics) return from;
  Weight to = make_weight(type.numerics, wanted, from.shape);
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failing;
  pool.run([&](int, int) {
    Codes between;
    try {
      for (int64_t row; (row = next.fetch_add(pack_row_multiple)) < from.rows();)
        if (same)
          repack_strip(from, row, to, between);
        else
          convert_strip(from, row, std::min(pack_row_multiple, from.rows() - row), importance, between, to);
    } catch (...) {
      const std::lock_guard lock(failing);
      failure = std::current_exception();
      next = from.rows();
    }
  });
  if (failure) std::rethrow_exception(failure);
  return to;
}

// Whether every number of the first is one of the second.
bool keeps(const Numerics& from, const Numerics& to) {
  if (from.weights_alone() == to) return true;
  return from.is_dense() && to == Numerics::dense(DType::f32) &&
         (from.dtype == DType::bf16 || from.dtype == DType::f16);
}

// Where a config says how frequencies are scaled; empty: nowhere.
std::string rope_scaling_key(const Json& config) {
  for (const char* key : {"rope_parameters", "rope_scaling"})
    if (config.contains(key) && config[key].is_object()) return key;
  return {};
}

std::vector<float> frequencies(const Json& config) {
  const auto head_dim = get_int_or(config, "head_dim", "config.json", 2, 65'536,
                                   get_int(config, "hidden_size", "config.json", 1, INT32_MAX) /
                                       get_int(config, "num_attention_heads", "config.json", 1, 65'536));
  return rope_table(config, static_cast<int>(head_dim)).inv_freq;
}

// What GGUF's llama divides frequencies by, where a config scales them one by one: the divisors that give
// back the model's own, exactly where two floats have that quotient.
std::vector<float> rope_divisors(const Json& config) {
  const std::string key = rope_scaling_key(config);
  if (key.empty()) return {};
  const Json& scaling = config[key];
  const std::string kind = scaling.value("rope_type", scaling.value("type", "default"));
  if (kind == "divisors") return scaling.at("divisors").get<std::vector<float>>();  // a GGUF's own
  if (kind != "llama3") return {};
  Json plain = config;
  plain.erase("rope_scaling");
  plain.erase("rope_parameters");
  if (scaling.contains("rope_theta")) plain["rope_theta"] = scaling["rope_theta"];
  const std::vector<float> base = frequencies(plain), scaled = frequencies(config);
  std::vector<float> out;
  for (size_t i = 0; i < base.size(); ++i) {
    float divisor = base[i] / scaled[i];
    for (const float other : {std::nextafter(divisor, 0.0f), std::nextafter(divisor, INFINITY)})
      if (base[i] / divisor != scaled[i] && base[i] / other == scaled[i]) divisor = other;
    out.push_back(divisor);
  }
  return out;
}

// A tensor of the file, and the parameters that it is made of: one, or the same matrix of each expert.
struct Planned {
  GgufWriter::Item item;
  std::vector<std::string> params;
};

// In the order of parameters' names, experts' by their numbers.
std::vector<Planned> plan_tensors(const Model& model, const GgufMix& mix) {
  const bool tied = !model.weights.contains("lm_head.weight");
  std::vector<Planned> out;
  std::map<std::string, size_t> of_experts;  // where in `out`
  for (const auto& [param, weight] : model.weights) {
    std::string name = gguf_binding(param, model.config).stored;
    const size_t bracket = name.find('[');
    if (bracket == std::string::npos) {
      const bool head = param == (tied ? "model.embed_tokens.weight" : "lm_head.weight");
      // The gate of a shared expert is a vector there.
      const Shape shape = name.ends_with(".ffn_gate_inp_shexp.weight") ? Shape{weight.cols()} : weight.shape;
      const GgufType& type = mix.type_of(name, shape, head);
      out.push_back({{std::move(name), &type, shape}, {param}});
      continue;
    }
    const auto expert = static_cast<size_t>(std::stoi(name.substr(bracket + 1)));
    name.resize(bracket);
    const auto [found, first] = of_experts.try_emplace(name, out.size());
    if (first) {
      out.push_back({{name, &mix.type_of(name, weight.shape, false), weight.shape, true}, {}});
      out.back().item.shape.insert(out.back().item.shape.begin(), 0);
    }
    Planned& tensor = out[found->second];
    tensor.item.shape[0] = std::max(tensor.item.shape[0], static_cast<int64_t>(expert) + 1);
    tensor.params.resize(static_cast<size_t>(tensor.item.shape[0]));
    tensor.params[expert] = param;
  }
  for (Planned& tensor : out)
    if (tensor.item.experts && std::ranges::all_of(tensor.params, [&](const std::string& param) {
          return model.weights.at(param).numerics.weights_alone() == Numerics::mxfp4();
        }))
      tensor.item.type = &mix.type_of_mxfp4(tensor.item.name, tensor.item.shape);
  return out;
}

Weight as_vector(Weight w) {
  w.shape = {w.cols()};
  w.parts[0].shape = w.shape;
  return w;
}

void warn_of_windows(const Model& model) {
  if (model.config.value("model_type", "") == "gpt_oss") return;  // has one there too
  for (NodeId id : model.graph.order())
    if (const auto* attention = std::get_if<op::Attention>(&model.graph.node(id).op);
        attention && attention->window) {
      warn("GGUF's architecture has no sliding window: texts beyond {} tokens give other results there",
           attention->window);
      return;
    }
}

// llama.cpp rounds the bounds of the dimensions that YaRN blends; gpt-oss leaves them as they are.
void warn_of_yarn(const Model& model) {
  Json rounded = model.config;
  const std::string key = rope_scaling_key(rounded);
  if (key.empty() || !rounded[key].contains("truncate")) return;
  rounded[key]["truncate"] = true;
  const std::vector<float> ours = frequencies(model.config), theirs = frequencies(rounded);
  float most = 0;
  for (size_t i = 0; i < ours.size(); ++i) most = std::max(most, std::fabs(theirs[i] / ours[i] - 1));
  if (most > 1e-4f)
    warn(
        "llama.cpp rounds the range of dimensions that YaRN blends, this model does not: rotations differ by "
        "up to {:.1f}% there",
        100 * most);
}

// Weights keep their numbers; how their input is rounded has no place in the file.
void warn_of_activations(const Model& model) {
  if (const auto n = std::ranges::count_if(
          model.weights, [](const auto& w) { return w.second.numerics.rounds_activations(); });
      n > 0)
    warn("GGUF does not say how activations are rounded: those of {} weights are not, there", n);
}

std::string plain_name(const Checkpoint& from) {
  const fs::path name = model_name(from.path());
  return from.gguf() ? name.stem().string() : name.string();
}

std::vector<GgufEntry> metadata_of(const Model& model, const Checkpoint& from, uint32_t file_type) {
  std::vector<GgufEntry> out = metadata_from_config(model.config);
  const GgufFile* source = from.gguf();
  out.push_back({"general.name",
                 source && source->has("general.name") ? source->text("general.name") : plain_name(from)});
  out.push_back({"general.file_type", file_type});
  out.push_back({"general.quantization_version", uint32_t{2}});
  std::vector<GgufEntry> tokenizer =
      tokenizer_metadata(from, get_int(model.config, "vocab_size", "config.json", 1, INT32_MAX));
  if (tokenizer.empty()) {
    warn("{}: no tokenizer.json; the file has no tokenizer", from.path().string());
    tokenizer.push_back({"tokenizer.ggml.model", std::string("no_vocab")});
  }
  out.insert(out.end(), tokenizer.begin(), tokenizer.end());
  return out;
}

}  // namespace

GgufSummary export_gguf(const Model& given, const Checkpoint& from, const GgufExport& options,
                        const fs::path& file) {
  const Model model = without_cache(given, "GGUF");
  refuse_corrections(model.graph, "GGUF has no place for it");
  refuse_hadamards(model.graph, "GGUF has no place for it");
  warn_of_windows(model);
  warn_of_yarn(model);
  warn_of_activations(model);
  const auto count = [&](std::string_view key, int64_t absent) {
    return get_int_or(model.config, key, "config.json", 1, INT32_MAX, absent);
  };
  const GgufMix mix(options.type, count("num_hidden_layers", 0),
                    count("num_local_experts", count("num_experts", 0)));
  const std::vector<float> divisors = rope_divisors(model.config);
  const std::vector<Planned> plan = plan_tensors(model, mix);

  std::vector<GgufWriter::Item> items;
  GgufSummary summary;
  if (!divisors.empty())
    items.push_back(
        {"rope_freqs.weight", &mix.type_of("", {1}, false), {static_cast<int64_t>(divisors.size())}});
  for (const Planned& tensor : plan) {
    items.push_back(tensor.item);
    ++summary.types[std::string(tensor.item.type->name)];
    for (const std::string& param : tensor.params) {
      const Weight& weight = model.weights.at(param);
      summary.exact += weight.shape.size() > 1 && keeps(weight.numerics, tensor.item.type->numerics);
    }
  }

  const uint32_t file_type = mix.file_type(summary.types.contains("MXFP4"));
  GgufWriter writer(file, metadata_of(model, from, file_type), items);
  if (!divisors.empty()) writer.write(dense_weight(Tensor::of<float>(DType::f32, items[0].shape, divisors)));
  ThreadPool pool(options.threads > 0 ? options.threads : physical_cores());
  Progress progress("writing", static_cast<int64_t>(model.bytes()));
  for (const Planned& tensor : plan)
    for (const std::string& param : tensor.params) {
      const Weight& weight = model.weights.at(param);
      const auto importance = options.importance.find(param);
      if (importance != options.importance.end() && std::ssize(importance->second) != weight.cols())
        fail("importance of '{}': {} numbers for {} columns", param, importance->second.size(),
             weight.cols());
      Weight written = as_type(pool, weight, *tensor.item.type,
                               importance == options.importance.end() ? nullptr : importance->second.data());
      if (tensor.item.shape.size() == 1) written = as_vector(std::move(written));
      const Binding binding = gguf_binding(param, model.config);
      writer.write(binding.transform ? binding.transform(written) : written);
      if (from.find(param)) from.forget(param);
      progress.advance(static_cast<int64_t>(weight.bytes()), param);
    }
  writer.finish();
  summary.bytes = fs::file_size(file);
  return summary;
}

}  // namespace lathe
