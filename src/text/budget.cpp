#include "text/budget.h"

#include <time.h>

#include "core/error.h"

namespace lathe {

namespace {

double thread_cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

Budget::Budget(size_t text_bytes)
    : deadline_(thread_cpu_seconds() + 2 + 2e-6 * static_cast<double>(text_bytes)),
      bytes_left_((size_t{64} << 10) + 64 * text_bytes) {}

void Budget::spend_attempt(std::string_view pattern) {
  if (++attempts_ % 64 == 0 && thread_cpu_seconds() > deadline_) {
    throw input_error("tokenizer", "a regular expression that takes less than 2 s per MB",
                      "'" + printable(pattern) + "' on a text that takes longer");
  }
}

void Budget::check_bytes(size_t bytes) const {
  if (bytes > bytes_left_) {
    throw input_error("tokenizer", "steps that make at most 64 times the text", "steps that make more");
  }
}

void Budget::spend_bytes(size_t bytes) {
  check_bytes(bytes);
  bytes_left_ -= bytes;
}

}  // namespace lathe
