#include "compress/save.h"

#include <future>

#include "core/checksum.h"
#include "core/cpu.h"
#include "core/hash.h"
#include "core/log.h"
#include "core/progress.h"
#include "io/writer.h"
#include "models/hadamard.h"
#include "models/kv_cache.h"

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

Weight as_planned(ThreadPool& pool, const Weight& from, const PlannedEntry& to, bool assigned, ScaleRule rule,
                  float largest) {
  if (assigned) return quantize_weight(pool, from, to.numerics, rule, largest);
  if (from.numerics != to.numerics) return to_dense(from, to.numerics.dtype);
  return from.packing == to.packing ? from : repack(from, *to.packing);
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

// The same text and bytes, in the same order, that CheckpointWriter adds while it writes.
template <class Hash>
static void add_all(const Model& model, Hash& hash) {
  auto add = [&](const std::string& name, const Tensor& tensor) {
    hash.add(fmt::format("{} {} {}\n", name, dtype_name(tensor.dtype), to_string(tensor.shape)));
    hash.add(tensor.storage.data, tensor.bytes());
  };
  for (const auto& [name, weight] : model.weights) {
    const std::vector<Part> parts = weight.packing->parts(weight.numerics, weight.shape);
    for (size_t i = 0; i < parts.size(); ++i)
      add(weight.numerics.is_dense() ? name : fmt::format("{}.{}", module_path(name), parts[i].name),
          weight.parts[i]);
    if (weight.packing->name == "ct.pack32")
      add(module_path(name) + ".weight_shape", Tensor::of<int64_t>(DType::i64, {2}, weight.shape));
  }
}

std::string hash_of(const Model& model) {
  Sha256 hash;
  add_all(model, hash);
  return hash.hex();
}

uint64_t checksum_of(const Model& model) {
  Checksum checksum;
  add_all(model, checksum);
  return checksum.value();
}

std::string save(const Model& model, const Checkpoint& from, const Assignment& assignment, ScaleRule rule,
                 const fs::path& directory, int threads) {
  return save_and_sum(model, from, assignment, rule, directory, threads).hash;
}

std::vector<PlannedEntry> planned_entries(const Model& model, const Assignment& assignment) {
  std::vector<PlannedEntry> entries;
  for (const auto& [name, weight] : model.weights) {
    const Numerics numerics = written_as(name, weight, assignment, scale_dtype(model.config));
    entries.push_back({name, numerics, &storage_packing(numerics), weight.shape});
  }
  return entries;
}

Saved save_and_sum(const Model& model, const Checkpoint& from, const Assignment& assignment, ScaleRule rule,
                   const fs::path& directory, int threads) {
  const std::vector<PlannedEntry> entries = planned_entries(model, assignment);
  for (const PlannedEntry& entry : entries)
    if (const Numerics& own = model.weights.at(entry.name).numerics;
        entry.numerics != own && !assignment.contains(entry.name))
      warn("{}: {} has no form in compressed-tensors; written as {}", entry.name, to_string(own),
           to_string(entry.numerics));
  CheckpointWriter writer(directory, model.config, entries, standard_shard_bytes,
                          transform_config(model.graph), cache_scheme(model.graph));
  const auto largest = shared_largest(model, assignment, threads);
  // One for all weights: to start threads, the machine's topology is read from some hundred files.
  ThreadPool pool(threads > 0 ? threads : physical_cores());
  Progress progress("writing", static_cast<int64_t>(model.bytes()));
  std::future<void> writing;  // of the weight before, while this one is rounded
  const auto finish_writing = [&] {
    if (writing.valid()) writing.get();
  };
  for (const PlannedEntry& entry : entries) {
    Weight rounded = as_planned(pool, model.weights.at(entry.name), entry, assignment.contains(entry.name),
                                rule, largest.contains(entry.name) ? largest.at(entry.name) : -1);
    finish_writing();
    writing =
        std::async(std::launch::async, [&writer, &from, name = entry.name, weight = std::move(rounded)] {
          writer.write(weight);
          if (from.find(name)) from.forget(name);
        });
    progress.advance(static_cast<int64_t>(model.weights.at(entry.name).bytes()), entry.name);
  }
  finish_writing();
  if (from.is_gguf())
    warn(
        "{}: the tokenizer inside a GGUF file is not exported; put the model's tokenizer.json beside the "
        "result",
        from.path().string());
  else
    copy_companions(from.path(), directory);
  std::string hash = writer.finish();
  return {std::move(hash), writer.checksum()};
}

}  // namespace lathe
