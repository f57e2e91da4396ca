// lathe synth: a checkpoint of random weights in exactly the shape of a config, for measuring speed and
// memory.
#include <CLI/CLI.hpp>
#include <array>
#include <memory>

#include "cli/options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "core/cpu.h"
#include "core/float.h"
#include "core/progress.h"
#include "core/rng.h"
#include "core/thread_pool.h"
#include "io/writer.h"

namespace lathe {
namespace {

struct Options {
  std::string config, output, tokenizer;
  uint64_t seed = 0;
  int threads = 0;
  bool json = false;
};

// 65,536 normal draws as bf16: sixteen random bits choose one, so that a 64-bit number gives four values.
using Draws = std::array<uint16_t, 65536>;

std::unique_ptr<Draws> make_draws(float mean, float deviation) {
  auto draws = std::make_unique<Draws>();
  Rng rng(0);
  for (uint16_t& d : *draws) d = f32_to_bf16(mean + deviation * rng.normal());
  return draws;
}

// FNV-1a. Each tensor has its own stream, so that order and threads do not matter.
uint64_t hash_name(std::string_view name) {
  uint64_t h = 0xcbf29ce484222325ull;
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return h;
}

Tensor make_tensor(ThreadPool& pool, const Shape& shape, uint64_t stream, const Draws& draws) {
  Tensor tensor = Tensor::zeros(DType::bf16, shape);
  const auto out = tensor.as_mutable<uint16_t>();
  constexpr size_t strip = size_t{1} << 20;  // values from one generator
  for_each_item(pool, static_cast<int64_t>((out.size() + strip - 1) / strip), [&](int64_t item) {
    const auto index = static_cast<size_t>(item);
    Rng rng(Rng(stream + index).next());
    const size_t begin = index * strip, end = std::min(out.size(), begin + strip);
    for (size_t i = begin; i < end; i += 4) {
      uint64_t bits = rng.next();
      for (size_t j = i; j < std::min(end, i + 4); ++j, bits >>= 16) out[j] = draws[bits & 0xffff];
    }
  });
  return tensor;
}

bool is_norm(std::string_view param, const Shape& shape) {
  return shape.size() == 1 && param.ends_with(".weight");
}

void synth_verb(const Options& o) {
  Json config = read_json(o.config);
  const auto shapes = define(config).param_shapes();
  config["torch_dtype"] = "bfloat16";
  config.erase("quantization_config");

  std::vector<PlannedEntry> entries;
  int64_t parameters = 0;
  for (const auto& [name, shape] : shapes) {
    entries.push_back({name, Numerics::dense(DType::bf16), &packing("dense"), shape});
    parameters += elements(shape);
  }
  OutputDirectory directory(o.output, {o.config, o.tokenizer});
  CheckpointWriter writer(directory.path(), config, entries);
  ThreadPool pool(o.threads > 0 ? o.threads : physical_cores());
  const auto weights = make_draws(0, 0.02f), norms = make_draws(1, 0.02f);
  Progress progress("synthesizing", parameters);
  for (const PlannedEntry& entry : entries) {
    const Draws& draws = is_norm(entry.name, entry.shape) ? *norms : *weights;
    writer.write(dense_weight(make_tensor(pool, entry.shape, o.seed ^ hash_name(entry.name), draws)));
    progress.advance(elements(entry.shape), entry.name);
  }
  const std::string hash = writer.finish();
  if (!o.tokenizer.empty()) copy_companions(o.tokenizer, directory.path());
  directory.commit();

  const auto bytes = static_cast<double>(parameters) * 2;
  if (o.json)
    print_json({{"output", o.output},
                {"parameters", parameters},
                {"bytes", 2 * parameters},
                {"seed", o.seed},
                {"hash", hash}});
  else
    fmt::print("wrote {}: {} random parameters, {}; hash {}\n", o.output,
               human_count(static_cast<double>(parameters)), human_bytes(bytes), hash);
}

}  // namespace

void add_synth(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb = add_verb(
      app, "synth", "Write random bf16 weights in the shape of a config, to measure speed and memory with",
      "--config Llama-3.2-1B/config.json -o /tmp/llama-1b --seed 1");
  verb.add_option("--config", o->config, "A Hugging Face config.json")->required();
  add_output(verb, o->output);
  verb.add_option("--tokenizer", o->tokenizer, "A model directory whose tokenizer files are copied");
  add_seed(verb, o->seed);
  add_threads(verb, o->threads);
  add_json(verb, o->json);
  verb.callback([o] { synth_verb(*o); });
}

}  // namespace lathe
