#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/json.h"
#include "server/infill.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::ElementsAreArray;
using testing::IsEmpty;

// The built-in tokenizer with three more tokens, named so.
Tokenizer with(const std::vector<std::string>& marks) {
  Json json = read_json(source_dir() / "models/builtin/tokenizer.json");
  int64_t id = 0;
  for (const Json& token : json["added_tokens"]) id = std::max(id, token["id"].get<int64_t>());
  for (const auto& [text, number] : json["model"]["vocab"].items()) id = std::max(id, number.get<int64_t>());
  for (const std::string& mark : marks)
    json["added_tokens"].push_back({{"id", ++id},
                                    {"content", mark},
                                    {"single_word", false},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"normalized", false},
                                    {"special", true}});
  return Tokenizer::parse(json.dump(), "tokenizer.json");
}

TEST(InfillPrompt, PutsBothTextsBehindTheirMarks) {
  const std::vector<std::vector<std::string>> families = {
      {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
      {"<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"}};
  for (const auto& marks : families) {
    const Tokenizer t = with(marks);
    // A mark in a text is text.
    const std::string before = "int a = ", behind = "; " + marks[2];
    std::vector<int32_t> expected = {*t.id(marks[0])};
    const auto add = [&](const std::string& text) {
      for (const int32_t token : t.encode(text, {.add_special_tokens = false, .parse_special = false}))
        expected.push_back(token);
    };
    add(before);
    expected.push_back(*t.id(marks[1]));
    add(behind);
    expected.push_back(*t.id(marks[2]));
    EXPECT_THAT(infill_prompt(t, before, behind), ElementsAreArray(expected));
    EXPECT_EQ(std::ranges::count(expected, *t.id(marks[2])), 1);
  }
  EXPECT_THAT(infill_prompt(with({"<|fim_prefix|>", "<|fim_suffix|>"}), "a", "b"), IsEmpty()) << "all three";
}

}  // namespace
}  // namespace lathe
