// Llama 2/3, TinyLlama, SmolLM2, Mistral, Qwen2/2.5, Qwen3: pre-norm, grouped-query attention, SwiGLU.
#include <cmath>

#include "core/error.h"
#include "graph/builder.h"
#include "models/definitions.h"

namespace lathe {
namespace {

struct Config {
  int hidden, layers, heads, kv_heads, head_dim, ffn, vocab;
  float eps;
  bool qkv_bias, o_bias, mlp_bias, qk_norm, tied;
  int window, window_from;  // sliding window, and the first layer that has it
  op::Rope rope;
  explicit Config(const Json&);
  int window_of(int layer) const { return layer >= window_from ? window : 0; }
};

constexpr std::string_view where = "config.json";

Config::Config(const Json& c) {
  auto count = [&](std::string_view key, int64_t most) {
    return static_cast<int>(get_int(c, key, where, 1, most));
  };
  auto count_or = [&](std::string_view key, int64_t most, int fallback) {
    return static_cast<int>(get_int_or(c, key, where, 1, most, fallback));
  };
  constexpr int64_t million = 1'000'000;
  const std::string type = get_string(c, "model_type", where);
  hidden = count("hidden_size", million);
  layers = count("num_hidden_layers", 10'000);
  heads = count("num_attention_heads", 65'536);
  kv_heads = count_or("num_key_value_heads", 65'536, heads);
  head_dim = count_or("head_dim", 65'536, std::max(1, hidden / heads));
  ffn = count("intermediate_size", 10 * million);
  vocab = count("vocab_size", 100 * million);
  eps = static_cast<float>(get_number_or(c, "rms_norm_eps", where, 1e-6));
  if (heads % kv_heads)
    throw input_error("config.json: num_key_value_heads", fmt::format("a divisor of {} heads", heads),
                      fmt::format("{}", kv_heads));
  if (head_dim % 2) throw input_error("config.json: head_dim", "an even number", fmt::format("{}", head_dim));
  const std::string activation = get_string_or(c, "hidden_act", where, "silu");
  if (activation != "silu")
    throw input_error("config.json: hidden_act", "silu", fmt::format("'{}'", printable(activation)));

  const bool attention_bias = get_bool_or(c, "attention_bias", where, false);
  qkv_bias = type == "qwen2" || attention_bias;
  o_bias = type != "qwen2" && attention_bias;
  mlp_bias = get_bool_or(c, "mlp_bias", where, false);
  qk_norm = type == "qwen3";
  tied = get_bool_or(c, "tie_word_embeddings", where, false);

  // Mistral has a window unless it says null (4096 when the key is absent, as in transformers); Qwen has one
  // only when use_sliding_window says so, and then from layer max_window_layers on. Llama has none.
  window = 0, window_from = 0;
  if (type == "mistral")
    window = c.contains("sliding_window")
                 ? static_cast<int>(get_int_or(c, "sliding_window", where, 1, INT32_MAX, 0))
                 : 4096;
  if ((type == "qwen2" || type == "qwen3") && get_bool_or(c, "use_sliding_window", where, false)) {
    window = static_cast<int>(get_int_or(c, "sliding_window", where, 1, INT32_MAX, 0));
    window_from = static_cast<int>(get_int_or(c, "max_window_layers", where, 0, 10'000, 28));
  }
  const RopeTable table = rope_table(c, head_dim);
  rope = {.head_dim = head_dim, .inv_freq = table.inv_freq, .scale = table.scale};
}

Value attention(Builder& g, const Config& c, Value x, int layer) {
  auto in = g.scope("self_attn");
  Value q = g.linear("q_proj", x, c.heads * c.head_dim, c.qkv_bias);
  Value k = g.linear("k_proj", x, c.kv_heads * c.head_dim, c.qkv_bias);
  Value v = g.linear("v_proj", x, c.kv_heads * c.head_dim, c.qkv_bias);
  if (c.qk_norm) {
    q = g.rms_norm("q_norm", q, {.width = c.head_dim, .eps = c.eps});
    k = g.rms_norm("k_norm", k, {.width = c.head_dim, .eps = c.eps});
  }
  q = g.rope("rope_q", q, c.rope);
  k = g.rope("rope_k", k, c.rope);
  Value o = g.attention(q, k, v,
                        {.heads = c.heads,
                         .kv_heads = c.kv_heads,
                         .head_dim = c.head_dim,
                         .window = c.window_of(layer),
                         .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim))});
  return g.linear("o_proj", o, c.hidden, c.o_bias);
}

Value mlp(Builder& g, const Config& c, Value x) {
  auto in = g.scope("mlp");
  Value gate = g.silu(g.linear("gate_proj", x, c.ffn, c.mlp_bias));
  Value up = g.linear("up_proj", x, c.ffn, c.mlp_bias);
  return g.linear("down_proj", gate * up, c.hidden, c.mlp_bias);
}

}  // namespace

Graph llama(const Json& config) {
  const Config c(config);
  Builder g;
  Value x = g.embedding("model.embed_tokens", g.tokens(), c.vocab, c.hidden);
  for (int i = 0; i < c.layers; ++i) {
    auto in = g.block("model.layers", i);
    x = x + attention(g, c, g.rms_norm("input_layernorm", x, {.eps = c.eps}), i);
    x = x + mlp(g, c, g.rms_norm("post_attention_layernorm", x, {.eps = c.eps}));
  }
  x = g.take_rows(g.rms_norm("model.norm", x, {.eps = c.eps}));
  return std::move(g).finish(c.tied ? g.linear_tied("model.embed_tokens", x, c.vocab)
                                    : g.linear("lm_head", x, c.vocab));
}

}  // namespace lathe
