#include "io/module_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/error.h"

namespace lathe {
namespace {

constexpr size_t max_pattern_length = 1000;
constexpr uint32_t max_match_steps = 100'000;

}  // namespace

struct ModulePattern::Compiled {
  Compiled(const std::string& text, std::string_view where) {
    int error = 0;
    size_t offset = 0;
    if (text.size() <= max_pattern_length)
      code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), PCRE2_ANCHORED, &error,
                           &offset, nullptr);
    if (!code)
      throw input_error(where, "a regular expression after 're:'", fmt::format("'{}'", printable(text)));
    context = pcre2_match_context_create(nullptr);
    data = pcre2_match_data_create(1, nullptr);
    pcre2_set_match_limit(context, max_match_steps);
  }
  ~Compiled() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;

  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_match_data* data = nullptr;
};

ModulePattern::ModulePattern(const std::string& text, std::string_view where)
    : compiled_(std::make_shared<const Compiled>(text, where)) {}

bool ModulePattern::matches(std::string_view module) const {
  const Compiled& c = *compiled_;
  const int rc = pcre2_match(c.code, reinterpret_cast<PCRE2_SPTR>(module.data()), module.size(), 0, 0, c.data,
                             c.context);
  if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
    throw input_error("quantization_config: targets", "a regular expression that is quickly matched",
                      "one that is not");
  return rc >= 0;
}

}  // namespace lathe
