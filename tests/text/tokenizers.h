// Tokenizers small enough to read, and the reference data when it is there.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sstream>

#include "core/json.h"
#include "support.h"
#include "text/byte_level.h"
#include "text/tokenizer.h"

namespace lathe {

using Ids = std::vector<int32_t>;

using namespace testing_support;

inline Json added_token(int id, std::string content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

// A tokenizer.json with tokens numbered in order and nothing around the model.
inline Json document(const std::vector<std::string>& tokens, std::vector<std::string> merges = {}) {
  Json vocab = Json::object();
  for (const std::string& token : tokens) vocab[token] = vocab.size();
  return {{"added_tokens", Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder", nullptr},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

// Every byte as a token (id = byte), nothing merged: what is encoded shows the bytes and the pieces.
inline Json bytes_document() {
  std::vector<std::string> tokens;
  for (int b = 0; b < 256; ++b) tokens.push_back(bytes_to_characters(std::string(1, static_cast<char>(b))));
  Json json = document(tokens);
  json["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  json["decoder"] = {{"type", "ByteLevel"}};
  return json;
}

inline Tokenizer parse(const Json& json) { return Tokenizer::parse(json.dump(), "test.json"); }

inline std::string stream(const Tokenizer& tokenizer, const Ids& ids, bool skip_special_tokens = false) {
  StreamDecoder decoder(tokenizer, skip_special_tokens);
  std::string out;
  for (const int32_t id : ids) out += decoder.push(id);
  return out + decoder.finish();
}

// The message of the InputError that `action` throws; fails the test when there is none.
template <class Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const InputError& error) {
    return error.what();
  }
  ADD_FAILURE() << "no InputError";
  return {};
}

// Qwen2 and Qwen3 publish vocab.json and merges.txt beside the tokenizer.json that says how to use them.
inline const fs::path kQwen = shared_data("tokenizers/qwen3-8b");

inline std::vector<std::string> qwen_merges() {
  std::vector<std::string> merges;
  std::istringstream lines{std::string(Mapping(kQwen / "merges.txt").text())};
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && !line.starts_with("#version")) merges.push_back(line);
  }
  return merges;
}

inline Tokenizer qwen_tokenizer() {
  Json json = document({});
  json["model"]["merges"] = qwen_merges();
  const Json config = read_json(kQwen / "tokenizer_config.json");
  for (const auto& [id, token] : config.at("added_tokens_decoder").items()) {
    json["added_tokens"].push_back(token);
    json["added_tokens"].back()["id"] = std::stoi(id);
  }
  const std::string pattern =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  json["normalizer"] = {{"type", "NFC"}};
  const Json split = {
      {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", Json::array({split, byte_level})}};
  json["decoder"] = byte_level;
  // An ordered document looks keys up one after the other: 150,000 of them go in as text.
  std::string text = json.dump();
  const std::string empty = "\"vocab\":{}";
  text.replace(text.find(empty), empty.size(),
               "\"vocab\":" + std::string(Mapping(kQwen / "vocab.json").text()));
  return Tokenizer::parse(text, "qwen");
}

}  // namespace lathe
