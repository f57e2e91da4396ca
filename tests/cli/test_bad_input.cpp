// Bad input: exit code 2 and one line that names the file, the tensor, what was expected and what was found.
#include <functional>
#include <gmock/gmock.h>

#include "command.h"
#include "core/file.h"
#include "io/safetensors.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;

using Tensors = std::map<std::string, Tensor>;

// A golden model with its config, tensors or files changed.
struct Damage {
  std::string name;
  std::function<void(Json&)> config;
  std::function<void(Tensors&)> tensors;
  std::function<void(const fs::path&)> files;
  std::vector<std::string> message;  // all of these appear in the line
};

void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.name; }

void write_tensors(const fs::path& path, const Tensors& tensors) {
  std::vector<SafetensorsWriter::Item> items;
  for (const auto& [name, t] : tensors) items.push_back({name, t.dtype, t.shape});
  SafetensorsWriter writer(path, items);
  for (const auto& [name, t] : tensors) writer.write(t);
  writer.finish();
}

void make_model(const fs::path& to, const Damage& damage) {
  const fs::path from = golden("llama3");
  Json config = read_json(from / "config.json");
  const SafetensorsFile file = SafetensorsFile::open(from / "model.safetensors");
  Tensors tensors;
  for (const auto& [name, item] : file.items()) tensors[name] = file.load(name);
  if (damage.config) damage.config(config);
  if (damage.tensors) damage.tensors(tensors);
  fs::create_directories(to);
  std::ofstream(to / "config.json") << config.dump(2);
  write_tensors(to / "model.safetensors", tensors);
  if (damage.files) damage.files(to);
}

constexpr const char* up = "model.layers.1.mlp.up_proj.weight";

void set_first(Tensors& tensors, uint16_t bits) {
  const Tensor old = tensors.at(up);
  tensors[up] = Tensor::of<uint16_t>(old.dtype, old.shape, old.as<uint16_t>());
  tensors[up].as_mutable<uint16_t>()[0] = bits;
}

void overwrite(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

const std::vector<Damage> damages = {
    {"MissingTensor", {}, [](Tensors& t) { t.erase(up); }, {}, {up, "[96, 64]"}},
    {"ExtraTensor",
     {},
     [](Tensors& t) {
       t["model.layers.0.extra.weight"] = Tensor::zeros(DType::bf16, {3, 3});
     },
     {},
     {"model.safetensors", "model.layers.0.extra.weight", "[3, 3]"}},
    {"WrongShape",
     {},
     [](Tensors& t) {
       t[up] = Tensor::zeros(DType::bf16, {96, 60});
     },
     {},
     {"model.safetensors", up, "[96, 64]", "[96, 60]"}},
    {"ConfigOfAnotherShape",
     [](Json& c) { c["intermediate_size"] = 100; },
     {},
     {},
     {"model.safetensors", "mlp.down_proj.weight", "[64, 100]", "[64, 96]"}},
    {"WrongType",
     {},
     [](Tensors& t) {
       t[up] = Tensor::zeros(DType::i32, {96, 64});
     },
     {},
     {"model.safetensors", up}},
    {"NanWeight", {}, [](Tensors& t) { set_first(t, 0x7fc0); }, {}, {"model.safetensors", up, "finite"}},
    {"InfiniteWeight", {}, [](Tensors& t) { set_first(t, 0xff80); }, {}, {"model.safetensors", up, "finite"}},
    {"UnknownModelType",
     [](Json& c) { c["model_type"] = "mamba"; },
     {},
     {},
     {"config.json", "model_type", "llama", "'mamba'"}},
    {"NoModelType", [](Json& c) { c.erase("model_type"); }, {}, {}, {"config.json", "model_type"}},
    {"NegativeLayers",
     [](Json& c) { c["num_hidden_layers"] = -1; },
     {},
     {},
     {"config.json", "num_hidden_layers", "-1"}},
    {"TextAsSize", [](Json& c) { c["hidden_size"] = "big"; }, {}, {}, {"config.json", "hidden_size", "big"}},
    {"NoConfig", {}, {}, [](const fs::path& p) { fs::remove(p / "config.json"); }, {"config.json"}},
    {"NoWeights",
     {},
     {},
     [](const fs::path& p) { fs::remove(p / "model.safetensors"); },
     {"model.safetensors"}},
    {"ConfigIsNotJson",
     {},
     {},
     [](const fs::path& p) { overwrite(p / "config.json", "{"); },
     {"config.json"}},
    {"ConfigIsAList",
     {},
     {},
     [](const fs::path& p) { overwrite(p / "config.json", "[1]"); },
     {"config.json"}},
    {"TruncatedWeights",
     {},
     {},
     [](const fs::path& p) {
       fs::resize_file(p / "model.safetensors", fs::file_size(p / "model.safetensors") - 100);
     },
     {"model.safetensors"}},
    {"EmptyWeights",
     {},
     {},
     [](const fs::path& p) { overwrite(p / "model.safetensors", ""); },
     {"model.safetensors"}},
    {"HugeHeader",
     {},
     {},
     [](const fs::path& p) { overwrite(p / "model.safetensors", std::string(8, '\x7f') + "{}"); },
     {"model.safetensors"}},
    {"NewlinesInANameStayOneLine",
     {},
     [](Tensors& t) { t["two\nlines\x1b[31m"] = Tensor::zeros(DType::bf16, {1}); },
     {},
     {"two\\x0alines"}},
};

class BadModel : public testing::TestWithParam<Damage> {};

TEST_P(BadModel, IsRefusedWithOneLineThatSaysWhy) {
  const TemporaryDirectory dir;
  const fs::path model = dir.path() / "model";
  make_model(model, GetParam());
  const std::string m = quoted(model.string());
  for (const std::string& command : {"eval " + m + " --text " + heldout(),
                                     "quantize " + m + " -o " + quoted((dir.path() / "out").string()),
                                     "bench " + m + " --gen-tokens 1 --prompt-tokens 1",
                                     "generate " + m + " --prompt x", "inspect " + m}) {
    const Outcome o = lathe(command);
    EXPECT_EQ(o.exit_code, 2) << command << "\n" << o.err;
    EXPECT_EQ(o.error_lines(), 1) << command << "\n" << o.err;
    for (const std::string& part : GetParam().message) EXPECT_THAT(o.err, HasSubstr(part)) << command;
  }
  EXPECT_FALSE(fs::exists(dir.path() / "out"));
}

INSTANTIATE_TEST_SUITE_P(Each, BadModel, testing::ValuesIn(damages),
                         [](const auto& tested) { return tested.param.name; });

TEST(BadInput, NamesTheFlagOrTheFile) {
  const TemporaryDirectory dir;
  const std::string out = " -o " + quoted((dir.path() / "out").string());
  overwrite(dir.path() / "short.txt", "a");
  overwrite(dir.path() / "blank.txt", " \r\n\r\n");
  overwrite(dir.path() / "recipe.yaml", "lathe: 1\nmodel: builtin\nsteps:\n  - quantise: {}\n");
  overwrite(dir.path() / "mamba.json", R"({"model_type": "mamba"})");
  fs::create_directories(dir.path() / "precious");
  overwrite(dir.path() / "precious/thesis.txt", "text");
  fs::copy(golden("llama3"), dir.path() / "model");
  fs::copy(golden("llama3"), dir.path() / "theirs");
  fs::create_directories(dir.path() / "theirs/lathe/packed");  // left by running it
  const std::string d = dir.path().string();
  const struct {
    std::string command;
    std::vector<std::string> message;
  } cases[] = {
      {"eval /no/such/model --text " + heldout(), {"/no/such/model"}},
      {"inspect /no/such/config.json", {"/no/such/config.json"}},
      {"eval builtin --text /no/such/text", {"/no/such/text"}},
      {"eval builtin --text " + d + "/short.txt", {"short.txt", "at least 2 tokens"}},
      {"eval builtin --context 5000 --text " + heldout(), {"--context", "1024", "5000"}},
      {"eval " + quoted(golden("llama3").string()) + " --text " + heldout(), {"tokenizer.json"}},
      {"generate " + quoted(golden("llama3").string()) + " --prompt x", {"tokenizer.json"}},
      {"eval builtin --against " + quoted(golden("llama3").string()) + " --text " + heldout(),
       {"vocabulary", "4096", "128"}},
      {"generate builtin --prompt ''", {"--prompt"}},
      {"bench builtin --prompt-tokens 2000", {"--prompt-tokens", "1024"}},
      {"quantize builtin --scheme w9a16" + out, {"w9a16"}},
      {"quantize builtin --scheme w4a16 --group-size 200" + out,
       {"model.layers.0.mlp.down_proj.weight", "200", "768"}},
      {"quantize builtin --keep '*.nothing'" + out, {"--keep", "*.nothing"}},
      {"quantize builtin -o " + d + "/precious", {"precious"}},
      {"quantize " + d + "/model -o " + d + "/../" + dir.path().filename().string() + "/model",
       {"which is read", "the same", "-o"}},
      {"quantize " + d + "/model -o " + d, {"what holds it", "-o"}},
      {"export " + d + "/model --to onnx -o " + d + "/model/", {"which is read", "the same", "-o"}},
      {"export " + d + "/model -o " + d + "/model/config.json", {"a part of it", "-o"}},
      {"optimize " + d + "/model --calibration " + heldout() + " -o " + d + "/model", {"the same", "-o"}},
      {"synth --config " + d + "/model/config.json -o " + d + "/model", {"what holds it", "-o"}},
      {"synth --config " + d + "/model/config.json -o " + d + "/theirs",
       {"theirs", "what Lathe wrote there earlier", "-o"}},
      {"run --target size " + d + "/recipe.yaml" + out, {"--target", "recipe auto"}},
      {"run --calibration " + heldout() + " " + d + "/recipe.yaml" + out, {"--calibration", "recipe auto"}},
      {"quantize builtin --recipe int8 --keep '*.nothing'" + out, {"*.nothing", "matches none"}},
      {"serve builtin --api-key-file " + d + "/blank.txt", {"blank.txt", "an API key a line"}},
      {"serve builtin --api-key ''", {"--api-key", "not empty"}},
      {"serve builtin --model-name a --lora a /x", {"--lora a", "the model's"}},
      {"serve builtin --lora a /x --lora a /y", {"--lora a", "another adapter's"}},
      {"serve builtin --pooling last", {"--pooling", "--embeddings"}},
      {"bench serve --speedup 2", {"--speedup", "--trace"}},
      {"bench serve --rate 2 --trace " + d + "/short.txt", {"--rate", "--trace"}},
      {"bench serve --input-tokens 99999999999", {"--input-tokens"}},
      {"run /no/such/recipe.yaml" + out, {"/no/such/recipe.yaml"}},
      {"run " + d + "/recipe.yaml" + out, {"recipe.yaml: line 4", "quantise"}},
      {"synth --config /no/such/config.json" + out, {"/no/such/config.json"}},
      {"synth --config " + d + "/mamba.json" + out, {"model_type", "mamba"}},
      {"inspect --plan " + quoted((golden("llama3") / "config.json").string()), {"--plan"}},
  };
  for (const auto& [command, message] : cases) {
    const Outcome o = lathe(command);
    EXPECT_EQ(o.exit_code, 2) << command << "\n" << o.err;
    EXPECT_EQ(o.error_lines(), 1) << command << "\n" << o.err;
    for (const std::string& part : message) EXPECT_THAT(o.err, HasSubstr(part)) << command;
  }
  EXPECT_FALSE(fs::exists(dir.path() / "out"));
  EXPECT_TRUE(fs::exists(dir.path() / "precious/thesis.txt"));
  for (const char* model : {"model", "theirs"})
    EXPECT_TRUE(fs::exists(dir.path() / model / "model.safetensors"));
}

}  // namespace
}  // namespace lathe
