// What Hugging Face's `tokenizers` makes of the same files (tests/golden/README.md).
#include "text/tokenizers.h"

namespace lathe {
namespace {

void expect_golden(const Tokenizer& tokenizer, const std::string& name) {
  const fs::path path = source_dir() / "tests/golden/tokenizer" / (name + ".json");
  const Json cases = read_json(path);
  ASSERT_FALSE(cases.empty());
  for (const Json& c : cases) {
    const std::string text = c.at("text");
    const Ids ids = tokenizer.encode(text, {.add_special_tokens = false});
    EXPECT_EQ(ids, c.at("ids").get<Ids>()) << testing::PrintToString(text);
    EXPECT_EQ(tokenizer.decode(ids), c.at("decoded").get<std::string>()) << testing::PrintToString(text);
    EXPECT_EQ(stream(tokenizer, ids), tokenizer.decode(ids)) << testing::PrintToString(text);
  }
}

TEST(Golden, BuiltinModel) {
  expect_golden(Tokenizer::load(source_dir() / "models/builtin/tokenizer.json"), "builtin");
}

void expect_shared_golden(const fs::path& file, const std::string& name) {
  SKIP_WITHOUT(shared_data(file));
  expect_golden(Tokenizer::load(shared_data(file)), name);
}

TEST(Golden, Gpt2) { expect_shared_golden("tokenizers/gpt2/tokenizer.json", "gpt2"); }
TEST(Golden, SmolLm2) { expect_shared_golden("tokenizers/smollm2/tokenizer.json", "smollm2"); }
TEST(Golden, Phi3) { expect_shared_golden("tokenizers/ortgenai_phi3-v/tokenizer.json", "phi3"); }
TEST(Golden, TinyStories) { expect_shared_golden("lm/tinystories656K_hf/tokenizer.json", "tinystories"); }

TEST(Golden, Qwen3) {
  SKIP_WITHOUT(kQwen);
  expect_golden(qwen_tokenizer(), "qwen3");
}

}  // namespace
}  // namespace lathe
