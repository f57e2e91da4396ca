// lathe export: a model in another program's file format.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/verbs.h"
#include "export/gguf.h"
#include "export/gguf_mix.h"

namespace lathe {
namespace {

struct Options {
  std::string model, output, to = "gguf";
  GgufExport gguf;
  bool json = false;
};

void export_verb(const Options& o) {
  const OpenModel from = open_model(o.model);
  AtomicFile file(o.output);
  const RemoveOnInterrupt guard(file.path());
  const GgufSummary summary = export_gguf(from.model, from.checkpoint, o.gguf, file.path());
  file.commit();
  if (o.json)
    return print_json({{"output", o.output},
                       {"to", o.to},
                       {"type", o.gguf.type},
                       {"bytes", summary.bytes},
                       {"tensors", summary.types},
                       {"exact", summary.exact}});
  fmt::print("{}: {}, {:.3f} bits per weight\n", o.output, human_bytes(static_cast<double>(summary.bytes)),
             8 * static_cast<double>(summary.bytes) / static_cast<double>(parameter_count(from.model)));
  for (const auto& [type, count] : summary.types) fmt::print("  {:<6} {} tensors\n", type, count);
  if (summary.exact > 0) fmt::print("  {} matrices keep their numbers exactly\n", summary.exact);
}

}  // namespace

void add_export(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb = add_verb(app, "export", "Write a model in another program's format",
                            "builtin --to gguf --type q4_k -o /tmp/builtin.gguf");
  add_model(verb, o->model);
  add_output(verb, o->output);
  verb.add_option("--to", o->to, "gguf: llama.cpp's file")
      ->check(CLI::IsMember({"gguf"}))
      ->capture_default_str();
  verb.add_option("--type", o->gguf.type,
                  "What matrices become; those that are it already keep their numbers")
      ->check(CLI::IsMember(gguf_mix_names()))
      ->capture_default_str();
  add_threads(verb, o->gguf.threads);
  add_json(verb, o->json);
  verb.callback([o] { export_verb(*o); });
}

}  // namespace lathe
