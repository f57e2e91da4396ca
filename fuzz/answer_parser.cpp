// A notation, how the prompt ended, a length, an answer: cut into pieces of that length it has the parts that
// it has as a whole.
#include "text/answer_parser.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "text/utf8.h"

namespace {

using namespace lathe;

// Parts with what is cut joined.
std::vector<AnswerPart> read(ChatSyntax syntax, std::string_view answer, bool thinking, bool calling,
                             size_t piece) {
  AnswerParser parser(syntax, thinking, calling);
  std::vector<AnswerPart> all;
  const auto add = [&](const std::vector<AnswerPart>& parts) {
    for (const AnswerPart& p : parts) {
      if (p.text.empty()) std::abort();
      const bool joins = !all.empty() && all.back().kind == p.kind && all.back().call == p.call &&
                         p.kind != AnswerPart::Kind::call;
      if (joins)
        all.back().text += p.text;
      else
        all.push_back(p);
    }
  };
  for (size_t at = 0; at < answer.size(); at += piece) add(parser.push(answer.substr(at, piece)));
  add(parser.finish());
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  constexpr const char* marks[] = {"<tool_call>",
                                   "<function=<parameter=",
                                   "<function=",
                                   "[TOOL_CALLS]",
                                   "functools[",
                                   "Action: \"tool_name\"",
                                   "<|START_ACTION|><|START_RESPONSE|><|END_THINKING|>",
                                   "<｜tool▁sep｜>```json",
                                   "<｜tool▁sep｜>",
                                   ">>>${recipient}",
                                   "\"parameters\": ",
                                   "<|channel|>analysis<|message|>"};
  const std::string source =
      std::string("tools ") + marks[data[0] % std::size(marks)] + (data[1] & 4 ? "</think>" : "");
  ChatSyntax syntax = chat_syntax(source);
  if (data[1] & 8) syntax.tools = ToolFormat::none;
  const bool calling = (data[1] & 1) && syntax.tools != ToolFormat::none, thinking = data[1] & 2;
  const std::string answer = repair_utf8(std::string_view(reinterpret_cast<const char*>(data) + 3, size - 3));
  const auto whole = read(syntax, answer, thinking, calling, answer.size() + 1);
  const auto cut = read(syntax, answer, thinking, calling, size_t{1} + data[2] % 7);
  const bool same = std::ranges::equal(whole, cut, [](const AnswerPart& a, const AnswerPart& b) {
    return a.kind == b.kind && a.text == b.text && a.call == b.call;
  });
  if (!same) std::abort();
  return 0;
}
