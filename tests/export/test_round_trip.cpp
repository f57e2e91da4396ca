// What Lathe writes it reads, and writes again: the same files, byte for byte. One row per form that a writer
// has.
#include <algorithm>
#include <cctype>
#include <functional>
#include <gmock/gmock.h>
#include <set>

#include "compress/method.h"
#include "compress/rotate.h"
#include "compress/save.h"
#include "export/gguf.h"
#include "export/gguf_mix.h"
#include "export/modelopt.h"
#include "mixture_model.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

using Prepare = std::function<void(Model&)>;
using Write = std::function<void(const Model&, const Checkpoint& from, const fs::path& directory)>;

struct Case {
  std::string name;
  fs::path source;
  Prepare prepare;
  Write write;
};

// --- what is written

const Selection everything{.head = true, .embeddings = true, .keep = {"*.layers.1.*.o_proj"}};
const Selection layers_only{.head = false, .embeddings = false, .keep = {}};

Prepare rounded(const Numerics& numerics, const Selection& selection) {
  return [=](Model& m) { quantize(m, assign_all(m, numerics, selection), ScaleSearch::absmax, 2); };
}

Prepare calibrated(const char* method, const Numerics& numerics) {
  return [=, text = std::string(method)](Model& m) {
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < 96; ++i) tokens.push_back(i * i * 31 % 120);
    quantize_calibrated(m, assign_all(m, numerics, layers_only), tokens,
                        {.method = parse_method(text),
                         .sweep = {.context = 12, .work = {}, .fingerprint = {}, .threads = 2}});
  };
}

// Codes with more to say than plain rounding gives them, in a packing of a file.
Prepare packed(Numerics numerics, std::string_view stored_as, bool columns) {
  return [=](Model& m) {
    for (const auto& [name, ignored] : assign_all(m, numerics, layers_only)) {
      Weight& weight = m.weights.at(name);
      Numerics plain = numerics;
      plain.act_order = false;
      const std::vector<float> values = read_all(weight);
      Codes c = round_to_nearest(values.data(), weight.rows(), weight.cols(), plain, ScaleSearch::absmax);
      c.numerics = numerics;
      c.numerics.column_scales = columns;
      c.input_scale = numerics.has_input_scale() ? 0.25f : 0;
      for (int64_t k = 0; columns && k < c.cols; ++k)
        c.columns.push_back(1 + 0.125f * static_cast<float>(k % 5));
      for (int64_t k = 0; numerics.act_order && k < c.cols; ++k)
        c.group_of.push_back(static_cast<int32_t>(k % numerics.groups(c.cols)));
      weight = make_weight(c.numerics, packing(stored_as), weight.shape);
      weight.packing->pack(c, 0, weight);
    }
  };
}

Prepare rotated(const Prepare& then) {
  return [=](Model& m) {
    rotate(m, {.residual = true, .heads = true, .keys = true, .products = true}, 1);
    for (auto& [name, weight] : m.weights)
      if (weight.numerics == Numerics::dense(DType::f32)) weight = to_dense(weight, DType::bf16);
    then(m);
  };
}

void nothing(Model&) {}

// Every format in one model, by layer.
void mixture(Model& m) {
  const Numerics formats[] = {Numerics::integer(3, 32, true), Numerics::w8a8(),  Numerics::fp8(),
                              Numerics::fp8_tensor(),         Numerics::nvfp4(), Numerics::mxfp4(),
                              Numerics::integer(8, 0, false)};
  Assignment assignment;
  for (const auto& [name, ignored] : assign_all(m, formats[0], everything))
    assignment[name] = formats[assignment.size() % std::size(formats)];
  quantize(m, assignment, ScaleSearch::absmax, 2);
}

// --- who writes it

void as_compressed_tensors(const Model& m, const Checkpoint& from, const fs::path& directory) {
  save(m, from, {}, ScaleSearch::absmax, directory, 2);
}
void as_modelopt(const Model& m, const Checkpoint& from, const fs::path& directory) {
  export_modelopt(m, from, directory);
}
Write as_gguf(const std::string& type) {
  return [=](const Model& m, const Checkpoint& from, const fs::path& directory) {
    export_gguf(m, from, {.type = type, .threads = 2, .importance = {}}, directory / "model.gguf");
  };
}

// --- the table

std::vector<Case> cases() {
  const fs::path small = golden("llama3"), builtin = source_dir() / "models/builtin";
  std::vector<Case> out;
  const auto ct = [&](const std::string& name, const Prepare& prepare) {
    out.push_back({"ct " + name, small, prepare, as_compressed_tensors});
  };
  ct("dense", nothing);
  for (const DType scale : {DType::bf16, DType::f16, DType::f32})
    for (int bits = 2; bits <= 8; ++bits)
      for (const int group : {0, 32})
        for (const bool asymmetric : {false, true}) {
          const Numerics n = Numerics::integer(bits, group, asymmetric, scale);
          ct(fmt::format("{} {}", to_string(n), dtype_name(scale)), rounded(n, everything));
        }
  for (const DType scale : {DType::bf16, DType::f16, DType::f32})
    for (const Numerics& n : {Numerics::w8a8(scale), parse_scheme("w4a8", 32, false, scale),
                              Numerics::fp8(scale), Numerics::fp8_tensor(scale), Numerics::fp8_block(scale),
                              Numerics::grid(Numerics::Kind::e4m3, 32, scale)})
      ct(fmt::format("{} {}", to_string(n), dtype_name(scale)), rounded(n, everything));
  for (const Numerics& n : {Numerics::nvfp4(), Numerics::mxfp4(), Numerics::mxfp8()})
    ct(to_string(n), rounded(n, everything));
  for (const DType scale : {DType::bf16, DType::f32})
    ct(fmt::format("w8a8 static {}", dtype_name(scale)),
       packed(Numerics::w8a8_static(scale), "ct.int8", false));
  ct("w4a8 static", packed(parse_scheme("w4a8-static", 32, true, DType::bf16), "ct.pack32", false));
  for (const char* scheme : {"w8a8-fp8", "w8a8-fp8-block", "w8a8-mxfp8", "w4a4-mxfp4"})
    ct(scheme, rounded(parse_scheme(scheme, -1, false, DType::bf16), everything));
  ct("w4a8-fp8", rounded(parse_scheme("w4a8-fp8", 32, false, DType::bf16), everything));
  ct("w8a8-fp8-static", packed(parse_scheme("w8a8-fp8-static", -1, false, DType::bf16), "ct.fp8", false));
  ct("w4a4-nvfp4", packed(parse_scheme("w4a4-nvfp4", -1, false, DType::bf16), "ct.nvfp4", false));
  ct("w4a4-nvfp4 calibrated", calibrated("rtn", parse_scheme("w4a4-nvfp4", -1, false, DType::bf16)));
  ct("nvfp4 of fp8 activations", packed(Numerics::nvfp4().over(Activations::fp8_static), "ct.nvfp4", false));
  for (const int bits : {3, 4}) {
    Numerics ordered = Numerics::integer(bits, 32, true);
    ordered.act_order = true;
    ct(to_string(ordered), packed(ordered, "ct.pack32", false));
  }
  ct("int8 without activations", packed(Numerics::integer(8, 0, false), "ct.int8", false));
  ct("low rank", calibrated("rtn+rank4", Numerics::integer(4, 32, true)));
  ct("low rank w8a8 static", calibrated("smooth+rtn+rank4", Numerics::w8a8_static()));
  ct("rotated", rotated(nothing));
  ct("rotated int4", rotated(rounded(Numerics::integer(4, 32, false), layers_only)));
  ct("mixture", mixture);
  for (const int group : {64, 128})
    out.push_back({fmt::format("bitsandbytes nf4 g{}", group), builtin,
                   rounded(Numerics::nf4(group), layers_only), as_compressed_tensors});

  const auto modelopt = [&](const std::string& name, const Prepare& prepare) {
    out.push_back({"modelopt " + name, golden("qwen3"), prepare, as_modelopt});
  };
  for (const Numerics& n :
       {Numerics::fp8_tensor(), parse_scheme("w8a8-fp8", -1, false, DType::bf16), Numerics::fp8_block(),
        Numerics::nvfp4(), Numerics::integer(4, 32, false), Numerics::integer(8, 0, false)})
    modelopt(to_string(n), rounded(n, layers_only));
  modelopt("w8a8 static", packed(Numerics::w8a8_static(DType::f32), "modelopt.int8", false));
  modelopt("w8a8 static columns", packed(Numerics::w8a8_static(DType::f32), "modelopt.int8", true));
  modelopt("w8a8-fp8-static",
           packed(parse_scheme("w8a8-fp8-static", -1, false, DType::f32), "modelopt.fp8", false));
  for (const bool columns : {false, true})
    modelopt(columns ? "w4a4-nvfp4 columns" : "w4a4-nvfp4",
             packed(Numerics::nvfp4().over(Activations::nvfp4), "modelopt.nvfp4", columns));
  modelopt("int4 columns", packed(Numerics::integer(4, 32, false, DType::f32), "modelopt.int4", true));
  modelopt("mixture", [](Model& m) {
    Assignment assignment = assign_all(m, Numerics::nvfp4(), layers_only);
    for (auto& [name, numerics] : assignment)
      if (name.find("mlp") != std::string::npos) numerics = Numerics::fp8().over(Activations::fp8_per_row);
    quantize(m, assignment, ScaleSearch::absmax, 2);
  });

  for (const std::string& type : gguf_mix_names())
    out.push_back({"gguf " + type, builtin, nothing, as_gguf(type)});
  for (const char* type : {"q8_0", "q4_k_m"})
    out.push_back({fmt::format("gguf {} of experts", type), builtin,
                   [](Model& m) { m = mixture_of(m, 3, 2); }, as_gguf(type)});
  for (const char* family : {"llama2", "llama3.1", "mistral_nemo", "qwen2", "qwen3", "smollm2", "tinyllama",
                             "rope_parameters", "mixtral", "qwen2_moe", "olmoe"})
    out.push_back({fmt::format("gguf f32 of {}", family), golden(family), nothing, as_gguf("f32")});
  for (const char* type : {"f32", "bf16", "q8_0", "q4_k_m"})
    for (const char* family : {"gpt_oss", "gpt_oss_mxfp4"})
      out.push_back({fmt::format("gguf {} of {}", type, family), golden(family),
                     [](Model& m) { m.config["swiglu_limit"] = 7; }, as_gguf(type)});  // as llama.cpp has it
  return out;
}

class RoundTrip : public testing::TestWithParam<Case> {};

std::set<fs::path> files_in(const fs::path& directory) {
  std::set<fs::path> names;
  for (const auto& entry : fs::recursive_directory_iterator(directory))
    if (entry.is_regular_file()) names.insert(fs::relative(entry.path(), directory));
  return names;
}

// A GGUF model is its file.
Checkpoint open_written(const fs::path& directory) {
  const fs::path gguf = directory / "model.gguf";
  return Checkpoint::open(fs::exists(gguf) ? gguf : directory);
}

TEST_P(RoundTrip, GivesTheSameFiles) {
  const auto& [name, source, prepare, write] = GetParam();
  const TemporaryDirectory dir;
  const fs::path first = dir / "first/model", second = dir / "second/model";
  for (const fs::path& d : {first, second}) fs::create_directories(d);
  {
    const Checkpoint from = Checkpoint::open(source);
    Model model = load(from);
    prepare(model);
    write(model, from, first);
  }
  const Checkpoint written = open_written(first);
  write(load(written), written, second);
  const std::set<fs::path> files = files_in(first);
  EXPECT_EQ(files_in(second), files);
  for (const fs::path& file : files)
    EXPECT_TRUE(read_text_file(first / file) == read_text_file(second / file)) << file;
}

INSTANTIATE_TEST_SUITE_P(EveryForm, RoundTrip, testing::ValuesIn(cases()), [](const auto& tested) {
  std::string name = tested.param.name;
  std::ranges::replace_if(
      name, [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
});

}  // namespace
}  // namespace lathe
