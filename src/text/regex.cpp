#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <array>
#include <pcre2.h>

#include "core/error.h"
#include "text/oniguruma.h"
#include "text/utf8.h"

namespace lathe {

namespace {

constexpr size_t kMaxPattern = 16384;

PCRE2_SPTR bytes(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 128> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

// What a thread needs to match: the result, the limits, a stack for jitted code (grown on demand).
struct Matcher {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, 8 << 20, nullptr);

  Matcher() {
    if (data == nullptr || context == nullptr || stack == nullptr) throw std::bad_alloc();
    pcre2_jit_stack_assign(context, nullptr, stack);
    pcre2_set_heap_limit(context, 64 << 10);  // KiB, where there is no JIT
  }
  ~Matcher() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;
};

}  // namespace

Regex::Regex(std::string_view pattern, std::string_view where) : pattern_(pattern) {
  if (pattern.size() > kMaxPattern) {
    throw input_error(where, fmt::format("a regular expression of at most {} bytes", kMaxPattern),
                      fmt::format("{} bytes", pattern.size()));
  }
  const std::string translated = pcre2_from_oniguruma(pattern, where);
  const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  if (context == nullptr) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  size_t offset = 0;
  // ANCHORED: find_all tries every position itself, which bounds each attempt. NO_START_OPTIMIZE: a look for
  // a required character through the rest of the text at every position would be quadratic.
  pcre2_code* code = pcre2_compile(bytes(translated), translated.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_ANCHORED |
                                       PCRE2_NO_START_OPTIMIZE | PCRE2_NEVER_BACKSLASH_C,
                                   &error, &offset, context.get());
  if (code == nullptr) {
    throw input_error(where, "a regular expression", "'" + printable(pattern) + "'", pcre2_message(error));
  }
  code_ = std::shared_ptr<const void>(
      code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without a JIT the interpreter runs instead
}

void Regex::find_all(std::string_view text, Budget& budget, std::vector<ByteRange>& matches) const {
  thread_local const Matcher matcher;
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  // One attempt may step back over all of the text a few times (\s*[\r\n]+ on a long run of spaces), not
  // more.
  pcre2_set_match_limit(matcher.context,
                        static_cast<uint32_t>(1'000'000 + std::min<size_t>(8 * text.size(), 2'000'000'000)));
  size_t last_end = std::string_view::npos;
  for (size_t at = 0; at <= text.size();) {
    budget.spend_attempt(pattern_);
    const int found =
        pcre2_match(code, bytes(text), text.size(), at, PCRE2_NO_UTF_CHECK, matcher.data, matcher.context);
    if (found < 0 && found != PCRE2_ERROR_NOMATCH) {
      throw input_error("tokenizer", "a regular expression that ends",
                        "'" + printable(pattern_) + "' on this text", pcre2_message(found));
    }
    const size_t end = found < 0 ? 0 : pcre2_get_ovector_pointer(matcher.data)[1];
    if (found >= 0 && !(end == at && at == last_end)) {
      matches.push_back({at, end});
      last_end = end;
      if (end > at) {
        at = end;
        continue;
      }
    }
    if (at == text.size()) break;
    next_code_point(text, at);
  }
}

}  // namespace lathe
