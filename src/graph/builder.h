// Looks eager, records a Graph. Scopes spell the Hugging Face module path, so parameters bind by name.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "graph/graph.h"

namespace lathe {

class Builder;

struct Value {
  Builder* builder = nullptr;
  ValueId id = -1;
};

// Closes its path segment when it goes out of scope.
class Scope {
 public:
  Scope(Builder* builder, size_t length, int block) : builder_(builder), length_(length), block_(block) {}
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  Builder* builder_;
  size_t length_;  // of the path to return to
  int block_;
};

class Builder {
 public:
  [[nodiscard]] Scope scope(std::string_view segment);
  [[nodiscard]] Scope block(std::string_view list,
                            int index);  // "model.layers.<index>"; marks its nodes as that block

  Value tokens() { return {this, graph_.tokens()}; }
  Value embedding(std::string_view name, Value ids, int64_t vocab, int64_t cols);
  Value linear(std::string_view name, Value x, int64_t cols, bool bias = false);
  Value linear_tied(std::string_view embedding, Value x,
                    int64_t vocab);  // the head that shares the embedding's table
  Value rms_norm(std::string_view name, Value x, const op::RmsNorm&);
  Value rope(std::string_view name, Value x, const op::Rope&);
  Value attention(Value q, Value k, Value v, const op::Attention&);  // its sinks are "<scope>.sinks"
  Value route(std::string_view name, Value logits, const op::Route&);
  Value take_routed(Value x, Value weights, int expert);
  Value add_routed(Value base, Value weights, int expert, Value y);
  Value silu(Value);
  Value silu_mul(Value a, Value b, const op::SiluMul&);
  Value take_rows(Value);
  Value add(Value, Value);
  Value mul(Value, Value);
  Graph finish(Value logits) &&;

 private:
  friend class Scope;
  std::string path(std::string_view name) const;
  std::string unique(std::string_view name);  // unnamed ops get "<scope>.<op>", then ".2", ".3"
  Value record(Op, std::string name, std::vector<ValueId> inputs, std::vector<std::string> params,
               int64_t cols);
  Graph graph_;
  std::set<std::string> given_;  // by unique()
  std::string path_;
  int block_ = -1;
};

inline Value operator+(Value a, Value b) { return a.builder->add(a, b); }
inline Value operator*(Value a, Value b) { return a.builder->mul(a, b); }

}  // namespace lathe
