// What verbs share: options that mean the same everywhere, opening models, printing.
#pragma once

#include <CLI/App.hpp>
#include <optional>
#include <string>

#include "core/json.h"
#include "kernels/attention.h"
#include "models/model.h"
#include "runtime/plan.h"

namespace lathe {

// A subcommand whose --help ends with an example.
CLI::App& add_verb(CLI::App& app, const std::string& name, const std::string& description,
                   const std::string& example);

CLI::Option& add_model(CLI::App& verb, std::string& model);
void add_output(CLI::App& verb, std::string& output);
void add_json(CLI::App& verb, bool& json);
void add_threads(CLI::App& verb, int& threads);
void add_kv_dtype(CLI::App& verb, std::optional<KvType>& kv);
// Says how keys and values are held (kv_type_of), where that is not f32.
void tell_kv(const Model&, std::optional<KvType> asked);
void add_seed(CLI::App& verb, uint64_t& seed);
void add_max_tokens(CLI::App& verb, int64_t& max_tokens, const std::string& what);

struct OpenModel {
  Checkpoint checkpoint;
  Model model;
  PackedCache packed_cache;  // of these weights as they are on the disk
};
OpenModel open_model(const std::string& name);

// How a plan runs, for the verbs that run one as users do.
struct PlanOptions {
  int threads = 0, prefill_threads = 0;
  bool tune = false, packed_cache = true;
};
void add_plan_options(CLI::App& verb, PlanOptions&);
// Fills in threads, cache and tuning: a stored one, or a new one where it is asked for. Returns the tokens of
// a prompt that one run should take.
int64_t apply(const PlanOptions&, const OpenModel&, Target&);

void print_json(const Json&);           // the one object on stdout
std::string human_bytes(double bytes);  // "2.31 GB"
std::string human_count(double n);      // "1.24 B", "5.77 M"
double bits_per_weight(const Model&);   // stored bits of all parameters, scales included, per parameter
int64_t parameter_count(const Model&);  // without low-rank corrections and scales of keys and
                                        // values, which are only bytes

}  // namespace lathe
