// Hadamard transforms in the formats of others: products in ONNX, refused where there is no place; in our own
// files, what was rotated loads as what it was.
#include <gmock/gmock.h>

#include "compress/quantize.h"
#include "compress/rotate.h"
#include "core/error.h"
#include "export/gguf.h"
#include "export/modelopt.h"
#include "export/onnx.h"
#include "models/adapter.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

struct Transformed : testing::Test {
  Checkpoint from = Checkpoint::open(golden("llama3"));
  Model model = load(from);
  TemporaryDirectory directory;
  Transformed() { rotate(model, {.keys = true, .products = true}, 1); }
};

TEST_F(Transformed, GgufModelOptAndAdaptersRefuse) {
  quantize(model, assign_all(model, Numerics::fp8(), {}), ScaleSearch::absmax, 1);
  const auto refuses = [](const char* why) {
    return ThrowsMessage<InputError>(AllOf(
        HasSubstr("q_hadamard: expected a model without Hadamard transforms at run time"), HasSubstr(why)));
  };
  EXPECT_THAT(
      [&] { export_gguf(model, from, {.type = "q8_0", .threads = 1, .importance = {}}, directory / "m"); },
      refuses("GGUF"));
  EXPECT_THAT([&] { export_modelopt(model, from, directory.path()); }, refuses("ModelOpt"));
  EXPECT_THAT([&] { add_adapter(model, directory.path(), 1); }, refuses("adapters"));
}

TEST_F(Transformed, SavedAndLoadedAgain) {
  for (const bool quantized : {false, true}) {
    const Assignment assignment =
        quantized ? assign_all(model, Numerics::integer(4, 32, false), {}) : Assignment{};
    save(model, from, assignment, ScaleSearch::absmax, directory.path(), 1);
    const Model again = load(Checkpoint::open(directory.path()));
    EXPECT_EQ(to_string(again.graph), to_string(model.graph));
    const Json q = again.config["quantization_config"];
    EXPECT_EQ(q["transform_config"]["config_groups"].size(), 2u);
    EXPECT_EQ(q["format"], quantized ? "pack-quantized" : "dense");
  }
  EXPECT_THAT(
      [&] {
        save(model, from, {{"model.layers.0.mlp.up_proj.weight", Numerics::nf4()}}, ScaleSearch::absmax,
             directory.path(), 1);
      },
      ThrowsMessage<InputError>(HasSubstr("no place for transforms")));
}

// What the nodes compute is compared in tests/interop, by ONNX Runtime.
TEST_F(Transformed, OnnxHasTheMatrices) {
  export_onnx(model, from, {"stored"}, directory.path());
  EXPECT_THAT(read_text_file(directory / "model.onnx"),
              AllOf(HasSubstr("mlp.down_proj.hadamard"), HasSubstr("self_attn.k_hadamard")));
}

}  // namespace
}  // namespace lathe
