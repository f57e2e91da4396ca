// Llama 2/3, TinyLlama, SmolLM2, Mistral, Qwen2/2.5, Qwen3: pre-norm, grouped-query attention, SwiGLU.
// Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE and gpt-oss are the same with experts in place of the MLP.
#include <cmath>

#include "core/error.h"
#include "graph/builder.h"
#include "models/definitions.h"

namespace lathe {
namespace {

constexpr std::string_view where = "config.json";

// How the families with experts call things.
struct MoeFamily {
  std::string_view type, experts, width;   // keys of config.json
  std::string_view scope, gate, up, down;  // modules
  bool normalize;                          // where norm_topk_prob does not say
  std::string_view router = "gate";        // <scope>.<router>
  bool bias = false;                       // of the router and of experts
};
constexpr MoeFamily moe_families[] = {
    {"mixtral", "num_local_experts", "intermediate_size", "block_sparse_moe", "w1", "w3", "w2", true},
    {"qwen2_moe", "num_experts", "moe_intermediate_size", "mlp", "gate_proj", "up_proj", "down_proj", false},
    {"qwen3_moe", "num_experts", "moe_intermediate_size", "mlp", "gate_proj", "up_proj", "down_proj", false},
    {"olmoe", "num_experts", "intermediate_size", "mlp", "gate_proj", "up_proj", "down_proj", false},
    // The softmax of the largest logits is that of all, of which the largest are divided by their sum.
    {"gpt_oss", "num_local_experts", "intermediate_size", "mlp", "gate_proj", "up_proj", "down_proj", true,
     "router", true},
};

struct Moe {
  const MoeFamily* family = nullptr;                        // null: every layer has an MLP
  int experts = 0, top_k = 0, width = 0, shared_width = 0;  // 0: no shared expert
  bool normalize = false;
  op::SiluMul activation;     // where it has a limit; else silu and mul
  int step = 1;               // every so many layers have experts,
  std::vector<bool> without;  // but for these
  explicit Moe(const Json&, int layers);
  bool in_layer(int i) const { return family && (i + 1) % step == 0 && !without[static_cast<size_t>(i)]; }
};

struct Config {
  int layers, hidden, heads, kv_heads, head_dim, ffn, vocab;
  float eps;
  bool qkv_bias, o_bias, mlp_bias, qk_norm, sinks, tied;
  int qk_norm_width;        // 0: the row
  int window, window_from;  // sliding window, and the first layer that has it
  std::vector<bool> full;   // layers that have none all the same; empty: no other
  op::Rope rope;
  Moe moe;
  explicit Config(const Json&);
  int window_of(int layer) const {
    return layer >= window_from && (full.empty() || !full[static_cast<size_t>(layer)]) ? window : 0;
  }
};

Moe::Moe(const Json& c, int layers) : without(static_cast<size_t>(layers)) {
  const std::string type = get_string(c, "model_type", where);
  for (const MoeFamily& f : moe_families)
    if (f.type == type) family = &f;
  if (!family) return;
  constexpr int64_t most_experts = 65'536;  // of all layers: a graph has a dozen nodes for each
  const auto count = [&](std::string_view key, int64_t most) {
    return static_cast<int>(get_int(c, key, where, 1, most));
  };
  experts = count(family->experts, most_experts / layers);
  top_k = count("num_experts_per_tok", experts);
  width = count(family->width, 10'000'000);
  normalize = family->normalize || get_bool_or(c, "norm_topk_prob", where, false);
  if (type == "qwen2_moe") shared_width = count("shared_expert_intermediate_size", 10'000'000);
  if (type == "gpt_oss")
    activation = {
        .limit = positive(get_number_or(c, "swiglu_limit", where, 7), "config.json: swiglu_limit"),
        .alpha = positive(get_number_or(c, "swiglu_alpha", where, 1.702), "config.json: swiglu_alpha")};
  if (type == "mixtral" || type == "olmoe" || type == "gpt_oss") return;
  step = static_cast<int>(get_int_or(c, "decoder_sparse_step", where, 1, 10'000, 1));
  for (const Json& layer : c.value("mlp_only_layers", Json::array())) {
    const int64_t i = layer.is_number_integer() ? layer.get<int64_t>() : -1;
    if (i < 0 || i >= layers)
      throw input_error("config.json: mlp_only_layers", fmt::format("layers below {}", layers),
                        printable(layer.dump(), 40));
    without[static_cast<size_t>(i)] = true;
  }
}

// Which layers see everything: layer_types, else every other one from the second on (gpt-oss).
std::vector<bool> full_layers(const Json& c, int layers) {
  std::vector<bool> full;
  if (!c.contains("layer_types") || c["layer_types"].is_null()) {
    for (int i = 0; i < layers; ++i) full.push_back(i % 2 == 1);
    return full;
  }
  const Json& types = c["layer_types"];
  if (!types.is_array() || std::ssize(types) != layers)
    throw input_error("config.json: layer_types", fmt::format("an array of {}", layers),
                      types.is_array() ? fmt::format("one of {}", types.size()) : types.type_name());
  for (const Json& type : types) {
    if (type != "full_attention" && type != "sliding_attention")
      throw input_error("config.json: layer_types", "full_attention and sliding_attention",
                        printable(type.dump(), 40));
    full.push_back(type == "full_attention");
  }
  return full;
}

Config::Config(const Json& c)
    : layers(static_cast<int>(get_int(c, "num_hidden_layers", where, 1, 10'000))), moe(c, layers) {
  auto count = [&](std::string_view key, int64_t most) {
    return static_cast<int>(get_int(c, key, where, 1, most));
  };
  auto count_or = [&](std::string_view key, int64_t most, int fallback) {
    return static_cast<int>(get_int_or(c, key, where, 1, most, fallback));
  };
  constexpr int64_t million = 1'000'000;
  const std::string type = get_string(c, "model_type", where);
  hidden = count("hidden_size", million);
  heads = count("num_attention_heads", 65'536);
  kv_heads = count_or("num_key_value_heads", 65'536, heads);
  head_dim = count_or("head_dim", 65'536, std::max(1, hidden / heads));
  ffn = count("intermediate_size", 10 * million);
  vocab = count("vocab_size", 100 * million);
  eps = positive(get_number_or(c, "rms_norm_eps", where, 1e-6), "config.json: rms_norm_eps");
  // Columns are counted in int, up to those of queries, keys and values together.
  if (int64_t{heads} * head_dim > 10 * million)
    throw input_error("config.json: num_attention_heads * head_dim", fmt::format("at most {}", 10 * million),
                      fmt::format("{} * {}", heads, head_dim));
  if (heads % kv_heads)
    throw input_error("config.json: num_key_value_heads", fmt::format("a divisor of {} heads", heads),
                      fmt::format("{}", kv_heads));
  if (head_dim % 2) throw input_error("config.json: head_dim", "an even number", fmt::format("{}", head_dim));
  const std::string activation = get_string_or(c, "hidden_act", where, "silu");
  if (activation != "silu")
    throw input_error("config.json: hidden_act", "silu", fmt::format("'{}'", printable(activation)));

  const bool attention_bias = get_bool_or(c, "attention_bias", where, false) || type == "gpt_oss";
  sinks = type == "gpt_oss";
  const bool qwen2 = type == "qwen2" || type == "qwen2_moe", qwen3 = type == "qwen3" || type == "qwen3_moe";
  qkv_bias = qwen2 || attention_bias;
  o_bias = !qwen2 && attention_bias;
  mlp_bias = get_bool_or(c, "mlp_bias", where, false);
  qk_norm = qwen3 || type == "olmoe";
  qk_norm_width = qwen3 ? head_dim : 0;
  if (type == "olmoe" && c.contains("clip_qkv") && !c["clip_qkv"].is_null())
    throw input_error("config.json: clip_qkv", "null", printable(c["clip_qkv"].dump(), 40));
  tied = get_bool_or(c, "tie_word_embeddings", where, false);

  // Mistral has a window unless it says null (4096 when the key is absent, as in transformers); Qwen has one
  // only when use_sliding_window says so, and then from layer max_window_layers on; Qwen3-MoE in all, Mixtral
  // where there is one; gpt-oss where layer_types say so. Llama has none.
  window = 0, window_from = 0;
  if (type == "mistral")
    window = c.contains("sliding_window")
                 ? static_cast<int>(get_int_or(c, "sliding_window", where, 1, INT32_MAX, 0))
                 : 4096;
  if ((type == "qwen2" || type == "qwen3") && get_bool_or(c, "use_sliding_window", where, false)) {
    window = static_cast<int>(get_int_or(c, "sliding_window", where, 1, INT32_MAX, 0));
    window_from = static_cast<int>(get_int_or(c, "max_window_layers", where, 0, 10'000, 28));
  }
  if (type == "mixtral" || (type == "qwen3_moe" && get_bool_or(c, "use_sliding_window", where, false)))
    window = static_cast<int>(get_int_or(c, "sliding_window", where, 1, INT32_MAX, 0));
  if (type == "gpt_oss") {
    window = static_cast<int>(get_int_or(c, "sliding_window", where, 1, INT32_MAX, 128));
    full = full_layers(c, layers);
  }
  if (type == "qwen2_moe" && get_bool_or(c, "use_sliding_window", where, false))
    throw input_error("config.json: use_sliding_window", "false in Qwen2-MoE", "true");
  const RopeTable table = rope_table(c, head_dim);
  rope = {.head_dim = head_dim, .inv_freq = table.inv_freq, .scale = table.scale};
}

Value attention(Builder& g, const Config& c, Value x, int layer) {
  auto in = g.scope("self_attn");
  Value q = g.linear("q_proj", x, c.heads * c.head_dim, c.qkv_bias);
  Value k = g.linear("k_proj", x, c.kv_heads * c.head_dim, c.qkv_bias);
  Value v = g.linear("v_proj", x, c.kv_heads * c.head_dim, c.qkv_bias);
  if (c.qk_norm) {
    q = g.rms_norm("q_norm", q, {.width = c.qk_norm_width, .eps = c.eps});
    k = g.rms_norm("k_norm", k, {.width = c.qk_norm_width, .eps = c.eps});
  }
  q = g.rope("rope_q", q, c.rope);
  k = g.rope("rope_k", k, c.rope);
  Value o = g.attention(q, k, v,
                        {.heads = c.heads,
                         .kv_heads = c.kv_heads,
                         .head_dim = c.head_dim,
                         .window = c.window_of(layer),
                         .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
                         .sinks = c.sinks});
  return g.linear("o_proj", o, c.hidden, c.o_bias);
}

Value mlp(Builder& g, const Config& c, Value x) {
  auto in = g.scope("mlp");
  Value gate = g.silu(g.linear("gate_proj", x, c.ffn, c.mlp_bias));
  Value up = g.linear("up_proj", x, c.ffn, c.mlp_bias);
  return g.linear("down_proj", gate * up, c.hidden, c.mlp_bias);
}

// base, plus what the expert makes of the rows of x that have a weight for it.
Value expert(Builder& g, const Config& c, std::string_view name, int number, int width, Value base, Value x,
             Value weights) {
  auto in = g.scope(name);
  const MoeFamily& family = *c.moe.family;
  x = g.take_routed(x, weights, number);
  const auto layer = [&](std::string_view matrix) { return g.linear(matrix, x, width, family.bias); };
  const bool limited = c.moe.activation.limit > 0;
  Value gate = layer(family.gate);
  if (!limited) gate = g.silu(gate);
  Value up = layer(family.up);
  Value between = limited ? g.silu_mul(gate, up, c.moe.activation) : gate * up;
  return g.add_routed(base, weights, number, g.linear(family.down, between, c.hidden, family.bias));
}

// A shared expert is one that every row sees, as much as a gate of its own says.
Value experts(Builder& g, const Config& c, Value base, Value x) {
  auto in = g.scope(c.moe.family->scope);
  if (c.moe.shared_width > 0) {
    Value weight = g.route("shared_route", g.linear("shared_expert_gate", x, 1), {.sigmoid = true});
    base = expert(g, c, "shared_expert", 0, c.moe.shared_width, base, x, weight);
  }
  Value weights = g.route("route", g.linear(c.moe.family->router, x, c.moe.experts, c.moe.family->bias),
                          {.top_k = c.moe.top_k, .normalize = c.moe.normalize});
  for (int e = 0; e < c.moe.experts; ++e)
    base = expert(g, c, fmt::format("experts.{}", e), e, c.moe.width, base, x, weights);
  return base;
}

}  // namespace

Graph llama(const Json& config) {
  const Config c(config);
  Builder g;
  Value x = g.embedding("model.embed_tokens", g.tokens(), c.vocab, c.hidden);
  for (int i = 0; i < c.layers; ++i) {
    auto in = g.block("model.layers", i);
    x = x + attention(g, c, g.rms_norm("input_layernorm", x, {.eps = c.eps}), i);
    Value n = g.rms_norm("post_attention_layernorm", x, {.eps = c.eps});
    x = c.moe.in_layer(i) ? experts(g, c, x, n) : x + mlp(g, c, n);
  }
  x = g.take_rows(g.rms_norm("model.norm", x, {.eps = c.eps}));
  return std::move(g).finish(c.tied ? g.linear_tied("model.embed_tokens", x, c.vocab)
                                    : g.linear("lm_head", x, c.vocab));
}

}  // namespace lathe
