#include "export/gguf_tokenizer.h"

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "text/tokenizer.h"

namespace lathe {
namespace {

enum TokenType : int32_t { normal = 1, unknown, control, user_defined, unused, byte };

// tokenizer.json, once it is known to be one that Tokenizer::load takes.
class Source {
 public:
  explicit Source(const fs::path& directory)
      : directory_(directory),
        where_((directory / "tokenizer.json").string()),
        json_(read_json(directory / "tokenizer.json")),
        tokenizer_(Tokenizer::load(directory / "tokenizer.json")) {
    if (const fs::path file = directory / "tokenizer_config.json"; fs::exists(file))
      config_ = read_json(file);
  }

  std::vector<GgufEntry> entries(int64_t rows) {
    byte_level_ = has_byte_level(at(json_, "pre_tokenizer"));
    collect_tokens(rows);
    std::vector<GgufEntry> out = {
        {"tokenizer.ggml.model", std::string(byte_level_ ? "gpt2" : "llama")},
        {"tokenizer.ggml.pre", byte_level_ ? pre_tokenizer() : std::string("default")},
        {"tokenizer.ggml.tokens", tokens_},
        {"tokenizer.ggml.token_type", types_}};
    if (byte_level_) {
      out.push_back({"tokenizer.ggml.merges", merges()});
    } else {
      out.push_back({"tokenizer.ggml.scores", scores()});
      out.push_back({"tokenizer.ggml.add_space_prefix", adds_space()});
    }
    add_special(out);
    if (const std::string text = chat_template(); !text.empty())
      out.push_back({"tokenizer.chat_template", text});
    std::ranges::sort(out, {}, &GgufEntry::key);  // as they lie when the file is read and written again
    return out;
  }

 private:
  static const Json& at(const Json& object, std::string_view key) {
    static const Json null;
    const auto it = object.find(key);
    return it == object.end() ? null : *it;
  }
  [[noreturn]] void refuse(std::string_view what, std::string_view found) const {
    throw input_error(fmt::format("{}: {}", where_, what), "what a GGUF file can say", found,
                      "move tokenizer.json away to export without a tokenizer");
  }

  // The steps of a Sequence, or the one step.
  static std::vector<const Json*> steps(const Json& step) {
    std::vector<const Json*> out;
    if (step.is_null()) return out;
    const Json& list = step.contains("pretokenizers") ? step["pretokenizers"]
                       : step.contains("normalizers") ? step["normalizers"]
                                                      : step;
    if (!list.is_array()) return {&step};
    for (const Json& s : list) out.push_back(&s);
    return out;
  }
  static bool has_byte_level(const Json& pre_tokenizer) {
    for (const Json* step : steps(pre_tokenizer))
      if (step->value("type", "") == "ByteLevel") return true;
    return false;
  }

  // Whether a text starts with a space that it did not have.
  bool adds_space() const {
    for (const Json* step : steps(at(json_, "normalizer")))
      if (step->value("type", "") == "Prepend") return true;
    for (const Json* step : steps(at(json_, "pre_tokenizer")))
      if (step->value("type", "") == "Metaspace")
        return step->value("prepend_scheme", "always") != "never" && step->value("add_prefix_space", true);
    return false;
  }

  std::string pre_tokenizer() const {
    std::vector<std::string> expressions;
    bool gpt2 = false;
    for (const Json* step : steps(at(json_, "pre_tokenizer"))) {
      const std::string type = step->value("type", "");
      if (type == "ByteLevel") {
        if (step->value("add_prefix_space", false)) refuse("pre_tokenizer", "add_prefix_space");
        gpt2 = step->value("use_regex", true);
      } else if (type == "Digits" && step->value("individual_digits", false)) {
        expressions.push_back(R"(\p{N})");
      } else if (type == "Split" && at(*step, "pattern").contains("Regex") &&
                 step->value("behavior", "") == "Isolated" && !step->value("invert", false)) {
        expressions.push_back(at(*step, "pattern")["Regex"].get<std::string>());
      } else {
        refuse("pre_tokenizer", printable(type));
      }
    }
    for (const Json* step :
         steps(at(json_, "normalizer")))  // llama.cpp normalizes nothing; NFC seldom matters
      if (step->value("type", "") != "NFC") refuse("normalizer", printable(step->value("type", "")));
    const bool ignore_merges = at(json_, "model").value("ignore_merges", false);
    const std::string_view name = gguf_pre_tokenizer(expressions, gpt2, ignore_merges);
    if (name.empty())
      refuse("pre_tokenizer",
             fmt::format("expressions without a name there: {}", fmt::join(expressions, " and ")));
    return std::string(name);
  }

  void collect_tokens(int64_t rows) {
    const int32_t size = tokenizer_.vocab_size();
    if (size > rows)
      throw input_error(where_, fmt::format("at most {} tokens, the rows of the embedding", rows),
                        fmt::format("{}", size));
    tokens_.resize(static_cast<size_t>(rows));
    types_.assign(tokens_.size(), normal);
    for (int32_t id = 0; id < rows; ++id) {
      std::string& token = tokens_[static_cast<size_t>(id)];
      if (id < size) token = tokenizer_.token(id);
      const bool is_byte =
          !byte_level_ && token.size() == 6 && token.starts_with("<0x") && token.back() == '>';
      if (is_byte) types_[static_cast<size_t>(id)] = byte;
      if (!token.empty()) continue;
      token = fmt::format("[PAD{}]", id);
      types_[static_cast<size_t>(id)] = unused;
    }
    for (const Json& added : at(json_, "added_tokens")) {
      const int64_t id = get_int(added, "id", where_, 0, size - 1);
      types_[static_cast<size_t>(id)] = added.value("special", false) ? control : user_defined;
    }
    if (const std::optional<int32_t> id = unknown_token(); id && !byte_level_)
      types_[static_cast<size_t>(*id)] = unknown;
  }

  std::optional<int32_t> unknown_token() const {
    const Json& token = at(at(json_, "model"), "unk_token");
    return token.is_string() ? tokenizer_.id(token.get<std::string>()) : std::nullopt;
  }

  // Each merge as its two tokens; tokenizers write "left right" or ["left", "right"].
  template <class Use>
  void for_merges(Use&& use) const {
    for (const Json& merge : at(at(json_, "model"), "merges")) {
      if (merge.is_array()) {
        use(merge[0].get<std::string>(), merge[1].get<std::string>());
      } else {
        const std::string text = merge.get<std::string>();
        const size_t gap = text.find(' ', 1);
        use(text.substr(0, gap), text.substr(gap + 1));
      }
    }
  }

  std::vector<std::string> merges() const {
    std::vector<std::string> out;
    for_merges([&](const std::string& left, const std::string& right) {
      if (left.find(' ') != std::string::npos || right.find(' ') != std::string::npos)
        refuse("merges", fmt::format("a space in '{}'", printable(left + " " + right)));
      out.push_back(left + " " + right);
    });
    return out;
  }

  // SentencePiece joins the pair whose token has the highest score, merges are tried in their order: a
  // token's score falls with its first merge.
  std::vector<float> scores() const {
    std::vector<float> out(tokens_.size(), 0);
    std::vector<bool> known(tokens_.size());
    float rank = 0;
    for_merges([&](const std::string& left, const std::string& right) {
      const std::optional<int32_t> id = tokenizer_.id(left + right);
      rank -= 1;
      if (!id || known[static_cast<size_t>(*id)]) return;
      known[static_cast<size_t>(*id)] = true;
      out[static_cast<size_t>(*id)] = rank;
    });
    for (size_t id = 0; id < out.size(); ++id)  // characters: never the result of a merge
      if (!known[id] && types_[id] == normal) out[id] = rank - 1;
    return out;
  }

  std::optional<int32_t> named(std::string_view key) const {
    const Json& token = at(config_, key);
    if (token.is_string()) return tokenizer_.id(token.get<std::string>());
    if (token.is_object() && at(token, "content").is_string())
      return tokenizer_.id(token["content"].get<std::string>());
    return {};
  }

  void add_special(std::vector<GgufEntry>& out) const {
    const auto add = [&](std::string_view key, std::optional<int32_t> id) {
      if (id) out.push_back({fmt::format("tokenizer.ggml.{}_token_id", key), static_cast<uint32_t>(*id)});
    };
    const std::optional<int32_t> bos = named("bos_token"), eos = named("eos_token");
    add("bos", bos);
    add("eos", eos);
    add("padding", named("pad_token"));
    add("unknown", unknown_token());
    const std::vector<int32_t> nothing = tokenizer_.encode("");  // what the post-processor adds to any text
    out.push_back({"tokenizer.ggml.add_bos_token", bos && !nothing.empty() && nothing.front() == *bos});
    out.push_back({"tokenizer.ggml.add_eos_token",
                   eos && !nothing.empty() && nothing.back() == *eos && (nothing.size() > 1 || bos != eos)});
  }

  std::string chat_template() const {
    if (const fs::path file = directory_ / "chat_template.jinja"; fs::exists(file))
      return std::string(Mapping(file).text());
    const Json& found = at(config_, "chat_template");
    if (found.is_string()) return found.get<std::string>();
    if (found.is_array())
      for (const Json& entry : found)
        if (entry.is_object() && entry.value("name", "") == "default") return entry.value("template", "");
    return {};
  }

  fs::path directory_;
  std::string where_;
  Json json_, config_ = Json::object();
  Tokenizer tokenizer_;
  bool byte_level_ = false;
  std::vector<std::string> tokens_;
  std::vector<int32_t> types_;
};

// Metadata as it was read: integers come widened.
std::vector<GgufEntry> handed_on(const GgufFile& file) {
  std::vector<GgufEntry> out;
  for (const auto& [key, stored] : file.metadata) {
    if (!key.starts_with("tokenizer.")) continue;
    GgufEntry entry{key, uint32_t{0}};
    if (const auto* n = std::get_if<int64_t>(&stored.value))
      entry.value = static_cast<uint32_t>(*n);
    else if (const auto* f = std::get_if<double>(&stored.value))
      entry.value = static_cast<float>(*f);
    else if (const auto* truth = std::get_if<bool>(&stored.value))
      entry.value = *truth;
    else if (const auto* text = std::get_if<std::string>(&stored.value))
      entry.value = *text;
    else if (const auto* integers = std::get_if<std::vector<int64_t>>(&stored.value))
      entry.value = std::vector<int32_t>(integers->begin(), integers->end());
    else if (const auto* numbers = std::get_if<std::vector<double>>(&stored.value))
      entry.value = std::vector<float>(numbers->begin(), numbers->end());
    else
      entry.value = std::get<std::vector<std::string>>(stored.value);
    out.push_back(std::move(entry));
  }
  return out;
}

}  // namespace

std::vector<GgufEntry> tokenizer_metadata(const Checkpoint& from, int64_t rows) {
  if (const GgufFile* file = from.gguf()) return handed_on(*file);
  if (!fs::exists(from.path() / "tokenizer.json")) return {};
  return Source(from.path()).entries(rows);
}

}  // namespace lathe
