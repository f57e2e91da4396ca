// What a tokenizer is made of; tokenizer_json.cpp and from_vocabulary.cpp each build one.
#pragma once

#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/spm.h"
#include "text/tokenizer.h"

namespace lathe {

// text -> raw added tokens -> normalizers -> normalized added tokens -> pre-tokenizers -> model -> prefix +
// ids + suffix ids -> token strings -> decoders -> text
struct TokenizerPipeline {
  std::variant<Bpe, Spm> model;
  AddedTokens added;
  std::vector<Normalizer> normalizers;
  std::vector<PreTokenizer> pre_tokenizers;
  std::vector<int32_t> prefix, suffix;  // special tokens around every text
  std::vector<Decoder> decoders;        // what they leave is joined
  int32_t vocab_size = 0;

  const Vocabulary& vocabulary() const {
    return std::visit([](const auto& m) -> const Vocabulary& { return m.vocabulary(); }, model);
  }
  // The string of an id below vocab_size, empty when it has none.
  std::string_view token(int32_t id) const {
    if (const AddedToken* token = added.find(id)) return token->content;
    return id < vocabulary().size() ? vocabulary().token(id) : std::string_view();
  }
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens, Repair) const;
};

TokenizerPipeline parse_tokenizer_json(std::string_view json, std::string_view where);
TokenizerPipeline build_pipeline(const VocabularySpec&);

// Joins the model's vocabulary with added tokens: checks that no id or string is claimed twice (InputError),
// sets `added` and `vocab_size`. The normalizers must be in place.
void set_added_tokens(TokenizerPipeline&, std::vector<AddedToken>, std::string_view where);

}  // namespace lathe
