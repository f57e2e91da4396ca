// What filters, tests, methods and functions share: limits, errors with the line that runs, conversions.
#pragma once

#include <ctime>
#include <initializer_list>
#include <string>
#include <string_view>

#include "core/error.h"
#include "text/jinja/value.h"

namespace lathe::jinja {

class Runtime {
 public:
  // A template's size and its conversation's bound what it may do. Published templates need some 100 units of
  // work per message; a unit is about 0.1 us.
  static constexpr int64_t kMaxWork = 20'000'000;
  static constexpr int kMaxCallDepth = 400;  // expressions in statements in macros in ...
  static constexpr size_t kMaxText = size_t{64} << 20;

  Runtime(std::string_view where, std::time_t now) : where_(where), now_(now) {}
  virtual ~Runtime() = default;
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  [[noreturn]] void fail(std::string_view expected, std::string_view found,
                         std::string_view hint = {}) const {
    throw input_error(fmt::format("{}: line {}", where_, line_), expected, found, hint);
  }
  [[noreturn]] void raise(std::string_view message) const {  // raise_exception()
    throw InputError(
        fmt::format("{}: line {}: the template refuses: {}", where_, line_, printable(message, 300)));
  }
  [[noreturn]] void wrong_type(std::string_view what, const Value& found) const {
    fail(what, found.is_undefined() ? std::get<Undefined>(found.data()).why : "'" + found.type_name() + "'");
  }

  void spend(size_t bytes) {
    work_ += 1 + static_cast<int64_t>(bytes / 16);
    if (work_ > kMaxWork) fail(fmt::format("at most {} units of work", kMaxWork), "more");
  }

  // Values, their size counted and limited.
  Value text(std::string bytes, bool safe = false);
  Value sequence(std::vector<Value> items, SequenceKind kind = SequenceKind::list);
  Value dict(Dict);
  Value texts(std::vector<std::string> items);  // a list

  // What Python's iter() yields. An iterator is used up.
  std::shared_ptr<const Sequence> iterate(const Value&);
  bool equal(const Value&, const Value&);
  std::string str(const Value&);
  std::string repr(const Value&);
  // Bytes of a string; `what` names who asks.
  const std::string& need_text(const Value&, std::string_view what) const;
  int64_t need_integer(const Value&, std::string_view what) const;

  Value attribute(const Value& object, const std::string& name);
  Value item(const Value& object, const Value& key);
  virtual Value call(const Value& callee, Arguments) = 0;
  virtual Value filter(const std::string& name, const Value& input, Arguments) = 0;
  virtual bool test(const std::string& name, const Value& input, Arguments) = 0;
  virtual Value loop_attribute(const Value& loop, const std::string& name) = 0;
  // Namespaces live until the end: they may hold each other.
  virtual Value make_namespace() = 0;

  std::time_t now() const { return now_; }

 protected:
  void append_repr(std::string& out, const Value&);

  std::string_view where_;
  int line_ = 1;
  int64_t work_ = 0;
  std::time_t now_;
};

// The arguments by parameter, nullptr for those left out. InputError for too many, unknown names, or fewer
// than `required`.
std::vector<const Value*> bind(const Runtime&, std::string_view what, const Arguments&,
                               std::initializer_list<std::string_view> names, size_t required = 0);

}  // namespace lathe::jinja
