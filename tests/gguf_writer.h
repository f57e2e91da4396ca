// Test-side GGUF: a model written as llama.cpp's converter writes it.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "core/file.h"
#include "models/model.h"

namespace lathe::testing_support {

// Writes GGUF v3 as llama.cpp's converter does: metadata, tensor infos with reversed dimensions, aligned
// data.
class GgufWriter {
 public:
  void text(const std::string& key, const std::string& value) { entry(key, 8), string(kv_, value); }
  void u32(const std::string& key, uint32_t value) { entry(key, 4), append(kv_, value); }
  void f32(const std::string& key, float value) { entry(key, 6), append(kv_, value); }
  void strings(const std::string& key, const std::vector<std::string>& values) {
    entry(key, 9), append(kv_, uint32_t{8}), append(kv_, static_cast<uint64_t>(values.size()));
    for (const std::string& v : values) string(kv_, v);
  }
  void tensor(const std::string& name, const Shape& shape, const std::vector<float>& values) {
    string(infos_, name), append(infos_, static_cast<uint32_t>(shape.size()));
    for (size_t i = shape.size(); i-- > 0;) append(infos_, static_cast<uint64_t>(shape[i]));
    append(infos_, uint32_t{0}), append(infos_, static_cast<uint64_t>(data_.size()));
    data_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    data_.resize((data_.size() + 31) / 32 * 32);
    ++tensors_;
  }
  void write(const fs::path& path) const {
    std::string out("GGUF");
    append(out, uint32_t{3}), append(out, tensors_), append(out, entries_);
    out += kv_ + infos_;
    out.resize((out.size() + 31) / 32 * 32);
    write_file_atomically(path, out + data_);
  }

 private:
  template <class T>
  static void append(std::string& to, T value) {
    to.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  static void string(std::string& to, const std::string& s) {
    append(to, static_cast<uint64_t>(s.size())), to += s;
  }
  void entry(const std::string& key, uint32_t type) { string(kv_, key), append(kv_, type), ++entries_; }
  std::string kv_, infos_, data_;
  uint64_t entries_ = 0, tensors_ = 0;
};

// llama.cpp's converter: rows of a head [2, d/2] become [d/2, 2].
inline std::vector<float> interleave_rows(const std::vector<float>& w, int64_t heads, int64_t rows,
                                          int64_t cols) {
  const int64_t d = rows / heads, half = d / 2;
  std::vector<float> out(w.size());
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t i = 0; i < half; ++i)
      for (int64_t part = 0; part < 2; ++part)
        std::copy_n(w.data() + (h * d + part * half + i) * cols, cols,
                    out.data() + (h * d + 2 * i + part) * cols);
  return out;
}

inline std::string gguf_name(std::string name) {
  static const std::pair<const char*, const char*> renames[] = {{"model.embed_tokens", "token_embd"},
                                                                {"model.norm", "output_norm"},
                                                                {"lm_head", "output"},
                                                                {"model.layers", "blk"},
                                                                {"input_layernorm", "attn_norm"},
                                                                {"post_attention_layernorm", "ffn_norm"},
                                                                {"self_attn.q_proj", "attn_q"},
                                                                {"self_attn.k_proj", "attn_k"},
                                                                {"self_attn.v_proj", "attn_v"},
                                                                {"self_attn.o_proj", "attn_output"},
                                                                {"self_attn.q_norm", "attn_q_norm"},
                                                                {"self_attn.k_norm", "attn_k_norm"},
                                                                {"mlp.gate_proj", "ffn_gate"},
                                                                {"mlp.up_proj", "ffn_up"},
                                                                {"mlp.down_proj", "ffn_down"}};
  for (const auto& [from, to] : renames)
    if (const size_t at = name.find(from); at != std::string::npos) name.replace(at, std::strlen(from), to);
  return name;
}

inline void write_gguf(const Model& model, const fs::path& path) {
  const Json& c = model.config;
  const std::string arch = c["model_type"];
  GgufWriter out;
  out.text("general.architecture", arch);
  auto count = [&](const char* key, const char* from) { out.u32(arch + "." + key, c[from].get<uint32_t>()); };
  count("block_count", "num_hidden_layers"), count("embedding_length", "hidden_size"),
      count("feed_forward_length", "intermediate_size");
  count("attention.head_count", "num_attention_heads"),
      count("attention.head_count_kv", "num_key_value_heads");
  count("context_length", "max_position_embeddings"), count("vocab_size", "vocab_size");
  const auto& attention =
      std::get<op::Attention>(model.graph.node(model.graph.find("model.layers.0.self_attn.attention")).op);
  out.u32(arch + ".attention.key_length", static_cast<uint32_t>(attention.head_dim));
  out.u32(arch + ".attention.value_length", static_cast<uint32_t>(attention.head_dim));
  out.f32(arch + ".attention.layer_norm_rms_epsilon", c["rms_norm_eps"].get<float>());
  out.f32(arch + ".rope.freq_base", c.value("rope_theta", 10000.0f));
  for (const auto& [name, weight] : model.weights) {
    std::vector<float> values = read_all(weight);
    if (arch == "llama" && name.ends_with("q_proj.weight"))
      values = interleave_rows(values, attention.heads, weight.rows(), weight.cols());
    if (arch == "llama" && name.ends_with("k_proj.weight"))
      values = interleave_rows(values, attention.kv_heads, weight.rows(), weight.cols());
    out.tensor(gguf_name(name), weight.shape, values);
  }
  out.write(path);
}

}  // namespace lathe::testing_support
