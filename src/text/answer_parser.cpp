#include "text/answer_parser.h"

#include <algorithm>
#include <fmt/format.h>
#include <span>
#include <utility>

namespace lathe {
namespace {

using Kind = AnswerPart::Kind;
constexpr std::string_view arguments_mark = "[ARGS]", id_mark = "[CALL_ID]", fence = "```json",
                           function_begin = "<function=", function_end = "</function>",
                           parameter_begin = "<parameter=", parameter_end = "</parameter>";
constexpr size_t longest_name = 256;

std::string_view without_trailing_space(std::string_view s) {
  while (!s.empty() && is_answer_space(s.back())) s.remove_suffix(1);
  return s;
}

// Bytes at the end of `s` that may begin `mark`.
size_t begins_at_end(std::string_view s, std::string_view mark) {
  for (size_t n = std::min(s.size(), mark.empty() ? 0 : mark.size() - 1); n > 0; --n)
    if (s.ends_with(mark.substr(0, n))) return n;
  return 0;
}

// Without the line break that tags stand on lines of their own by.
std::string_view between_lines(std::string_view s) {
  if (s.starts_with('\n')) s.remove_prefix(1);
  if (s.ends_with('\n')) s.remove_suffix(1);
  return s;
}

}  // namespace

AnswerParser::AnswerParser(ChatSyntax syntax, bool thinking, bool calling,
                           std::shared_ptr<const std::vector<Tool>> tools)
    : syntax_(syntax), tools_(std::move(tools)) {
  if (syntax.channels)
    channels_.emplace(syntax.tools != ToolFormat::none, calling, tools_);
  else if (calling)
    begin_call("");
  else if (thinking)
    state_ = State::thought;
  else if (!syntax.thinks && syntax.tools == ToolFormat::none && syntax.text_begin.empty())
    state_ = State::plain;
}

std::vector<AnswerPart> AnswerParser::push(std::string_view piece) {
  if (channels_) return channels_->push(piece);
  held_ += piece;
  Parts parts;
  while (step(parts, false)) {
  }
  return parts;
}

std::vector<AnswerPart> AnswerParser::finish() {
  if (channels_) return channels_->finish();
  Parts parts;
  while (step(parts, true)) {
  }
  if (state_ == State::head || state_ == State::name || state_ == State::tags || state_ == State::object)
    give_up(parts);
  return parts;
}

bool AnswerParser::step(Parts& parts, bool last) {
  switch (state_) {
    case State::start:
      return begin(last);
    case State::thought:
      return think(parts, last);
    case State::text:
      return tell(parts, last);
    case State::plain:
      add_part(parts, Kind::text, held_);
      held_.clear();
      return false;
    case State::head:
      return read_head(parts, last);
    case State::name:
      return read_name(parts, last);
    case State::tags:
      return read_tags(parts, last);
    case State::object:
      return read_object(parts, last);
    case State::between:
      return read_between(last);
  }
  return false;
}

// Thoughts, what opens the text, and calls without a mark are only at the beginning of an answer.
bool AnswerParser::begin(bool last) {
  const size_t space = leading_space(held_);
  const std::string_view rest = std::string_view(held_).substr(space);
  if (rest.empty() && !last) return false;
  const bool may_think = syntax_.thinks && !drop_space_;
  const std::string_view opens = syntax_.text_begin;
  if (may_think && rest.starts_with(syntax_.think_begin)) {
    held_.erase(0, space + syntax_.think_begin.size());
    state_ = State::thought;
  } else if (!opens.empty() && rest.starts_with(opens)) {
    held_.erase(0, space + opens.size());
    state_ = State::text;
  } else if (((may_think && may_become(rest, syntax_.think_begin)) || may_become(rest, opens)) && !last) {
    return false;
  } else if (syntax_.tools == ToolFormat::recipients && !drop_space_) {
    begin_call("");
  } else if (syntax_.tools == ToolFormat::llama3 && rest.starts_with("{")) {
    const std::string before = held_.substr(0, space);
    held_.erase(0, space);
    begin_call(before);
  } else {
    state_ = State::text;
  }
  return true;
}

bool AnswerParser::think(Parts& parts, bool last) {
  const bool first = !drop_space_;  // of the thoughts
  if (first) {
    held_.erase(0, leading_space(held_));
    drop_space_ = !held_.empty();
  }
  if (const size_t end = held_.find(syntax_.think_end); end != std::string::npos) {
    add_part(parts, Kind::thought, without_trailing_space(std::string_view(held_).substr(0, end)));
    held_.erase(0, end + syntax_.think_end.size());
    state_ = State::start;
    drop_space_ = true;
    return true;
  }
  std::string_view shown = held_;
  if (!last) shown.remove_suffix(begins_at_end(shown, syntax_.think_end));
  shown = without_trailing_space(shown);
  add_part(parts, Kind::thought, shown);
  held_.erase(0, shown.size());
  return false;
}

bool AnswerParser::tell(Parts& parts, bool last) {
  if (drop_space_) {
    held_.erase(0, leading_space(held_));
    if (held_.empty()) return false;
    drop_space_ = false;
  }
  const std::string_view mark = notation().mark, end = syntax_.text_end;
  const auto found = [&](std::string_view s) { return s.empty() ? std::string::npos : held_.find(s); };
  const size_t call = found(mark), ends = found(end);
  if (ends < call) {
    add_part(parts, Kind::text, std::string_view(held_).substr(0, ends));
    held_.erase(0, ends + end.size());
    return true;
  }
  if (call != std::string::npos) {
    const std::string_view before = without_trailing_space(std::string_view(held_).substr(0, call));
    add_part(parts, Kind::text, before);
    // A list's own bracket is read with what is in it.
    const size_t used = call + mark.size() - (mark.ends_with("[") ? 1 : 0);
    const std::string raw = held_.substr(before.size(), used - before.size());
    held_.erase(0, used);
    begin_call(raw);
    return true;
  }
  std::string_view shown = held_;
  if (!last) {
    shown.remove_suffix(std::max(begins_at_end(shown, mark), begins_at_end(shown, end)));
    if (!mark.empty()) shown = without_trailing_space(shown);
  }
  add_part(parts, Kind::text, shown);
  held_.erase(0, shown.size());
  return false;
}

void AnswerParser::begin_call(std::string raw) {
  switch (notation().call) {
    case ToolNotation::Call::list:
      state_ = State::head;
      break;
    case ToolNotation::Call::named:
      state_ = State::name;
      break;
    case ToolNotation::Call::tagged:
      state_ = State::tags;
      break;
    case ToolNotation::Call::object:
      state_ = State::object;
  }
  list_ = false;
  call_ = Call();
  call_.raw = std::move(raw);
}

// What began like a call is text.
void AnswerParser::give_up(Parts& parts) {
  if (!call_.given) add_part(parts, Kind::text, call_.raw);
  state_ = State::text;
  drop_space_ = call_.given;
}

// The name stood before its arguments; `used` bytes of what is held are read.
void AnswerParser::begin_bare(std::string name, size_t used) {
  call_.raw += held_.substr(0, used);
  held_.erase(0, used);
  call_.name = std::move(name);
  call_.named = call_.bare = true;
  call_.key = "arguments";
  call_.at = Call::At::value;
  state_ = State::object;
}

// Behind [TOOL_CALLS] and the like: a list of calls, one call, or (Mistral) the name of one.
bool AnswerParser::read_head(Parts& parts, bool last) {
  const bool names = syntax_.tools == ToolFormat::mistral;
  size_t space = leading_space(held_);
  if (syntax_.tools == ToolFormat::actions) {
    const std::string_view rest = std::string_view(held_).substr(space);
    if (may_become(rest, fence) && !last) return false;
    space += rest.starts_with(fence) ? fence.size() : rest.starts_with("```") ? 3 : 0;
    space += leading_space(std::string_view(held_).substr(space));
  }
  if (space == held_.size() && !last) return false;
  if (space == held_.size() || (held_[space] != '[' && held_[space] != '{' && !names)) {
    give_up(parts);
    return true;
  }
  if (held_[space] == '[' || held_[space] == '{') {
    list_ = held_[space] == '[';
    const size_t used = space + (list_ ? 1 : 0);
    call_.raw += held_.substr(0, used);
    held_.erase(0, used);
    state_ = State::object;
    return true;
  }
  const size_t mark = held_.find(arguments_mark), brace = held_.find('{');
  const size_t end = std::min(mark, brace);
  if (end > longest_name) {
    const bool waits = end == std::string::npos && held_.size() <= longest_name + arguments_mark.size();
    if (waits && !last) return false;
    give_up(parts);
    return true;
  }
  const size_t id = std::min(held_.find(id_mark), end);
  begin_bare(std::string(without_trailing_space(std::string_view(held_).substr(space, id - space))),
             mark < brace ? mark + arguments_mark.size() : brace);
  return true;
}

// A name between what stands before and behind it, then its arguments.
bool AnswerParser::read_name(Parts& parts, bool last) {
  const std::string_view before = notation().before_name, behind = notation().behind_name;
  const size_t space = before.empty() ? 0 : leading_space(held_);
  std::string_view rest = std::string_view(held_).substr(space);
  if ((rest.empty() || may_become(rest, before)) && !last) return false;
  const bool begins = rest.starts_with(before);
  if (begins) rest.remove_prefix(before.size());
  const size_t end = std::min(rest.find_first_of(" \t\r\n<>{"), rest.size());
  const std::string_view name = rest.substr(0, end), tail = rest.substr(end);
  if (begins && end <= longest_name && may_become(tail, behind) && !last) return false;
  if (!begins || name.empty() || end > longest_name || !tail.starts_with(behind)) {
    give_up(parts);
    return true;
  }
  const size_t used = space + before.size() + end + behind.size();
  if (const std::string_view text = syntax_.text_begin;
      syntax_.tools == ToolFormat::recipients && !text.empty() && rest.starts_with(text)) {
    held_.erase(0, used);
    state_ = State::text;
    return true;
  }
  begin_bare(std::string(name), used);
  return true;
}

// "<function=f>" at the beginning of what is held: its name, and it is taken. `fits`: it is one, or may
// become one.
bool AnswerParser::take_tag(std::string_view opening, std::string& name, bool& fits) {
  const std::string_view held = held_;
  const size_t end = held.find('>');
  fits =
      may_become(held, opening) || (held.starts_with(opening) && std::min(end, held.size()) <= longest_name);
  if (!fits || end == std::string::npos || !held.starts_with(opening)) return false;
  name = held.substr(opening.size(), end - opening.size());
  fits = !name.empty();
  if (fits && !call_.given) call_.raw += held.substr(0, end + 1);
  if (fits) held_.erase(0, end + 1);
  return fits;
}

const Json* AnswerParser::parameter(const std::string& name) const {
  if (!tools_) return nullptr;
  for (const Tool& tool : *tools_) {
    if (tool.name != call_.name || !tool.parameters.is_object()) continue;
    const auto all = tool.parameters.find("properties");
    if (all == tool.parameters.end() || !all->is_object()) return nullptr;
    const auto one = all->find(name);
    return one == all->end() ? nullptr : &*one;
  }
  return nullptr;
}

// A function's tag, parameters in theirs, and its end. Arguments are given away one by one.
bool AnswerParser::read_tags(Parts& parts, bool last) {
  const size_t space = call_.key.empty() ? leading_space(held_) : 0;
  if (!call_.given) call_.raw += held_.substr(0, space);
  held_.erase(0, space);
  bool fits = false;
  if (!call_.named) {
    if (take_tag(function_begin, call_.name, fits)) {
      call_.named = call_.given = true;
      call_.raw.clear();
      add_part(parts, Kind::call, call_.name, calls_++);
      return true;
    }
  } else if (!call_.key.empty()) {  // within a value
    const size_t end = held_.find(parameter_end);
    if (end == std::string::npos) return false;
    const Json value =
        tagged_value(parameter(call_.key), between_lines(std::string_view(held_).substr(0, end)));
    add_part(parts, Kind::arguments,
             fmt::format("{}{}: {}", call_.has_arguments ? ", " : "{", Json(call_.key).dump(), value.dump()),
             calls_ - 1);
    call_.has_arguments = true;
    call_.key.clear();
    held_.erase(0, end + parameter_end.size());
    return true;
  } else if (take_tag(parameter_begin, call_.key, fits)) {
    return true;
  } else if (held_.starts_with(function_end)) {
    held_.erase(0, function_end.size());
    add_part(parts, Kind::arguments, call_.has_arguments ? "}" : "{}", calls_ - 1);
    state_ = State::between;
    return true;
  } else {
    fits |= may_become(held_, function_end);
  }
  if (fits && !last) return false;
  if (held_.empty() && last) return false;
  if (call_.given) add_part(parts, Kind::arguments, call_.has_arguments ? "}" : "{}", calls_ - 1);
  give_up(parts);
  return true;
}

bool AnswerParser::read_object(Parts& parts, bool) {
  size_t used = 0;
  while (used < held_.size() && call_.at != Call::At::done && call_.at != Call::At::bad)
    call_.read(held_[used++]);
  // A name that stands before its arguments is one when they begin.
  const bool begun = !call_.bare || (call_.at != Call::At::value && call_.at != Call::At::bad);
  const bool gives = call_.given || (call_.named && begun);
  // What ends a call wrongly may be the beginning of what comes behind it.
  if (call_.at == Call::At::bad && gives) --used;
  if (!call_.given) call_.raw += held_.substr(0, used);
  held_.erase(0, used);
  if (gives && (!call_.given || !call_.arguments.empty())) {
    if (!std::exchange(call_.given, true)) {
      add_part(parts, Kind::call, call_.name, calls_++);
      call_.raw.clear();
    }
    add_part(parts, Kind::arguments, std::exchange(call_.arguments, {}), calls_ - 1);
  }
  if (call_.at == Call::At::bad || (call_.at == Call::At::done && !call_.given)) {
    give_up(parts);
    return true;
  }
  if (call_.at != Call::At::done) return false;
  if (!call_.has_arguments) add_part(parts, Kind::arguments, "{}", calls_ - 1);
  state_ = State::between;
  return true;
}

bool AnswerParser::read_between(bool last) {
  const auto rest_at = [&](size_t at) { return at + leading_space(std::string_view(held_).substr(at)); };
  const auto another = [&](size_t at) {
    const bool list = list_;
    held_.erase(0, at);
    begin_call("");
    if (list || syntax_.tools == ToolFormat::llama3) state_ = State::object;
    list_ = list;
    return true;
  };
  size_t at = rest_at(0);
  if (list_ || syntax_.tools == ToolFormat::llama3) {
    while (at < held_.size() && held_[at] == (list_ ? ',' : ';')) at = rest_at(at + 1);
    if (at < held_.size() && held_[at] == '{') return another(at);
  }
  for (const std::string_view closing : notation().closings) {
    if (closing.empty() || (closing == "]" && !list_)) continue;
    const std::string_view rest = std::string_view(held_).substr(at);
    if (may_become(rest, closing) && !last) return false;
    if (rest.starts_with(closing)) at = rest_at(at + closing.size());
  }
  const std::string_view rest = std::string_view(held_).substr(at), name = notation().before_name;
  if ((rest.empty() || may_become(rest, name)) && !last) return false;
  if (!name.empty() && rest.starts_with(name)) return another(at);
  held_.erase(0, at);
  state_ = State::text;
  drop_space_ = true;
  return true;
}

void AnswerParser::Call::read(char c) {
  switch (at) {
    case At::open:
      if (!is_answer_space(c)) at = c == '{' ? At::key : At::bad;
      return;
    case At::key:
      if (c == '"') {
        key.clear();
        at = At::in_key;
      } else if (!is_answer_space(c)) {
        at = c == '}' ? At::done : At::bad;
      }
      return;
    case At::in_key:
      if (c == '"' && !escaped) {
        at = At::colon;
        return;
      }
      escaped = c == '\\' && !escaped;
      key += c;
      return;
    case At::colon:
      if (!is_answer_space(c)) at = c == ':' ? At::value : At::bad;
      return;
    case At::value:
      if (is_answer_space(c)) return;
      if (bare && c != '{') {
        at = At::bad;
        return;
      }
      value.clear();
      at = At::in_value;
      return read_value(c);
    case At::in_value:
      return read_value(c);
    case At::next:
      if (!is_answer_space(c)) at = c == ',' ? At::key : c == '}' ? At::done : At::bad;
      return;
    case At::done:
    case At::bad:
      return;
  }
}

void AnswerParser::Call::read_value(char c) {
  bool ends = false, behind = false;  // with this character, or before it
  if (in_string) {
    if (escaped || c == '\\')
      escaped = !escaped;
    else
      in_string = c != '"';
    ends = !in_string && depth == 0;
  } else if (c == '"') {
    in_string = true;
  } else if (c == '{' || c == '[') {
    ++depth;
  } else if (c == '}' || c == ']') {
    behind = depth == 0;
    ends = depth == 1;
    --depth;
  } else {
    behind = depth == 0 && (c == ',' || is_answer_space(c));
  }
  if (!behind) {
    value += c;
    // A text is given away as a whole: it is JSON within JSON.
    if (at_arguments() && value[0] != '"') arguments += c;
    // Only what is read as a whole is kept.
    if (at_arguments() && value[0] != '"') value.resize(1);
  }
  if (!ends && !behind) return;
  depth = 0;
  end_value();
  if (at != At::in_value) return;
  at = bare ? At::done : At::next;
  if (behind) read(c);
}

void AnswerParser::Call::end_value() {
  if (!at_name() && !at_arguments()) return;
  if (at_name() && named) return;  // given twice: the first counts, which a stream has told already
  if (value.empty()) {
    at = At::bad;
    return;
  }
  has_arguments |= at_arguments();
  if (value[0] != '"') {
    if (at_name()) at = At::bad;
    return;
  }
  const Json text = Json::parse(value, nullptr, false);
  if (!text.is_string()) {
    at = At::bad;
  } else if (at_name()) {
    name = text.get<std::string>();
    named = !name.empty();
    if (!named) at = At::bad;
  } else {
    arguments += text.get<std::string>();
  }
}

}  // namespace lathe
