// Small models with tokens for them, and what they say of these.
#pragma once

#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "models/model.h"
#include "runtime/interpreter.h"
#include "support.h"

namespace lathe::testing_support {

inline Model golden_model(const std::string& family) { return load(Checkpoint::open(golden(family))); }

// In every golden model's vocabulary.
inline std::vector<int32_t> some_tokens(int64_t n) {
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>((i * 7 + i * i % 11) % 60);
  return tokens;
}

// Of the last token.
inline std::vector<float> logits_of(const Model& model,
                                    const std::vector<int32_t>& tokens = some_tokens(12)) {
  const Tensor t = interpret(model, SingleSequence(tokens, 0, std::ssize(tokens), false));
  const auto logits = t.as<float>();
  return {logits.begin(), logits.end()};
}

}  // namespace lathe::testing_support
