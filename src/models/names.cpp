#include "models/names.h"

#include <algorithm>

#include "core/error.h"

namespace lathe {
namespace {

struct Name {
  std::string_view gguf, canonical;  // "*" is the layer number
};

constexpr Name gguf_names[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
    {"blk.*.attn_norm.weight", "model.layers.*.input_layernorm.weight"},
    {"blk.*.attn_q.weight", "model.layers.*.self_attn.q_proj.weight"},
    {"blk.*.attn_k.weight", "model.layers.*.self_attn.k_proj.weight"},
    {"blk.*.attn_v.weight", "model.layers.*.self_attn.v_proj.weight"},
    {"blk.*.attn_q.bias", "model.layers.*.self_attn.q_proj.bias"},
    {"blk.*.attn_k.bias", "model.layers.*.self_attn.k_proj.bias"},
    {"blk.*.attn_v.bias", "model.layers.*.self_attn.v_proj.bias"},
    {"blk.*.attn_output.weight", "model.layers.*.self_attn.o_proj.weight"},
    {"blk.*.attn_q_norm.weight", "model.layers.*.self_attn.q_norm.weight"},
    {"blk.*.attn_k_norm.weight", "model.layers.*.self_attn.k_norm.weight"},
    {"blk.*.ffn_norm.weight", "model.layers.*.post_attention_layernorm.weight"},
    {"blk.*.ffn_gate.weight", "model.layers.*.mlp.gate_proj.weight"},
    {"blk.*.ffn_up.weight", "model.layers.*.mlp.up_proj.weight"},
    {"blk.*.ffn_down.weight", "model.layers.*.mlp.down_proj.weight"},
};

// "blk.12.x" matches "blk.*.x"; `number` receives "12".
bool matches(std::string_view pattern, std::string_view name, std::string_view& number) {
  const size_t star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == name;
  const std::string_view head = pattern.substr(0, star), tail = pattern.substr(star + 1);
  if (name.size() <= head.size() + tail.size() || !name.starts_with(head) || !name.ends_with(tail))
    return false;
  number = name.substr(star, name.size() - head.size() - tail.size());
  return number.find_first_not_of("0123456789") == std::string_view::npos;
}

std::string canonical_name(std::string_view gguf) {
  for (const Name& row : gguf_names) {
    std::string_view number;
    if (!matches(row.gguf, gguf, number)) continue;
    std::string name(row.canonical);
    if (const size_t star = name.find('*'); star != std::string::npos) name.replace(star, 1, number);
    return name;
  }
  return std::string(gguf);
}

// GGUF's llama rows are ordered for interleaved rotation: row 2i of a head is HF's row i, row 2i + 1 is HF's
// i + d/2. Rows are whole in every packing, so parts that have one entry per row are permuted as bytes.
Weight unpermute_rope_rows(const Weight& w, int64_t heads) {
  const int64_t rows = w.rows(), head_dim = rows / heads, half = head_dim / 2;
  if (heads < 1 || rows % heads || head_dim % 2)
    throw input_error("GGUF attention rows", fmt::format("a multiple of {} heads of even size", heads),
                      fmt::format("{} rows", rows));
  Weight out = w;
  for (Tensor& part : out.parts) {
    const Tensor source = part;
    if (source.shape.empty() || source.shape[0] != rows)
      fail("cannot permute rows of a part of shape {}", to_string(source.shape));
    part = Tensor::zeros(source.dtype, source.shape);
    const size_t stride = source.bytes() / static_cast<size_t>(rows);
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < head_dim; ++i) {
        const int64_t from = h * head_dim + (i < half ? 2 * i : 2 * (i - half) + 1);
        std::copy_n(source.storage.data + static_cast<size_t>(from) * stride, stride,
                    part.storage.data + static_cast<size_t>(h * head_dim + i) * stride);
      }
  }
  return out;
}

}  // namespace

std::map<std::string, Binding, std::less<>> bind_names(const Checkpoint& checkpoint) {
  std::map<std::string, Binding, std::less<>> out;
  const Json& config = checkpoint.config();
  const bool permuted = checkpoint.is_gguf() && config.value("model_type", "") == "llama";
  for (const Entry& entry : checkpoint.entries()) {
    if (!checkpoint.is_gguf()) {
      out[entry.name] = {entry.name, {}};
      continue;
    }
    Binding binding{entry.name, {}};
    const std::string name = canonical_name(entry.name);
    auto permute_with = [&](std::string_view key) {
      const int64_t heads = get_int(config, key, "GGUF metadata", 1, 65'536);
      binding.transform = [heads](const Weight& w) { return unpermute_rope_rows(w, heads); };
    };
    if (permuted && name.ends_with("q_proj.weight")) permute_with("num_attention_heads");
    if (permuted && name.ends_with("k_proj.weight")) permute_with("num_key_value_heads");
    out[name] = std::move(binding);
  }
  return out;
}

}  // namespace lathe
