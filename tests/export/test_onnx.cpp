// What export_onnx writes, read again: the wire format, the graph's shape, the numbers of the weights. What
// it computes is compared in tests/interop/onnx_runtime.py.
#include <cmath>
#include <gmock/gmock.h>
#include <set>

#include "compress/quantize.h"
#include "core/error.h"
#include "export/onnx.h"
#include "export/onnx_weights.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

// Fields of a message by number: varints as numbers, the rest as bytes.
struct Fields {
  std::multimap<int, uint64_t> numbers;
  std::multimap<int, std::string> texts;

  explicit Fields(std::string_view bytes) {
    const auto varint = [&] {
      uint64_t value = 0;
      for (int shift = 0;; shift += 7) {
        const auto byte = static_cast<uint8_t>(bytes.at(0));
        bytes.remove_prefix(1);
        value |= uint64_t{byte & 0x7fu} << shift;
        if (byte < 0x80) return value;
      }
    };
    const auto take = [&](size_t n) {
      const std::string_view out = bytes.substr(0, n);
      EXPECT_EQ(out.size(), n);
      bytes.remove_prefix(n);
      return std::string(out);
    };
    while (!bytes.empty()) {
      const uint64_t key = varint();
      const int field = static_cast<int>(key >> 3);
      if ((key & 7) == 0)
        numbers.emplace(field, varint());
      else
        texts.emplace(field, take((key & 7) == 5 ? 4 : varint()));
    }
  }
  std::string text(int field) const { return texts.count(field) ? texts.find(field)->second : ""; }
  int64_t number(int field) const {
    return numbers.count(field) ? static_cast<int64_t>(numbers.find(field)->second) : 0;
  }
  std::vector<std::string> all(int field) const {
    std::vector<std::string> out;
    for (auto [at, end] = texts.equal_range(field); at != end; ++at) out.push_back(at->second);
    return out;
  }
};

TEST(ProtoMessage, IsTheWireFormat) {
  using testing::Eq;
  EXPECT_THAT(ProtoMessage().integer(1, 150).bytes(), Eq("\x08\x96\x01"));
  EXPECT_THAT(ProtoMessage().text(2, "testing").bytes(), Eq("\x12\x07testing"));
  EXPECT_THAT(ProtoMessage().message(3, ProtoMessage().integer(1, 150)).bytes(), Eq("\x1a\x03\x08\x96\x01"));
  EXPECT_THAT(ProtoMessage().real(4, 1.0f).bytes(), Eq(std::string("\x25\0\0\x80\x3f", 5)));
  EXPECT_THAT(ProtoMessage().integer(20, -1).bytes(),  // a key of two bytes, a value of ten
              Eq("\xa0\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"));
}

struct StoredTensor {
  int64_t type = 0;
  Shape shape;
  std::string bytes;
};

struct OnnxModel {
  std::map<std::string, StoredTensor> tensors;
  std::vector<Fields> nodes;
  std::vector<std::string> inputs, outputs, opsets;
  std::map<std::string, int> ops;

  explicit OnnxModel(const fs::path& directory) {
    const std::string data = read_text_file(directory / "model.onnx.data");
    const Fields model(read_text_file(directory / "model.onnx"));
    const Fields graph(model.text(7));
    for (const std::string& opset : model.all(8)) opsets.push_back(Fields(opset).text(1));
    for (const std::string& node : graph.all(1)) ++ops[nodes.emplace_back(node).text(4)];
    for (const std::string& input : graph.all(11)) inputs.push_back(Fields(input).text(1));
    for (const std::string& output : graph.all(12)) outputs.push_back(Fields(output).text(1));
    size_t end = 0;
    for (const std::string& each : graph.all(5)) {
      const Fields tensor(each);
      StoredTensor stored{tensor.number(2), {}, tensor.text(9)};
      for (auto [at, last] = tensor.numbers.equal_range(1); at != last; ++at)
        stored.shape.push_back(static_cast<int64_t>(at->second));
      if (tensor.number(14) == 1) {
        std::map<std::string, std::string> where;
        for (const std::string& entry : tensor.all(13)) where[Fields(entry).text(1)] = Fields(entry).text(2);
        EXPECT_EQ(where["location"], "model.onnx.data");
        const size_t offset = std::stoul(where["offset"]), length = std::stoul(where["length"]);
        EXPECT_EQ(offset % 4096, 0u);
        EXPECT_GE(offset, end);
        EXPECT_LE(offset + length, data.size());
        end = offset + length;
        stored.bytes = data.substr(offset, length);
      }
      EXPECT_TRUE(tensors.emplace(tensor.text(8), std::move(stored)).second) << tensor.text(8);
    }
    EXPECT_EQ(end, data.size());
  }

  template <class T>
  std::vector<T> values(const std::string& name) const {
    const std::string& bytes = tensors.at(name).bytes;
    std::vector<T> out(bytes.size() / sizeof(T));
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(out.data()));
    return out;
  }
};

struct Exported {
  TemporaryDirectory directory;
  OnnxSummary summary;
  OnnxModel model;
  Exported(const Model& m, const Checkpoint& from, const std::string& type = "stored")
      : summary(export_onnx(m, from, {type}, directory.path())), model(directory.path()) {}
};

// One for each window that layers have: gpt-oss has some with and some without.
int masks(const Model& model) {
  std::set<int> windows;
  for (const NodeId id : model.graph.order())
    if (const auto* attention = std::get_if<op::Attention>(&model.graph.node(id).op))
      windows.insert(attention->window);
  return static_cast<int>(windows.size());
}

class OnnxExportOf : public testing::TestWithParam<const char*> {};

TEST_P(OnnxExportOf, IsAGraphInWhichEveryNameIsMadeBeforeItIsRead) {
  const Checkpoint from = Checkpoint::open(golden(GetParam()));
  const Model model = load(from);
  const Exported file(model, from);
  std::set<std::string> known(file.model.inputs.begin(), file.model.inputs.end());
  for (const auto& [name, tensor] : file.model.tensors) EXPECT_TRUE(known.insert(name).second) << name;
  std::set<std::string> names;
  for (const Fields& node : file.model.nodes) {
    EXPECT_TRUE(names.insert(node.text(3)).second) << node.text(3);
    for (const std::string& input : node.all(1))  // Clip's least is optional: left out, it has no name
      EXPECT_TRUE(known.contains(input) || (input.empty() && node.text(4) == "Clip"))
          << node.text(3) << input;
    for (const std::string& output : node.all(2)) EXPECT_TRUE(known.insert(output).second) << output;
  }
  for (const std::string& output : file.model.outputs) EXPECT_TRUE(known.contains(output)) << output;
  EXPECT_EQ(file.model.inputs.size(), 3 + 2 * 2u);  // two layers
  EXPECT_EQ(file.model.outputs.size(), 1 + 2 * 2u);
  EXPECT_EQ(file.model.ops.at("Cos"), 1);  // layers share their angles and their mask
  EXPECT_EQ(file.model.ops.at("Where"), masks(model));
  for (const auto& [name, weight] : model.weights) EXPECT_TRUE(file.model.tensors.contains(name)) << name;
  EXPECT_THAT(file.model.opsets, testing::ElementsAre(""));
}

INSTANTIATE_TEST_SUITE_P(Families, OnnxExportOf,
                         testing::Values("llama2", "llama3.1", "mistral_v01", "qwen2", "qwen3", "smollm2",
                                         "mixtral", "qwen2_moe", "olmoe", "gpt_oss"));

// Only what the router chose is gathered, computed and added.
TEST(OnnxExport, ExpertsAreGathersAndScatters) {
  const Checkpoint from = Checkpoint::open(golden("qwen2_moe"));  // 2 layers of 8 experts and a shared one
  const Exported file(load(from), from);
  for (const auto& [op, count] :
       {std::pair{"NonZero", 18}, {"ScatterND", 18}, {"TopK", 2}, {"ScatterElements", 2}})
    EXPECT_EQ(file.model.ops.at(op), count) << op;
}

// The matrix that the ops of a form make of its tensors.
std::vector<float> read_back(const OnnxModel& file, const std::string& name, const Weight& w) {
  const int64_t rows = w.rows(), cols = w.cols(), groups = w.numerics.groups(cols), group = cols / groups;
  const StoredTensor& codes = file.tensors.at(name);
  const std::vector<float> scales = file.values<float>(name + "_scale");
  const bool has_zeros = file.tensors.contains(name + "_zero_point");
  const bool nbits = codes.type == 2;
  const int bits = nbits && codes.shape[2] < group ? 4 : 8, per_byte = 8 / bits;
  const int64_t zero_bytes = (groups + per_byte - 1) / per_byte;
  const auto at = [&](const std::string& of, int64_t i) {
    const auto byte = static_cast<uint8_t>(file.tensors.at(of).bytes.at(static_cast<size_t>(i / per_byte)));
    return nbits ? byte >> i % per_byte * bits & ((1 << bits) - 1) : static_cast<int8_t>(byte);
  };
  std::vector<float> out;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t g = c / group;
      int zero = nbits ? 1 << (bits - 1) : 0;
      if (has_zeros) zero = at(name + "_zero_point", (nbits ? r * zero_bytes * per_byte : r * groups) + g);
      out.push_back(scales[static_cast<size_t>(r * groups + g)] *
                    static_cast<float>(at(name, r * cols + c) - zero));
    }
  return out;
}

TEST(OnnxExport, QuantizedWeightsKeepTheirNumbers) {
  const Checkpoint from = Checkpoint::open(golden("qwen2"));
  const struct {
    const char* scheme;
    int group;
    bool asymmetric;
    const char* form;
  } cases[] = {{"w4a16", 16, false, "MatMulNBits"},
               {"w4a16", 16, true, "MatMulNBits"},
               {"w3a16", 32, true, "MatMulNBits"},
               {"w2a16", 16, false, "MatMulNBits"},
               {"w8a16", 32, true, "MatMulNBits"},
               {"w6a16", 16, false, "MatMulNBits"},
               {"w8a16", 0, false, "QDQ"},
               {"w4a16", 0, true, "QDQ"},
               {"w4a16", 8, true, "QDQ"},
               {"w8a8", -1, false, "QDQ"},
               {"w4a8", 16, true, "QDQ"}};
  for (const auto& c : cases) {
    SCOPED_TRACE(fmt::format("{} {} {}", c.scheme, c.group, c.asymmetric));
    Model model = load(from);
    const Assignment assignment =
        assign_all(model, parse_scheme(c.scheme, c.group, c.asymmetric, DType::bf16),
                   {.head = true, .embeddings = true, .keep = {}});
    quantize(model, assignment, ScaleSearch::absmax, 1);
    const Exported file(model, from);
    EXPECT_EQ(file.summary.forms.at(c.form), std::ssize(assignment));
    EXPECT_EQ(file.model.opsets.size(), std::string_view(c.form) == "MatMulNBits" ? 2u : 1u);
    for (const auto& [name, numerics] : assignment)
      ASSERT_EQ(read_back(file.model, name, model.weights.at(name)), read_all(model.weights.at(name)))
          << name;
  }
}

TEST(OnnxExport, StaticScalesOfActivationsComeAlong) {
  const Checkpoint from = Checkpoint::open(golden("qwen2"));
  Model model = load(from);
  const Assignment assignment = assign_all(model, Numerics::w8a8(), {.head = true, .keep = {}});
  quantize(model, assignment, ScaleSearch::absmax, 1);
  for (const auto& [name, numerics] : assignment) {
    Weight& w = model.weights.at(name);
    Codes codes = unpack(w, 0, w.rows());
    codes.numerics = Numerics::w8a8_static();
    codes.input_scale = 0.0625f;
    w = pack_codes(codes, w.shape);
  }
  const Exported file(model, from);
  EXPECT_EQ(file.summary.forms.at("QDQ"), std::ssize(assignment));
  EXPECT_GE(file.model.ops.at("QuantizeLinear"), std::ssize(assignment));
  for (const auto& [name, numerics] : assignment) {
    ASSERT_EQ(read_back(file.model, name, model.weights.at(name)), read_all(model.weights.at(name))) << name;
    EXPECT_EQ(file.model.values<float>(name + "_input_scale"), std::vector{0.0625f}) << name;
  }
}

TEST(OnnxExport, WhatHasNoFormIsWrittenAsTheFloatsThatItMeans) {
  const Checkpoint from = Checkpoint::open(golden("qwen2"));
  Model model = load(from);
  quantize(model, assign_all(model, Numerics::nvfp4(), {}), ScaleSearch::absmax, 1);
  const Exported file(model, from, "f16");
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  EXPECT_EQ(file.model.tensors.at(name).type, 1);
  EXPECT_EQ(file.model.values<float>(name), read_all(model.weights.at(name)));
  EXPECT_EQ(file.model.tensors.at("model.embed_tokens.weight").type, 10);
  EXPECT_EQ(file.summary.forms.at("dequantized"), 14);
}

TEST(OnnxExport, RefusesTypesItDoesNotKnowAndNumbersThatDoNotFit) {
  const Checkpoint from = Checkpoint::open(golden("qwen2"));
  Model model = load(from);
  const TemporaryDirectory directory;
  EXPECT_THROW(export_onnx(model, from, {"f8"}, directory.path()), InputError);
  Weight& w = model.weights.at("model.layers.0.mlp.up_proj.weight");
  std::vector<float> values = read_all(w);
  values[7] = 1e5f;
  w = dense_weight(Tensor::of<float>(DType::f32, w.shape, values));
  EXPECT_THROW(export_onnx(model, from, {"f16"}, directory.path()), InputError);
  EXPECT_NO_THROW(export_onnx(model, from, {"bf16"}, directory.path()));
}

}  // namespace
}  // namespace lathe
