// lathe VERB ...: exit code 0 for success, 1 when the work failed, 2 for bad usage or bad input.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <exception>

#include "cli/interrupt.h"
#include "cli/verbs.h"
#include "core/error.h"
#include "core/log.h"
#include "eval/report.h"

namespace {

constexpr void (*verbs[])(CLI::App&) = {
    lathe::add_inspect,     lathe::add_quantize, lathe::add_optimize, lathe::add_eval,   lathe::add_bench,
    lathe::add_profile,     lathe::add_generate, lathe::add_export,   lathe::add_run,    lathe::add_rotate,
    lathe::add_sensitivity, lathe::add_serve,    lathe::add_synth,    lathe::add_doctor,
};

// What CLI11 says may span lines; ours is one.
std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  lathe::handle_interrupts();
  CLI::App app("Lathe compresses language models, measures what that did to them, and runs them.", "lathe");
  app.set_version_flag("--version", "lathe " + std::string(lathe::version()));
  app.require_subcommand(1);
  app.footer(
      "`lathe VERB --help` shows a verb's options and an example. MODEL is a Hugging Face directory, a .gguf "
      "file, or\n"
      "`builtin`, the small trained model that comes with Lathe.");
  try {
    for (auto* add : verbs) add(app);
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
    const auto chosen = app.get_subcommands();
    const std::string verb = chosen.empty() ? "" : " " + chosen[0]->get_name();
    lathe::log_error(fmt::format("{}; see `lathe{} --help`", one_line(e.what()), verb));
    return 2;
  } catch (const lathe::Error& e) {
    lathe::log_error(e.what());
    return e.exit_code();
  } catch (const std::exception& e) {
    lathe::log_error(one_line(e.what()));
    return 1;
  }
}
