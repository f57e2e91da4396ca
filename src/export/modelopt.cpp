#include "export/modelopt.h"

#include <algorithm>

#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "io/writer.h"
#include "models/hadamard.h"
#include "models/kv_cache.h"
#include "models/low_rank.h"

namespace lathe {
namespace {

// What the weight is called and how it lies. ModelOpt stores scales of FP8 and INT8 as f32.
PlannedEntry planned(const std::string& name, const Weight& weight) {
  const Numerics& n = weight.numerics;
  if (n.is_dense()) return {name, n, &packing("dense"), weight.shape};
  if (name.ends_with("embed_tokens.weight"))
    throw input_error(fmt::format("tensor '{}'", name), "an embedding that is not quantized", to_string(n),
                      "ModelOpt quantizes linear layers only");
  PlannedEntry out{name, n, nullptr, weight.shape};
  if (n.bits == 8 && n.dtype != DType::f8e8m0) out.numerics.dtype = DType::f32;
  for (const std::string_view candidate :
       {"modelopt.fp8", "modelopt.nvfp4", "modelopt.int4", "modelopt.int8"})
    if (packing(candidate).holds(out.numerics)) out.packing = &packing(candidate);
  if (!out.packing)
    throw input_error(fmt::format("tensor '{}'", name),
                      "fp8 (per tensor, per channel or in blocks of 128), nvfp4, symmetric int4 in groups or "
                      "int8 per channel",
                      to_string(n),
                      "no algorithm of ModelOpt has these numbers; quantize the model to one of those");
  if (out.packing->name == "modelopt.int4" && weight.rows() % 2 != 0)
    throw input_error(fmt::format("tensor '{}'", name), "rows in pairs", to_string(weight.shape));
  return out;
}

// The same numbers; a scale may be of a wider type.
Weight stored_as(const Weight& from, const PlannedEntry& to) {
  if (from.packing == to.packing && from.numerics == to.numerics) return from;
  Weight out = make_weight(to.numerics, *to.packing, to.shape);
  Codes strip;
  for (int64_t row = 0; row < from.rows(); row += pack_row_multiple) {
    from.packing->unpack(from, row, std::min(pack_row_multiple, from.rows() - row), strip);
    strip.numerics = to.numerics;
    to.packing->pack(strip, row, out);
  }
  return out;
}

// ModelOpt keeps a layer's scale of keys beside k_proj, and that of values beside v_proj.
std::string stored_name(const std::string& scale) {
  const size_t dot = scale.rfind('.');
  return fmt::format("{}.{}_proj.{}", scale.substr(0, dot), scale[dot + 1], scale.substr(dot + 1));
}

}  // namespace

ModelOptSummary export_modelopt(const Model& model, const Checkpoint& from, const fs::path& directory) {
  refuse_corrections(model.graph, "ModelOpt's files have no place for it");
  refuse_hadamards(model.graph, "ModelOpt's files have no place for it");
  const CacheScheme cache = cache_scheme(model.graph);
  if (cache.rounds() && cache.scales != CacheScales::layer)
    throw input_error(from.path().string(), "scales of keys and values for a layer each, as ModelOpt has",
                      fmt::format("for a {} each", to_string(cache.scales)));
  std::vector<PlannedEntry> entries;
  std::vector<std::string> names;  // of the entries' weights in the model
  ModelOptSummary summary;
  bool quantized = false;
  for (const auto& [name, weight] : model.weights) {
    entries.push_back(planned(name, weight));
    names.push_back(name);
    if (is_cache_scale(model.graph, name)) entries.back().name = stored_name(name), entries.back().shape = {};
    quantized = quantized || !weight.numerics.is_dense();
    if (weight.shape.size() > 1) ++summary.forms[to_string(weight.numerics)];
  }
  if (!quantized)
    throw input_error(from.path().string(), "a quantized model", "none of its weights is",
                      "quantize it first: lathe quantize MODEL --scheme fp8, nvfp4 or w4a16");
  CheckpointWriter writer(directory, model.config, entries, standard_shard_bytes, Json::object(), cache);
  Progress progress("writing", static_cast<int64_t>(model.bytes()));
  for (size_t i = 0; i < entries.size(); ++i) {
    const PlannedEntry& entry = entries[i];
    const Weight& weight = model.weights.at(names[i]);
    Weight written = entry.numerics.is_dense() ? weight : stored_as(weight, entry);
    if (entry.shape.empty()) written.shape = written.parts[0].shape = {};
    writer.write(written);
    summary.bytes += written.bytes();
    if (from.find(entry.name)) from.forget(entry.name);
    progress.advance(static_cast<int64_t>(weight.bytes()), entry.name);
  }
  writer.finish();
  if (from.is_gguf())
    warn(
        "{}: the tokenizer inside a GGUF file is not exported; put the model's tokenizer.json beside the "
        "result",
        from.path().string());
  else
    copy_companions(from.path(), directory);
  return summary;
}

}  // namespace lathe
