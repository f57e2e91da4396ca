// lathe export: a model in another program's file format.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "core/error.h"
#include "export/gguf.h"
#include "export/gguf_mix.h"
#include "export/modelopt.h"
#include "export/onnx.h"

namespace lathe {
namespace {

struct Options {
  std::string model, output, to = "gguf", type;
  int threads = 0;
  bool json = false;
};

// What was written, for people and as JSON: matrices by the form that they have there.
struct Written {
  size_t bytes = 0;
  std::map<std::string, int64_t> forms;
  int64_t exact = -1;  // matrices that keep their numbers; -1: not counted
};

Written to_gguf(const OpenModel& from, const Options& o) {
  OutputFile file(o.output, {from.checkpoint.path()});
  const GgufSummary summary = export_gguf(
      from.model, from.checkpoint, {.type = o.type, .threads = o.threads, .importance = {}}, file.path());
  file.commit();
  return {summary.bytes, summary.types, summary.exact};
}

Written to_onnx(const OpenModel& from, const Options& o) {
  OutputDirectory directory(o.output, {from.checkpoint.path()});
  const OnnxSummary summary = export_onnx(from.model, from.checkpoint, {.type = o.type}, directory.path());
  directory.commit();
  return {summary.bytes, summary.forms, -1};
}

Written to_modelopt(const OpenModel& from, const Options& o) {
  OutputDirectory directory(o.output, {from.checkpoint.path()});
  const ModelOptSummary summary = export_modelopt(from.model, from.checkpoint, directory.path());
  directory.commit();
  return {summary.bytes, summary.forms, -1};
}

std::vector<std::string> as_they_are() { return {"stored"}; }

struct Format {
  std::string_view name, summary;
  std::vector<std::string> (*types)();
  std::string_view type;  // where none is asked for
  Written (*write)(const OpenModel&, const Options&);
};
constexpr Format formats[] = {
    {"gguf", "llama.cpp's file", gguf_mix_names, "q8_0", to_gguf},
    {"onnx", "a directory with a decoder and its KV cache, for ONNX Runtime", onnx_types, "stored", to_onnx},
    {"modelopt", "a quantized model with hf_quant_config.json, for TensorRT-LLM, vLLM and SGLang",
     as_they_are, "stored", to_modelopt},
};

void export_verb(Options o) {
  const Format& to =
      *std::find_if(std::begin(formats), std::end(formats), [&](const Format& f) { return f.name == o.to; });
  if (o.type.empty()) o.type = to.type;
  const std::vector<std::string> types = to.types();
  if (std::find(types.begin(), types.end(), o.type) == types.end())
    throw input_error("--type", fmt::format("for {} one of {}", o.to, fmt::join(types, ", ")),
                      fmt::format("'{}'", printable(o.type)), "see `lathe export --help`");
  const OpenModel from = open_model(o.model);
  const Written written = to.write(from, o);
  if (o.json) {
    Json out = {{"output", o.output},
                {"to", o.to},
                {"type", o.type},
                {"bytes", written.bytes},
                {"tensors", written.forms}};
    if (written.exact >= 0) out["exact"] = written.exact;
    return print_json(out);
  }
  fmt::print("{}: {}, {:.3f} bits per weight\n", o.output, human_bytes(static_cast<double>(written.bytes)),
             8 * static_cast<double>(written.bytes) / static_cast<double>(parameter_count(from.model)));
  for (const auto& [form, count] : written.forms) fmt::print("  {:<6} {} tensors\n", form, count);
  if (written.exact > 0) fmt::print("  {} matrices keep their numbers exactly\n", written.exact);
}

}  // namespace

void add_export(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb = add_verb(app, "export", "Write a model in another program's format",
                            "builtin --to gguf --type q4_k -o /tmp/builtin.gguf");
  add_model(verb, o->model);
  add_output(verb, o->output);
  std::vector<std::string> names;
  std::string summaries, types;
  for (const Format& f : formats) {
    names.emplace_back(f.name);
    summaries += fmt::format("\n{}: {}", f.name, f.summary);
    types += fmt::format("\n{}: {} (default {})", f.name, fmt::join(f.types(), ", "), f.type);
  }
  verb.add_option("--to", o->to, "What to write:" + summaries)
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  verb.add_option("--type", o->type,
                  "What matrices become; those that are it already keep their numbers, in ONNX also those\n"
                  "that are quantized" +
                      types);
  add_threads(verb, o->threads);
  add_json(verb, o->json);
  verb.callback([o] { export_verb(*o); });
}

}  // namespace lathe
