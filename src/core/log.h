// Messages for people, on stderr. stdout belongs to results.
#pragma once

#include <fmt/format.h>
#include <string_view>

namespace lathe {

void log_info(std::string_view);
void log_warning(std::string_view);
void log_error(std::string_view);

template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  log_info(fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  log_warning(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace lathe
