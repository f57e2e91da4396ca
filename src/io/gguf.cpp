#include "io/gguf.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <simdjson.h>

#include "core/error.h"

namespace lathe {
namespace {

constexpr uint64_t max_alignment = 1 << 16;
constexpr int64_t max_of_experts = 400'000;  // matrices and biases: three each, of all that a model may have

constexpr Numerics with_minima(int bits) {
  return {Numerics::Kind::integer, DType::f16, static_cast<uint8_t>(bits), 32, Numerics::Offset::minimum};
}

const GgufType tensor_types[] = {
    {0, "F32", "dense", Numerics::dense(DType::f32), 1},
    {1, "F16", "dense", Numerics::dense(DType::f16), 1},
    {30, "BF16", "dense", Numerics::dense(DType::bf16), 1},
    {2, "Q4_0", "gguf.q4_0", Numerics::integer(4, 32, false, DType::f16), 32},
    {3, "Q4_1", "gguf.q4_1", with_minima(4), 32},
    {6, "Q5_0", "gguf.q5_0", Numerics::integer(5, 32, false, DType::f16), 32},
    {7, "Q5_1", "gguf.q5_1", with_minima(5), 32},
    {8, "Q8_0", "gguf.q8_0", Numerics::integer(8, 32, false, DType::f16), 32},
    {10, "Q2_K", "gguf.q2_k", Numerics::k_quant(2, 16, true), 256},
    {11, "Q3_K", "gguf.q3_k", Numerics::k_quant(3, 16, false), 256},
    {12, "Q4_K", "gguf.q4_k", Numerics::k_quant(4, 32, true), 256},
    {13, "Q5_K", "gguf.q5_k", Numerics::k_quant(5, 32, true), 256},
    {14, "Q6_K", "gguf.q6_k", Numerics::k_quant(6, 16, false), 256},
    {20, "IQ4_NL", "gguf.iq4_nl", Numerics::iq4_nl(), 32},
    {39, "MXFP4", "gguf.mxfp4", Numerics::mxfp4(), 32},
    {40, "NVFP4", "gguf.nvfp4", Numerics::grid(Numerics::Kind::e2m1, 16, DType::f8e4m3), 64},
    {9, "Q8_1", "", {}, 0},
    {15, "Q8_K", "", {}, 0},
    {16, "IQ2_XXS", "", {}, 0},
    {17, "IQ2_XS", "", {}, 0},
    {18, "IQ3_XXS", "", {}, 0},
    {19, "IQ1_S", "", {}, 0},
    {21, "IQ3_S", "", {}, 0},
    {22, "IQ2_S", "", {}, 0},
    {23, "IQ4_XS", "", {}, 0},
    {24, "I8", "", {}, 0},
    {25, "I16", "", {}, 0},
    {26, "I32", "", {}, 0},
    {27, "I64", "", {}, 0},
    {28, "F64", "", {}, 0},
    {29, "IQ1_M", "", {}, 0},
    {34, "TQ1_0", "", {}, 0},
    {35, "TQ2_0", "", {}, 0},
    {41, "Q1_0", "", {}, 0},
    {42, "Q2_0", "", {}, 0},
};

const GgufType& tensor_type(uint32_t id, std::string_view where) {
  std::string supported, found = fmt::format("type {}", id);
  for (const GgufType& t : tensor_types) {
    if (t.id == id && !t.packing.empty()) return t;
    if (t.id == id) found = t.name;
    if (!t.packing.empty()) supported += (supported.empty() ? "" : " ") + std::string(t.name);
  }
  throw input_error(where, "one of " + supported, found,
                    "requantize it, for example with llama-quantize to Q4_K_M");
}

// The file as a stream; nothing is read, allocated or looped over beyond the bytes that are left.
class Cursor {
 public:
  Cursor(std::span<const std::byte> file, std::string_view where) : file_(file), where_(where) {}

  size_t position() const { return at_; }
  uint64_t left() const { return file_.size() - at_; }

  std::string_view take(uint64_t bytes, std::string_view what) {
    if (bytes > left())
      throw input_error(fmt::format("{}: {}", where_, what), fmt::format("at most {} more bytes", left()),
                        fmt::format("{}", bytes), "the file is truncated or damaged");
    const std::string_view out(reinterpret_cast<const char*>(file_.data()) + at_, bytes);
    at_ += bytes;
    return out;
  }
  template <class T>
  T number(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }
  std::string_view string(std::string_view what) { return take(number<uint64_t>(what), what); }

  // A key or a tensor name.
  std::string name(std::string_view what) {
    const std::string_view text = string(what);
    if (text.empty() || !simdjson::validate_utf8(text.data(), text.size()))
      throw input_error(fmt::format("{}: {}", where_, what), "a name in UTF-8",
                        text.empty() ? "an empty one" : fmt::format("'{}'", printable(text)));
    return std::string(text);
  }

 private:
  std::span<const std::byte> file_;
  std::string_view where_;
  size_t at_ = 0;
};

enum ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

int64_t read_u64(Cursor& in, std::string_view what) {
  const auto n = in.number<uint64_t>(what);
  if (n > static_cast<uint64_t>(INT64_MAX))
    throw input_error(what, "an integer below 2^63", fmt::format("{}", n));
  return static_cast<int64_t>(n);
}

bool read_bool(Cursor& in, std::string_view what) {
  const auto n = in.number<uint8_t>(what);
  if (n > 1) throw input_error(what, "a bool, 0 or 1", fmt::format("{}", n));
  return n == 1;
}

using Value = decltype(GgufValue::value);

Value read_scalar(Cursor& in, uint32_t type, const std::string& what) {
  switch (type) {
    case u8:
      return int64_t{in.number<uint8_t>(what)};
    case i8:
      return int64_t{in.number<int8_t>(what)};
    case u16:
      return int64_t{in.number<uint16_t>(what)};
    case i16:
      return int64_t{in.number<int16_t>(what)};
    case u32:
      return int64_t{in.number<uint32_t>(what)};
    case i32:
      return int64_t{in.number<int32_t>(what)};
    case u64:
      return read_u64(in, what);
    case i64:
      return in.number<int64_t>(what);
    case f32:
      return double{in.number<float>(what)};
    case f64:
      return in.number<double>(what);
    case boolean:
      return read_bool(in, what);
    case string:
      return std::string(in.string(what));
    default:
      throw input_error(what, "a value type from 0 to 12", fmt::format("{}", type));
  }
}

// Elements of every integer type widen to int64 and bools to 0 and 1; see GgufValue.
Value read_array(Cursor& in, const std::string& what) {
  const auto type = in.number<uint32_t>(what);
  const auto n = in.number<uint64_t>(what);
  if (type == array || type > f64)
    throw input_error(what, "an array of scalars",
                      type == array ? "an array of arrays" : fmt::format("elements of type {}", type));
  if (n > in.left()) in.take(n, what);  // an element has at least one byte
  std::vector<int64_t> integers;
  std::vector<double> numbers;
  std::vector<std::string> strings;
  for (uint64_t i = 0; i < n; ++i) {
    Value value = read_scalar(in, type, what);
    if (auto* integer = std::get_if<int64_t>(&value))
      integers.push_back(*integer);
    else if (auto* number = std::get_if<double>(&value))
      numbers.push_back(*number);
    else if (auto* truth = std::get_if<bool>(&value))
      integers.push_back(*truth);
    else
      strings.push_back(std::move(std::get<std::string>(value)));
  }
  if (type == string) return strings;
  if (type == f32 || type == f64) return numbers;
  return integers;
}

uint64_t alignment_of(const GgufFile& file, std::string_view where) {
  if (!file.has("general.alignment")) return 32;
  const int64_t n = file.integer("general.alignment");
  if (n < 1 || n > static_cast<int64_t>(max_alignment) || (n & (n - 1)) != 0)
    throw input_error(fmt::format("{}: general.alignment", where),
                      fmt::format("a power of two up to {}", max_alignment), fmt::format("{}", n));
  return static_cast<uint64_t>(n);
}

// Everything but where the tensor lies: offset stays relative to the data.
GgufTensor read_tensor_info(Cursor& in, std::string_view file) {
  GgufTensor t;
  t.name = in.name("tensor name");
  const std::string where = fmt::format("{}: tensor '{}'", file, printable(t.name));
  const auto rank = in.number<uint32_t>(where);
  if (rank < 1 || rank > 4) throw input_error(where, "1 to 4 dimensions", fmt::format("{}", rank));
  for (uint32_t i = 0; i < rank; ++i)
    t.shape.insert(t.shape.begin(), read_u64(in, where));  // GGUF: fastest first
  const GgufType& type = tensor_type(in.number<uint32_t>(where), where);
  t.offset = in.number<uint64_t>(where);
  int64_t n = 8;  // no element takes more than 8 bytes: what fits here fits in bytes
  for (int64_t d : t.shape)
    if (d < 1 || __builtin_mul_overflow(n, d, &n))
      throw input_error(where, "positive dimensions with a product below 2^60", to_string(t.shape));
  if (t.shape.back() % type.block != 0)
    throw input_error(where, fmt::format("rows of whole blocks of {} ({})", type.block, type.name),
                      to_string(t.shape));
  t.numerics = type.numerics;
  t.packing = &packing(type.packing);
  t.bytes = packed_bytes(t.numerics, *t.packing, t.shape);
  return t;
}

void place_tensors(GgufFile& file, uint64_t data, uint64_t alignment, uint64_t file_bytes,
                   std::string_view where) {
  if (file.tensors.empty()) return;
  const uint64_t room = data < file_bytes ? file_bytes - data : 0;
  for (GgufTensor& t : file.tensors) {
    const std::string named = fmt::format("{}: tensor '{}'", where, printable(t.name));
    if (t.offset % alignment != 0)
      throw input_error(named, fmt::format("an offset that is a multiple of {}", alignment),
                        fmt::format("{}", t.offset));
    if (t.offset > room || t.bytes > room - t.offset)
      throw input_error(named, fmt::format("data inside the {} bytes that the file has for it", room),
                        fmt::format("{} bytes at offset {}", t.bytes, t.offset), "the file may be truncated");
    t.offset += data;
  }
  std::vector<const GgufTensor*> order;
  for (const GgufTensor& t : file.tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i)
    if (order[i]->offset - order[i - 1]->offset < order[i - 1]->bytes)
      throw input_error(fmt::format("{}: tensor '{}'", where, printable(order[i]->name)),
                        fmt::format("data after tensor '{}'", printable(order[i - 1]->name)), "an overlap");
}

void check_distinct_names(const GgufFile& file, std::string_view where) {
  std::vector<std::string_view> names;
  for (const GgufTensor& t : file.tensors) names.push_back(t.name);
  std::sort(names.begin(), names.end());
  if (auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    throw input_error(fmt::format("{}: tensor '{}'", where, printable(*twice)), "distinct names",
                      "this name twice");
}

// One tensor for all experts of a layer: [experts, rows, cols], or their biases [experts, rows].
bool is_of_experts(const GgufTensor& t) {
  return (t.shape.size() == 3 && t.name.ends_with("_exps.weight")) ||
         (t.shape.size() == 2 && t.name.ends_with("_exps.bias"));
}

// NVFP4's scale of a whole weight "x.weight" is a tensor "x.scale", with one number for each expert;
// "x.input_scale" belongs to arithmetic that Lathe does not do.
void join_scales(GgufFile& file, std::string_view where) {
  std::map<std::string_view, const GgufTensor*> by_name;
  for (const GgufTensor& t : file.tensors) by_name.emplace(t.name, &t);
  std::set<std::string> joined;
  for (GgufTensor& t : file.tensors) {
    if (t.packing->name != "gguf.nvfp4" || !t.name.ends_with(".weight")) continue;
    const std::string module = t.name.substr(0, t.name.size() - std::string_view(".weight").size());
    for (const char* part : {".scale", ".input_scale"}) {
      const auto found = by_name.find(module + part);
      if (found == by_name.end()) continue;
      const GgufTensor& scale = *found->second;
      const int64_t wanted = is_of_experts(t) ? t.shape[0] : 1;
      if (scale.numerics != Numerics::dense(DType::f32) || elements(scale.shape) != wanted)
        throw input_error(fmt::format("{}: tensor '{}'", where, printable(scale.name)),
                          wanted == 1 ? "one F32 number" : fmt::format("{} F32 numbers", wanted),
                          fmt::format("{} {}", to_string(scale.numerics), to_string(scale.shape)));
      joined.insert(scale.name);
      if (part != std::string_view(".scale")) continue;
      t.numerics.global = true;
      t.scale_offset = scale.offset;
    }
  }
  std::erase_if(file.tensors, [&](const GgufTensor& t) { return joined.contains(t.name); });
}

// Each expert's part of such a tensor becomes a matrix, or a bias, of its own; and the gate of a shared
// expert, a row that is stored as a vector, becomes one.
void split_experts(GgufFile& file, std::string_view where) {
  int64_t parts = 0;
  for (const GgufTensor& t : file.tensors) {
    if (!is_of_experts(t)) continue;
    if (t.shape[0] > max_of_experts - parts)
      throw input_error(fmt::format("{}: tensor '{}'", where, printable(t.name)),
                        fmt::format("at most {} matrices and biases of experts in a file", max_of_experts),
                        fmt::format("more, with its {} experts", t.shape[0]));
    parts += t.shape[0];
  }
  std::vector<GgufTensor> out;
  for (GgufTensor& t : file.tensors) {
    if (!is_of_experts(t)) {
      if (t.shape.size() == 1 && t.name.ends_with(".ffn_gate_inp_shexp.weight"))
        t.shape.insert(t.shape.begin(), 1);
      out.push_back(std::move(t));
      continue;
    }
    const int64_t experts = t.shape[0];
    GgufTensor one = t;
    one.shape.erase(one.shape.begin());
    one.bytes /= static_cast<size_t>(experts);
    for (int64_t e = 0; e < experts; ++e) {
      one.name = fmt::format("{}[{}]", t.name, e);
      out.push_back(one);
      one.offset += one.bytes;
      if (one.numerics.global) one.scale_offset += sizeof(float);
    }
  }
  file.tensors = std::move(out);
}

// Indexed like the variant.
constexpr std::string_view value_kinds[] = {
    "an integer",         "a float", "a bool", "a string", "an array of integers", "an array of floats",
    "an array of strings"};

template <class T>
const T& metadata_value(const GgufFile& file, std::string_view key) {
  auto it = file.metadata.find(key);
  if (it == file.metadata.end())
    throw input_error(file.where, fmt::format("metadata key '{}'", printable(key)), "none");
  if (const T* value = std::get_if<T>(&it->second.value)) return *value;
  throw input_error(fmt::format("{}: key '{}'", file.where, printable(key)), value_kinds[Value(T{}).index()],
                    value_kinds[it->second.value.index()]);
}

}  // namespace

std::span<const GgufType> gguf_types() { return tensor_types; }

GgufFile GgufFile::parse(std::span<const std::byte> bytes, std::string_view where) {
  Cursor in(bytes, where);
  const std::string_view magic = in.take(4, "magic");
  if (magic != "GGUF")
    throw input_error(where, "a file that starts with GGUF", fmt::format("'{}'", printable(magic)));
  const auto version = in.number<uint32_t>("version");
  if (version != 2 && version != 3)
    throw input_error(fmt::format("{}: version", where), "2 or 3", fmt::format("{}", version),
                      "big-endian files are not read");
  const auto tensors = in.number<uint64_t>("tensor count"), keys = in.number<uint64_t>("metadata count");

  GgufFile file;
  file.where = where;
  for (uint64_t i = 0; i < keys; ++i) {
    std::string key = in.name("metadata key");
    const std::string what = fmt::format("{}: key '{}'", where, printable(key));
    const auto type = in.number<uint32_t>(what);
    GgufValue value{type == array ? read_array(in, what) : read_scalar(in, type, what)};
    if (!file.metadata.emplace(std::move(key), std::move(value)).second)
      throw input_error(what, "distinct keys", "this key twice");
  }
  const uint64_t alignment = alignment_of(file, where);
  for (uint64_t i = 0; i < tensors; ++i) file.tensors.push_back(read_tensor_info(in, where));
  check_distinct_names(file, where);
  place_tensors(file, (in.position() + alignment - 1) / alignment * alignment, alignment, bytes.size(),
                where);
  join_scales(file, where);
  split_experts(file, where);
  check_distinct_names(file, where);
  return file;
}

int64_t GgufFile::integer(std::string_view key) const { return metadata_value<int64_t>(*this, key); }
double GgufFile::number(std::string_view key) const { return metadata_value<double>(*this, key); }
bool GgufFile::truth(std::string_view key) const { return metadata_value<bool>(*this, key); }
const std::string& GgufFile::text(std::string_view key) const {
  return metadata_value<std::string>(*this, key);
}

}  // namespace lathe
