// A GGUF file and the Hugging Face directory it was made from are one model: same names, same row order, same
// logits.
#include <gmock/gmock.h>

#include "edited_checkpoint.h"
#include "gguf_writer.h"
#include "runtime/interpreter.h"
#include "support.h"
#include "text/tokenizer.h"

namespace lathe {
namespace {

using namespace testing_support;

class Gguf : public testing::TestWithParam<const char*> {};

TEST_P(Gguf, GivesTheLogitsOfItsSource) {
  const Model model = load(Checkpoint::open(golden(GetParam())));
  const TemporaryDirectory directory;
  write_gguf(model, directory / "model.gguf");

  const Model again = load(Checkpoint::open(directory.path() / "model.gguf"));
  const std::vector<int32_t> tokens{5, 17, 99, 3, 3, 64, 120};
  const SingleSequence batch(tokens, 0, 7, false);
  EXPECT_THAT(interpret(again, batch).as<float>(),
              testing::ElementsAreArray(interpret(model, batch).as<float>()));
}

INSTANTIATE_TEST_SUITE_P(Families, Gguf, testing::Values("llama3", "tinyllama", "qwen2", "qwen3"));

TEST(GgufNames, OneParameterByTwoNamesIsRefused) {
  const TemporaryDirectory directory;
  GgufWriter file;
  file.text("general.architecture", "llama");
  for (const char* key : {"block_count", "embedding_length", "feed_forward_length", "attention.head_count",
                          "attention.key_length", "context_length", "vocab_size"})
    file.u32(std::string("llama.") + key, 2);
  file.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  for (const char* name : {"token_embd.weight", "output_norm.weight", "model.norm.weight"})
    file.tensor(name, {2, 2}, {1, 1, 1, 1});
  file.write(directory / "model.gguf");
  EXPECT_THAT(load_error(directory / "model.gguf"),
              testing::AllOf(testing::HasSubstr("tensor 'output_norm.weight'"),
                             testing::HasSubstr("'model.norm.weight' stored once")));
}

TEST(GgufTokenizer, ReadsTheVocabularyInTheFile) {
  const fs::path file = shared_data("tokenizers/llama_cpp_vocab/ggml-vocab-llama-spm.gguf");
  SKIP_WITHOUT(file);
  const Tokenizer tokenizer = load_tokenizer(Checkpoint::open(file));
  EXPECT_THAT(tokenizer.encode("Hello world", {.add_special_tokens = false, .parse_special = true}),
              testing::ElementsAre(15043, 3186));
}

}  // namespace
}  // namespace lathe
