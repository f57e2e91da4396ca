// The report as one self-contained HTML page: no script, style or font comes from the network.
#pragma once

#include <string>

#include "core/json.h"

namespace lathe {

// `report` is make_report()'s. Every text in it is escaped: names of modules and files come from outside.
std::string report_page(const Json& report);

}  // namespace lathe
