#include "io/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "io/bind.h"
#include "io/gguf.h"
#include "io/safetensors.h"

namespace lathe {
namespace {

using Files = std::map<std::string, SafetensorsFile>;  // by name in the directory

constexpr std::string_view index_name = "model.safetensors.index.json", single_name = "model.safetensors";

bool present(const fs::path& path) {
  std::error_code ignored;  // a name too long, a loop of links: nothing that can be opened
  return fs::exists(path, ignored);
}

// A weight map may only name files that lie in the directory itself.
void check_file_name(const std::string& name, std::string_view where) {
  const bool plain = !name.empty() && name.find('/') == std::string::npos &&
                     name.find('\0') == std::string::npos && name != "." && name != "..";
  if (!plain)
    throw input_error(where, "the name of a file in the same directory",
                      fmt::format("'{}'", printable(name)));
}

// What the index says: tensor name -> file name. Empty for a single file.
std::map<std::string, std::string> read_weight_map(const fs::path& index) {
  const std::string where = index.string();
  const Json json = read_json(index);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    throw input_error(where, "an object with weight_map, an object", "something else");
  std::map<std::string, std::string> out;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    const std::string named = fmt::format("{}: tensor '{}'", where, printable(tensor));
    if (!file.is_string()) throw input_error(named, "a file name", file.type_name());
    check_file_name(file.get<std::string>(), named);
    out.emplace(tensor, file.get<std::string>());
  }
  return out;
}

Files open_files(const fs::path& directory) {
  Files files;
  if (present(directory / single_name)) {
    files.emplace(single_name, SafetensorsFile::open(directory / single_name));
    return files;
  }
  const fs::path index = directory / index_name;
  if (!present(index))
    throw input_error(directory.string(), fmt::format("{} or {}", single_name, index_name), "neither",
                      "weights in other formats must be converted to safetensors first");
  for (const auto& [tensor, file] : read_weight_map(index)) {
    if (!files.contains(file)) {
      if (!present(directory / file))
        throw input_error(fmt::format("{}: tensor '{}'", index.string(), printable(tensor)),
                          fmt::format("file {}", printable(file)), "no such file",
                          "download the missing shard");
      files.emplace(file, SafetensorsFile::open(directory / file));
    }
    if (!files.at(file).items().contains(tensor))
      throw input_error(index.string(), fmt::format("tensor '{}' in {}", printable(tensor), printable(file)),
                        "no such tensor there");
  }
  return files;
}

StoredTensors tensors_of(const fs::path& directory, const Files& files) {
  StoredTensors out;
  for (const auto& [name, file] : files)
    for (const auto& [tensor, item] : file.items()) {
      auto [it, fresh] = out.emplace(tensor, Stored{&file, &item, name});
      if (!fresh)
        throw input_error(fmt::format("{}: tensor '{}'", directory.string(), printable(tensor)),
                          "it in one file", fmt::format("it in {} and {}", it->second.file_name, name));
    }
  return out;
}

}  // namespace

struct Checkpoint::Impl {
  fs::path path;
  Json config;
  // A directory:
  Files files;
  StoredTensors tensors;
  std::vector<std::vector<std::string>> parts;  // tensor names of each entry
  // A GGUF file:
  std::optional<Mapping> mapping;
  std::optional<GgufFile> gguf;
  std::map<std::string, const GgufTensor*, std::less<>> gguf_tensors;

  std::vector<Entry> entries;
  CacheScheme cache;

  void open_directory() {
    config = read_json(path / "config.json");
    if (!config.is_object())
      throw input_error((path / "config.json").string(), "an object", config.type_name());
    const auto quantization = QuantConfig::find_in(path, config);
    if (quantization) cache = quantization->cache();
    files = open_files(path);
    tensors = tensors_of(path, files);
    std::vector<BoundEntry> bound = bind_tensors(path, tensors, quantization);
    std::sort(bound.begin(), bound.end(),
              [](const BoundEntry& a, const BoundEntry& b) { return a.entry.name < b.entry.name; });
    for (BoundEntry& b : bound) {
      entries.push_back(std::move(b.entry));
      parts.push_back(std::move(b.tensors));
    }
  }

  void open_gguf() {
    mapping.emplace(path);
    gguf = GgufFile::parse(mapping->bytes(), path.string());
    config = config_from_gguf(*gguf, path.string());
    for (const GgufTensor& t : gguf->tensors) {
      entries.push_back({t.name, t.numerics, t.packing, t.shape, t.bytes, path.filename().string()});
      gguf_tensors.emplace(t.name, &t);
    }
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
  }

  size_t index_of(std::string_view name) const {
    auto it = std::lower_bound(entries.begin(), entries.end(), name,
                               [](const Entry& e, std::string_view n) { return e.name < n; });
    return it != entries.end() && it->name == name ? static_cast<size_t>(it - entries.begin())
                                                   : entries.size();
  }

  size_t require(std::string_view name) const {
    const size_t i = index_of(name);
    if (i == entries.size())
      throw input_error(path.string(), fmt::format("tensor '{}'", printable(name)), "none");
    return i;
  }
};

Checkpoint Checkpoint::open(const fs::path& path) {
  auto impl = std::make_shared<Impl>();
  impl->path = path;
  std::error_code ignored;
  if (fs::is_directory(path, ignored))
    impl->open_directory();
  else if (present(path) && path.extension() == ".gguf")
    impl->open_gguf();
  else
    throw input_error(path.string(), "a Hugging Face directory or a .gguf file",
                      present(path) ? "another file" : "nothing there");
  Checkpoint out;
  out.impl_ = std::move(impl);
  return out;
}

const fs::path& Checkpoint::path() const { return impl_->path; }
bool Checkpoint::is_gguf() const { return impl_->gguf.has_value(); }
const GgufFile* Checkpoint::gguf() const { return impl_->gguf ? &*impl_->gguf : nullptr; }
const Json& Checkpoint::config() const { return impl_->config; }
const CacheScheme& Checkpoint::cache() const { return impl_->cache; }
std::span<const Entry> Checkpoint::entries() const { return impl_->entries; }

const Entry* Checkpoint::find(std::string_view name) const {
  const size_t i = impl_->index_of(name);
  return i == impl_->entries.size() ? nullptr : &impl_->entries[i];
}

Weight Checkpoint::load(std::string_view name) const {
  const size_t i = impl_->require(name);
  const Entry& entry = impl_->entries[i];
  Weight w{entry.numerics, entry.packing, entry.shape, {}};
  if (impl_->gguf) {
    const GgufTensor& tensor = *impl_->gguf_tensors.find(name)->second;
    size_t offset = tensor.offset;
    for (const Part& part : entry.packing->parts(entry.numerics, entry.shape)) {
      w.parts.push_back(mapped_tensor(*impl_->mapping, offset, part.dtype, part.shape));
      offset = tensor.scale_offset;
    }
  } else {
    const std::vector<Part> parts = entry.packing->parts(entry.numerics, entry.shape);
    for (size_t p = 0; p < parts.size(); ++p) {
      const std::string& tensor = impl_->parts[i][p];
      w.parts.push_back(as_part(impl_->tensors.find(tensor)->second.file->load(tensor), parts[p]));
    }
  }
  return w;
}

void Checkpoint::forget(std::string_view name) const {
  const size_t i = impl_->require(name);
  if (impl_->gguf) {
    const GgufTensor& t = *impl_->gguf_tensors.find(name)->second;
    impl_->mapping->forget(t.offset, t.bytes);
  } else {
    for (const std::string& tensor : impl_->parts[i])
      impl_->tensors.find(tensor)->second.file->forget(tensor);
  }
}

}  // namespace lathe
