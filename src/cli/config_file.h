// Flags from a file.
#pragma once

#include <CLI/App.hpp>
#include <string>

namespace lathe {

// Sets the verb's options from a YAML mapping of their long names; the name of a positional one is in lower
// case. A list is a flag given several times, `true` a flag without a value. What the command line gave
// stays. InputError naming the line at an unknown key (and which are known), or at a value that the option
// refuses.
void apply_config(CLI::App& verb, const std::string& path);

}  // namespace lathe
