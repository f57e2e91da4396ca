// Low-rank corrections in the formats of others: products and a sum in ONNX, refused where there is no place.
#include <gmock/gmock.h>

#include "compress/quantize.h"
#include "core/error.h"
#include "export/gguf.h"
#include "export/modelopt.h"
#include "export/onnx.h"
#include "models/low_rank.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

struct Corrected : testing::Test {
  Checkpoint from = Checkpoint::open(golden("llama3"));
  Model model = load(from);
  TemporaryDirectory directory;
  Corrected() {
    quantize(model, assign_all(model, Numerics::fp8(), {}), ScaleSearch::absmax, 1);
    const NodeId up = model.graph.find("model.layers.1.mlp.up_proj");
    add_low_rank(model.graph, up, correction_of("model.layers.1.mlp.up_proj"), {.rank = 2});
    for (const auto& [name, shape] : model.graph.param_shapes())
      if (is_correction(model.graph, name)) {
        std::vector<float> values(static_cast<size_t>(elements(shape)));
        for (size_t i = 0; i < values.size(); ++i) values[i] = 0.125f * static_cast<float>(i % 7);
        model.weights[name] = dense_weight(Tensor::of<float>(DType::f32, shape, values));
      }
  }
};

TEST_F(Corrected, GgufAndModelOptRefuse) {
  const auto refuses = [](const char* format) {
    return ThrowsMessage<InputError>(
        AllOf(HasSubstr("model.layers.1.mlp.up_proj.low_rank: expected layers without a low-rank correction"),
              HasSubstr(format)));
  };
  EXPECT_THAT(
      [&] { export_gguf(model, from, {.type = "q8_0", .threads = 1, .importance = {}}, directory / "m"); },
      refuses("GGUF"));
  EXPECT_THAT([&] { export_modelopt(model, from, directory.path()); }, refuses("ModelOpt"));
}

// What the nodes compute is compared in tests/interop, by ONNX Runtime.
TEST_F(Corrected, OnnxHasBothFactors) {
  export_onnx(model, from, {"stored"}, directory.path());
  const std::string file = read_text_file(directory / "model.onnx"),
                    data = read_text_file(directory / "model.onnx.data");
  for (const char* factor : {"a", "b"}) {
    const std::string name = fmt::format("model.layers.1.mlp.up_proj.low_rank.{}", factor);
    EXPECT_THAT(file, HasSubstr(name));
    const Tensor& stored = model.weights.at(name).parts[0];
    EXPECT_THAT(data,
                HasSubstr(std::string(reinterpret_cast<const char*>(stored.storage.data), stored.bytes())));
  }
}

}  // namespace
}  // namespace lathe
