// Text inside HTML.
#pragma once

#include <string>
#include <string_view>

namespace lathe {

// As MarkupSafe (and so Jinja's |escape) writes it; safe in attributes too.
std::string escape_html(std::string_view);

}  // namespace lathe
