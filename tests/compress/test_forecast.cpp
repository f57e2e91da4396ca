// What a forecast says of bytes is exact; of seconds, only that there are some.
#include <algorithm>
#include <gtest/gtest.h>

#include "compress/forecast.h"
#include "gguf_writer.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

size_t bytes_of(const Weight& w, const Numerics& n) { return packed_bytes(n, storage_packing(n), w.shape); }

TEST(ForecastRounding, BytesAreThoseThatAreReadAndWritten) {
  const Checkpoint from = Checkpoint::open(golden("llama3"));
  const Model model = load(from);
  for (const Numerics& n : {Numerics::integer(4, 32, true), Numerics::w8a8(), Numerics::fp8_block(),
                            Numerics::nvfp4(), Numerics::mxfp8()}) {
    SCOPED_TRACE(to_string(n));
    const TemporaryDirectory dir;
    const Assignment assignment = assign_all(model, n, {.head = true, .embeddings = false, .keep = {}});
    const RoundingForecast f = forecast_rounding(model, assignment, ScaleSearch::mse, 2);
    save(model, from, assignment, ScaleSearch::mse, dir.path());
    EXPECT_EQ(f.bytes_read, model.bytes());
    EXPECT_EQ(f.bytes_written, load(Checkpoint::open(dir.path())).bytes());
    EXPECT_GT(f.seconds, 0);
  }
}

// Small ones may all wait. What stays as it is stays in its file.
TEST(ForecastRounding, MemoryIsOfTheWeightsThatWaitAndTheStripsOfTheWorkers) {
  const Model model = load(Checkpoint::open(golden("llama3")));
  const Numerics n = Numerics::integer(4, 32, true);
  EXPECT_EQ(forecast_rounding(model, {}, ScaleSearch::mse, 2).memory, 0u);
  const std::string up = "model.layers.0.mlp.up_proj.weight", down = "model.layers.0.mlp.down_proj.weight",
                    gate = "model.layers.0.mlp.gate_proj.weight";
  const auto memory = [&](const std::vector<std::string>& params, int workers) {
    Assignment assignment;
    size_t strips = 0;
    for (const std::string& p : params) {
      assignment[p] = n;
      strips = std::max(strips, strip_memory(model.weights.at(p), n, workers));
    }
    return forecast_rounding(model, assignment, ScaleSearch::mse, workers).memory -
           static_cast<size_t>(workers) * strips;
  };
  const auto bytes = [&](const std::string& p) { return bytes_of(model.weights.at(p), n); };
  EXPECT_EQ(memory({up}, 1), bytes(up));
  EXPECT_EQ(memory({down, gate, up}, 2), bytes(down) + bytes(gate) + bytes(up));
}

TEST(ForecastRounding, CountsWhatHasNoFormInTheOutput) {
  const TemporaryDirectory dir;
  write_gguf(load(Checkpoint::open(golden("tinyllama"))), dir / "model.gguf");
  Model model = load(Checkpoint::open(dir / "model.gguf"));
  Weight& up = model.weights.at("model.layers.0.mlp.up_proj.weight");
  up = make_weight(Numerics::iq4_nl(), packing("gguf.iq4_nl"), up.shape);
  const RoundingForecast f = forecast_rounding(model, {}, ScaleSearch::mse, 1);
  const size_t dense = bytes_of(up, Numerics::dense(scale_dtype(model.config)));
  EXPECT_EQ(f.bytes_written, model.bytes() - up.bytes() + dense);
  EXPECT_EQ(f.memory, dense);
}

}  // namespace
}  // namespace lathe
