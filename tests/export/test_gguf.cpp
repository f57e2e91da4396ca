// What export_gguf writes, read again.
#include <gmock/gmock.h>

#include "builtin_model.h"
#include "compress/quantize.h"
#include "edited_checkpoint.h"
#include "export/gguf.h"
#include "export/gguf_mix.h"
#include "io/gguf.h"
#include "mixture_model.h"
#include "runtime/interpreter.h"
#include "support.h"
#include "text/tokenizer.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::ElementsAreArray;

struct Exported {
  TemporaryDirectory directory;
  Checkpoint checkpoint;
  GgufSummary summary;
  Exported(const Model& model, const Checkpoint& from, const std::string& type) {
    summary =
        export_gguf(model, from, {.type = type, .threads = 2, .importance = {}}, directory / "model.gguf");
    checkpoint = Checkpoint::open(directory / "model.gguf");
  }
};

std::vector<float> logits(const Model& model) {
  const std::vector<int32_t> tokens{5, 17, 99, 3, 3, 64, 120};
  const auto out = interpret(model, SingleSequence(tokens, 0, 7, false));
  return {out.as<float>().begin(), out.as<float>().end()};
}

class GgufExportOf : public testing::TestWithParam<const char*> {};

TEST_P(GgufExportOf, GivesTheLogitsOfItsSource) {
  const Checkpoint from = Checkpoint::open(golden(GetParam()));
  const Model model = load(from);
  for (const char* type : {"f32", "bf16"}) {
    SCOPED_TRACE(type);
    const Exported file(model, from, type);
    const Model again = load(file.checkpoint);
    const Numerics& stored = model.weights.at("model.embed_tokens.weight").numerics;
    if (std::string_view(type) == "bf16" && stored != Numerics::dense(DType::bf16)) continue;
    EXPECT_EQ(file.summary.exact,
              std::ranges::count_if(model.weights, [](const auto& w) { return w.second.shape.size() > 1; }));
    const std::vector<float> before = logits(model), after = logits(again);
    // Some of Llama 3.1's frequencies are the quotient of no two floats: an ulp off, and 7 x 2^-23 of an
    // angle at the last position. Everything else is bit for bit.
    const bool scaled = file.checkpoint.find("rope_freqs.weight");
    for (size_t i = 0; i < before.size(); ++i)
      if (scaled)
        ASSERT_NEAR(after[i], before[i], 1e-5f) << i;
      else
        ASSERT_EQ(after[i], before[i]) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GgufExportOf,
                         testing::Values("llama2", "llama3", "llama3.1", "llama3.2", "mistral_nemo", "qwen2",
                                         "qwen2.5", "qwen3", "smollm2", "tinyllama", "rope_parameters",
                                         "mixtral", "qwen2_moe", "olmoe"));

// llama.cpp's qwen3moe has experts in all layers: so has this one.
void put_experts_in_all_layers(Edited& model) {
  model.config["mlp_only_layers"] = Json::array();
  std::map<std::string, Tensor> more;
  for (const auto& [name, tensor] : model.tensors)
    if (const std::string_view first = "model.layers.0.mlp."; name.starts_with(first))
      more["model.layers.1.mlp." + name.substr(first.size())] = tensor;
  std::erase_if(model.tensors, [](const auto& t) { return t.first.starts_with("model.layers.1.mlp."); });
  model.tensors.merge(more);
}

TEST(GgufExport, QwenWithExpertsGivesTheLogitsOfItsSource) {
  Edited source("qwen3_moe");
  put_experts_in_all_layers(source);
  const Checkpoint from = Checkpoint::open(source.write());
  const Model model = load(from);
  const Exported file(model, from, "f32");
  EXPECT_EQ(file.checkpoint.gguf()->text("general.architecture"), "qwen3moe");
  EXPECT_EQ(file.checkpoint.gguf()->integer("qwen3moe.expert_feed_forward_length"), 24);
  EXPECT_EQ(logits(load(file.checkpoint)), logits(model));
}

// The limit that llama.cpp has for it, a window that seven tokens are longer than.
struct GptOss : Edited {
  explicit GptOss(const char* family) : Edited(family) {
    config["swiglu_limit"] = 7;
    config["sliding_window"] = 3;
  }
};

class GptOssExportOf : public testing::TestWithParam<const char*> {};

TEST_P(GptOssExportOf, GivesTheLogitsOfItsSource) {
  const GptOss source(GetParam());
  const Checkpoint from = Checkpoint::open(source.write());
  const Model model = load(from);
  for (const char* type : {"f32", "bf16"}) {
    SCOPED_TRACE(type);
    const Exported file(model, from, type);
    const GgufFile& g = *file.checkpoint.gguf();
    EXPECT_EQ(g.text("general.architecture"), "gpt-oss");
    EXPECT_EQ(g.integer("gpt-oss.expert_feed_forward_length"), 32);
    EXPECT_EQ(g.integer("gpt-oss.attention.sliding_window"), 3);
    EXPECT_EQ(g.number("gpt-oss.rope.scaling.yarn_beta_fast"), 32);
    const Model again = load(file.checkpoint);
    EXPECT_EQ(again.config["model_type"], "gpt_oss");
    EXPECT_EQ(logits(again), logits(model));
    EXPECT_EQ(again.weights.size(), model.weights.size());
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, GptOssExportOf, testing::Values("gpt_oss", "gpt_oss_mxfp4"));

// Codes and exponents lie in another order there, and are the same ones.
TEST(GgufExport, ExpertsInMxfp4StayAsTheyAre) {
  const GptOss source("gpt_oss_mxfp4");
  const Checkpoint from = Checkpoint::open(source.write());
  const Model model = load(from);
  for (const char* type : {"bf16", "f16", "q8_0", "q4_k_m"}) {
    SCOPED_TRACE(type);
    const Exported file(model, from, type);
    EXPECT_EQ(file.summary.types.at("MXFP4"), 2 * 3);
    EXPECT_EQ(file.checkpoint.gguf()->integer("general.file_type"), 38);
    const Model again = load(file.checkpoint);
    for (const auto& [name, weight] : model.weights) {
      if (weight.numerics != Numerics::mxfp4()) continue;
      const Weight& stored = again.weights.at(name);
      ASSERT_EQ(stored.packing->name, "gguf.mxfp4");
      const Codes before = unpack(weight, 0, weight.rows()), after = unpack(stored, 0, stored.rows());
      EXPECT_EQ(after.codes, before.codes) << name;
      EXPECT_EQ(after.scales, before.scales) << name;
    }
  }
  const Exported floats(model, from, "f32");
  EXPECT_FALSE(floats.summary.types.contains("MXFP4"));
  EXPECT_EQ(floats.checkpoint.gguf()->integer("general.file_type"), 0);
}

// One tensor for all experts has one type, whatever theirs were.
TEST(GgufExport, ExpertsOfALayerShareAType) {
  const Checkpoint from = Checkpoint::open(source_dir() / "models" / "builtin");
  Model model = mixture_of(load(from), 4, 2);
  const Exported eighths(model, from, "q8_0");
  const Model read = load(eighths.checkpoint);
  EXPECT_EQ(read.config["model_type"], "mixtral");
  const std::string up = "model.layers.3.block_sparse_moe.experts.{}.w3.weight";
  for (int e = 0; e < 4; ++e) {
    const Weight& weight = read.weights.at(fmt::format(fmt::runtime(up), e));
    EXPECT_EQ(weight.numerics, Numerics::integer(8, 32, false, DType::f16));
    EXPECT_EQ(weight.shape, model.weights.at(fmt::format(fmt::runtime(up), e)).shape);
  }
  EXPECT_EQ(read.weights.at("model.layers.3.block_sparse_moe.gate.weight").numerics,
            Numerics::dense(DType::f32));
  // Some experts in other numbers than the rest.
  quantize(model,
           assign_all(model, Numerics::integer(4, 32, false, DType::f16),
                      {.head = false, .embeddings = false, .keep = {"*.experts.1.*", "*.experts.3.*"}}),
           ScaleSearch::absmax, 2);
  const Exported mixed(model, from, "q4_0");
  const Model again = load(mixed.checkpoint);
  for (int e = 0; e < 4; ++e) {
    const std::string name = fmt::format(fmt::runtime(up), e);
    EXPECT_EQ(again.weights.at(name).numerics, Numerics::integer(4, 32, false, DType::f16));
    if (e % 2 == 0) {
      EXPECT_EQ(read_all(again.weights.at(name)), read_all(model.weights.at(name)));
    }
  }
}

TEST(GgufExport, RefusesRoutingThatLlamaCppDoesNotDo) {
  const auto refusal = [](const Edited& source) {
    const Checkpoint from = Checkpoint::open(source.write());
    const TemporaryDirectory directory;
    try {
      export_gguf(load(from), from, {}, directory / "m.gguf");
    } catch (const InputError& e) {
      return std::string(e.what());
    }
    return std::string("written");
  };
  EXPECT_THAT(refusal(Edited("qwen3_moe")), testing::HasSubstr("mlp_only_layers: expected none"));
  Edited source("qwen3_moe");
  put_experts_in_all_layers(source);
  source.config["norm_topk_prob"] = false;
  EXPECT_THAT(refusal(source),
              testing::HasSubstr("norm_topk_prob: expected true, as GGUF's qwen3moe has it, found false"));
  Edited olmoe("olmoe");
  olmoe.config["tie_word_embeddings"] = true;
  olmoe.tensors.erase("lm_head.weight");
  EXPECT_THAT(refusal(olmoe), testing::HasSubstr("tie_word_embeddings: expected false"));
  EXPECT_THAT(refusal(Edited("gpt_oss")),
              testing::HasSubstr("swiglu_limit: expected 7, as GGUF's gpt-oss has it, found 1.5"));
  const auto refusal_of_gpt_oss = [&](const auto& change) {
    GptOss changed("gpt_oss");
    change(changed.config);
    return refusal(changed);
  };
  EXPECT_EQ(refusal_of_gpt_oss([](Json&) {}), "written");
  EXPECT_EQ(refusal_of_gpt_oss([](Json& c) { c.erase("layer_types"); }), "written");
  EXPECT_THAT(refusal_of_gpt_oss([](Json& c) { c["swiglu_alpha"] = 2; }),
              testing::HasSubstr("swiglu_alpha: expected 1.702"));
  EXPECT_THAT(refusal_of_gpt_oss([](Json& c) { c["layer_types"][1] = "sliding_attention"; }),
              testing::HasSubstr("layer_types: expected sliding and full ones by turns"));
  EXPECT_THAT(refusal_of_gpt_oss([](Json& c) { c["rope_scaling"]["truncate"] = true; }),
              testing::HasSubstr("truncate: expected false, as gpt-oss has it, found true"));
  EXPECT_THAT(refusal_of_gpt_oss([](Json& c) { c["rope_scaling"]["beta_fast"] = 16; }),
              testing::HasSubstr("beta_fast: expected 32, as llama.cpp has it, found 16"));
  EXPECT_THAT(refusal_of_gpt_oss([](Json& c) { c["rope_scaling"]["attention_factor"] = 1.5; }),
              testing::HasSubstr("attention_factor: expected none"));
  EXPECT_THAT(refusal_of_gpt_oss([](Json& c) {
                c["rope_scaling"] = {{"rope_type", "llama3"},
                                     {"factor", 8},
                                     {"low_freq_factor", 1},
                                     {"high_freq_factor", 4},
                                     {"original_max_position_embeddings", 64}};
              }),
              testing::HasSubstr("rope scaling: expected linear or yarn, as GGUF's gpt-oss has it"));
}

// The largest step of a uniform grid over a block's range: half of it bounds a rounding error, where scales
// are exact. Rounding these to f16, or to six and four bits of a super-block's, costs up to as much again.
float half_step(const GgufType& type, const float* x, int64_t block) {
  const auto [lo, hi] = std::minmax_element(x, x + block);
  const float steps = static_cast<float>((1 << type.numerics.bits) - 1);
  return 0.5f * (std::max(*hi, 0.0f) - std::min(*lo, 0.0f)) * (steps + 2) / (steps * steps);
}

TEST(GgufExport, EveryTypeKeepsTheWeightsWithinItsRounding) {
  const Checkpoint& from = builtin().checkpoint;
  const Model model = first_blocks_of(builtin().model, 3);
  for (const std::string& type : gguf_mix_names()) {
    SCOPED_TRACE(type);
    const Exported file(model, from, type);
    const Model again = load(file.checkpoint);
    for (const auto& [name, weight] : model.weights) {
      const std::vector<float> before = read_all(weight), after = read_all(again.weights.at(name));
      const Numerics& numerics = again.weights.at(name).numerics;
      if (numerics.is_dense()) {
        const float u = numerics.dtype == DType::f16 ? 0x1p-11f : 0;
        for (size_t i = 0; i < before.size(); ++i)
          ASSERT_NEAR(after[i], before[i], u * std::fabs(before[i]) + (u > 0 ? 0x1p-25f : 0)) << name;
        continue;
      }
      const auto row =
          std::ranges::find_if(gguf_types(), [&](const GgufType& t) { return t.numerics == numerics; });
      const int64_t block = numerics.super ? numerics.super : numerics.group;
      double error = 0, bound = 0;
      for (size_t i = 0; i < before.size(); i += static_cast<size_t>(block)) {
        const float most = 2 * half_step(*row, before.data() + i, block);
        bound += static_cast<double>(block * most) * static_cast<double>(most) /
                 3;  // mean square in [-most, most]
        for (size_t j = i; j < i + static_cast<size_t>(block); ++j)
          error += static_cast<double>(after[j] - before[j]) * static_cast<double>(after[j] - before[j]);
      }
      EXPECT_LE(error, bound) << name;
    }
  }
}

TEST(GgufExport, QuantizedNumbersStayAsTheyAre) {
  const Checkpoint& from = builtin().checkpoint;
  const Model model = first_blocks_of(builtin().model, 3);
  for (const char* type : {"q4_k", "q6_k", "q3_k", "q2_k", "q5_k", "q4_0", "q5_1", "q8_0"}) {
    SCOPED_TRACE(type);
    const Exported once(model, from, type);
    const Model read = load(once.checkpoint);
    const Exported twice(read, once.checkpoint, type);
    const std::string a = read_text_file(once.directory / "model.gguf"),
                      b = read_text_file(twice.directory / "model.gguf");
    EXPECT_EQ(twice.summary.exact, 1 + 3 * 7);
    // The tensors' bytes, which come last; metadata may lie in another order.
    size_t tensors = 0;
    for (const GgufTensor& t : once.checkpoint.gguf()->tensors) tensors += t.bytes;
    EXPECT_TRUE(a.substr(a.size() - tensors) == b.substr(b.size() - tensors));
  }
}

TEST(GgufExport, ImportanceMovesErrorToWhereItCostsLess) {
  const Checkpoint from = Checkpoint::open(source_dir() / "models" / "builtin");
  const Model model = load(from);
  const std::string name = "model.layers.2.mlp.down_proj.weight";
  const std::vector<float> before = read_all(model.weights.at(name));
  const auto cols = static_cast<size_t>(model.weights.at(name).cols());
  std::vector<float> importance(cols);
  for (size_t c = 0; c < cols; ++c) importance[c] = c % 5 == 0 ? 20.0f : 1.0f;
  const auto weighted_error = [&](const GgufExport& options) {
    const TemporaryDirectory directory;
    export_gguf(model, from, options, directory / "m.gguf");
    const std::vector<float> after = read_all(load(Checkpoint::open(directory / "m.gguf")).weights.at(name));
    double sum = 0;
    for (size_t i = 0; i < after.size(); ++i) {
      const double d = static_cast<double>(after[i] - before[i]);
      sum += static_cast<double>(importance[i % cols]) * d * d;
    }
    return sum;
  };
  const double plain = weighted_error({.type = "q4_k", .threads = 1, .importance = {}}),
               informed = weighted_error({.type = "q4_k", .threads = 1, .importance = {{name, importance}}});
  EXPECT_LT(informed, plain);
  EXPECT_THROW(weighted_error({.type = "q4_k", .threads = 1, .importance = {{name, {1.0f}}}}), Error);
}

class GgufTokenizerOf : public testing::TestWithParam<const char*> {};

constexpr const char* texts[] = {
    "Once upon a time there was a girl named Lily. She said, \"Hi!\"",
    "Hello world",
    "  two  spaces, 1234567 and tabs\t\tor\n\nnewlines \n",
    "It's the d\xC3\xA9j\xC3\xA0 vu of \xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E, isn't it? \xF0\x9F\x98\x80",
    "<|im_start|>user\nHi<|im_end|>",
    ""};

TEST_P(GgufTokenizerOf, EncodesAsItsSource) {
  const Checkpoint from = Checkpoint::open(source_dir() / "models" / "builtin");
  Model model = load(from);
  // The tokenizer under test beside the smallest model that has rows enough.
  const fs::path tokenizer = source_dir() / GetParam();
  SKIP_WITHOUT(tokenizer);
  const TemporaryDirectory directory;
  for (const char* file : {"config.json", "model.safetensors"})
    fs::copy_file(source_dir() / "models" / "builtin" / file, directory / file);
  for (const char* file : {"tokenizer.json", "tokenizer_config.json"})
    if (fs::exists(tokenizer / file)) fs::copy_file(tokenizer / file, directory / file);
  const Checkpoint with = Checkpoint::open(directory.path());
  const Tokenizer expected = load_tokenizer(with);
  if (expected.vocab_size() > model.config["vocab_size"].get<int64_t>()) {
    Tensor table = Tensor::zeros(DType::bf16, {expected.vocab_size(), 256});
    model.weights.at("model.embed_tokens.weight") = dense_weight(table);
    model.config["vocab_size"] = expected.vocab_size();
  }
  export_gguf(model, with, {.type = "q8_0", .threads = 1, .importance = {}}, directory / "m.gguf");
  const Tokenizer found = load_tokenizer(Checkpoint::open(directory / "m.gguf"));
  for (const char* text : texts) {
    const auto ids = expected.encode(text);
    // Of what has no token, one program makes one unknown token and the other one per byte.
    if (const auto unknown = expected.id("<unk>"); unknown && std::ranges::count(ids, *unknown)) continue;
    EXPECT_THAT(found.encode(text), ElementsAreArray(ids)) << text;
    EXPECT_EQ(found.decode(ids), expected.decode(ids));
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, GgufTokenizerOf,
                         testing::Values("models/builtin", "../shared/data/tokenizers/smollm2",
                                         "../shared/data/lm/tinystories656K_hf"));

// Looking words up before merging changes nothing in OpenAI's vocabularies, of which every split is a merge;
// nothing in a file says it.
TEST(GgufExport, NamesThePreTokenizerOfGptOss) {
  const TemporaryDirectory directory;
  const fs::path builtin_files = source_dir() / "models" / "builtin";
  for (const char* file : {"config.json", "model.safetensors", "tokenizer_config.json"})
    fs::copy_file(builtin_files / file, directory / file);
  Json tokenizer = read_json(builtin_files / "tokenizer.json");
  constexpr const char* o200k =
      R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
      R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
      R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  tokenizer["normalizer"] = nullptr;
  tokenizer["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", o200k}}}, {"behavior", "Isolated"}, {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}}}}};
  tokenizer["model"]["ignore_merges"] = true;
  write_file_atomically(directory / "tokenizer.json", tokenizer.dump());
  const Checkpoint from = Checkpoint::open(directory.path());
  const Exported file(load(from), from, "q8_0");
  EXPECT_EQ(file.checkpoint.gguf()->text("tokenizer.ggml.pre"), "gpt-4o");
  const Tokenizer found = load_tokenizer(file.checkpoint), expected = load_tokenizer(from);
  EXPECT_THAT(found.encode(texts[0]), ElementsAreArray(expected.encode(texts[0])));
}

TEST(GgufExport, SaysWhatAReaderNeeds) {
  const Checkpoint from = Checkpoint::open(source_dir() / "models" / "builtin");
  const Exported file(load(from), from, "q4_k_m");
  const GgufFile& g = *file.checkpoint.gguf();
  EXPECT_EQ(g.text("general.architecture"), "llama");
  EXPECT_EQ(g.text("general.name"), "builtin");
  EXPECT_EQ(g.integer("general.file_type"), 15);
  EXPECT_EQ(g.integer("llama.block_count"), 6);
  EXPECT_EQ(g.integer("llama.attention.head_count_kv"), 2);
  EXPECT_EQ(g.integer("llama.rope.dimension_count"), 64);
  EXPECT_EQ(g.text("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(g.text("tokenizer.ggml.pre"), "gpt-2");
  EXPECT_EQ(g.integer("tokenizer.ggml.eos_token_id"), 0);
  EXPECT_EQ(g.integer("tokenizer.ggml.padding_token_id"), 3);
  EXPECT_THAT(g.text("tokenizer.chat_template"), testing::HasSubstr("<|im_start|>"));
  EXPECT_EQ(std::get<std::vector<int64_t>>(g.metadata.at("tokenizer.ggml.token_type").value)[1], 3);
  EXPECT_EQ(file.summary.bytes, fs::file_size(file.directory / "model.gguf"));
}

}  // namespace
}  // namespace lathe
