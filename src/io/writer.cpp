#include "io/writer.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "io/compressed_tensors.h"
#include "io/model_hash.h"
#include "io/safetensors.h"

namespace lathe {
namespace {

using Item = SafetensorsWriter::Item;

bool has_shape_tensor(const PlannedEntry& entry) { return entry.packing->name == "ct.pack32"; }

// The tensors of an entry as they are stored.
std::vector<Item> items_of(const PlannedEntry& entry) {
  const std::vector<Part> parts = entry.packing->parts(entry.numerics, entry.shape);
  if (entry.numerics.is_dense() && entry.packing->name == "dense")
    return {{entry.name, parts[0].dtype, parts[0].shape}};
  if (!std::ranges::any_of(std::array{"ct.", "bnb.", "modelopt."},
                           [&](const char* family) { return entry.packing->name.starts_with(family); }))
    fail("{}: packing {} is not written to disk; repack to one of compressed-tensors first", entry.name,
         entry.packing->name);
  const std::string module = module_of(entry.name);
  std::vector<Item> out;
  for (const Part& part : parts)
    out.push_back({fmt::format("{}.{}", module, part.name), part.dtype, part.shape});
  if (has_shape_tensor(entry)) out.push_back({module + ".weight_shape", DType::i64, {2}});
  return out;
}

void check_group(const PlannedEntry& entry) {
  const int64_t group = entry.numerics.group, cols = entry.shape.empty() ? 0 : entry.shape.back();
  const bool blocks = entry.numerics.block_rows != 1;  // these may be ragged
  if (!entry.numerics.is_dense() && !blocks && group > 0 && cols > group && cols % group != 0)
    throw input_error(
        fmt::format("tensor '{}'", entry.name), fmt::format("a group size that divides its {} columns", cols),
        fmt::format("{}", group),
        "compressed-tensors allows no ragged group; choose another group size or keep it dense");
}

size_t item_bytes(const Item& item) {
  return static_cast<size_t>(elements(item.shape)) * dtype_bytes(item.dtype);
}

std::string shard_name(size_t i, size_t n) {
  return n == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, n);
}

// Not synced: that would wait for the tensors. AtomicDirectory::commit() syncs every file.
void write_json(const fs::path& path, const Json& json) { FileWriter(path).write(json.dump(2) + "\n"); }

struct Shard {
  std::vector<Item> items;
  size_t entries = 0, bytes = 0;
};

}  // namespace

struct CheckpointWriter::Impl {
  fs::path directory;
  Json config, transforms;
  CacheScheme cache;
  std::vector<PlannedEntry> entries;
  std::vector<Shard> shards;
  ModelHash hash;
  std::optional<SafetensorsWriter> file;  // of the current shard
  size_t next = 0, shard = 0, written_in_shard = 0;

  // An entry's tensors stay in one shard. The files' names need the number of shards, so all is laid out
  // first.
  void lay_out(size_t shard_bytes) {
    shards.emplace_back();
    for (const PlannedEntry& entry : entries) {
      check_group(entry);
      const std::vector<Item> items = items_of(entry);
      size_t bytes = 0;
      for (const Item& item : items) bytes += item_bytes(item);
      if (shards.back().bytes > 0 && shards.back().bytes + bytes > shard_bytes) shards.emplace_back();
      Shard& last = shards.back();
      last.items.insert(last.items.end(), items.begin(), items.end());
      last.bytes += bytes;
      ++last.entries;
    }
  }

  void write_tensor(const Item& item, const Tensor& tensor) {
    file->write(tensor);  // which is of the item's dtype and shape
    hash.add(item.name, tensor);
  }

  void begin_shard() {
    file.emplace(directory / shard_name(shard, shards.size()), shards[shard].items);
    written_in_shard = 0;
  }

  void end_shard() {
    file->finish();
    file.reset();
    ++shard;
  }

  void write(const Weight& w) {
    if (next == entries.size()) fail("checkpoint: an entry more than planned");
    const PlannedEntry& entry = entries[next++];
    if (w.packing != entry.packing || w.numerics != entry.numerics || w.shape != entry.shape)
      fail("'{}' was planned as {} {} {} and is {} {} {}", entry.name, entry.packing->name,
           to_string(entry.numerics), to_string(entry.shape), w.packing->name, to_string(w.numerics),
           to_string(w.shape));
    if (!file) begin_shard();
    const std::vector<Item> items = items_of(entry);
    for (size_t i = 0; i < w.parts.size(); ++i) write_tensor(items[i], w.parts[i]);
    if (has_shape_tensor(entry))
      write_tensor(items.back(), Tensor::of<int64_t>(DType::i64, {2}, entry.shape));
    if (++written_in_shard == shards[shard].entries) end_shard();
  }

  void write_index() const {
    Json::object_t map;  // names are distinct, and Json would look through all of them for each
    size_t total = 0;
    for (size_t i = 0; i < shards.size(); ++i) {
      total += shards[i].bytes;
      for (const Item& item : shards[i].items) map.emplace_back(item.name, shard_name(i, shards.size()));
    }
    write_json(directory / "model.safetensors.index.json",
               {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}});
  }

  std::string finish() {
    if (next != entries.size()) fail("'{}' was planned and not written", entries[next].name);
    if (entries.empty()) {
      begin_shard();
      end_shard();
    }
    if (shards.size() > 1) write_index();
    config.erase("quantization_config");
    config.erase("compression_config");
    if (Json quantization = quantization_config(entries, transforms, cache); !quantization.is_null()) {
      if (quantization["quant_method"] == "modelopt")  // whose own readers look beside config.json
        write_json(directory / "hf_quant_config.json",
                   {{"producer", {{"name", "lathe"}}}, {"quantization", quantization}});
      config["quantization_config"] = std::move(quantization);
    }
    write_json(directory / "config.json", config);
    return hash.hex();
  }
};

CheckpointWriter::CheckpointWriter(const fs::path& directory, Json config, std::vector<PlannedEntry> entries,
                                   size_t shard_bytes, Json transforms, const CacheScheme& cache)
    : impl_(std::make_unique<Impl>()) {
  impl_->directory = directory;
  impl_->config = std::move(config);
  impl_->transforms = std::move(transforms);
  impl_->cache = cache;
  impl_->entries = std::move(entries);
  impl_->lay_out(shard_bytes);
}

CheckpointWriter::~CheckpointWriter() = default;
void CheckpointWriter::write(const Weight& weight) { impl_->write(weight); }
std::string CheckpointWriter::finish() { return impl_->finish(); }

void copy_companions(const fs::path& from, const fs::path& to) {
  constexpr std::array names = {"tokenizer.json",
                                "tokenizer.model",
                                "tokenizer_config.json",
                                "special_tokens_map.json",
                                "added_tokens.json",
                                "vocab.json",
                                "vocab.txt",
                                "merges.txt",
                                "generation_config.json",
                                "chat_template.jinja",
                                "chat_template.json",
                                "preprocessor_config.json",
                                "processor_config.json",
                                "LICENSE",
                                "NOTICE"};
  for (const char* name : names)
    if (fs::is_regular_file(from / name))
      fs::copy_file(from / name, to / name, fs::copy_options::overwrite_existing);
  if (fs::is_directory(from / "additional_chat_templates"))
    fs::copy(from / "additional_chat_templates", to / "additional_chat_templates",
             fs::copy_options::recursive | fs::copy_options::overwrite_existing);
}

}  // namespace lathe
