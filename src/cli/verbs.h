// The verbs of the command line: each function adds one subcommand, which runs when it is parsed.
#pragma once

#include <CLI/App.hpp>

namespace lathe {

void add_bench(CLI::App&);
void add_bench_serve(CLI::App& bench);
void add_doctor(CLI::App&);
void add_eval(CLI::App&);
void add_export(CLI::App&);
void add_generate(CLI::App&);
void add_inspect(CLI::App&);
void add_optimize(CLI::App&);
void add_profile(CLI::App&);
void add_quantize(CLI::App&);
void add_rotate(CLI::App&);
void add_run(CLI::App&);
void add_sensitivity(CLI::App&);
void add_serve(CLI::App&);
void add_synth(CLI::App&);

}  // namespace lathe
