// tokenizer.json, as https://github.com/huggingface/tokenizers writes it (each component's serde form).
#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <simdjson.h>

#include "core/error.h"
#include "text/pipeline.h"
#include "text/utf8.h"

namespace lathe {

namespace {

namespace dom = simdjson::dom;

constexpr size_t kMaxDepth = 64;  // of the JSON document; published files nest ten deep

std::string_view kind_of(dom::element e) {
  switch (e.type()) {
    case dom::element_type::ARRAY:
      return "an array";
    case dom::element_type::OBJECT:
      return "an object";
    case dom::element_type::STRING:
      return "a string";
    case dom::element_type::BOOL:
      return "a boolean";
    case dom::element_type::NULL_VALUE:
      return "null";
    default:
      return "a number";
  }
}

// An element of the document and where it stands: "decoder.decoders[2]" of "tokenizer.json".
class Item {
 public:
  Item(dom::element element, std::string_view where, std::string path = {})
      : element_(element), where_(where), path_(std::move(path)) {}

  // "tokenizer.json: decoder.decoders[2]"
  std::string place() const {
    return path_.empty() ? std::string(where_) : fmt::format("{}: {}", where_, path_);
  }

  [[noreturn]] void refuse(std::string_view expected, std::string_view found,
                           std::string_view hint = {}) const {
    throw input_error(place(), expected, found, hint);
  }

  // A part of this element; `step` is "[3]" or "['key']".
  Item part(dom::element value, std::string_view step) const {
    return Item(value, where_, path_ + std::string(step));
  }

  // A member, absent also when it is null.
  std::optional<Item> find(std::string_view key) const {
    dom::element value;
    if (object().at_key(key).get(value) || value.is_null()) return std::nullopt;
    return Item(value, where_, path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key));
  }
  Item get(std::string_view key) const {
    const auto item = find(key);
    if (!item) refuse(fmt::format("\"{}\"", key), "none");
    return *item;
  }

  std::string_view text() const {
    std::string_view value;
    if (element_.get(value)) refuse("a string", kind_of(element_));
    return value;
  }
  std::string non_empty_text() const {
    if (text().empty()) refuse("a string", "an empty one");
    return std::string(text());
  }
  bool boolean() const {
    bool value;
    if (element_.get(value)) refuse("true or false", kind_of(element_));
    return value;
  }
  int64_t integer(int64_t low, int64_t high) const {
    int64_t value;
    const std::string range = fmt::format("an integer in [{}, {}]", low, high);
    if (element_.get(value)) refuse(range, kind_of(element_));
    if (value < low || value > high) refuse(range, fmt::format("{}", value));
    return value;
  }
  int32_t token_id() const { return static_cast<int32_t>(integer(0, Vocabulary::kMaxId - 1)); }
  dom::array array() const {
    dom::array value;
    if (element_.get(value)) refuse("an array", kind_of(element_));
    return value;
  }
  dom::object object() const {
    dom::object value;
    if (element_.get(value)) refuse("an object", kind_of(element_));
    return value;
  }
  std::vector<Item> items() const {
    std::vector<Item> out;
    for (const dom::element e : array()) out.push_back(part(e, fmt::format("[{}]", out.size())));
    return out;
  }

  std::string_view text_or(std::string_view key, std::string_view fallback) const {
    const auto item = find(key);
    return item ? item->text() : fallback;
  }
  bool boolean_or(std::string_view key, bool fallback) const {
    const auto item = find(key);
    return item ? item->boolean() : fallback;
  }

  // A component whose "type" we do not have.
  [[noreturn]] void unsupported(std::string_view type, std::string_view supported) const {
    refuse(fmt::format("one of {}", supported), fmt::format("'{}'", printable(type)),
           "this tokenizer needs a feature that is not supported");
  }

 private:
  dom::element element_;
  std::string_view where_;
  std::string path_;
};

// The components of a Sequence, of sequences within it, or the one component that there is.
std::vector<Item> flatten(const std::optional<Item>& root, std::string_view list_key) {
  std::vector<Item> out;
  if (!root) return out;
  if (root->get("type").text() != "Sequence") return {*root};
  for (const Item& item : root->get(list_key).items()) {
    const std::vector<Item> inner = flatten(item, list_key);
    out.insert(out.end(), inner.begin(), inner.end());
  }
  return out;
}

// {"String": "x"} or {"Regex": "x"}
std::variant<std::string, Regex> parse_pattern(const Item& item) {
  if (const auto text = item.find("String")) return text->non_empty_text();
  if (const auto regex = item.find("Regex")) return Regex(regex->text(), regex->place());
  item.refuse("{\"String\": ...} or {\"Regex\": ...}", "neither");
}

std::string one_character(const Item& item) {
  const std::string text = item.non_empty_text();
  size_t end = 0;
  next_code_point(text, end);
  if (end != text.size()) item.refuse("one character", "'" + printable(text) + "'");
  return text;
}

Normalizer parse_normalizer(const Item& item) {
  const std::string_view type = item.get("type").text();
  if (type == "NFC") return unicode_normalizer(UnicodeForm::nfc);
  if (type == "NFD") return unicode_normalizer(UnicodeForm::nfd);
  if (type == "NFKC") return unicode_normalizer(UnicodeForm::nfkc);
  if (type == "NFKD") return unicode_normalizer(UnicodeForm::nfkd);
  if (type == "Lowercase") return lowercase_normalizer();
  if (type == "Strip")
    return strip_normalizer(item.boolean_or("strip_left", true), item.boolean_or("strip_right", true));
  if (type == "Prepend") return prepend_normalizer(std::string(item.get("prepend").text()));
  if (type == "Replace") {
    std::string content(item.get("content").text());
    return std::visit(
        [&](auto&& pattern) {
          return replace_normalizer(std::forward<decltype(pattern)>(pattern), std::move(content));
        },
        parse_pattern(item.get("pattern")));
  }
  item.unsupported(type, "Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace");
}

SplitBehavior parse_behavior(const Item& item) {
  const std::string_view name = item.text();
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  item.unsupported(name, "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

// `add_prefix_space` is the older spelling of `prepend_scheme`.
Prepend parse_prepend_scheme(const Item& metaspace) {
  const bool prefix = metaspace.boolean_or("add_prefix_space", true);
  const auto scheme = metaspace.find("prepend_scheme");
  if (!scheme) return prefix ? Prepend::always : Prepend::never;
  const std::string_view name = scheme->text();
  if (!prefix && name != "never") scheme->refuse("\"never\" as add_prefix_space is false", printable(name));
  if (name == "always") return Prepend::always;
  if (name == "first") return Prepend::first;
  if (name == "never") return Prepend::never;
  scheme->unsupported(name, "always, first, never");
}

PreTokenizer parse_pre_tokenizer(const Item& item) {
  const std::string_view type = item.get("type").text();
  if (type == "Split") {
    const SplitBehavior behavior = parse_behavior(item.get("behavior"));
    const bool invert = item.boolean_or("invert", false);
    return std::visit(
        [&](auto&& pattern) {
          return split_pre_tokenizer(std::forward<decltype(pattern)>(pattern), behavior, invert);
        },
        parse_pattern(item.get("pattern")));
  }
  if (type == "ByteLevel") {
    return byte_level_pre_tokenizer(item.boolean_or("add_prefix_space", true),
                                    item.boolean_or("use_regex", true));
  }
  if (type == "Metaspace") {
    return metaspace_pre_tokenizer(one_character(item.get("replacement")), parse_prepend_scheme(item),
                                   item.boolean_or("split", true));
  }
  if (type == "Digits") {
    const bool individual = item.boolean_or("individual_digits", false);
    return split_pre_tokenizer(is_number, individual ? SplitBehavior::isolated : SplitBehavior::contiguous);
  }
  if (type == "Punctuation") {
    const auto behavior = item.find("behavior");
    return split_pre_tokenizer(is_punctuation,
                               behavior ? parse_behavior(*behavior) : SplitBehavior::isolated);
  }
  if (type == "Whitespace") return whitespace_pre_tokenizer();
  if (type == "WhitespaceSplit") return split_pre_tokenizer(is_white_space, SplitBehavior::removed);
  item.unsupported(type,
                   "Sequence, Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit");
}

Decoder parse_decoder(const Item& item) {
  const std::string_view type = item.get("type").text();
  if (type == "ByteLevel") return byte_level_decoder();
  if (type == "ByteFallback") return byte_fallback_decoder();
  if (type == "Fuse") return join_decoder("");
  if (type == "Strip") {
    item.get("stop").integer(0, 0);  // more would take back text that a stream has shown
    return strip_decoder(one_character(item.get("content")),
                         static_cast<size_t>(item.get("start").integer(0, 1 << 20)));
  }
  if (type == "Replace") {
    const Item pattern = item.get("pattern");
    return replace_decoder(pattern.get("String").non_empty_text(), std::string(item.get("content").text()));
  }
  if (type == "Metaspace") {
    return metaspace_decoder(one_character(item.get("replacement")),
                             parse_prepend_scheme(item) != Prepend::never);
  }
  item.unsupported(type, "Sequence, ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace");
}

// The special tokens that a template puts around a single text.
void parse_template(const Item& item, TokenizerPipeline& pipeline) {
  const Item single = item.get("single");
  std::vector<int32_t> before, after;
  int sequences = 0;
  for (const Item& piece : single.items()) {
    if (const auto sequence = piece.find("Sequence")) {
      if (sequence->get("id").text() != "A") sequence->refuse("\"A\"", "another sequence");
      ++sequences;
      continue;
    }
    const Item name = piece.get("SpecialToken").get("id");
    const Item special = item.get("special_tokens");
    dom::element found;
    if (special.object().at_key(name.text()).get(found)) {
      name.refuse("a name in special_tokens", "'" + printable(name.text()) + "'");
    }
    const Item entry = special.part(found, fmt::format("['{}']", printable(name.text())));
    for (const Item& id : entry.get("ids").items()) {
      (sequences == 0 ? before : after).push_back(id.token_id());
      if (id.token_id() >= pipeline.vocab_size || pipeline.token(id.token_id()).empty()) {
        id.refuse("a token of the vocabulary", fmt::format("{}", id.token_id()));
      }
    }
  }
  if (sequences != 1) single.refuse("the sequence A once", fmt::format("{} times", sequences));
  // A later post-processor wraps what an earlier one has made.
  pipeline.prefix.insert(pipeline.prefix.begin(), before.begin(), before.end());
  pipeline.suffix.insert(pipeline.suffix.end(), after.begin(), after.end());
}

Vocabulary parse_vocabulary(const Item& item) {
  Vocabulary vocabulary;
  const dom::object entries = item.object();
  size_t bytes = 0;
  for (const auto entry : entries) bytes += entry.key.size();
  vocabulary.reserve(entries.size(), bytes);
  for (const auto entry : entries) {
    const auto at = [&] { return item.part(entry.value, fmt::format("['{}']", printable(entry.key))); };
    int64_t id = -1;
    // Paths are made for errors only: there are 150,000 entries.
    if (entry.value.get(id) || id < 0 || id >= Vocabulary::kMaxId) at().token_id();
    if (entry.key.empty()) at().refuse("a token", "an empty string");
    switch (vocabulary.add(entry.key, static_cast<int32_t>(id))) {
      case Vocabulary::Added::ok:
        break;
      case Vocabulary::Added::duplicate_token:
        at().refuse("each token once", "it again");
      case Vocabulary::Added::duplicate_id:
        at().refuse("an id of its own", fmt::format("{}, which is '{}'", id,
                                                    printable(vocabulary.token(static_cast<int32_t>(id)))));
    }
  }
  if (vocabulary.size() == 0) item.refuse("tokens", "none");
  return vocabulary;
}

// "left right" or ["left", "right"], lowest rank first.
void parse_merges(const Item& item, Bpe& bpe) {
  const dom::array merges = item.array();
  bpe.reserve_merges(merges.size());
  std::string joined;
  size_t rank = 0;
  for (const dom::element merge : merges) {
    const auto at = [&] { return item.part(merge, fmt::format("[{}]", rank)); };
    std::string_view left, right;
    if (dom::array pair; !merge.get(pair)) {
      if (pair.size() != 2) at().refuse("a pair of strings", fmt::format("{} items", pair.size()));
      if (pair.at(0).get(left) || pair.at(1).get(right)) at().refuse("a pair of strings", "something else");
    } else {
      const std::string_view text = at().text();
      const size_t space = text.find(' ');
      if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
        at().refuse("\"left right\"", "'" + printable(text) + "'");
      }
      left = text.substr(0, space);
      right = text.substr(space + 1);
    }
    joined.assign(left).append(right);
    const auto known = [&](std::string_view token) {
      const int32_t id = bpe.vocabulary().find(token);
      if (id < 0) at().refuse("tokens of the vocabulary", "'" + printable(token) + "'");
      return id;
    };
    const int32_t left_id = known(left), right_id = known(right);
    bpe.add_merge(left_id, right_id, known(joined));
    ++rank;
  }
}

Bpe parse_bpe(const Item& item) {
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const auto affix = item.find(key); affix && !affix->text().empty()) {
      affix->refuse("none", "'" + printable(affix->text()) + "'",
                    "this tokenizer needs a feature that is not supported");
    }
  }
  if (const auto dropout = item.find("dropout")) dropout->refuse("no dropout", "some");
  Vocabulary vocabulary = parse_vocabulary(item.get("vocab"));
  Bpe::Options options;
  if (const auto unk = item.find("unk_token")) {
    options.unk = vocabulary.find(unk->text());
    if (options.unk < 0) unk->refuse("a token of the vocabulary", "'" + printable(unk->text()) + "'");
  }
  options.fuse_unk = item.boolean_or("fuse_unk", false);
  options.byte_fallback = item.boolean_or("byte_fallback", false);
  options.ignore_merges = item.boolean_or("ignore_merges", false);
  Bpe bpe(std::move(vocabulary), options);
  parse_merges(item.get("merges"), bpe);
  return bpe;
}

std::vector<AddedToken> parse_added_tokens(const Item& root) {
  std::vector<AddedToken> out;
  const auto list = root.find("added_tokens");
  if (!list) return out;
  for (const Item& item : list->items()) {
    AddedToken token;
    token.id = item.get("id").token_id();
    token.content = item.get("content").non_empty_text();
    token.special = item.boolean_or("special", false);
    token.single_word = item.boolean_or("single_word", false);
    token.lstrip = item.boolean_or("lstrip", false);
    token.rstrip = item.boolean_or("rstrip", false);
    token.normalized = item.boolean_or("normalized", !token.special);
    out.push_back(std::move(token));
  }
  return out;
}

}  // namespace

TokenizerPipeline parse_tokenizer_json(std::string_view json, std::string_view where) {
  dom::parser parser;
  dom::element document;
  auto error = parser.allocate(std::max<size_t>(json.size(), 1), kMaxDepth);
  if (!error) error = parser.parse(json.data(), json.size()).get(document);
  if (error == simdjson::DEPTH_ERROR) {
    throw input_error(where, fmt::format("JSON nested at most {} deep", kMaxDepth), "deeper nesting");
  }
  if (error) throw input_error(where, "a JSON document", "none", simdjson::error_message(error));
  const Item root(document, where);

  const Item model = root.get("model");
  // The first tokenizer.json files (GPT-2's is one) do not say that they are BPE.
  const std::string_view type =
      model.find("merges") ? model.text_or("type", "BPE") : model.get("type").text();
  if (type != "BPE") model.get("type").unsupported(type, "BPE");

  TokenizerPipeline pipeline{.model = parse_bpe(model),
                             .added = {},
                             .normalizers = {},
                             .pre_tokenizers = {},
                             .prefix = {},
                             .suffix = {},
                             .decoders = {}};
  for (const Item& item : flatten(root.find("normalizer"), "normalizers")) {
    pipeline.normalizers.push_back(parse_normalizer(item));
  }
  for (const Item& item : flatten(root.find("pre_tokenizer"), "pretokenizers")) {
    pipeline.pre_tokenizers.push_back(parse_pre_tokenizer(item));
  }
  if (!root.find("decoder")) pipeline.decoders.push_back(join_decoder(" "));  // as `tokenizers` does
  for (const Item& item : flatten(root.find("decoder"), "decoders"))
    pipeline.decoders.push_back(parse_decoder(item));
  set_added_tokens(pipeline, parse_added_tokens(root), where);
  for (const Item& item : flatten(root.find("post_processor"), "processors")) {
    const std::string_view name = item.get("type").text();
    if (name == "TemplateProcessing") {
      parse_template(item, pipeline);
    } else if (name != "ByteLevel") {  // ByteLevel changes offsets, which we do not have
      item.unsupported(name, "Sequence, TemplateProcessing, ByteLevel");
    }
  }
  return pipeline;
}

}  // namespace lathe
