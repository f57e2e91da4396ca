// bench_masks VOCAB.json: microseconds per token mask while JSON is written, on a byte-level vocabulary
// ("token": id). `first`: a grammar's first text, which finds the tokens of each place; `later`: texts after
// it. A text is cut into the longest tokens. Then grammars that were written to be slow, with random texts:
// their longest stall of whoever waits for a mask.
#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <numeric>
#include <random>

#include "core/file.h"
#include "core/json.h"
#include "text/byte_level.h"
#include "text/json_schema.h"
#include "text/token_mask.h"

namespace {

using namespace lathe;
using Clock = std::chrono::steady_clock;

double microseconds(Clock::time_point since) {
  return std::chrono::duration<double, std::micro>(Clock::now() - since).count();
}

std::vector<std::string> read_vocabulary(const fs::path& path) {
  std::vector<std::string> tokens;
  const Mapping file(path);
  const auto vocabulary =
      nlohmann::json::parse(file.text());  // sorted: Json looks through its members one by one
  for (const auto& [token, id] : vocabulary.items()) {
    const auto index = static_cast<size_t>(id.get<int64_t>());
    if (index >= tokens.size()) tokens.resize(index + 1);
    tokens[index] = characters_to_bytes(token);
  }
  return tokens;
}

// Of the tokens that may come next, the longest that the text goes on with.
int32_t longest(const TokenTrie& trie, std::span<const uint64_t> mask, std::string_view text) {
  int32_t best = -1;
  const auto& nodes = trie.nodes();
  for (size_t i = 0, depth = 1; i < nodes.size();) {
    if (nodes[i].depth < depth) break;
    if (nodes[i].byte != static_cast<uint8_t>(text[depth - 1])) {
      i = static_cast<size_t>(nodes[i].end);
      continue;
    }
    if (nodes[i].token_count > 0) {
      const int32_t id = trie.sorted_ids()[static_cast<size_t>(nodes[i].first_token)];
      if (mask[static_cast<size_t>(id) / 64] >> (id % 64) & 1) best = id;
    }
    if (++depth > text.size()) break;
    ++i;
  }
  return best;
}

void measure(const char* name, const Grammar& grammar, const std::shared_ptr<const TokenTrie>& trie,
             const std::string& whole) {
  const auto masks = std::make_shared<TokenMasks>(grammar, trie);
  for (const char* when : {"first", "later"}) {
    std::vector<double> times;
    GrammarMatcher matcher(masks);
    for (std::string_view text = whole; !text.empty();) {
      const auto begin = Clock::now();
      const auto mask = matcher.mask();
      times.push_back(microseconds(begin));
      const int32_t id = longest(*trie, mask, text);
      if (id < 0 || !matcher.accept(id)) fail("{}: '{}' is not under the grammar", name, text.substr(0, 20));
      text.remove_prefix(trie->token(id).size());
    }
    if (!matcher.complete()) fail("{}: the text is not complete", name);
    const double mean = std::accumulate(times.begin(), times.end(), 0.0) / static_cast<double>(times.size());
    std::sort(times.begin(), times.end());
    const auto at = [&](double p) {
      return times[static_cast<size_t>(p * static_cast<double>(times.size() - 1))];
    };
    fmt::print(
        "{:<10} {:<6} {:>7} masks   mean {:>8.1f}   p50 {:>7.1f}   p90 {:>7.1f}   p99 {:>8.1f}   max "
        "{:>8.1f} us\n",
        name, when, times.size(), mean, at(0.5), at(0.9), at(0.99), times.back());
  }
}

struct Hostile {
  const char* name;
  Grammar (*make)();
};

Grammar many_strings() {
  Json any = Json::array();
  for (int i = 0; i < 200; ++i) any.push_back({{"type", "string"}, {"maxLength", 100 + i}});
  return json_schema({{"anyOf", any}});
}

constexpr Hostile hostile[] = {
    {"((a?){60}){60}b", [] { return Grammar::regex("((a?){60}){60}b"); }},
    {"(.{0,60}){0,60}", [] { return Grammar::regex("(.{0,60}){0,60}"); }},
    {"([a-z ]{0,30}){0,9}x", [] { return Grammar::regex("([a-z ]{0,30}){0,9}x"); }},
    {"(.*a){1,20}(.*b){1,20}", [] { return Grammar::regex("(.*a){1,20}(.*b){1,20}"); }},
    {".{4000}", [] { return Grammar::regex(".{4000}"); }},
    {"root root | a", [] { return Grammar::gbnf("root ::= [a-z ] root root | [a-z ]"); }},
    {"rules of rules",
     [] { return Grammar::gbnf("root ::= a+\na ::= b+\nb ::= c+ c*\nc ::= [^x]+ | [a-z]+ a"); }},
    {"200 strings", many_strings},
};

// Random texts: every token that may come next is as likely.
void measure_hostile(const Hostile& h, const std::shared_ptr<const TokenTrie>& trie) {
  auto begin = Clock::now();
  const auto masks = std::make_shared<TokenMasks>(h.make(), trie);
  const double compiled = microseconds(begin);
  double all = 0, mask_worst = 0, accept_worst = 0;
  int64_t count = 0;
  std::string how = "ended";
  std::mt19937 random(1);
  try {
    GrammarMatcher matcher(masks);
    for (; count < 100; ++count) {
      begin = Clock::now();
      const auto mask = matcher.mask();
      const double took = microseconds(begin);
      mask_worst = std::max(mask_worst, took), all += took;
      if (all > 20e6) {
        how = "given up";
        break;
      }
      std::vector<int32_t> allowed;
      for (int32_t id = 0; id < trie->size(); ++id)
        if (mask[static_cast<size_t>(id) / 64] >> (id % 64) & 1) allowed.push_back(id);
      if (allowed.empty()) break;
      begin = Clock::now();
      matcher.accept(allowed[random() % allowed.size()]);
      accept_worst = std::max(accept_worst, microseconds(begin));
    }
  } catch (const InputError& e) {
    mask_worst = std::max(mask_worst, microseconds(begin));
    how = e.what();
  }
  fmt::print(
      "{:<24} compiled {:>8.1f} ms   {:>4} masks   worst {:>9.1f} ms   worst accept {:>7.1f} ms   {}\n",
      h.name, compiled / 1e3, count, mask_worst / 1e3, accept_worst / 1e3, how);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) fail_input("usage: bench_masks VOCAB.json");
  const auto tokens = read_vocabulary(argv[1]);
  auto begin = Clock::now();
  const auto trie = std::make_shared<const TokenTrie>(tokens);
  fmt::print("{} tokens, {} nodes, trie in {:.0f} ms\n", tokens.size(), trie->nodes().size(),
             microseconds(begin) / 1000);

  std::string people = "[";
  for (int i = 0; i < 40; ++i)
    people += fmt::format(
        "{}{{\"name\": \"Person number {} of the list\", \"age\": {}, \"email\": \"p{}@example.org\", "
        "\"tags\": [\"red\", \"a "
        "longer tag, with \\\"quotes\\\"\"], \"address\": {{\"street\": \"Main Street {}\", \"zip\": "
        "\"{}\"}}}}",
        i ? ", " : "", i, 20 + i, i, i * 7, 10000 + i);
  people += "]";
  measure("json", Grammar::json(), trie, people);

  const Json schema =
      parse_json(R"({"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"},
      "age": {"type": "integer", "minimum": 0, "maximum": 150}, "email": {"type": "string", "pattern": "^[a-z0-9]+@[a-z.]+$"},
      "tags": {"type": "array", "items": {"type": "string", "maxLength": 40}}, "address": {"type": "object", "properties": {
      "street": {"type": "string"}, "zip": {"type": "string", "pattern": "^\\d{5}$"}}, "required": ["street", "zip"],
      "additionalProperties": false}}, "required": ["name", "age"], "additionalProperties": false}})",
                 "schema");
  begin = Clock::now();
  const Grammar grammar = json_schema(schema);
  fmt::print("schema: {} states in {:.0f} us\n", grammar.states(), microseconds(begin));
  measure("schema", grammar, trie, people);
  for (const Hostile& h : hostile) measure_hostile(h, trie);
} catch (const std::exception& e) {
  fmt::print(stderr, "bench_masks: {}\n", e.what());
  return 1;
}
