#include "io/bind.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"
#include "core/float.h"
#include "core/keys.h"
#include "core/log.h"
#include "quant/activations.h"

namespace lathe {
namespace {

// How the codes of a packing are found in a file. Their stored shape gives that of the weight; null where
// more must be read for that.
struct Form {
  std::string_view packing, codes;
  DType dtype;
  std::string_view scales;  // the part whose type the numbers leave open
  Shape (*shape)(const Shape& stored, const Numerics&);
};
Shape as_stored(const Shape& s, const Numerics&) { return s; }
Shape column_pairs(const Shape& s, const Numerics&) { return {s[0], 2 * s[1]}; }
Shape row_pairs(const Shape& s, const Numerics&) { return {2 * s[0], s[1]}; }
Shape gptq_shape(const Shape& s, const Numerics& n) { return {s[1], s[0] * 32 / n.bits}; }
Shape awq_shape(const Shape& s, const Numerics&) { return {8 * s[1], s[0]}; }
Shape expert_blocks(const Shape& s, const Numerics&) { return {s[0], s[1], s[2] * 2 * s[3]}; }

constexpr Form forms[] = {
    {"ct.pack32", "weight_packed", DType::i32, "weight_scale", nullptr},
    {"ct.words32", "weight_packed", DType::i32, "weight_scale", nullptr},
    {"ct.int8", "weight", DType::i8, "weight_scale", as_stored},
    {"ct.fp8", "weight", DType::f8e4m3, "weight_scale", as_stored},
    {"ct.mxfp8", "weight", DType::f8e4m3, "", as_stored},
    {"ct.mxfp4", "weight_packed", DType::u8, "", column_pairs},
    {"ct.nvfp4", "weight_packed", DType::u8, "", column_pairs},
    {"hf.fp8", "weight", DType::f8e4m3, "weight_scale_inv", as_stored},
    {"bnb.nf4", "weight", DType::u8, "", nullptr},
    {"gptq.v1", "qweight", DType::i32, "scales", gptq_shape},
    {"gptq.v2", "qweight", DType::i32, "scales", gptq_shape},
    {"awq.gemm", "qweight", DType::i32, "scales", awq_shape},
    {"modelopt.fp8", "weight", DType::f8e4m3, "weight_scale", as_stored},
    {"modelopt.nvfp4", "weight", DType::u8, "", column_pairs},
    {"modelopt.mxfp4", "weight", DType::u8, "", column_pairs},
    {"modelopt.int4", "weight", DType::u8, "weight_scale", row_pairs},
    {"modelopt.int8", "weight", DType::i8, "weight_scale", as_stored},
    {"openai.mxfp4", "blocks", DType::u8, "", expert_blocks},
};

// Tensors that say that something is quantized, by how their names end: what is before is the module.
constexpr std::string_view marks[] = {".weight_scale", ".weight_scale_inv", ".weight.absmax", ".qweight"};
constexpr std::string_view expert_mark = "_blocks";  // of gpt-oss: "experts.down_proj_blocks" is a parameter

// Tensors that belong to a quantized module, in any scheme: each is a part of its weight, allowed beside that
// (allows), or an error.
constexpr std::string_view module_tensors[] = {"weight_packed",
                                               "weight_scale",
                                               "weight_scale_inv",
                                               "weight_scale_2",
                                               "weight_zero_point",
                                               "weight_shape",
                                               "weight_g_idx",
                                               "weight_global_scale",
                                               "weight.absmax",
                                               "weight.quant_map",
                                               "pre_quant_scale",
                                               "weight.quant_state.bitsandbytes__nf4",
                                               "input_scale",
                                               "input_global_scale",
                                               "input_zero_point",
                                               "output_scale",
                                               "output_zero_point",
                                               "qweight",
                                               "qzeros",
                                               "scales",
                                               "g_idx"};

// Those that are read beside the parts of a packing, or mean no more than that columns are in order; packings
// by how they begin.
struct Beside {
  std::string_view packing, tensor;
};
constexpr Beside beside_parts[] = {{"ct.pack32", "weight_shape"},
                                   {"ct.pack32", "weight_g_idx"},
                                   {"ct.words32", "weight_shape"},
                                   {"ct.words32", "weight_g_idx"},
                                   {"gptq.", "g_idx"},
                                   {"gptq.", "qzeros"},
                                   {"awq.gemm", "g_idx"},
                                   {"bnb.nf4", "weight.quant_state.bitsandbytes__nf4"}};

// Scales of an attention's keys and values, by how their names end: compressed-tensors', ModelOpt's, and
// those of compressed-tensors before 0.8 and Quark.
struct CacheScale {
  std::string_view stored, entry;
};
constexpr CacheScale cache_scales[] = {
    {".k_proj.k_scale", ".k_scale"},
    {".v_proj.v_scale", ".v_scale"},
    {".k_proj.output_scale", ".k_scale"},
    {".v_proj.output_scale", ".v_scale"},
    {".k_scale", ".k_scale"},
    {".v_scale", ".v_scale"},
};
constexpr std::string_view query_scale = ".q_scale";

// Shapes and sizes of a stored tensor without its bytes, for check_parts.
Tensor outline(const Stored& stored) {
  Tensor t;
  t.dtype = stored.item->dtype;
  t.shape = stored.item->shape;
  t.storage.bytes = stored.item->end - stored.item->begin;
  return t;
}

// Some write one scale as [] or [1, 1], and one per row without the column.
bool same_but_for_ones(const Shape& a, const Shape& b) {
  const auto significant = [](Shape s) {
    std::erase(s, 1);
    return s;
  };
  return significant(a) == significant(b);
}

bool widens(DType stored, DType wanted) {
  return wanted == DType::f32 && (stored == DType::f16 || stored == DType::bf16);
}
// Exponents are u8 to compressed-tensors, and to others what they are.
bool same_bits(DType stored, DType wanted) { return wanted == DType::u8 && stored == DType::f8e8m0; }

// The tensors of one module.
class Module {
 public:
  Module(const fs::path& directory, const StoredTensors& tensors, std::string name, std::string_view mark)
      : tensors_(tensors), name_(std::move(name)), joint_(mark == expert_mark ? '_' : '.') {
    const std::string& file = tensors.find(name_ + std::string(mark))->second.file_name;
    where_ = fmt::format("{}: module '{}'", (directory / file).string(), printable(name_));
    entry_ = joint_ == '_' ? name_ : name_ + ".weight";
  }

  const std::string& where() const { return where_; }
  const std::string& name() const { return name_; }
  const std::string& entry() const { return entry_; }
  std::string tensor(std::string_view part) const { return fmt::format("{}{}{}", name_, joint_, part); }
  const Stored* find(std::string_view part) const {
    auto it = tensors_.find(tensor(part));
    return it == tensors_.end() ? nullptr : &it->second;
  }
  Tensor load(std::string_view part) const { return find(part)->file->load(tensor(part)); }

 private:
  const StoredTensors& tensors_;
  std::string name_, where_, entry_;
  char joint_;
};

// The one tensor of codes that a module has.
std::string_view codes_of(const Module& m, std::string_view mark) {
  if (mark == expert_mark) return "blocks";
  std::string_view found;
  for (const std::string_view name : {"weight_packed", "qweight", "weight"}) {
    if (!m.find(name)) continue;
    if (!found.empty()) throw input_error(m.where(), fmt::format("one of {} and {}", name, found), "both");
    found = name;
  }
  if (found.empty())
    throw input_error(m.where(), fmt::format("weight or weight_packed beside {}", mark.substr(1)), "neither");
  return found;
}

// [rows, cols]: the packed tensor knows the rows, weight_shape the columns; without it they fill the words.
// Where codes need not fill words, the columns also tell which of the two packings it is.
Shape packed_shape(const Module& m, const Stored& codes, Weight& w) {
  const int64_t bits = w.numerics.bits, rows = codes.item->shape[0], words = codes.item->shape[1];
  const int64_t most = words * 32 / bits;  // no overflow: the words are in the file
  const Stored* shape = m.find("weight_shape");
  if (!shape) return {rows, w.packing->name == "ct.words32" ? words * (32 / bits) : most};
  const std::string where = m.where() + ": weight_shape";
  if (shape->item->dtype != DType::i64 || shape->item->shape != Shape{2})
    throw input_error(where, "i64 [2]",
                      fmt::format("{} {}", dtype_name(shape->item->dtype), to_string(shape->item->shape)));
  const Tensor loaded = m.load("weight_shape");
  const auto claimed = loaded.as<int64_t>();
  if (claimed[0] != rows || claimed[1] < 1 || claimed[1] > most)
    throw input_error(
        where,
        fmt::format("[{}, up to {}], as weight_packed {} allows", rows, most, to_string(codes.item->shape)),
        fmt::format("[{}, {}]", claimed[0], claimed[1]));
  const Shape found = {claimed[0], claimed[1]};
  const bool stream = words == (found[1] * bits + 31) / 32,
             whole = words == (found[1] + 32 / bits - 1) / (32 / bits);
  if (32 % bits != 0 && stream != whole) w.packing = &packing(whole ? "ct.words32" : "ct.pack32");
  return found;
}

// bitsandbytes keeps the shape and the group size in JSON beside each weight.
Shape nf4_shape(const Module& m, const Stored& codes, Numerics& n) {
  const std::string part = "weight.quant_state.bitsandbytes__nf4",
                    at = fmt::format("{}: {}", m.where(), part);
  const Stored* state = m.find(part);
  if (!state || state->item->dtype != DType::u8 || state->item->end - state->item->begin > 1000)
    throw input_error(at, "JSON of at most 1000 bytes in a u8 tensor", state ? "another tensor" : "none");
  const Tensor text = m.load(part);
  const Json json = parse_json({reinterpret_cast<const char*>(text.storage.data), text.bytes()}, at);
  if (json.contains("nested_blocksize")) throw input_error(at, "no double quantization", "nested_blocksize");
  check_keys(json, {{"quant_type", "\"nf4\""}, "blocksize", "shape", "dtype"}, at);
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
void check_nf4(const Module& m, const Weight& w) {
  const Tensor map = m.load("weight.quant_map");
  const auto found = map.as<float>(), expected = grid_values(w.numerics.kind);
  for (size_t i = 0; i < expected.size(); ++i)
    if (!(std::fabs(found[i] - expected[i]) < 1e-6f))
      throw input_error(m.where() + ": quant_map", fmt::format("{} as value {}", expected[i], i),
                        fmt::format("{}", found[i]));
}

// Symmetric numbers are written with zero points all the same, all in the middle: 2^(bits - 1), less one in
// GPTQ's first version. Codes of every width fill 32 words of the same pattern alike.
void check_middle(const Module& m, const Weight& w) {
  const Stored* stored = m.find("qzeros");
  if (!stored) return;
  const std::string where = m.where() + ": qzeros";
  Weight with_zeros = w;
  with_zeros.numerics.offset = Numerics::Offset::zero_point;
  for (const Part& part : w.packing->parts(with_zeros.numerics, w.shape))
    if (part.name == "qzeros" && (part.dtype != stored->item->dtype || part.shape != stored->item->shape))
      throw input_error(
          where, fmt::format("{} {}", dtype_name(part.dtype), to_string(part.shape)),
          fmt::format("{} {}", dtype_name(stored->item->dtype), to_string(stored->item->shape)));
  const int bits = w.numerics.bits;
  const uint32_t middle = (1u << (bits - 1)) - (w.packing->name == "gptq.v1");
  const Tensor zeros = m.load("qzeros");
  const auto words = zeros.as<uint32_t>();
  for (size_t i = 0; i < words.size(); ++i) {
    uint32_t expected = 0;  // of word i: bit b belongs to the code that holds it
    for (int b = 0; b < 32; ++b)
      expected |=
          (middle >>
               (static_cast<int>((32 * (i % static_cast<size_t>(bits))) + static_cast<size_t>(b)) % bits) &
           1u)
          << b;
    if (words[i] != expected)
      throw input_error(where, fmt::format("words {:08x}, the middle, as numbers are symmetric", expected),
                        fmt::format("{:08x}", words[i]),
                        "the config's sym or checkpoint_format is not that of the tensors");
  }
}

// How the columns of a weight belong to its groups: as runs, where nothing is stored or -1 anywhere;
// scattered, but as many to each; or otherwise.
enum class Grouping : uint8_t { runs, scattered, uneven };
Grouping grouping(const Module& m, std::string_view part, const Weight& w) {
  const Stored* stored = m.find(part);
  if (!stored) return Grouping::runs;
  const std::string where = fmt::format("{}: {}", m.where(), part);
  const int64_t cols = w.shape[1], groups = w.numerics.groups(cols);
  if (stored->item->dtype != DType::i32 || stored->item->shape != Shape{cols})
    throw input_error(where, fmt::format("i32 [{}]", cols),
                      fmt::format("{} {}", dtype_name(stored->item->dtype), to_string(stored->item->shape)));
  const Tensor loaded = m.load(part);
  const auto group_of = loaded.as<int32_t>();
  if (std::ranges::count(group_of, -1)) return Grouping::runs;
  const int64_t full = w.numerics.group == 0 ? cols : w.numerics.group;
  std::vector<int64_t> columns(static_cast<size_t>(groups));
  bool runs = true, even = true;
  for (int64_t k = 0; k < cols; ++k) {
    const int32_t group = group_of[static_cast<size_t>(k)];
    if (group < 0 || group >= groups)
      throw input_error(where, fmt::format("groups from 0 to {}", groups - 1),
                        fmt::format("{} for column {}", group, k));
    runs = runs && group == k / full;
    even = ++columns[static_cast<size_t>(group)] <= std::min(full, cols - group * full) && even;
  }
  return runs ? Grouping::runs : even ? Grouping::scattered : Grouping::uneven;
}

// The scale as an entry [number of scales]; nothing where the tensor is none.
std::optional<BoundEntry> cache_scale(const std::string& name, const Stored& stored) {
  for (const CacheScale& scale : cache_scales) {
    if (!name.ends_with(scale.stored)) continue;
    const Tensor t = outline(stored);
    Entry entry{name.substr(0, name.size() - scale.stored.size()).append(scale.entry),
                Numerics::dense(t.dtype),
                &packing("dense"),
                {elements(t.shape)},
                t.bytes(),
                stored.file_name};
    return BoundEntry{std::move(entry), {name}};
  }
  return std::nullopt;
}

class Binder {
 public:
  Binder(const fs::path& directory, const StoredTensors& tensors, const std::optional<QuantConfig>& config)
      : directory_(directory), tensors_(tensors), config_(config) {}

  // The weight of a module, then what corrects it.
  std::vector<BoundEntry> bind(const std::string& module, std::string_view mark) const {
    const Module m(directory_, tensors_, module, mark);
    const std::string_view codes = codes_of(m, mark);
    if (!config_)
      throw input_error(
          (directory_ / "config.json").string(),
          fmt::format("a quantization_config that explains {} of '{}'", mark.substr(1), printable(module)),
          "none");
    const Shape& stored = m.find(codes)->item->shape;
    if (stored.size() != (mark == expert_mark ? 4 : 2) || elements(stored) == 0)
      throw input_error(m.where(), "a matrix that is not empty", to_string(stored));
    std::vector<BoundEntry> out = {fit(m, codes)};
    if (out[0].corrected) bind_correction(m, out);
    return out;
  }

 private:
  // The first scheme that the tensors fit. More than one is tried only where class names are all there is to
  // go by.
  BoundEntry fit(const Module& m, std::string_view codes) const {
    const auto schemes = config_->schemes_for(m.name());
    if (schemes.empty()) throw input_error(m.where(), "a config group that targets it", "none");
    for (size_t i = 0; i + 1 < schemes.size(); ++i) {
      try {
        return bind_as(m, codes, *schemes[i]);
      } catch (const InputError&) {  // the next class may be the module's
      }
    }
    return bind_as(m, codes, *schemes.back());
  }

  BoundEntry bind_as(const Module& m, std::string_view codes_name, const QuantScheme& scheme) const {
    const Form& form = *std::ranges::find(forms, scheme.packing->name, &Form::packing);
    const Stored& codes = *m.find(codes_name);
    if (form.codes != codes_name || codes.item->dtype != form.dtype)
      throw input_error(m.where(),
                        fmt::format("{} {} ({}, as {} says)", form.codes, dtype_name(form.dtype),
                                    form.packing, scheme.name),
                        fmt::format("{} {}", codes_name, dtype_name(codes.item->dtype)));
    Weight w{scheme.numerics, scheme.packing, {}, {}};
    if (form.packing == "ct.int8") w.numerics.bits = 8;  // bytes whatever num_bits says
    if (!form.scales.empty()) w.numerics.dtype = scale_type(m, form, scheme);
    w.shape = form.shape                  ? form.shape(codes.item->shape, w.numerics)
              : form.packing == "bnb.nf4" ? nf4_shape(m, codes, w.numerics)
                                          : packed_shape(m, codes, w);
    BoundEntry out;
    settle(m, w, out);
    for (const Part& part : parts_of(m, w)) {
      const Stored* stored = m.find(part.name);
      if (!stored)
        throw input_error(m.where(),
                          fmt::format("tensor {} ({}, as {} says)", part.name, w.packing->name, scheme.name),
                          "none");
      Tensor found = outline(*stored);
      if (widens(found.dtype, part.dtype)) {
        found.dtype = part.dtype;
        found.storage.bytes *= 2;
      }
      if (same_bits(found.dtype, part.dtype)) found.dtype = part.dtype;
      if (same_but_for_ones(found.shape, part.shape)) found.shape = part.shape;
      w.parts.push_back(std::move(found));
      out.tensors.push_back(m.tensor(part.name));
    }
    if (w.numerics.offset == Numerics::Offset::none && m.find("weight_zero_point"))
      throw input_error(m.where(), fmt::format("no weight_zero_point: {} is symmetric", scheme.name), "one");
    for (const std::string_view name : module_tensors)
      if (m.find(name) && !std::ranges::count(out.tensors, m.tensor(name)) && !allows(m, w, scheme, name))
        throw input_error(m.where(),
                          fmt::format("tensors of {} ({}, as {} says)", to_string(scheme.numerics),
                                      w.packing->name, scheme.name),
                          fmt::format("{} too", name),
                          "the config leaves out what it is for, or another tool left it there");
    check_parts(w, m.where());
    if (w.packing->name == "bnb.nf4") check_nf4(m, w);
    out.corrected = scheme.corrected;
    out.entry = {m.entry(), w.numerics, w.packing, w.shape, w.bytes(), codes.file_name};
    return out;
  }

  // Whether that tensor may stand beside the parts of the weight.
  bool allows(const Module& m, const Weight& w, const QuantScheme& scheme, std::string_view name) const {
    const std::string_view packing = w.packing->name;
    for (const Beside& b : beside_parts)
      if (packing.starts_with(b.packing) && name == b.tensor) return true;
    if (name == "input_scale" || name == "input_global_scale") return scheme.input_as_is;
    if (name == "input_zero_point") return packing.starts_with("ct.") && all_zero(m, name);
    if (name == "weight_g_idx")
      return (packing == "ct.int8" || packing == "ct.fp8") && grouping(m, name, w) == Grouping::runs;
    // Of a product in fp8 alone: see modelopt.cpp.
    if (name == "weight_scale_2") return packing == "modelopt.int4" && scheme.numerics.rounds_activations();
    if (!config_->has_cache_scales()) return false;
    const bool key_or_value = m.name().ends_with(".k_proj") || m.name().ends_with(".v_proj");
    return key_or_value && (name == "output_scale" || (name == "output_zero_point" && all_zero(m, name)));
  }

  static bool all_zero(const Module& m, std::string_view part) {
    const Tensor t = m.load(part);
    return std::all_of(t.storage.data, t.storage.data + t.bytes(),
                       [](std::byte b) { return b == std::byte{}; });
  }

  // ModelOpt's low-rank factors, named as in its exports of transformers' models or as in those of
  // diffusers'. Layers whose decomposition it skipped have none. What they are called here:
  // models/low_rank.h.
  void bind_correction(const Module& m, std::vector<BoundEntry>& out) const {
    const Entry weight = out[0].entry;
    const auto add = [&](const std::string& part, std::string_view name, size_t side) {
      const Stored* stored = m.find(part);
      if (!stored) throw input_error(m.where(), fmt::format("tensor {}", part), "none");
      const Tensor t = outline(*stored);
      const int64_t expected = weight.shape[side];  // rank is its other side
      if (!is_float(t.dtype) || t.shape.size() != 2 || t.shape[side] != expected)
        throw input_error(fmt::format("{}: {}", m.where(), part),
                          fmt::format("floats {}", side == 0 ? fmt::format("[{}, rank]", expected)
                                                             : fmt::format("[rank, {}]", expected)),
                          fmt::format("{} {}", dtype_name(t.dtype), to_string(t.shape)));
      Entry entry{fmt::format("{}.low_rank.{}", m.name(), name),
                  Numerics::dense(t.dtype),
                  &packing("dense"),
                  t.shape,
                  t.bytes(),
                  stored->file_name};
      if (tensors_.contains(entry.name)) throw input_error(m.where(), "one low-rank correction", "two");
      out.push_back({std::move(entry), {m.tensor(part)}});
    };
    for (const std::string prefix : {"weight_quantizer._svdquant_lora_", "svdquant_lora_"}) {
      if (!m.find(prefix + "a") && !m.find(prefix + "b")) continue;
      add(prefix + "b", "b", 0);
      add(prefix + "a", "a", 1);
      if (weight.numerics.column_scales) {  // a sees the input after pre_quant_scale
        BoundEntry& a = out.back();
        a.entry.numerics.column_scales = true;
        a.entry.packing = &packing("modelopt.low_rank");
        a.entry.bytes += static_cast<size_t>(weight.shape[1]) * sizeof(float);
        a.tensors.push_back(m.tensor("pre_quant_scale"));
      }
      return;
    }
  }

  static DType scale_type(const Module& m, const Form& form, const QuantScheme& scheme) {
    const Stored* scales = m.find(form.scales);
    if (!scales)
      throw input_error(m.where(),
                        fmt::format("tensor {} ({}, as {} says)", form.scales, form.packing, scheme.name),
                        "none");
    const DType found = scales->item->dtype;
    if (found != DType::f32 && found != DType::f16 && found != DType::bf16)
      throw input_error(fmt::format("{}: {}", m.where(), form.scales), "f32, f16 or bf16", dtype_name(found));
    return found;
  }

  // What configs leave to the tensors.
  static void settle(const Module& m, Weight& w, BoundEntry& out) {
    Numerics& n = w.numerics;
    const std::string_view packing = w.packing->name;
    const auto group = [&](std::string_view part) {
      const Grouping found = grouping(m, part, w);
      n.act_order = found != Grouping::runs;
      out.uneven_groups = found == Grouping::uneven;
    };
    if (packing.starts_with("gptq.") || packing == "awq.gemm") {
      parts_of(m, w);
      if (packing == "awq.gemm" && m.find("qzeros")) n.offset = Numerics::Offset::zero_point;
      if (n.offset == Numerics::Offset::none) check_middle(m, w);
      group("g_idx");
    } else if (packing == "ct.pack32" || packing == "ct.words32") {
      group("weight_g_idx");
    }
    if (n.act_order && columns_per_scale(n.activations) > 0)
      throw input_error(m.where(), "activations with a scale for each row, as columns are in another order",
                        to_string(n));
    const bool scales = m.find("pre_quant_scale") != nullptr;
    if (scales && !n.column_scales)
      throw input_error(m.where(), fmt::format("no pre_quant_scale beside {}", to_string(n)), "one");
    n.column_scales = scales;
    // ModelOpt's FP8 of weights alone, as Lathe writes it, says no more than that its input_scale is not
    // there.
    out.unscaled_input = packing.starts_with("modelopt.") && n.has_input_scale() && !n.rounds_to_int8() &&
                         !m.find("input_scale");
    if (out.unscaled_input) n = n.weights_alone();
  }

  static std::vector<Part> parts_of(const Module& m, const Weight& w) {
    try {
      return w.packing->parts(w.numerics, w.shape);
    } catch (const Error& e) {
      throw input_error(m.where(), fmt::format("a shape that {} holds", w.packing->name), e.what());
    }
  }

  const fs::path& directory_;
  const StoredTensors& tensors_;
  const std::optional<QuantConfig>& config_;
};

// What will be slow, said once.
void warn_of_emulation(const fs::path& directory, const std::vector<BoundEntry>& bound) {
  if (const auto n = std::ranges::count(bound, true, &BoundEntry::uneven_groups); n > 0)
    warn(
        "{}: groups of {} weights have different numbers of columns; no kernel has that: they are computed "
        "as f32",
        directory.string(), n);
  if (const auto n = std::ranges::count(bound, true, &BoundEntry::unscaled_input); n > 0)
    warn("{}: {} weights have no input_scale: their input is not rounded, which is more exact",
         directory.string(), n);
  std::map<Activations, int64_t> rounded;
  for (const BoundEntry& b : bound)
    if (const Numerics& n = b.entry.numerics; n.rounds_activations() && !n.rounds_to_int8())
      ++rounded[n.activations];
  for (const auto& [to, n] : rounded)
    warn("{}: the input of {} weights is rounded to {}, which no kernel multiplies: emulated in f32",
         directory.string(), n, to_string(to));
}

}  // namespace

Tensor as_part(Tensor stored, const Part& part) {
  if (widens(stored.dtype, part.dtype)) {
    Tensor wide = Tensor::zeros(part.dtype, part.shape);
    to_f32(stored.dtype, stored.storage.data, wide.as_mutable<float>().data(), elements(part.shape));
    return wide;
  }
  stored.dtype = part.dtype;
  stored.shape = part.shape;
  return stored;
}

std::vector<BoundEntry> bind_tensors(const fs::path& directory, const StoredTensors& tensors,
                                     const std::optional<QuantConfig>& config) {
  constexpr std::string_view packed = ".weight_packed";
  std::vector<BoundEntry> out;
  std::set<std::string, std::less<>> taken;
  const Binder binder(directory, tensors, config);
  int64_t queries = 0;
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
      for (BoundEntry& bound : binder.bind(module, mark)) {
        taken.insert(bound.tensors.begin(), bound.tensors.end());
        out.push_back(std::move(bound));
      }
      taken.insert(module + ".weight");
      for (std::string_view extra : module_tensors) taken.insert(fmt::format("{}.{}", module, extra));
    }
    if (config && config->has_experts() && name.ends_with(expert_mark)) {
      const std::string module = name.substr(0, name.size() - expert_mark.size());
      out.push_back(std::move(binder.bind(module, expert_mark)[0]));
      for (const char* part : {"_blocks", "_scales"}) taken.insert(module + part);
    }
    if (!config || !config->has_cache_scales()) continue;
    if (name.ends_with(query_scale)) taken.insert(name), ++queries;
    std::optional<BoundEntry> scale = cache_scale(name, stored);
    if (!scale) continue;
    taken.insert(name);
    // Of numbers that are not computed, or that rows find themselves.
    if (!config->cache().has_scales()) continue;
    if (std::ranges::any_of(out, [&](const BoundEntry& b) { return b.entry.name == scale->entry.name; }))
      throw input_error(
          fmt::format("{}: tensor '{}'", (directory / stored.file_name).string(), printable(name)),
          fmt::format("one '{}'", printable(scale->entry.name)), "two, under different names");
    out.push_back(std::move(*scale));
  }
  if (queries > 0)
    warn("{}: {} scales of queries are not used; queries stay as they are, which is more exact",
         directory.string(), queries);
  for (const auto& [name, stored] : tensors)
    if (!taken.contains(name)) {
      const Tensor t = outline(stored);
      out.push_back(
          {{name, Numerics::dense(t.dtype), &packing("dense"), t.shape, t.bytes(), stored.file_name},
           {name}});
    }
  warn_of_emulation(directory, out);
  return out;
}

}  // namespace lathe
