#include "io/safetensors.h"

#include <cstring>
#include <set>
#include <simdjson.h>

#include "core/error.h"
#include "core/json.h"

namespace lathe {
namespace {

namespace dom = simdjson::dom;
using Items = std::map<std::string, SafetensorsFile::Item, std::less<>>;

constexpr uint64_t max_header = 100'000'000;  // the reference reader's limit

struct DTypeName {
  std::string_view name;
  DType dtype;
};
constexpr DTypeName dtype_names[] = {
    {"F32", DType::f32},        {"F16", DType::f16},        {"BF16", DType::bf16}, {"F8_E4M3", DType::f8e4m3},
    {"F8_E5M2", DType::f8e5m2}, {"F8_E8M0", DType::f8e8m0}, {"I64", DType::i64},   {"I32", DType::i32},
    {"I16", DType::i16},        {"I8", DType::i8},          {"U8", DType::u8},     {"BOOL", DType::boolean}};

std::string all_dtype_names() {
  std::string out;
  for (const DTypeName& d : dtype_names) out += (out.empty() ? "" : " ") + std::string(d.name);
  return out;
}

// What a JSON value is, for a message.
std::string describe(dom::element value) {
  switch (value.type()) {
    case dom::element_type::ARRAY:
      return "an array";
    case dom::element_type::OBJECT:
      return "an object";
    case dom::element_type::STRING:
      return fmt::format("'{}'", printable(value.get_string().value_unsafe()));
    default:
      return simdjson::minify(value);
  }
}

// An array of non-negative integers.
std::vector<int64_t> integers(dom::element value, std::string_view where) {
  dom::array array;
  if (value.get_array().get(array))
    throw input_error(where, "an array of non-negative integers", describe(value));
  std::vector<int64_t> out;
  for (dom::element e : array) {
    int64_t n = 0;
    if (e.get_int64().get(n) || n < 0)
      throw input_error(where, "non-negative integers below 2^63", describe(e));
    out.push_back(n);
  }
  return out;
}

DType dtype_of(dom::element value, std::string_view where) {
  std::string_view text;
  if (value.get_string().get(text)) throw input_error(where, "a string", describe(value));
  for (const DTypeName& d : dtype_names)
    if (d.name == text) return d.dtype;
  throw input_error(where, "one of " + all_dtype_names(), fmt::format("'{}'", printable(text)));
}

// dtype x shape in bytes. Zero dimensions count as one in the overflow check, so that the product of any of
// the dimensions fits for whoever multiplies them later.
uint64_t checked_bytes(DType dtype, const Shape& shape, std::string_view where) {
  int64_t n = static_cast<int64_t>(dtype_bytes(dtype));
  bool empty = false;
  for (int64_t d : shape) {
    empty = empty || d == 0;
    if (__builtin_mul_overflow(n, std::max<int64_t>(d, 1), &n))
      throw input_error(where, "a size below 2^63 bytes",
                        fmt::format("{} {}", dtype_name(dtype), to_string(shape)));
  }
  return empty ? 0 : static_cast<uint64_t>(n);
}

SafetensorsFile::Item parse_item(dom::element value, uint64_t data_begin, uint64_t data_bytes,
                                 const std::string& where) {
  dom::object object;
  if (value.get_object().get(object)) throw input_error(where, "an object", describe(value));
  std::optional<dom::element> dtype, shape, offsets;
  for (auto [key, field] : object) {
    std::optional<dom::element>* slot = key == "dtype"          ? &dtype
                                        : key == "shape"        ? &shape
                                        : key == "data_offsets" ? &offsets
                                                                : nullptr;
    if (!slot)
      throw input_error(where, "keys dtype, shape, data_offsets", fmt::format("'{}'", printable(key)));
    if (*slot) throw input_error(where, "distinct keys", fmt::format("'{}' twice", key));
    *slot = field;
  }
  if (!dtype || !shape || !offsets)
    throw input_error(where, "keys dtype, shape, data_offsets",
                      fmt::format("no {}", !dtype   ? "dtype"
                                           : !shape ? "shape"
                                                    : "data_offsets"));
  SafetensorsFile::Item item;
  item.dtype = dtype_of(*dtype, where + ": dtype");
  item.shape = integers(*shape, where + ": shape");
  const std::vector<int64_t> range = integers(*offsets, where + ": data_offsets");
  if (range.size() != 2)
    throw input_error(where + ": data_offsets", "two numbers", std::to_string(range.size()));
  const auto begin = static_cast<uint64_t>(range[0]), end = static_cast<uint64_t>(range[1]);
  if (begin > end || end > data_bytes)
    throw input_error(where + ": data_offsets",
                      fmt::format("a range inside the {} bytes of data", data_bytes),
                      fmt::format("[{}, {}]", begin, end), "the file may be truncated");
  const uint64_t bytes = checked_bytes(item.dtype, item.shape, where);
  if (end - begin != bytes)
    throw input_error(where,
                      fmt::format("{} bytes for {} {}", bytes, dtype_name(item.dtype), to_string(item.shape)),
                      fmt::format("{}", end - begin));
  item.begin = data_begin + begin;
  item.end = data_begin + end;
  return item;
}

void check_metadata(dom::element value, const std::string& where) {
  dom::object object;
  if (value.get_object().get(object)) throw input_error(where, "an object of strings", describe(value));
  for (auto [key, field] : object)
    if (!field.is_string())
      throw input_error(where, "an object of strings",
                        fmt::format("'{}': {}", printable(key), describe(field)));
}

// The tensors, laid end to end, must be exactly the data.
void check_cover(const Items& items, uint64_t data_begin, uint64_t file_bytes, std::string_view where) {
  std::vector<const Items::value_type*> order;
  for (const auto& entry : items) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t at = data_begin;
  for (const auto* entry : order) {
    if (entry->second.begin != at)
      throw input_error(fmt::format("{}: tensor '{}'", where, printable(entry->first)),
                        fmt::format("data at offset {}, where the previous tensor ends", at - data_begin),
                        fmt::format("{}, {}", entry->second.begin - data_begin,
                                    entry->second.begin < at ? "an overlap" : "a hole"));
    at = entry->second.end;
  }
  if (at != file_bytes)
    throw input_error(where, fmt::format("{} bytes of data, as the header describes", at - data_begin),
                      fmt::format("{}", file_bytes - data_begin));
}

}  // namespace

Items SafetensorsFile::parse_header(std::span<const std::byte> file, std::string_view where) {
  uint64_t length = 0;
  if (file.size() < sizeof length)
    throw input_error(where, "a safetensors file: 8 bytes of header length first",
                      fmt::format("{} bytes", file.size()));
  std::memcpy(&length, file.data(), sizeof length);
  if (length > max_header || length > file.size() - sizeof length)
    throw input_error(fmt::format("{}: header length", where),
                      fmt::format("at most {}", std::min<uint64_t>(max_header, file.size() - sizeof length)),
                      fmt::format("{}", length), "the file is truncated or not safetensors");
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + sizeof length, length);
  if (!text.starts_with('{'))
    throw input_error(fmt::format("{}: header", where), "a JSON object", printable(text, 20));
  dom::parser parser;
  dom::element root;
  if (const auto error = parser.parse(simdjson::padded_string(text)).get(root))
    throw input_error(fmt::format("{}: header", where), "valid JSON", simdjson::error_message(error));
  dom::object object;
  if (root.get_object().get(object))
    throw input_error(fmt::format("{}: header", where), "a JSON object", describe(root));

  const uint64_t data_begin = sizeof length + length, data_bytes = file.size() - data_begin;
  Items items;
  bool metadata = false;
  for (auto [key, value] : object) {
    const std::string named = fmt::format("{}: tensor '{}'", where, printable(key));
    if (key == "__metadata__") {
      if (std::exchange(metadata, true)) throw input_error(where, "one __metadata__", "two");
      check_metadata(value, fmt::format("{}: __metadata__", where));
    } else if (!items.emplace(key, parse_item(value, data_begin, data_bytes, named)).second) {
      throw input_error(named, "distinct names", "this name twice");
    }
  }
  check_cover(items, data_begin, file.size(), where);
  return items;
}

SafetensorsFile SafetensorsFile::open(const fs::path& path) {
  SafetensorsFile file{Mapping(path)};
  file.items_ = parse_header(file.mapping_.bytes(), path.string());
  return file;
}

const SafetensorsFile::Item& SafetensorsFile::item(std::string_view name) const {
  auto it = items_.find(name);
  if (it == items_.end()) fail("no tensor '{}' in this file", printable(name));
  return it->second;
}

Tensor SafetensorsFile::load(std::string_view name) const {
  const Item& found = item(name);
  return mapped_tensor(mapping_, found.begin, found.dtype, found.shape);
}

void SafetensorsFile::forget(std::string_view name) const {
  const Item& found = item(name);
  mapping_.forget(found.begin, found.end - found.begin);
}

Tensor mapped_tensor(const Mapping& mapping, size_t offset, DType dtype, Shape shape) {
  Tensor t;
  t.dtype = dtype;
  t.shape = std::move(shape);
  t.storage = mapping.view(offset, t.bytes());
  if (reinterpret_cast<uintptr_t>(t.storage.data) % dtype_bytes(dtype) == 0) return t;
  Storage copy = Storage::allocate(t.bytes());
  std::memcpy(copy.data, t.storage.data, t.bytes());
  t.storage = std::move(copy);
  return t;
}

SafetensorsWriter::SafetensorsWriter(const fs::path& path, std::vector<Item> items)
    : out_(path), items_(std::move(items)) {
  Json::object_t header;  // appended to: Json would look through all names for each
  header.emplace_back("__metadata__", Json{{"format", "pt"}});  // transformers refuses files without it
  std::set<std::string_view> names;
  uint64_t at = 0;
  for (const Item& item : items_) {
    const uint64_t bytes = static_cast<uint64_t>(elements(item.shape)) * dtype_bytes(item.dtype);
    const auto* name = std::find_if(std::begin(dtype_names), std::end(dtype_names),
                                    [&](const DTypeName& d) { return d.dtype == item.dtype; });
    if (!names.insert(item.name).second) fail("{}: tensor '{}' announced twice", path.string(), item.name);
    header.emplace_back(
        item.name, Json{{"dtype", name->name}, {"shape", item.shape}, {"data_offsets", {at, at + bytes}}});
    at += bytes;
  }
  std::string text = Json(std::move(header)).dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data starts 8-byte aligned
  const uint64_t length = text.size();
  out_.write(&length, sizeof length);
  out_.write(text);
}

void SafetensorsWriter::write(const Tensor& tensor) {
  if (next_ == items_.size()) fail("safetensors: a tensor more than announced");
  const Item& item = items_[next_++];
  if (tensor.dtype != item.dtype || tensor.shape != item.shape)
    fail("safetensors: '{}' was announced as {} {} and is {} {}", item.name, dtype_name(item.dtype),
         to_string(item.shape), dtype_name(tensor.dtype), to_string(tensor.shape));
  out_.write(tensor.storage.data, tensor.bytes());
}

void SafetensorsWriter::finish() {
  if (next_ != items_.size()) fail("safetensors: '{}' was announced and not written", items_[next_].name);
}

}  // namespace lathe
