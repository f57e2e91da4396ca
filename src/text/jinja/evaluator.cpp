#include "text/jinja/evaluator.h"

#include <algorithm>

#include "text/jinja/library.h"

namespace lathe::jinja {

// Names of a block; those of the blocks around it are visible.
struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string_view, Value>> variables;  // names live in the syntax tree

  const Value* find(std::string_view name) const {
    for (const Scope* s = this; s != nullptr; s = s->parent.get())
      for (const auto& [key, value] : s->variables)
        if (key == name) return &value;
    return nullptr;
  }
  void set(std::string_view name, Value value) {
    for (auto& [key, old] : variables) {
      if (key == name) {
        old = std::move(value);
        return;
      }
    }
    variables.emplace_back(name, std::move(value));
  }
};
using ScopePtr = std::shared_ptr<Scope>;

struct LoopState {
  std::shared_ptr<const Sequence> items;
  size_t index = 0;
  int64_t depth = 0;
  std::vector<Value> last_changed;
  bool changed_before = false;
  const Statement* statement = nullptr;  // of a recursive loop
  ScopePtr scope;                        // where a recursive loop stands
};

namespace {

enum class Flow { normal, break_, continue_ };

class Evaluator final : public Runtime {
 public:
  using Runtime::Runtime;
  ~Evaluator() override {
    // Macros hold the scope that holds them, namespaces may hold themselves.
    for (const ScopePtr& scope : closures_) scope->variables.clear();
    for (const auto& n : namespaces_) n->attributes.clear();
  }
  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;

  std::string run(const Body& body, const std::vector<std::pair<std::string, const Json*>>& variables) {
    globals_ = global_functions();
    const auto globals = std::make_shared<Scope>();
    for (const auto& [name, value] : globals_) globals->set(name, value);
    const auto root = scope(globals);
    for (const auto& [name, json] : variables) root->set(name, from_json(*this, *json));
    execute(body, scope(root));
    return std::move(out_);
  }

  Value call(const Value& callee, Arguments arguments) override {
    if (const Function* f = callee.function()) return f->call(*this, arguments);
    if (const LoopState* loop = callee.loop(); loop && loop->statement) {
      const auto items = bind(*this, "loop", arguments, {"iterable"}, 1);
      const Statement& statement = *loop->statement;
      const ScopePtr around = loop->scope;
      const int64_t depth = loop->depth + 1;
      return text(capture([&] { loop_over(statement, *items[0], around, depth); }));
    }
    wrong_type("something to call", callee);
  }

  Value filter(const std::string& name, const Value& input, Arguments arguments) override {
    const FilterFunction f = find_filter(name);
    if (f == nullptr) fail("a filter that chat templates have", "'" + printable(name, 40) + "'");
    spend(16);
    return f(*this, input, arguments);
  }

  bool test(const std::string& name, const Value& input, Arguments arguments) override {
    const TestFunction f = find_test(name);
    if (f == nullptr) fail("a test that chat templates have", "'" + printable(name, 40) + "'");
    spend(16);
    return f(*this, input, arguments);
  }

  Value make_namespace() override {
    spend(512);
    namespaces_.push_back(std::make_shared<Namespace>());
    return Value(Value::Data(namespaces_.back()));
  }

  Value loop_attribute(const Value& value, const std::string& name) override {
    const LoopState& loop = *value.loop();
    const auto index = static_cast<int64_t>(loop.index),
               size = static_cast<int64_t>(loop.items->items.size());
    const auto at = [&](int64_t i) {
      return i >= 0 && i < size ? loop.items->items[static_cast<size_t>(i)]
                                : Value::undefined(fmt::format("loop.{} outside of the loop", name));
    };
    if (name == "index") return Value::integer(index + 1);
    if (name == "index0") return Value::integer(index);
    if (name == "revindex") return Value::integer(size - index);
    if (name == "revindex0") return Value::integer(size - index - 1);
    if (name == "first") return Value::boolean(index == 0);
    if (name == "last") return Value::boolean(index + 1 == size);
    if (name == "length") return Value::integer(size);
    if (name == "depth") return Value::integer(loop.depth + 1);
    if (name == "depth0") return Value::integer(loop.depth);
    if (name == "previtem") return at(index - 1);
    if (name == "nextitem") return at(index + 1);
    if (name == "cycle") {
      return Value::function("cycle", [index](Runtime& rt, Arguments& arguments) {
        if (arguments.positional.empty()) rt.fail("values to cycle through", "none");
        return arguments.positional[static_cast<size_t>(index) % arguments.positional.size()];
      });
    }
    if (name == "changed") {
      const auto state = std::get<std::shared_ptr<LoopState>>(value.data());
      return Value::function("changed", [state](Runtime& rt, Arguments& arguments) {
        const auto& now = arguments.positional;
        const bool same =
            state->changed_before &&
            std::equal(now.begin(), now.end(), state->last_changed.begin(), state->last_changed.end(),
                       [&](const Value& a, const Value& b) { return rt.equal(a, b); });
        state->changed_before = true;
        state->last_changed = now;
        return Value::boolean(!same);
      });
    }
    return Value::undefined("loop without attribute '" + name + "'");
  }

 private:
  struct Deeper {
    explicit Deeper(Evaluator& evaluator) : e(evaluator) {
      if (++e.depth_ > kMaxCallDepth)
        e.fail(fmt::format("at most {} levels of calls", kMaxCallDepth), "more");
    }
    ~Deeper() { --e.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    Evaluator& e;
  };

  ScopePtr scope(ScopePtr parent) {
    spend(64);
    auto out = std::make_shared<Scope>();
    out->parent = std::move(parent);
    return out;
  }

  void write(std::string_view text) {
    spend(text.size());
    if (out_.size() + text.size() > kMaxText)
      fail(fmt::format("an output of at most {} bytes", kMaxText), "more");
    out_ += text;
  }

  // What `body` writes.
  template <class Function>
  std::string capture(Function body) {
    std::string outer = std::exchange(out_, std::string());
    body();
    return std::exchange(out_, std::move(outer));
  }

  // ------------------------------------------------------------------------------------------- statements

  Flow execute(const Body& body, const ScopePtr& s) {
    const Deeper deeper(*this);
    for (const auto& statement : body)
      if (const Flow flow = execute(*statement, s); flow != Flow::normal) return flow;
    return Flow::normal;
  }

  Flow execute(const Statement& st, const ScopePtr& s) {
    line_ = st.line;
    spend(0);
    switch (st.kind) {
      case StatementKind::data:
        write(st.text);
        break;
      case StatementKind::output: {
        const Value value = evaluate(*st.expr, s);
        if (const Text* t = value.text()) {
          write(t->bytes);
        } else {
          write(str(value));
        }
        break;
      }
      case StatementKind::if_:
        return execute_if(st, s);
      case StatementKind::for_: {
        const Value iterable = evaluate(*st.expr, s);
        loop_over(st, iterable, s, 0);
        break;
      }
      case StatementKind::set:
        assign(st.targets[0], evaluate(*st.expr, s), s);
        break;
      case StatementKind::set_block: {
        Value value = text(capture([&] { execute(st.body, scope(s)); }));
        if (st.expr) value = filter_chain(*st.expr, value, s);
        assign(st.targets[0], std::move(value), s);
        break;
      }
      case StatementKind::macro:
        s->set(st.text, macro(st, st.text, s));
        break;
      case StatementKind::call_block: {
        const Value callee = evaluate(*st.expr->items[0], s);
        Arguments arguments = evaluate_arguments(*st.expr, s);
        arguments.named.emplace_back("caller", macro(st, "caller", s));
        write(str(call(callee, std::move(arguments))));
        break;
      }
      case StatementKind::filter: {
        const Value value = text(capture([&] { execute(st.body, scope(s)); }));
        write(str(filter_chain(*st.expr, value, s)));
        break;
      }
      case StatementKind::with: {
        const ScopePtr inner = scope(s);
        for (size_t i = 0; i < st.targets.size(); ++i)
          assign(st.targets[i], evaluate(*st.values[i], s), inner);
        return execute(st.body, inner);
      }
      case StatementKind::scope:
        execute(st.body, scope(s));
        break;
      case StatementKind::break_:
        return Flow::break_;
      case StatementKind::continue_:
        return Flow::continue_;
    }
    return Flow::normal;
  }

  Flow execute_if(const Statement& first, const ScopePtr& s) {
    for (const Statement* st = &first;;) {
      line_ = st->line;
      if (evaluate(*st->expr, s).truth()) return execute(st->body, s);
      // A chain of elif nests one in the other.
      if (st->otherwise.size() != 1 || st->otherwise[0]->kind != StatementKind::if_)
        return execute(st->otherwise, s);
      st = st->otherwise[0].get();
    }
  }

  void loop_over(const Statement& st, const Value& iterable, const ScopePtr& s, int64_t depth) {
    const Deeper deeper(*this);
    auto loop = std::make_shared<LoopState>();
    loop->items = iterate(iterable);
    loop->depth = depth;
    if (st.condition) {
      std::vector<Value> chosen;
      for (const Value& item : loop->items->items) {
        const ScopePtr inner = scope(s);
        assign(st.targets[0], item, inner);
        if (evaluate(*st.condition, inner).truth()) chosen.push_back(item);
      }
      loop->items = std::get<std::shared_ptr<const Sequence>>(sequence(std::move(chosen)).data());
    }
    if (st.recursive) {
      loop->statement = &st;
      loop->scope = s;
    }
    if (loop->items->items.empty()) {
      execute(st.otherwise, scope(s));
      return;
    }
    for (; loop->index < loop->items->items.size(); ++loop->index) {
      const ScopePtr inner = scope(s);
      inner->set("loop", Value(Value::Data(loop)));
      line_ = st.line;
      assign(st.targets[0], loop->items->items[loop->index], inner);
      if (execute(st.body, inner) == Flow::break_) break;
    }
  }

  void assign(const Target& target, const Value& value, const ScopePtr& s) {
    if (!target.parts.empty()) {
      const auto items = iterate(value);
      if (items->items.size() != target.parts.size())
        fail(fmt::format("{} values to set", target.parts.size()), fmt::format("{}", items->items.size()));
      for (size_t i = 0; i < target.parts.size(); ++i) assign(target.parts[i], items->items[i], s);
    } else if (target.attribute.empty()) {
      s->set(target.name, value);
    } else {
      const Value* object = s->find(target.name);
      Namespace* n = object ? object->name_space() : nullptr;
      if (n == nullptr) fail("a namespace to set '" + target.attribute + "' of", "'" + target.name + "'");
      set_attribute(*this, *n, target.attribute, value);
    }
  }

  Value macro(const Statement& st, std::string_view name, const ScopePtr& s) {
    if (closures_.empty() || closures_.back() != s) closures_.push_back(s);
    return Value::function(std::string(name),
                           [this, &st, s, label = std::string(name)](Runtime&, Arguments& arguments) {
                             return call_macro(st, label, s, arguments);
                           });
  }

  Value call_macro(const Statement& st, const std::string& name, const ScopePtr& defined,
                   Arguments& arguments) {
    const Deeper deeper(*this);
    const int line = line_;
    const ScopePtr inner = scope(defined);
    const auto& parameters = st.parameters;
    if (arguments.positional.size() > parameters.size())
      fail(fmt::format("{}: at most {} arguments", name, parameters.size()),
           fmt::format("{}", arguments.positional.size()));
    for (size_t i = 0; i < arguments.positional.size(); ++i)
      inner->set(parameters[i].name, arguments.positional[i]);
    for (auto& named : arguments.named) {
      const std::string& key = named.first;
      const auto known =
          std::find_if(parameters.begin(), parameters.end(), [&](const auto& p) { return p.name == key; });
      const bool caller = key == "caller" && known == parameters.end();
      if (!caller && (known == parameters.end() ||
                      static_cast<size_t>(known - parameters.begin()) < arguments.positional.size()))
        fail(name + ": an argument that it has, once", "'" + printable(key, 40) + "'");
      inner->set(caller ? std::string_view("caller") : std::string_view(known->name),
                 std::move(named.second));
    }
    for (const Parameter& p : parameters) {
      const bool given = std::any_of(inner->variables.begin(), inner->variables.end(),
                                     [&](const auto& v) { return v.first == p.name; });
      if (!given)
        inner->set(p.name, p.fallback
                               ? evaluate(*p.fallback, inner)
                               : Value::undefined(fmt::format("parameter '{}' without a value", p.name)));
    }
    Value result = text(capture([&] { execute(st.body, inner); }));
    line_ = line;
    return result;
  }

  // ------------------------------------------------------------------------------------------- expressions

  Arguments evaluate_arguments(const Expr& e, const ScopePtr& s) {
    Arguments out;
    for (size_t i = 1; i < e.items.size(); ++i) out.positional.push_back(evaluate(*e.items[i], s));
    for (const Keyword& keyword : e.keywords)
      out.named.emplace_back(keyword.name, evaluate(*keyword.value, s));
    return out;
  }

  // Filters of a block: the innermost has the block's text as its input.
  Value filter_chain(const Expr& e, const Value& input, const ScopePtr& s) {
    const Value value = e.items[0] ? filter_chain(*e.items[0], input, s) : input;
    return filter(e.text, value, evaluate_arguments(e, s));
  }

  Value evaluate(const Expr& e, const ScopePtr& s) {
    const Deeper deeper(*this);
    line_ = e.line;
    spend(0);
    const auto item_value = [&](size_t i) { return evaluate(*e.items[i], s); };
    switch (e.kind) {
      case ExprKind::constant:
        return e.value;
      case ExprKind::name: {
        const Value* value = s->find(e.text);
        return value ? *value : Value::undefined("'" + printable(e.text, 60) + "' undefined");
      }
      case ExprKind::list:
      case ExprKind::tuple: {
        std::vector<Value> items;
        for (size_t i = 0; i < e.items.size(); ++i) items.push_back(item_value(i));
        return sequence(std::move(items),
                        e.kind == ExprKind::list ? SequenceKind::list : SequenceKind::tuple);
      }
      case ExprKind::dict: {
        Dict out;
        for (size_t i = 0; i < e.items.size(); i += 2) {
          const Value key = item_value(i);
          out.set(need_text(key, "a dict's key"), item_value(i + 1));
        }
        return dict(std::move(out));
      }
      case ExprKind::attribute: {
        const Value object = item_value(0);
        line_ = e.line;
        return attribute(object, e.text);
      }
      case ExprKind::item: {
        const Value object = item_value(0), key = item_value(1);
        line_ = e.line;
        return item(object, key);
      }
      case ExprKind::slice: {
        const Value object = item_value(0);
        std::optional<Value> bounds[3];
        for (size_t i = 0; i < 3; ++i)
          if (e.items[i + 1]) bounds[i] = item_value(i + 1);
        const auto at = [&](size_t i) { return bounds[i] ? &*bounds[i] : nullptr; };
        return slice(*this, object, at(0), at(1), at(2));
      }
      case ExprKind::call: {
        const Value callee = item_value(0);
        Arguments arguments = evaluate_arguments(e, s);
        line_ = e.line;
        return call(callee, std::move(arguments));
      }
      case ExprKind::filter: {
        const Value input = item_value(0);
        Arguments arguments = evaluate_arguments(e, s);
        line_ = e.line;
        return filter(e.text, input, std::move(arguments));
      }
      case ExprKind::test: {
        const Value input = item_value(0);
        Arguments arguments = evaluate_arguments(e, s);
        line_ = e.line;
        return Value::boolean(test(e.text, input, std::move(arguments)));
      }
      case ExprKind::unary: {
        const Value value = item_value(0);
        if (e.text == "not") return Value::boolean(!value.truth());
        if (e.text == "-") return negate(*this, value);
        if (!value.is_number()) wrong_type("a number after '+'", value);
        return value.is_bool() ? Value::integer(*value.as_integer()) : value;
      }
      case ExprKind::binary: {
        const Value left = item_value(0), right = item_value(1);
        line_ = e.line;
        return binary(*this, e.text, left, right);
      }
      case ExprKind::concat: {
        std::string out;
        for (size_t i = 0; i < e.items.size(); ++i) out += str(item_value(i));
        return text(std::move(out));
      }
      case ExprKind::compare: {
        Value left = item_value(0);
        for (size_t i = 0; i < e.operators.size(); ++i) {
          Value right = item_value(i + 1);
          line_ = e.line;
          if (!compare(*this, e.operators[i], left, right)) return Value::boolean(false);
          left = std::move(right);
        }
        return Value::boolean(true);
      }
      case ExprKind::logical: {
        Value left = item_value(0);
        return left.truth() == (e.text == "or") ? left : item_value(1);
      }
      case ExprKind::conditional: {
        if (item_value(1).truth()) return item_value(0);
        return e.items[2] ? item_value(2) : Value::undefined("the value of an inline if without else");
      }
    }
    lathe::fail("jinja: an expression of no kind");
  }

  std::string out_;
  int depth_ = 0;
  std::vector<std::pair<std::string, Value>> globals_;
  std::vector<ScopePtr> closures_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

}  // namespace

std::string run(const Body& body, std::string_view where, std::time_t now,
                const std::vector<std::pair<std::string, const Json*>>& variables) {
  return Evaluator(where, now).run(body, variables);
}

}  // namespace lathe::jinja
