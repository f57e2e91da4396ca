// lathe inspect: what a model is made of, and what would not load.
#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <set>

#include "cli/options.h"
#include "cli/verbs.h"
#include "compress/quantize.h"
#include "core/cache_directory.h"
#include "core/cpu.h"
#include "core/log.h"
#include "runtime/tune.h"
#include "text/tokenizer.h"

namespace lathe {
namespace {

struct Options {
  std::string model;
  int threads = 0;
  bool graph = false, plan = false, json = false;
};

// Parameters of one kind of module ("up_proj") in one format.
struct Row {
  std::string kind, format;
  int64_t tensors = 0, parameters = 0;
  size_t bytes = 0;
  Shape shape;  // of the first
};

// "model.layers.3.mlp.up_proj.weight" is an up_proj, "blk.3.ffn_up_exps.weight[7]" an ffn_up_exps; ".bias"
// stays visible.
std::string kind_of(const std::string& param) {
  std::string path = module_path(param.substr(0, param.find('[')));
  const bool bias = path.ends_with(".bias");
  if (bias) path.resize(path.size() - 5);
  const size_t dot = path.rfind('.');
  return (dot == std::string::npos ? path : path.substr(dot + 1)) + (bias ? ".bias" : "");
}

class Table {
 public:
  void add(const std::string& param, const std::string& format, const Shape& shape, size_t bytes) {
    const std::string kind = kind_of(param);
    auto row = std::find_if(rows.begin(), rows.end(),
                            [&](const Row& r) { return r.kind == kind && r.format == format; });
    if (row == rows.end()) row = rows.insert(rows.end(), {kind, format, 0, 0, 0, shape});
    ++row->tensors;
    row->parameters += elements(shape);
    row->bytes += bytes;
  }
  Row total() const {
    Row sum{"total", "", 0, 0, 0, {}};
    for (const Row& r : rows) {
      sum.tensors += r.tensors;
      sum.parameters += r.parameters;
      sum.bytes += r.bytes;
    }
    return sum;
  }
  std::vector<Row> rows;
};

// Everything that inspect found out. What is absent could not be found out, and `problem` says why.
struct Findings {
  Json config;
  std::optional<Graph> graph;
  Table table;
  std::string tokenizer;  // one line
  std::string problem;    // empty: it loads
  std::vector<Plan::Choice> choices;
  std::optional<Tuning> tuning;   // of an earlier --tune
  std::pair<int, int> threads{};  // for decoding, for prompts
};

std::string describe_tokenizer(const Checkpoint& checkpoint) {
  try {
    return fmt::format("{} tokens", load_tokenizer(checkpoint).vocab_size());
  } catch (const InputError& e) {
    return fmt::format("none: {}", e.what());
  }
}

Findings inspect_config(const fs::path& path) {
  Findings f;
  f.config = read_json(path);
  f.graph = define(f.config);
  const Numerics numerics = Numerics::dense(scale_dtype(f.config));
  for (const auto& [param, shape] : f.graph->param_shapes())
    f.table.add(param, to_string(numerics), shape, packed_bytes(numerics, packing("dense"), shape));
  f.tokenizer = "not looked for: this is a config alone";
  return f;
}

Findings inspect_checkpoint(const fs::path& path, const Options& o) {
  Findings f;
  const Checkpoint checkpoint = Checkpoint::open(path);
  f.config = checkpoint.config();
  for (const Entry& e : checkpoint.entries()) f.table.add(e.name, to_string(e.numerics), e.shape, e.bytes);
  f.tokenizer = describe_tokenizer(checkpoint);
  try {
    f.graph = define(f.config);
    const Model model = load(checkpoint);
    f.graph = model.graph;  // with what the weights add to it: low-rank corrections
    if (o.plan) {
      Target target;
      target.threads = o.threads;
      target.tuning = f.tuning = load_tuning(cache_directory(), model, target);
      const Plan plan = Plan::compile(model, target);
      f.threads = {plan.threads(), plan.prefill_threads()};
      f.choices.assign(plan.choices().begin(), plan.choices().end());
    }
  } catch (const InputError& e) {
    f.problem = e.what();
  }
  return f;
}

std::string architecture(const Json& config) {
  const auto it = config.find("architectures");
  if (it != config.end() && it->is_array() && !it->empty() && it->front().is_string())
    return it->front().get<std::string>();
  return get_string_or(config, "model_type", "config.json", "unknown");
}

double bits(const Row& r) {
  return 8 * static_cast<double>(r.bytes) / static_cast<double>(std::max<int64_t>(r.parameters, 1));
}

void print(const Row& r) {
  fmt::print("{:<26} {:<14} {:>7} {:>18} {:>10} {:>11} {:>7.3f}\n", r.kind, r.format, r.tensors,
             r.shape.empty() ? "" : to_string(r.shape), human_count(static_cast<double>(r.parameters)),
             human_bytes(static_cast<double>(r.bytes)), bits(r));
}

// Rows that read the format are named with what is missing; those of other formats are only counted.
std::string passed_over(const Plan::Choice& c) {
  std::vector<std::string> parts;
  int64_t others = 0;
  for (const Plan::Choice::Passed& p : c.passed_over)
    p.reads ? parts.push_back(fmt::format("{} ({})", p.kernel, p.reason)) : void(++others);
  if (others > 0) parts.push_back(fmt::format("{} for other formats", others));
  return fmt::format("{}", fmt::join(parts, ", "));
}

void print(const std::vector<Plan::Choice>& choices) {
  const auto line = [](auto... columns) {
    fmt::print("{:<44} {:<18} {:<18} {:<22} {:<16} {}\n", columns...);
  };
  fmt::print("\n");
  line("kernels", "prompts", "decoding", "packing", "rows packed", "passed over");
  for (const Plan::Choice& c : choices) {
    std::string rows = c.prompt_rows;
    if (c.decode_rows != rows) rows += " / " + (c.decode_rows.empty() ? "-" : c.decode_rows);
    if (!c.columns.empty()) rows = c.columns + (rows.empty() ? "" : ", " + rows);
    line(printable(c.param.empty() ? c.node : module_path(c.param)), c.prompts, c.decode,
         c.packing + (c.emulated ? " (emulated)" : ""), rows.empty() ? "-" : rows,
         c.tuned.empty() ? passed_over(c) : "tuned: " + c.tuned);
  }
}

void print(const Findings& f, const Options& o) {
  fmt::print("{}  {}\n", printable(o.model), printable(architecture(f.config)));
  fmt::print("context   {} tokens\n",
             get_int_or(f.config, "max_position_embeddings", "config.json", 0, INT64_MAX, 0));
  fmt::print("tokenizer {}\n\n", f.tokenizer);
  fmt::print("{:<26} {:<14} {:>7} {:>18} {:>10} {:>11} {:>7}\n", "module", "format", "tensors", "shape",
             "parameters", "bytes", "bits/w");
  for (const Row& r : f.table.rows) print(r);
  print(f.table.total());
  if (o.graph && f.graph) fmt::print("\n{}", to_string(*f.graph));
  if (f.choices.empty()) return;
  print(f.choices);
  fmt::print("\nthreads: {} for decoding, {} for prompts, in chunks of {} tokens; {}\n", f.threads.first,
             f.threads.second, f.tuning ? f.tuning->chunk : default_chunk,
             f.tuning ? "measured here by --tune" : "the defaults (`lathe bench --tune` measures)");
}

Json to_json(const Row& r) {
  Json json = {{"module", r.kind},           {"format", r.format}, {"tensors", r.tensors},
               {"parameters", r.parameters}, {"bytes", r.bytes},   {"bits_per_weight", bits(r)}};
  if (!r.shape.empty()) json["shape"] = r.shape;
  return json;
}

Json to_json(const Plan::Choice& c) {
  Json passed = Json::array();
  for (const Plan::Choice::Passed& p : c.passed_over)
    passed.push_back({{"kernel", p.kernel}, {"reason", p.reason}, {"reads_format", p.reads}});
  return {{"node", c.node},
          {"param", c.param},
          {"kernel", c.kernel},
          {"prompts", c.prompts},
          {"decode", c.decode},
          {"packing", c.packing},
          {"columns", c.columns},
          {"prompt_rows", c.prompt_rows},
          {"decode_rows", c.decode_rows},
          {"emulated", c.emulated},
          {"tuned", c.tuned},
          {"passed_over", std::move(passed)}};
}

Json to_json(const Findings& f, const Options& o) {
  const Row total = f.table.total();
  Json modules = Json::array();
  std::set<std::string> formats;
  for (const Row& r : f.table.rows) {
    modules.push_back(to_json(r));
    formats.insert(r.format);
  }
  Json json = {{"model", o.model},
               {"architecture", architecture(f.config)},
               {"model_type", get_string_or(f.config, "model_type", "config.json", "")},
               {"parameters", total.parameters},
               {"bytes", total.bytes},
               {"bits_per_weight", bits(total)},
               {"formats", formats},
               {"context", get_int_or(f.config, "max_position_embeddings", "config.json", 0, INT64_MAX, 0)},
               {"tokenizer", f.tokenizer},
               {"loads", f.problem.empty()},
               {"modules", std::move(modules)}};
  if (!f.problem.empty()) json["problem"] = f.problem;
  if (o.graph && f.graph) json["graph"] = to_string(*f.graph);
  if (o.plan) {
    Json kernels = Json::array();
    for (const Plan::Choice& c : f.choices) kernels.push_back(to_json(c));
    json["kernels"] = std::move(kernels);
    json["plan"] = {{"threads", f.threads.first},
                    {"prefill_threads", f.threads.second},
                    {"chunk", f.tuning ? f.tuning->chunk : default_chunk},
                    {"tuned", f.tuning.has_value()}};
  }
  return json;
}

void inspect_verb(const Options& o) {
  const fs::path path = resolve_model(o.model);
  const bool bare = fs::is_regular_file(path) && path.extension() == ".json";
  if (bare && o.plan) throw input_error("--plan", "a model with weights", o.model);
  const Findings f = bare ? inspect_config(path) : inspect_checkpoint(path, o);
  o.json ? print_json(to_json(f, o)) : print(f, o);
  if (!f.problem.empty()) throw InputError(f.problem);  // exit code 2: it would not load
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb =
      add_verb(app, "inspect", "Show a model's architecture, parameters and formats, and what would not load",
               "builtin --graph");
  verb.add_option("MODEL", o->model,
                  "A Hugging Face directory, a .gguf file, a bare config.json, or `builtin`")
      ->required();
  verb.add_flag("--graph", o->graph, "Also print the graph");
  verb.add_flag("--plan", o->plan,
                "Also list the kernels chosen on this machine, and the better ones passed over");
  add_threads(verb, o->threads);
  add_json(verb, o->json);
  verb.callback([o] { inspect_verb(*o); });
}

}  // namespace lathe
