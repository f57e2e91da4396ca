#include "models/names.h"

#include <algorithm>

#include "core/error.h"
#include "models/stacked_experts.h"

namespace lathe {
namespace {

struct Name {
  std::string_view gguf, canonical;  // "*" is a number: of the layer, then of the expert
  std::string_view only = {};        // in this model_type
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
    {"blk.*.attn_output.bias", "model.layers.*.self_attn.o_proj.bias"},
    {"blk.*.attn_q_norm.weight", "model.layers.*.self_attn.q_norm.weight"},
    {"blk.*.attn_k_norm.weight", "model.layers.*.self_attn.k_norm.weight"},
    {"blk.*.attn_sinks.weight", "model.layers.*.self_attn.sinks"},
    {"blk.*.post_attention_norm.weight", "model.layers.*.post_attention_layernorm.weight", "gpt_oss"},
    {"blk.*.ffn_norm.weight", "model.layers.*.post_attention_layernorm.weight"},
    {"blk.*.ffn_gate.weight", "model.layers.*.mlp.gate_proj.weight"},
    {"blk.*.ffn_up.weight", "model.layers.*.mlp.up_proj.weight"},
    {"blk.*.ffn_down.weight", "model.layers.*.mlp.down_proj.weight"},
    {"blk.*.ffn_gate.bias", "model.layers.*.mlp.gate_proj.bias"},
    {"blk.*.ffn_up.bias", "model.layers.*.mlp.up_proj.bias"},
    {"blk.*.ffn_down.bias", "model.layers.*.mlp.down_proj.bias"},
    {"blk.*.ffn_gate_inp.weight", "model.layers.*.block_sparse_moe.gate.weight", "mixtral"},
    {"blk.*.ffn_gate_exps.weight[*]", "model.layers.*.block_sparse_moe.experts.*.w1.weight", "mixtral"},
    {"blk.*.ffn_down_exps.weight[*]", "model.layers.*.block_sparse_moe.experts.*.w2.weight", "mixtral"},
    {"blk.*.ffn_up_exps.weight[*]", "model.layers.*.block_sparse_moe.experts.*.w3.weight", "mixtral"},
    {"blk.*.ffn_gate_inp.weight", "model.layers.*.mlp.router.weight", "gpt_oss"},
    {"blk.*.ffn_gate_inp.bias", "model.layers.*.mlp.router.bias", "gpt_oss"},
    {"blk.*.ffn_gate_inp.weight", "model.layers.*.mlp.gate.weight"},
    {"blk.*.ffn_gate_exps.weight[*]", "model.layers.*.mlp.experts.*.gate_proj.weight"},
    {"blk.*.ffn_down_exps.weight[*]", "model.layers.*.mlp.experts.*.down_proj.weight"},
    {"blk.*.ffn_up_exps.weight[*]", "model.layers.*.mlp.experts.*.up_proj.weight"},
    {"blk.*.ffn_gate_exps.bias[*]", "model.layers.*.mlp.experts.*.gate_proj.bias"},
    {"blk.*.ffn_down_exps.bias[*]", "model.layers.*.mlp.experts.*.down_proj.bias"},
    {"blk.*.ffn_up_exps.bias[*]", "model.layers.*.mlp.experts.*.up_proj.bias"},
    {"blk.*.ffn_gate_inp_shexp.weight", "model.layers.*.mlp.shared_expert_gate.weight"},
    {"blk.*.ffn_gate_shexp.weight", "model.layers.*.mlp.shared_expert.gate_proj.weight"},
    {"blk.*.ffn_down_shexp.weight", "model.layers.*.mlp.shared_expert.down_proj.weight"},
    {"blk.*.ffn_up_shexp.weight", "model.layers.*.mlp.shared_expert.up_proj.weight"},
};

// "blk.12.x" matches "blk.*.x"; `numbers` receives "12".
bool matches(std::string_view pattern, std::string_view name, std::vector<std::string_view>& numbers) {
  numbers.clear();
  for (; !pattern.empty(); pattern.remove_prefix(1)) {
    if (pattern[0] != '*') {
      if (name.empty() || name[0] != pattern[0]) return false;
      name.remove_prefix(1);
      continue;
    }
    const size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
    if (digits == 0) return false;
    numbers.push_back(name.substr(0, digits));
    name.remove_prefix(digits);
  }
  return name.empty();
}

// `name` in the other vocabulary; empty when it is in no row.
std::string translated(std::string_view name, std::string_view type, std::string_view Name::*from,
                       std::string_view Name::*to) {
  std::vector<std::string_view> numbers;
  for (const Name& row : gguf_names) {
    if ((!row.only.empty() && row.only != type) || !matches(row.*from, name, numbers)) continue;
    std::string out(row.*to);
    for (const std::string_view number : numbers) out.replace(out.find('*'), 1, number);
    return out;
  }
  return {};
}

// GGUF's llama rows are ordered for interleaved rotation: row 2i of a head is HF's row i, row 2i + 1 is HF's
// i + d/2. Rows are whole in every packing of files, so parts that have one entry per row are permuted as
// bytes.
Weight permute_rope_rows(const Weight& w, int64_t heads, bool to_gguf) {
  const int64_t rows = w.shape.empty() ? 0 : w.shape[0], head_dim = rows / heads, half = head_dim / 2;
  if (rows < 1 || rows % heads || head_dim % 2)
    throw input_error("attention rows", fmt::format("a multiple of {} heads of even size", heads),
                      fmt::format("{} rows", rows));
  Weight out = w;
  for (Tensor& part : out.parts) {
    const Tensor source = part;
    if (elements(source.shape) == 1 && rows > 1) continue;  // of the whole weight
    if (source.shape.empty() || source.shape[0] != rows)
      fail("cannot permute rows of a part of shape {}", to_string(source.shape));
    part = Tensor::zeros(source.dtype, source.shape);
    const size_t stride = source.bytes() / static_cast<size_t>(rows);
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < head_dim; ++i) {
        const int64_t hf = h * head_dim + i, gguf = h * head_dim + (i < half ? 2 * i : 2 * (i - half) + 1);
        std::copy_n(source.storage.data + static_cast<size_t>(to_gguf ? hf : gguf) * stride, stride,
                    part.storage.data + static_cast<size_t>(to_gguf ? gguf : hf) * stride);
      }
  }
  return out;
}

// Of a canonical parameter; empty where rows lie as they do in Hugging Face's checkpoints.
std::function<Weight(const Weight&)> rope_transform(std::string_view name, const Json& config, bool to_gguf) {
  const std::string type = config.value("model_type", "");
  if (type != "llama" && type != "mistral" && type != "mixtral") return {};
  const bool q = name.find(".q_proj.") != std::string_view::npos,
             k = name.find(".k_proj.") != std::string_view::npos;
  if (!q && !k) return {};
  const int64_t all = get_int(config, "num_attention_heads", "config.json", 1, 65'536),
                heads = q ? all : get_int_or(config, "num_key_value_heads", "config.json", 1, 65'536, all);
  return [heads, to_gguf](const Weight& w) { return permute_rope_rows(w, heads, to_gguf); };
}

}  // namespace

std::map<std::string, Binding, std::less<>> bind_names(const Checkpoint& checkpoint) {
  std::map<std::string, Binding, std::less<>> out;
  const std::string type = checkpoint.config().value("model_type", "");
  for (const Entry& entry : checkpoint.entries()) {
    if (!checkpoint.is_gguf()) {
      if (!split_experts(entry, checkpoint.config(), out)) out[entry.name] = {entry.name, {}};
      continue;
    }
    std::string name = translated(entry.name, type, &Name::gguf, &Name::canonical);
    if (name.empty()) name = entry.name;
    if (!out.try_emplace(name, Binding{entry.name, rope_transform(name, checkpoint.config(), false)}).second)
      throw input_error(fmt::format("{}: tensor '{}'", entry.file, printable(entry.name)),
                        fmt::format("'{}' stored once", printable(name)), "twice, by two names");
  }
  return out;
}

Binding gguf_binding(std::string_view canonical, const Json& config) {
  std::string name = translated(canonical, config.value("model_type", ""), &Name::canonical, &Name::gguf);
  if (name.empty())
    throw input_error(fmt::format("parameter '{}'", printable(canonical)), "one that GGUF has a name for",
                      "none");
  return {std::move(name), rope_transform(canonical, config, true)};
}

}  // namespace lathe
