// A template, a zero byte, a conversation in JSON (an object with messages, tools, variables; without one, a
// greeting): the template is parsed or refused, and one that was parsed renders the conversation or refuses
// it, to valid UTF-8 and twice the same.
#include "text/chat_template.h"

#include <cstdint>
#include <cstdlib>

#include "core/error.h"
#include "text/utf8.h"

namespace {

std::string render(const lathe::ChatTemplate& chat_template, const lathe::Json& conversation) {
  lathe::ChatTemplate::Options options;
  options.now = 0;
  options.variables = conversation.value("variables", lathe::Json::object());
  return chat_template.render(conversation.value("messages", lathe::Json::array()),
                              conversation.value("tools", lathe::Json()), options);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = std::min(input.find('\0'), size);
  try {
    const auto chat_template = lathe::ChatTemplate::parse(input.substr(0, zero), "fuzz");
    lathe::Json conversation = {{"messages", {{{"role", "user"}, {"content", "Hello <b>"}}}}};
    if (zero < size) conversation = lathe::parse_json(input.substr(zero + 1), "fuzz");
    if (!conversation.is_object()) return 0;
    const std::string text = render(chat_template, conversation);
    if (!lathe::valid_utf8(text) || text != render(chat_template, conversation)) std::abort();
  } catch (const lathe::InputError&) {
  }
  return 0;
}
