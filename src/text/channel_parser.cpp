#include "text/channel_parser.h"

#include <array>
#include <span>
#include <utility>

namespace lathe {
namespace {

using Kind = AnswerPart::Kind;
constexpr std::string_view message_mark = "<|message|>", channel_mark = "<|channel|>",
                           start_mark = "<|start|>", constrain_mark = "<|constrain|>",
                           to = "to=", functions = "functions.";
constexpr std::array openers = {channel_mark, start_mark, message_mark, constrain_mark, to};
constexpr size_t longest_header = 512;

bool starts_with_any(std::string_view s, std::span<const std::string_view> marks) {
  return std::ranges::any_of(marks, [&](std::string_view mark) { return s.starts_with(mark); });
}

bool may_become_any(std::string_view s, std::span<const std::string_view> marks) {
  return std::ranges::any_of(marks, [&](std::string_view mark) { return may_become(s, mark); });
}

// "<|start|>role to=recipient<|channel|>channel to=recipient <|constrain|>type", each of it or none.
struct Header {
  std::string_view channel, recipient;
  bool fits = true;  // it is one, or the beginning of one
};

// `cut`: it may end within a mark; `more`: and go on.
Header header_of(std::string_view text, bool cut, bool more) {
  Header h;
  bool typed = false;
  const auto word = [&] {
    text.remove_prefix(leading_space(text));
    const std::string_view w = text.substr(0, std::min(text.find_first_of(" \t\r\n<"), text.size()));
    text.remove_prefix(w.size());
    return w;
  };
  const auto take = [&](std::string_view mark) {
    if (!text.starts_with(mark)) return false;
    text.remove_prefix(mark.size());
    return true;
  };
  while (h.fits) {
    text.remove_prefix(leading_space(text));
    if (text.empty()) break;
    if (take(channel_mark)) {
      h.channel = word();
    } else if (take(start_mark)) {
      word();  // the role
    } else if (take(constrain_mark)) {
      word();  // what the content is: "json"
    } else if (take(to)) {
      h.recipient = word();
    } else if (text.front() == '<') {
      h.fits = cut && may_become_any(text, openers);
      break;
    } else {
      word();  // the same without its mark
      if (!(more && text.empty())) h.fits = !std::exchange(typed, true);
    }
  }
  return h;
}

}  // namespace

ChannelParser::ChannelParser(bool may_call, bool calling, std::shared_ptr<const std::vector<Tool>> tools)
    : may_call_(may_call), tools_(std::move(tools)) {
  if (calling) held_ = tool_opening(ToolFormat::channels);
}

std::vector<AnswerPart> ChannelParser::push(std::string_view piece) {
  held_ += piece;
  return read(false);
}

std::vector<AnswerPart> ChannelParser::finish() {
  Parts parts = read(true);
  if (state_ == State::content) close(parts);
  return parts;
}

std::vector<AnswerPart> ChannelParser::read(bool last) {
  Parts parts;
  while (step(parts, last)) {
  }
  return parts;
}

bool ChannelParser::step(Parts& parts, bool last) {
  switch (state_) {
    case State::between:
      return begin(last);
    case State::header:
      return read_header(parts, last);
    case State::content:
      return read_content(parts, last);
  }
  return false;
}

void ChannelParser::open(Kind kind) {
  state_ = State::content;
  kind_ = kind;
  gave_ = begun_ = json_ = in_string_ = escaped_ = false;
}

bool ChannelParser::begin(bool last) {
  const size_t space = leading_space(held_);
  const std::string_view rest = std::string_view(held_).substr(space);
  if (rest.empty()) return false;
  for (const std::string_view end : channel_ends)
    if (rest.starts_with(end)) {
      held_.erase(0, space + end.size());
      return true;
    }
  if (starts_with_any(rest, openers)) {
    held_.erase(0, space);
    state_ = State::header;
    return true;
  }
  if (!last && (may_become_any(rest, openers) || may_become_any(rest, channel_ends))) return false;
  open(Kind::text);
  return true;
}

std::string ChannelParser::tool_called(std::string_view recipient) const {
  if (!may_call_) return {};
  if (recipient.starts_with(functions)) return std::string(recipient.substr(functions.size()));
  const bool known = tools_ && std::ranges::find(*tools_, recipient, &Tool::name) != tools_->end();
  return std::string(known ? recipient : std::string_view());
}

bool ChannelParser::read_header(Parts& parts, bool last) {
  const size_t end = held_.find(message_mark);
  const bool cut = end == std::string::npos;
  const size_t size = std::min(end, held_.size());
  const Header h = header_of(std::string_view(held_).substr(0, size), cut, cut && !last);
  // Cut, it may have a part of its end.
  if (!h.fits || size > longest_header + (cut ? message_mark.size() - 1 : 0)) {
    open(Kind::text);
    return true;
  }
  if (cut) {
    if (last) held_.clear();  // it announced what never came
    return false;
  }
  const std::string tool = tool_called(h.recipient);
  if (!tool.empty()) {
    add_part(parts, Kind::call, tool, calls_++);
    open(Kind::arguments);
  } else if (h.channel == "analysis") {
    open(Kind::thought);
  } else {
    open(Kind::text);
    if (!h.recipient.empty()) return true;  // with its header: nobody is there to be called
  }
  held_.erase(0, size + message_mark.size());
  return true;
}

// Up to what ends it, but not where that stands within a JSON text of a call.
bool ChannelParser::read_content(Parts& parts, bool last) {
  const std::string_view held = held_;
  size_t used = 0;
  std::string_view ended;
  for (; used < held.size(); ++used) {
    const char c = held[used];
    if (in_string_) {
      if (escaped_ || c == '\\')
        escaped_ = !escaped_;
      else
        in_string_ = c != '"';
      continue;
    }
    if (c == '<') {
      const std::string_view rest = held.substr(used);
      for (const std::string_view end : channel_ends)
        if (rest.starts_with(end)) ended = end;
      if (!ended.empty() || (!last && may_become_any(rest, channel_ends))) break;
    }
    if (!begun_ && !is_answer_space(c)) {
      begun_ = true;
      json_ = kind_ == Kind::arguments && (c == '{' || c == '[');
    }
    in_string_ = json_ && c == '"';
  }
  give(parts, held.substr(0, used));
  held_.erase(0, used + ended.size());
  if (ended.empty()) return false;
  close(parts);
  state_ = State::between;
  return true;
}

void ChannelParser::give(Parts& parts, std::string_view content) {
  if (content.empty()) return;
  if (kind_ == Kind::arguments) return add_part(parts, kind_, content, calls_ - 1);
  bool& before = kind_ == Kind::text ? gave_text_ : gave_thoughts_;
  if (!std::exchange(gave_, true) && std::exchange(before, true)) add_part(parts, kind_, "\n\n");
  add_part(parts, kind_, content);
}

void ChannelParser::close(Parts& parts) {
  if (kind_ == Kind::arguments && !begun_) give(parts, "{}");
}

}  // namespace lathe
