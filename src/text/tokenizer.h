// Text to token ids and back, as Hugging Face's tokenizer.json or a GGUF file's metadata describes it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace lathe {

struct TokenizerPipeline;

// A vocabulary as GGUF metadata has it (tokenizer.ggml.*;
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
struct VocabularySpec {
  std::string where;  // names the source in errors
  std::string model;  // "gpt2": byte-level BPE by merges; "llama": SentencePiece BPE by scores
  std::string pre;    // gpt2: the name of the pre-tokenizer ("llama-bpe", "qwen2", ...; "" is "default")
  std::vector<std::string> tokens;  // by id; an empty string is an id without a token
  std::vector<float> scores;        // llama: by id
  // By id: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; or empty.
  std::vector<int32_t> types;
  std::vector<std::string> merges;  // gpt2: "left right", by rank
  std::optional<int32_t> bos, eos, unk;
  std::optional<bool> add_bos, add_eos;  // absent: as llama.cpp does for this model and pre-tokenizer
  std::optional<bool> add_space_prefix;  // llama; absent: true
};

// GGUF's name for a byte-level pre-tokenizer: these expressions, each a Split, then (`gpt2`) the ByteLevel
// pre-tokenizer's own. Empty when it has none.
std::string_view gguf_pre_tokenizer(const std::vector<std::string>& expressions, bool gpt2,
                                    bool ignore_merges);

// Immutable and cheap to copy; every member may be called from several threads at once.
class Tokenizer {
 public:
  // Model type BPE with the normalizers, pre-tokenizers, post-processors and decoders that decoder language
  // models use; InputError naming the file and the item for anything malformed, and for any other feature
  // (nothing is guessed). `truncation` and `padding` are ignored: they belong to a call, not to a vocabulary.
  static Tokenizer load(const fs::path& tokenizer_json);
  static Tokenizer parse(std::string_view json, std::string_view where);
  static Tokenizer from_vocabulary(const VocabularySpec&);

  struct EncodeOptions {
    bool add_special_tokens = true;  // what the post-processor adds: <s> in front, as a rule
    bool parse_special = true;       // false: "<|im_end|>" in the text is plain text (a user wrote it)
  };
  // Ill-formed UTF-8 is read as U+FFFD. InputError for more than 256 MiB of text at once.
  std::vector<int32_t> encode(std::string_view text, EncodeOptions) const;
  std::vector<int32_t> encode(std::string_view text) const { return encode(text, EncodeOptions()); }

  // Always valid UTF-8. InputError for an id outside [0, vocab_size()); ids in there without a token have no
  // text.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = false) const;

  // What each token adds to a text, by id; empty for special tokens and ids without a token. A character's
  // bytes may lie in several tokens. For constrained decoding (token_mask.h); takes a fraction of a second.
  std::vector<std::string> token_bytes() const;

  int32_t vocab_size() const;  // largest id + 1
  // The token as stored ("\u0120the", "\u2581the", "<0x0A>"); empty for an id without one. InputError outside
  // the range.
  std::string_view token(int32_t id) const;
  std::optional<int32_t> id(std::string_view token) const;
  bool is_special(int32_t id) const;  // a control token: <s>, <|im_end|>; false outside the range

 private:
  friend class StreamDecoder;
  explicit Tokenizer(TokenizerPipeline);
  std::shared_ptr<const TokenizerPipeline> pipeline_;
};

// Text of tokens as they arrive; never part of a character. The pieces add up to decode() of all the ids,
// with two exceptions. Of byte tokens (<0xNN>) that are not UTF-8 together, decode() shows nothing but U+FFFD
// (as `tokenizers` does), while a stream has already shown the characters that were complete. And a Replace
// decoder behind one that joins tokens does not see a pattern that spans two of them.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer, bool skip_special_tokens = false);
  std::string push(int32_t id);  // InputError for an id outside the vocabulary
  std::string finish();          // what is left, an unfinished character as U+FFFD; ready for the next text

 private:
  std::string decode(std::span<const int32_t> ids) const;

  Tokenizer tokenizer_;
  bool skip_special_tokens_;
  std::vector<int32_t> window_;  // the last token that gave text, and those after it
  size_t emitted_ = 0;           // bytes of the window's text that are out
};

}  // namespace lathe
