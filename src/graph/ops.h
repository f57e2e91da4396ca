// The vocabulary: attributes only. Operands are edges, parameters are names.
// An op is admitted with a plain-loop reference in kernels/ref and a test against an outside reference.
#pragma once

#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

#include "quant/cache_numerics.h"

namespace lathe::op {

struct Embedding {
  int64_t vocab = 0;
};  // rows of a table [vocab, cols], one per token
struct Linear {
  bool bias = false;
};  // y = x W^T (+ b); params: weight [out, in] (, bias [out])
// y = x * rsqrt(mean(x^2) + eps) * w, over runs of `width` columns (0: the row)
struct RmsNorm {
  int width = 0;
  float eps = 1e-6f;
};
struct Rope {  // rotate pairs (i, i + head_dim/2) of each head by position * inv_freq[i]
  int head_dim = 0;
  std::vector<float> inv_freq;  // [head_dim / 2]
  float scale = 1;              // of cos and sin (YaRN's attention factor)
};
struct Silu {};
struct Add {};
struct Mul {};
struct TakeRows {};  // keeps the rows whose logits somebody wants
struct Attention {   // the sequence op: softmax(scale q k^T) v, grouped queries; param: sinks [heads], if any
  int heads = 0, kv_heads = 0, head_dim = 0;
  int window = 0;  // key j is visible to query i iff |i - j| < window; 0: no limit
  float scale = 0;
  bool causal = true;  // and iff j <= i; else a query sees all that its sequence has: this step's rows too
  float soft_cap = 0;  // scores become soft_cap * tanh(score / soft_cap); 0: they stay (Gemma 2)
  bool sinks = false;  // exp(sink of the head) joins the sum that probabilities are divided by (gpt-oss)
  // k and v are rounded to these before any query reads them, by scales that are the last params, [1] or
  // [kv_heads] each: k_scale, v_scale. Put there by models/kv_cache.h, never by definitions.
  CacheScheme cache = {};
};
// Mixtures of experts: a matrix of weights [rows, experts] says which expert sees which rows, those whose
// weight for it is not 0. What lies between take_routed and add_routed is computed for those rows alone.
// The softmax of the row's logits, or the sigmoid of each; all but the top_k largest become 0, of equals the
// first stays.
struct Route {
  int top_k = 1;
  bool sigmoid = false;
  bool normalize = false;  // divided by their sum
  float scale = 1;         // then times this
};
struct TakeRouted {  // inputs: x, weights; the rows of x that the expert sees, in their order
  int expert = 0;
};
struct AddRouted {  // inputs: base, weights, y; base, plus in the rows that the expert sees weight * y
  int expert = 0;
};
// Put behind linear layers by whoever adapts a model (models/adapter.h), never by definitions.
// y = base + scale * (x A^T) B^T in the rows of sequences that use this adapter; others: base.
// Inputs: base, x; params: A [rank, in], B [out, rank].
struct LowRank {
  int rank = 0;
  float scale = 1;
  int adapter = 0;  // as Batch::adapters numbers them, from 1; 0: in all rows
};
// Put in front of linear layers, and behind rope, by whoever rotates a model (models/hadamard.h).
// y = x H on runs of `size` columns, a power of two; H: Sylvester's matrix / sqrt(size), its own inverse.
struct Hadamard {
  int size = 0;
};
// Made by rewrites, never by definitions, but for silu_mul with a limit.
// silu(a) * b; with a limit (gpt-oss): g * sigmoid(alpha * g) * (u + 1) where g = min(a, limit) and u is b
// between -limit and limit.
struct SiluMul {
  float limit = 0;  // 0: none
  float alpha = 1;  // counts only beside a limit
};
struct GatedLinear {};  // y = silu(x Wg^T) * (x Wu^T); params: gate, up, both [out, in]
struct AddRmsNorm {     // outputs: sum = a + b, rms_norm(sum)
  float eps = 1e-6f;
};
struct MultiLinear {  // outputs: y_i = x W_i^T (+ b_i); params: the weights, then the biases
  bool bias = false;
};
// Inputs: base, x, weights. base, plus the sum in rising order of weight * down(silu_mul(gate(x), up(x))) of
// the experts from `first` on that see the row. Params: gate, up, down of each expert; then their biases,
// likewise.
struct Experts {
  int first = 0;
  int top_k = 0;      // most weights of a row that are not 0
  int64_t width = 0;  // rows of gate and up
  bool bias = false;
  SiluMul activation = {};
  size_t params_each() const { return bias ? 6 : 3; }
  size_t matrices(size_t params) const { return params / params_each() * 3; }
};
struct RopeAttention {  // attention(rope(q), rope(k), v)
  Attention attention;
  Rope rope;
  int hadamard = 0;  // then hadamard of that size, of both; 0: none
};

}  // namespace lathe::op

namespace lathe {

using Op = std::variant<op::Embedding, op::Linear, op::RmsNorm, op::Rope, op::Silu, op::Add, op::Mul,
                        op::TakeRows, op::Attention, op::Route, op::TakeRouted, op::AddRouted, op::LowRank,
                        op::Hadamard, op::SiluMul, op::GatedLinear, op::AddRmsNorm, op::MultiLinear,
                        op::Experts, op::RopeAttention>;

std::string_view op_name(const Op&);  // "embedding", "linear", ... as printed

// For exhaustive visits: a missing op does not compile.
template <class... Fs>
struct overloaded : Fs... {
  using Fs::operator()...;
};
template <class... Fs>
overloaded(Fs...) -> overloaded<Fs...>;

}  // namespace lathe
