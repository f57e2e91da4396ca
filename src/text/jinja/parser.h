// Jinja's grammar with loop controls and {% generation %}, as transformers sets it up. What needs other files
// or Python (include, import, extends, do, trans, autoescape) is refused.
#pragma once

#include <string_view>

#include "text/jinja/ast.h"

namespace lathe::jinja {

// InputError naming `where`, the line and the construct.
Body parse(std::string_view source, std::string_view where);

}  // namespace lathe::jinja
