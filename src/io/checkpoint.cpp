#include "io/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "io/compressed_tensors.h"
#include "io/gguf.h"
#include "io/safetensors.h"

namespace lathe {
namespace {

// A tensor of a Hugging Face directory.
struct Stored {
  const SafetensorsFile* file;
  const SafetensorsFile::Item* item;
  std::string file_name;
};
using StoredTensors = std::map<std::string, Stored, std::less<>>;
using Files = std::map<std::string, SafetensorsFile>;  // by name in the directory

// An entry and the tensors that are its parts, in the packing's order.
struct Bound {
  Entry entry;
  std::vector<std::string> tensors;
};

constexpr std::string_view index_name = "model.safetensors.index.json", single_name = "model.safetensors";

// Quantization tools that describe themselves beside config.json.
struct ForeignConfig {
  std::string_view file, tool;
};
constexpr ForeignConfig foreign_configs[] = {{"hf_quant_config.json", "ModelOpt"},
                                             {"quantize_config.json", "AutoGPTQ"},
                                             {"quant_config.json", "AutoAWQ"}};

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

// Shapes and sizes of a stored tensor without its bytes, for check_parts.
Tensor outline(const Stored& stored) {
  Tensor t;
  t.dtype = stored.item->dtype;
  t.shape = stored.item->shape;
  t.storage.bytes = stored.item->end - stored.item->begin;
  return t;
}

// Tensors that say that a module is quantized, by what follows its path.
constexpr std::string_view marks[] = {".weight_scale", ".weight_scale_inv", ".weight.absmax"};

// Binds the tensors of quantized modules to entries; every one has a tensor of scales, its mark.
class Binder {
 public:
  Binder(const fs::path& directory, const StoredTensors& tensors, const std::optional<CtConfig>& config)
      : directory_(directory), tensors_(tensors), config_(config) {}

  Bound bind(const std::string& module, std::string_view mark) {
    const Stored& scale = tensors_.find(module + std::string(mark))->second;
    const Stored* codes = find(module, "weight_packed");
    const std::string where =
        fmt::format("{}: module '{}'", (directory_ / scale.file_name).string(), printable(module));
    const bool packed = codes != nullptr;
    if (!codes) codes = find(module, "weight");
    if (!codes)
      throw input_error(where, fmt::format("weight or weight_packed beside {}", mark.substr(1)), "neither");
    if (packed && find(module, "weight")) throw input_error(where, "one of weight and weight_packed", "both");
    if (find(module, "weight_g_idx"))
      throw input_error(where, "no weight_g_idx", "one; columns in activation order are not read");
    if (!config_)
      throw input_error(
          (directory_ / "config.json").string(),
          fmt::format("a quantization_config that explains {} of '{}'", mark.substr(1), printable(module)),
          "none");
    if (codes->item->shape.size() != 2 || elements(codes->item->shape) == 0)
      throw input_error(where, "a matrix that is not empty", to_string(codes->item->shape));
    return fit(module, *codes, scale, where);
  }

 private:
  const Stored* find(const std::string& module, std::string_view part) const {
    auto it = tensors_.find(fmt::format("{}.{}", module, part));
    return it == tensors_.end() ? nullptr : &it->second;
  }

  // The first scheme that the tensors fit. More than one is tried only where class names are all there is to
  // go by.
  Bound fit(const std::string& module, const Stored& codes, const Stored& scale,
            const std::string& where) const {
    const auto schemes = config_->schemes_for(module);
    if (schemes.empty()) throw input_error(where, "a config group that targets it", "none");
    for (size_t i = 0; i + 1 < schemes.size(); ++i) {
      try {
        return bind_as(module, codes, scale, *schemes[i], where);
      } catch (const InputError&) {  // the next class may be the module's
      }
    }
    return bind_as(module, codes, scale, *schemes.back(), where);
  }

  Bound bind_as(const std::string& module, const Stored& codes, const Stored& scale, const CtScheme& scheme,
                const std::string& where) const {
    Weight w;
    w.numerics = scheme.numerics;
    w.packing = scheme.packing;
    const bool open_scale =
        w.numerics.is_integer() || w.packing->name == "ct.fp8" || w.packing->name == "hf.fp8";
    if (open_scale) {
      if (!is_float(scale.item->dtype) || dtype_bytes(scale.item->dtype) < 2)
        throw input_error(where + ": weight_scale", "f32, f16 or bf16", dtype_name(scale.item->dtype));
      w.numerics.dtype = scale.item->dtype;
    }
    if (w.packing->name == "ct.int8") w.numerics.bits = 8;  // bytes whatever num_bits says
    w.shape = shape_of(module, codes, w, scheme.name, where);
    Bound out;
    out.entry = {module + ".weight", w.numerics, w.packing, w.shape, 0, codes.file_name};
    for (const Part& part : w.packing->parts(w.numerics, w.shape)) {
      const Stored* stored = find(module, part.name);
      if (!stored)
        throw input_error(where,
                          fmt::format("tensor {} ({}, as {} says)", part.name, w.packing->name, scheme.name),
                          "none");
      w.parts.push_back(outline(*stored));
      if (same_but_for_ones(w.parts.back().shape, part.shape)) w.parts.back().shape = part.shape;
      out.tensors.push_back(fmt::format("{}.{}", module, part.name));
    }
    if (w.numerics.offset == Numerics::Offset::none && find(module, "weight_zero_point"))
      throw input_error(where, fmt::format("no weight_zero_point: {} is symmetric", scheme.name), "one");
    check_parts(w, where);
    if (w.packing->name == "bnb.nf4") check_nf4(module, w, where);
    out.entry.bytes = w.bytes();
    return out;
  }

  // Some write one scale as [] or [1, 1], and one per row without the column.
  static bool same_but_for_ones(const Shape& a, const Shape& b) {
    const auto significant = [](Shape s) {
      std::erase(s, 1);
      return s;
    };
    return significant(a) == significant(b);
  }

  // Of the matrix; what `codes` must be for that to be known is checked here.
  Shape shape_of(const std::string& module, const Stored& codes, Weight& w, const std::string& scheme,
                 const std::string& where) const {
    const std::string_view name = w.packing->name;
    const bool pairs = name == "ct.nvfp4" || name == "ct.mxfp4";
    const DType expected = name == "ct.pack32"          ? DType::i32
                           : name == "ct.int8"          ? DType::i8
                           : pairs || name == "bnb.nf4" ? DType::u8
                                                        : DType::f8e4m3;
    const bool packed = &codes == find(module, "weight_packed"), wanted = name == "ct.pack32" || pairs;
    if (codes.item->dtype != expected || packed != wanted)
      throw input_error(
          where,
          fmt::format("{} {} ({}, as {} says)", wanted ? "weight_packed" : "weight", dtype_name(expected),
                      name, scheme),
          fmt::format("{} {}", packed ? "weight_packed" : "weight", dtype_name(codes.item->dtype)));
    if (name == "ct.pack32") return packed_shape(module, codes, w.numerics.bits, where);
    if (name == "bnb.nf4") return nf4_shape(module, codes, w.numerics, where);
    const Shape& stored = codes.item->shape;
    if (pairs && stored[1] > INT64_MAX / 2) throw input_error(where, "fewer columns", to_string(stored));
    return pairs ? Shape{stored[0], 2 * stored[1]} : stored;
  }

  // bitsandbytes keeps the shape and the group size in JSON beside each weight.
  Shape nf4_shape(const std::string& module, const Stored& codes, Numerics& n,
                  const std::string& where) const {
    const std::string part = "weight.quant_state.bitsandbytes__nf4", at = fmt::format("{}: {}", where, part);
    const Stored* state = find(module, part);
    if (!state || state->item->dtype != DType::u8 || state->item->end - state->item->begin > 1000)
      throw input_error(at, "JSON of at most 1000 bytes in a u8 tensor", state ? "another tensor" : "none");
    const Tensor text = state->file->load(fmt::format("{}.{}", module, part));
    const Json json = parse_json({reinterpret_cast<const char*>(text.storage.data), text.bytes()}, at);
    if (!json.is_object()) throw input_error(at, "an object", json.type_name());
    if (json.contains("nested_blocksize"))
      throw input_error(at, "no double quantization", "nested_blocksize");
    n.group = static_cast<int>(get_int(json, "blocksize", at, 2, 1 << 20));
    const Json* shape = json.contains("shape") ? &json["shape"] : nullptr;
    const bool two = shape && shape->is_array() && shape->size() == 2 && (*shape)[0].is_number_integer() &&
                     (*shape)[1].is_number_integer();
    const Shape found = two ? Shape{(*shape)[0].get<int64_t>(), (*shape)[1].get<int64_t>()} : Shape{};
    int64_t count = 0;
    if (!two || found[0] < 1 || found[1] < 1 || __builtin_mul_overflow(found[0], found[1], &count) ||
        count != 2 * elements(codes.item->shape))
      throw input_error(at, fmt::format("the shape of {} weights", 2 * elements(codes.item->shape)),
                        shape ? printable(shape->dump(), 60) : "none");
    if (n.group % 2 != 0 || found[1] % n.group != 0)
      throw input_error(at, "blocks that divide a row", fmt::format("{} in {}", n.group, to_string(found)));
    return found;
  }

  // The codebook is the one of these numerics.
  void check_nf4(const std::string& module, const Weight& w, const std::string& where) const {
    const std::string part = module + ".weight.quant_map";
    const Tensor map = tensors_.find(part)->second.file->load(part);
    const auto found = map.as<float>(), expected = grid_values(w.numerics.kind);
    for (size_t i = 0; i < expected.size(); ++i)
      if (!(std::fabs(found[i] - expected[i]) < 1e-6f))
        throw input_error(where + ": quant_map", fmt::format("{} as value {}", expected[i], i),
                          fmt::format("{}", found[i]));
  }

  // [rows, cols]: the packed tensor knows the rows, weight_shape the columns; without it they fill the words.
  Shape packed_shape(const std::string& module, const Stored& codes, int bits,
                     const std::string& where) const {
    const int64_t rows = codes.item->shape[0], words = codes.item->shape[1];
    const int64_t most = words * 32 / bits;  // no overflow: the words are in the file
    const Stored* shape = find(module, "weight_shape");
    if (!shape) return {rows, most};
    if (shape->item->dtype != DType::i64 || shape->item->shape != Shape{2})
      throw input_error(where + ": weight_shape", "i64 [2]",
                        fmt::format("{} {}", dtype_name(shape->item->dtype), to_string(shape->item->shape)));
    const Tensor loaded = shape->file->load(module + ".weight_shape");
    const auto claimed = loaded.as<int64_t>();
    if (claimed[0] != rows || claimed[1] < 1 || claimed[1] > most)
      throw input_error(
          where + ": weight_shape",
          fmt::format("[{}, up to {}], as weight_packed {} allows", rows, most, to_string(codes.item->shape)),
          fmt::format("[{}, {}]", claimed[0], claimed[1]));
    return {claimed[0], claimed[1]};
  }

  const fs::path& directory_;
  const StoredTensors& tensors_;
  const std::optional<CtConfig>& config_;
};

// Tensors of a quantized module that are no parts of its weight. Scales of activations belong to arithmetic
// that Lathe does not do: the weights mean the same without them.
constexpr std::string_view module_extras[] = {
    "weight_packed",     "weight_scale",       "weight_scale_inv",
    "weight_zero_point", "weight_shape",       "weight_global_scale",
    "weight.absmax",     "weight.quant_map",   "weight.quant_state.bitsandbytes__nf4",
    "input_scale",       "input_global_scale", "input_zero_point",
    "output_scale",      "output_zero_point"};

std::vector<Bound> bind_tensors(const fs::path& directory, const StoredTensors& tensors,
                                const std::optional<CtConfig>& config) {
  constexpr std::string_view packed = ".weight_packed";
  std::vector<Bound> out;
  std::set<std::string, std::less<>> taken;
  Binder binder(directory, tensors, config);
  for (const auto& [name, stored] : tensors) {
    if (name.ends_with(packed) &&
        !tensors.contains(name.substr(0, name.size() - packed.size()) + ".weight_scale"))
      throw input_error(
          fmt::format("{}: tensor '{}'", (directory / stored.file_name).string(), printable(name)),
          "weight_scale beside it", "none");
    for (const std::string_view mark : marks) {
      if (!name.ends_with(mark)) continue;
      const std::string module = name.substr(0, name.size() - mark.size());
      if (taken.contains(module + ".weight"))
        throw input_error(fmt::format("{}: module '{}'", directory.string(), printable(module)),
                          "one kind of scales", "two");
      out.push_back(binder.bind(module, mark));
      taken.insert(module + ".weight");
      for (std::string_view extra : module_extras) taken.insert(fmt::format("{}.{}", module, extra));
    }
  }
  for (const auto& [name, stored] : tensors)
    if (!taken.contains(name)) {
      const Tensor t = outline(stored);
      out.push_back(
          {{name, Numerics::dense(t.dtype), &packing("dense"), t.shape, t.bytes(), stored.file_name},
           {name}});
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

  void open_directory() {
    config = read_json(path / "config.json");
    if (!config.is_object())
      throw input_error((path / "config.json").string(), "an object", config.type_name());
    const auto ct = CtConfig::parse(config, (path / "config.json").string());
    for (const ForeignConfig& foreign : foreign_configs)
      if (!ct && present(path / foreign.file))
        throw input_error(
            (path / foreign.file).string(), "a quantization_config of compressed-tensors in config.json",
            fmt::format("a file of {}", foreign.tool), "convert the model or start from the unquantized one");
    files = open_files(path);
    tensors = tensors_of(path, files);
    std::vector<Bound> bound = bind_tensors(path, tensors, ct);
    std::sort(bound.begin(), bound.end(),
              [](const Bound& a, const Bound& b) { return a.entry.name < b.entry.name; });
    for (Bound& b : bound) {
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
    const Part part = entry.packing->parts(entry.numerics, entry.shape)[0];
    w.parts.push_back(mapped_tensor(*impl_->mapping, impl_->gguf_tensors.find(name)->second->offset,
                                    part.dtype, part.shape));
  } else {
    for (const std::string& tensor : impl_->parts[i])
      w.parts.push_back(impl_->tensors.find(tensor)->second.file->load(tensor));
    if (!entry.numerics.is_dense()) {  // the dimensions of size 1 are as one likes: see same_but_for_ones
      const std::vector<Part> parts = entry.packing->parts(entry.numerics, entry.shape);
      for (size_t p = 0; p < parts.size(); ++p) w.parts[p].shape = parts[p].shape;
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
