// Runs a parsed template.
#pragma once

#include <memory>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/runtime.h"

namespace lathe::jinja {

// The text that `body` gives with `variables`. InputError with the line for whatever the template does wrong,
// for raise_exception, and for exceeding a limit of Runtime. The body must outlive the call.
std::string run(const Body& body, std::string_view where, std::time_t now,
                const std::vector<std::pair<std::string, const Json*>>& variables);

}  // namespace lathe::jinja
