#include "compress/save.h"

#include "compress/write_behind.h"
#include "core/cpu.h"
#include "core/log.h"
#include "core/progress.h"
#include "io/model_hash.h"
#include "io/writer.h"
#include "models/hadamard.h"
#include "models/kv_cache.h"
#include "models/stacked_experts.h"

namespace lathe {
namespace {

// The numbers that a weight is written in: as assigned, else its own where compressed-tensors can hold them.
Numerics written_as(const std::string& name, const Weight& weight, const Assignment& assignment,
                    DType dense) {
  if (const auto it = assignment.find(name); it != assignment.end()) return it->second;
  const Numerics& own = weight.numerics;
  const bool whole_groups =
      own.is_dense() || own.group == 0 || own.block_rows != 1 || weight.cols() % own.group == 0;
  return storage_packing(own).holds(own) && whole_groups ? own : Numerics::dense(dense);
}

// Nothing is made: the weight is written as it is.
bool stays(const Weight& from, const PlannedEntry& to) {
  return from.numerics == to.numerics && from.packing == to.packing;
}

Weight as_planned(ThreadPool& pool, const Weight& from, const PlannedEntry& to, bool assigned, ScaleRule rule,
                  float largest, Weight spare) {
  if (assigned) return quantize_into(std::move(spare), pool, from, to.numerics, rule, largest);
  if (stays(from, to)) return from;
  spare = {};  // of other numbers
  return from.numerics == to.numerics ? repack(from, *to.packing) : to_dense(from, to.numerics.dtype);
}

// The matrices of experts have tensors of their own here, also where Hugging Face's code wants one for all.
void warn_of_experts_apart(const Model& model, std::span<const PlannedEntry> entries) {
  int64_t count = 0;
  const PlannedEntry* first = nullptr;
  for (const PlannedEntry& entry : entries)
    if (entry.numerics.is_dense() && is_stacked_elsewhere(entry.name, model.config) && ++count == 1)
      first = &entry;
  if (first)
    warn(
        "{}: it and {} others are written as tensors of their own, not quantized: Lathe reads them, but "
        "transformers reads this model's experts from one tensor of a layer",
        first->name, count - 1);
}

}  // namespace

Weight to_dense(const Weight& from, DType dtype) {
  Weight to = make_weight(Numerics::dense(dtype), packing("dense"), from.shape);
  const int64_t rows = from.rows();
  for (int64_t row = 0; row < rows; row += pack_row_multiple) {
    Codes strip{to.numerics, std::min(pack_row_multiple, rows - row), from.cols(), {}, {}, {}, {}};
    strip.values.resize(static_cast<size_t>(strip.rows * strip.cols));
    read_rows(from, row, strip.rows, strip.values.data());
    to.packing->pack(strip, row, to);
  }
  return to;
}

// In the order in which CheckpointWriter writes.
std::string hash_of(const Model& model) {
  ModelHash hash;
  for (const auto& [name, weight] : model.weights) {
    const std::vector<Part> parts = weight.packing->parts(weight.numerics, weight.shape);
    for (size_t i = 0; i < parts.size(); ++i)
      hash.add(weight.numerics.is_dense() ? name : fmt::format("{}.{}", module_path(name), parts[i].name),
               weight.parts[i]);
    if (weight.packing->name == "ct.pack32")
      hash.add(module_path(name) + ".weight_shape", Tensor::of<int64_t>(DType::i64, {2}, weight.shape));
  }
  return hash.hex();
}

std::vector<PlannedEntry> planned_entries(const Model& model, const Assignment& assignment) {
  std::vector<PlannedEntry> entries;
  for (const auto& [name, weight] : model.weights) {
    const Numerics numerics = written_as(name, weight, assignment, scale_dtype(model.config));
    entries.push_back({name, numerics, &storage_packing(numerics), weight.shape});
  }
  return entries;
}

std::string save(const Model& model, const Checkpoint& from, const Assignment& assignment, ScaleRule rule,
                 const fs::path& directory, int threads) {
  const std::vector<PlannedEntry> entries = planned_entries(model, assignment);
  for (const PlannedEntry& entry : entries)
    if (const Numerics& own = model.weights.at(entry.name).numerics;
        entry.numerics != own && !assignment.contains(entry.name))
      warn("{}: {} has no form in compressed-tensors; written as {}", entry.name, to_string(own),
           to_string(entry.numerics));
  warn_of_experts_apart(model, entries);
  CheckpointWriter writer(directory, model.config, entries, standard_shard_bytes,
                          transform_config(model.graph), cache_scheme(model.graph));
  const auto largest = shared_largest(model, assignment, threads);
  // One for all weights: to start threads, the machine's topology is read from some hundred files.
  ThreadPool pool(threads > 0 ? threads : physical_cores());
  Progress progress("writing", static_cast<int64_t>(model.bytes()));
  WriteBehind behind([&](const std::string& name, const Weight& weight) {
    writer.write(weight);
    if (from.find(name)) from.forget(name);
  });
  for (const PlannedEntry& entry : entries) {
    const Weight& weight = model.weights.at(entry.name);
    const bool assigned = assignment.contains(entry.name), mapped = stays(weight, entry) && !assigned;
    Weight spare = mapped ? Weight{} : behind.spare_for(entry);
    behind.push(entry.name,
                as_planned(pool, weight, entry, assigned, rule,
                           largest.contains(entry.name) ? largest.at(entry.name) : -1, std::move(spare)),
                mapped);
    progress.advance(static_cast<int64_t>(weight.bytes()), entry.name);
  }
  behind.finish();
  if (from.is_gguf())
    warn(
        "{}: the tokenizer inside a GGUF file is not exported; put the model's tokenizer.json beside the "
        "result",
        from.path().string());
  else
    copy_companions(from.path(), directory);
  return writer.finish();
}

}  // namespace lathe
