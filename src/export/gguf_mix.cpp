#include "export/gguf_mix.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"

namespace lathe {

// `most` takes all matrices but attention's v, the down projections and the head, which have rules of their
// own.
struct MixRow {
  std::string_view name, most;
  uint32_t file_type;  // llama.h: llama_ftype
  std::string_view head;
  std::string_view some;                         // of v and down in the layers of `which`
  bool (*which)(int64_t layer, int64_t layers);  // null: like the others
};

namespace {

// llama-quantize's use_more_bits.
bool outer_and_every_third(int64_t i, int64_t n) {
  return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}
bool first_eighth(int64_t i, int64_t n) { return i < n / 8; }

constexpr MixRow mixes[] = {
    {"f32", "F32", 0, "F32", {}, nullptr},
    {"f16", "F16", 1, "F16", {}, nullptr},
    {"bf16", "BF16", 32, "BF16", {}, nullptr},
    {"q8_0", "Q8_0", 7, "Q8_0", {}, nullptr},
    {"q5_1", "Q5_1", 9, "Q5_1", {}, nullptr},
    {"q5_0", "Q5_0", 8, "Q5_0", {}, nullptr},
    {"q4_1", "Q4_1", 3, "Q4_1", {}, nullptr},
    {"q4_0", "Q4_0", 2, "Q4_0", {}, nullptr},
    {"q6_k", "Q6_K", 18, "Q6_K", {}, nullptr},
    {"q5_k", "Q5_K", 16, "Q5_K", {}, nullptr},
    {"q4_k", "Q4_K", 14, "Q4_K", {}, nullptr},
    {"q3_k", "Q3_K", 11, "Q3_K", {}, nullptr},
    {"q2_k", "Q2_K", 10, "Q2_K", {}, nullptr},
    {"q5_k_m", "Q5_K", 17, "Q6_K", "Q6_K", outer_and_every_third},
    {"q5_k_s", "Q5_K", 16, "Q6_K", {}, nullptr},
    {"q4_k_m", "Q4_K", 15, "Q6_K", "Q6_K", outer_and_every_third},
    {"q4_k_s", "Q4_K", 14, "Q6_K", "Q5_K", first_eighth},
    {"q3_k_m", "Q3_K", 12, "Q6_K", "Q5_K", first_eighth},
};

const GgufType& type_named(std::string_view name) {
  for (const GgufType& t : gguf_types())
    if (t.name == name) return t;
  fail("no GGUF type is called '{}'", name);
}

// For rows that are not whole super-blocks, then for those that are not whole blocks.
const GgufType& fitting(const GgufType& wanted, int64_t cols) {
  constexpr std::pair<std::string_view, std::string_view> larger[] = {
      {"Q2_K", "Q4_0"}, {"Q3_K", "Q4_0"}, {"Q4_K", "Q5_0"}, {"Q5_K", "Q5_1"}, {"Q6_K", "Q8_0"}};
  if (cols % wanted.block == 0) return wanted;
  for (const auto& [from, to] : larger)
    if (from == wanted.name && cols % 32 == 0) return type_named(to);
  return type_named("F16");
}

// The number in "blk.12.x"; -1: none.
int64_t layer_of(std::string_view tensor) {
  constexpr std::string_view mark = "blk.";
  int64_t layer = -1;
  if (tensor.starts_with(mark))
    std::from_chars(tensor.data() + mark.size(), tensor.data() + tensor.size(), layer);
  return layer;
}

}  // namespace

std::vector<std::string> gguf_mix_names() {
  std::vector<std::string> out;
  for (const MixRow& row : mixes) out.emplace_back(row.name);
  return out;
}

GgufMix::GgufMix(std::string_view name, int64_t layers, int64_t experts)
    : layers_(layers), experts_(experts) {
  const auto row =
      std::find_if(std::begin(mixes), std::end(mixes), [&](const MixRow& m) { return m.name == name; });
  if (row == std::end(mixes))
    throw input_error("GGUF type", fmt::format("one of {}", fmt::join(gguf_mix_names(), ", ")),
                      printable(name));
  mix_ = row;
}

const GgufType& GgufMix::type_of(std::string_view tensor, const Shape& shape, bool head) const {
  const auto is = [&](std::string_view role) { return tensor.find(role) != std::string_view::npos; };
  if (shape.size() < 2 || is(".ffn_gate_inp.")) return type_named("F32");
  // As in Mixtral: attention is little beside so many experts.
  const bool eight = experts_ == 8 && mix_->head != mix_->most;
  std::string_view name = mix_->most;
  if (head)
    name = mix_->head;
  else if (eight && (is(".attn_k.") || is(".attn_v.")))
    name = "Q8_0";
  else if (eight && is(".attn_output.") && mix_->most != "Q5_K")
    name = "Q5_K";
  else if (mix_->which && (is(".attn_v.") || is(".ffn_down")) && mix_->which(layer_of(tensor), layers_))
    name = mix_->some;
  return fitting(type_named(name), shape.back());
}

const GgufType& GgufMix::type_of_mxfp4(std::string_view tensor, const Shape& shape) const {
  const GgufType &wanted = type_of(tensor, shape, false), &mxfp4 = type_named("MXFP4");
  const auto bytes = [&](const GgufType& type) {
    return packed_bytes(type.numerics, packing(type.packing), shape);
  };
  return wanted.name == "F32" || shape.back() % mxfp4.block || bytes(wanted) < bytes(mxfp4) ? wanted : mxfp4;
}

uint32_t GgufMix::file_type(bool mxfp4_experts) const {
  constexpr uint32_t mostly_mxfp4_moe = 38;
  return mxfp4_experts ? mostly_mxfp4_moe : mix_->file_type;
}

}  // namespace lathe
