// Values of a template: Python's, as far as a template can tell. All are immutable but namespaces.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/json.h"

namespace lathe::jinja {

class Runtime;
class Value;
struct Arguments;
struct LoopState;

// Containers hold containers at most this deep; chat_template.cpp and library.h refuse more.
inline constexpr int kMaxNesting = 256;
// Weights stop growing here.
inline constexpr int64_t kMaxWeight = int64_t{1} << 40;

struct Undefined {
  std::string why;  // "'x' is undefined"
};
struct None {};
struct Text {
  std::string bytes;  // UTF-8
  bool safe = false;  // went through |safe or |escape: `+` escapes what it is joined with, as markupsafe does
};

// What Python tells apart about things that hold items in order.
enum class SequenceKind : uint8_t { list, tuple, range, view, iterator };
struct Sequence {
  std::vector<Value> items;
  SequenceKind kind = SequenceKind::list;
  int depth = 1;
  int64_t weight = 1;
  mutable bool consumed = false;  // an iterator yields its items once
};

struct Dict {
  std::vector<std::pair<std::string, Value>> entries;  // in order of insertion
  int depth = 1;
  int64_t weight = 1;

  const Value* find(std::string_view key) const;
  void set(std::string key, Value value);  // only while it is being built

 private:
  std::map<std::string, size_t, std::less<>> index_;  // once there are more than a few
};

struct Namespace {
  std::map<std::string, Value, std::less<>> attributes;
};

struct Function {
  std::string name;
  std::function<Value(Runtime&, Arguments&)> call;
};

class Value {
 public:
  using Data =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
                   std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
                   std::shared_ptr<const Function>, std::shared_ptr<LoopState>>;
  Value() : data_(None{}) {}
  Value(Data data) : data_(std::move(data)) {}

  static Value undefined(std::string why) { return Data(Undefined{std::move(why)}); }
  static Value boolean(bool b) { return Data(b); }
  static Value integer(int64_t i) { return Data(i); }
  static Value real(double d) { return Data(d); }
  static Value text(std::string bytes, bool safe = false) {
    return Data(std::make_shared<const Text>(Text{std::move(bytes), safe}));
  }
  static Value function(std::string name, std::function<Value(Runtime&, Arguments&)> call) {
    return Data(std::make_shared<const Function>(Function{std::move(name), std::move(call)}));
  }

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(data_); }  // a bool is not
  bool is_real() const { return std::holds_alternative<double>(data_); }
  bool is_number() const { return is_bool() || is_integer() || is_real(); }

  // nullptr when it is something else.
  const Text* text() const { return get<std::shared_ptr<const Text>>(); }
  const Sequence* sequence() const { return get<std::shared_ptr<const Sequence>>(); }
  const Dict* dict() const { return get<std::shared_ptr<const Dict>>(); }
  Namespace* name_space() const { return get<std::shared_ptr<Namespace>>(); }
  const Function* function() const { return get<std::shared_ptr<const Function>>(); }
  LoopState* loop() const { return get<std::shared_ptr<LoopState>>(); }

  const Data& data() const { return data_; }
  std::optional<int64_t> as_integer() const;  // of an integer or a bool
  std::optional<double> as_real() const;      // of any number
  bool truth() const;
  int depth() const;              // 0 but for containers
  int64_t weight() const;         // what it costs to walk it: [x, x] twice what x does, shared or not
  std::string type_name() const;  // Python's: "str", "NoneType", ...

 private:
  template <class Pointer>
  auto get() const -> typename Pointer::element_type* {
    const Pointer* p = std::get_if<Pointer>(&data_);
    return p ? p->get() : nullptr;
  }
  Data data_;
};

// The arguments of a call.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

bool equal(const Value&, const Value&);  // Python's ==; costs a weight
// Less than; nothing when Python raises TypeError.
std::optional<bool> less(const Value&, const Value&);

}  // namespace lathe::jinja
