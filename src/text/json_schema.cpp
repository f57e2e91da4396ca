#include "text/json_schema.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "text/grammar/integer_range.h"
#include "text/grammar/json_rules.h"
#include "text/grammar/regex_expr.h"
#include "text/utf8.h"

namespace lathe {

using namespace grammar;

namespace {

using Use = SchemaKeyword::Use;

constexpr auto kKeywords = std::to_array<SchemaKeyword>({
    {"$comment", Use::annotation, ""},
    {"$defs", Use::annotation, "a place for $ref to point to"},
    {"$id", Use::annotation, "of the whole schema only"},
    {"$ref", Use::applied, "within the schema: # and #/json/pointer"},
    {"$schema", Use::annotation, "draft-07 or 2020-12, of the whole schema only"},
    {"additionalItems", Use::applied, ""},
    {"additionalProperties", Use::applied, ""},
    {"allOf", Use::applied, ""},
    {"anyOf", Use::applied, ""},
    {"const", Use::applied, ""},
    {"contentEncoding", Use::annotation, ""},
    {"contentMediaType", Use::annotation, ""},
    {"contentSchema", Use::annotation, ""},
    {"default", Use::annotation, ""},
    {"definitions", Use::annotation, "a place for $ref to point to"},
    {"deprecated", Use::annotation, ""},
    {"description", Use::annotation, ""},
    {"enum", Use::applied, "arrays and objects: not together with keywords for them"},
    {"examples", Use::annotation, ""},
    {"exclusiveMaximum", Use::applied, "of integers"},
    {"exclusiveMinimum", Use::applied, "of integers"},
    {"format", Use::applied, "date, date-time, time (without leap seconds), ipv4, uuid"},
    {"items", Use::applied, ""},
    {"maxItems", Use::applied, ""},
    {"maxLength", Use::applied, "not together with pattern or format"},
    {"maxProperties", Use::applied, ""},
    {"maximum", Use::applied, "of integers"},
    {"minItems", Use::applied, ""},
    {"minLength", Use::applied, "not together with pattern or format"},
    {"minProperties", Use::applied, "more than 1 only without additional properties"},
    {"minimum", Use::applied, "of integers; 0 of any number"},
    {"multipleOf", Use::applied, "1"},
    {"oneOf", Use::applied, "when no value can match two: by type, enum, or a required member's enum"},
    {"pattern", Use::applied, "one; no look-around, back-references, \\b, \\p"},
    {"prefixItems", Use::applied, ""},
    {"properties", Use::applied, ""},
    {"readOnly", Use::annotation, ""},
    {"required", Use::applied, ""},
    {"title", Use::annotation, ""},
    {"type", Use::applied, ""},
    {"uniqueItems", Use::applied, "false, or at most one item"},
    {"writeOnly", Use::annotation, ""},
    {"$anchor", Use::refused, "use #/json/pointer"},
    {"$dynamicAnchor", Use::refused, "depends on the path of evaluation"},
    {"$dynamicRef", Use::refused, "depends on the path of evaluation"},
    {"$vocabulary", Use::refused, "changes what keywords mean"},
    {"contains", Use::refused, "not context-free at a bounded size"},
    {"dependencies", Use::refused, "conditional"},
    {"dependentRequired", Use::refused, "conditional"},
    {"dependentSchemas", Use::refused, "conditional"},
    {"else", Use::refused, "conditional"},
    {"if", Use::refused, "conditional"},
    {"maxContains", Use::refused, "belongs to contains"},
    {"minContains", Use::refused, "belongs to contains"},
    {"not", Use::refused, "grammars have no complement"},
    {"patternProperties", Use::refused, "needs the intersection of patterns"},
    {"propertyNames", Use::refused, "needs the intersection of patterns"},
    {"then", Use::refused, "conditional"},
    {"unevaluatedItems", Use::refused, "depends on the path of evaluation"},
    {"unevaluatedProperties", Use::refused, "depends on the path of evaluation"},
});

constexpr std::string_view kDate =
    "(\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8])"
    ")"
    "|(\\d\\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)";
constexpr std::string_view kTime =
    "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d+)?([zZ]|[+-]([01]\\d|2[0-3]):[0-5]\\d)";

std::optional<std::string> format_pattern(std::string_view name) {
  if (name == "date") return std::string(kDate);
  if (name == "time") return std::string(kTime);
  if (name == "date-time") return std::string(kDate) + "[tT]" + std::string(kTime);
  if (name == "uuid") return "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
  if (name == "ipv4")
    return "((25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)\\.){3}(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
  return std::nullopt;
}

// Values by kind. JSON schema's number is both kinds of number.
enum Kind : unsigned {
  null = 1,
  boolean = 2,
  integer = 4,
  fraction = 8,
  string = 16,
  array = 32,
  object = 64,
  all = 127
};

unsigned kind_of(const Json& value) {
  if (value.is_null()) return Kind::null;
  if (value.is_boolean()) return Kind::boolean;
  if (value.is_string()) return Kind::string;
  if (value.is_array()) return Kind::array;
  if (value.is_object()) return Kind::object;
  const double d = value.get<double>();
  return value.is_number_integer() || std::floor(d) == d ? Kind::integer : Kind::fraction;
}

bool same(const Json& a, const Json& b) { return canonical_json(a, true) == canonical_json(b, true); }

using Schemas = std::vector<const Json*>;  // all of them apply

// What schemas without $ref, allOf, anyOf and oneOf say together.
struct Facts {
  unsigned kinds = Kind::all;
  std::optional<std::vector<const Json*>> values;  // enum and const
  int64_t min_length = 0, max_length = -1;
  std::optional<std::string> pattern;
  bool whole_pattern = false;
  std::optional<int64_t> low, high;  // of integers
  bool bounded_fraction = false, natural = false;
  int64_t min_items = 0, max_items = -1;
  bool unique = false;
  int64_t min_members = 0, max_members = -1;
  std::vector<std::string> names;  // of properties, then those only required
  std::set<std::string> required;
};

class Compiler {
 public:
  Compiler(const Json& root, std::string_view where, SchemaDialect dialect)
      : root_(root), where_(where), dialect_(dialect), json_(rules_) {
    note(root_, "#");
    if (root_.is_object() && root_.contains("$schema")) set_dialect(root_.at("$schema"));
  }

  Rules run() {
    rules_.root = rule_for({&root_});
    while (!todo_.empty()) {
      const auto [schemas, index] = todo_.back();
      todo_.pop_back();
      rules_.bodies[static_cast<size_t>(index)] = body(schemas);
    }
    return std::move(rules_);
  }

 private:
  // ------------------------------------------------------------------------------------------- the document

  [[noreturn]] void error(const Json& schema, std::string_view expected, std::string_view found,
                          std::string_view hint = {}) const {
    const auto it = places_.find(&schema);
    throw input_error(fmt::format("{}: {}", where_, it == places_.end() ? "?" : printable(it->second.path)),
                      expected, found, hint);
  }

  void set_dialect(const Json& uri) {
    std::string text = uri.is_string() ? uri.get<std::string>() : "";
    if (text.ends_with('#')) text.pop_back();
    if (text == "http://json-schema.org/draft-07/schema" ||
        text == "https://json-schema.org/draft-07/schema") {
      dialect_ = SchemaDialect::draft7;
    } else if (text == "https://json-schema.org/draft/2020-12/schema") {
      dialect_ = SchemaDialect::draft2020_12;
    } else {
      error(root_, "\"$schema\" of draft-07 or 2020-12",
            printable(uri.dump(-1, ' ', false, Json::error_handler_t::replace), 80));
    }
  }

  // Where a schema stands, for messages and for an order that does not change from run to run.
  void note(const Json& schema, std::string path) {
    constexpr size_t kMaxPath = 200;
    if (path.size() > kMaxPath) path = path.substr(0, kMaxPath) + "...";
    places_.try_emplace(&schema, Place{std::move(path), places_.size()});
  }
  const Json* sub(const Json& parent, const Json& child, const std::string& step) {
    note(child, places_.at(&parent).path + "/" + step);
    return &child;
  }

  // Reading a schema may take so many steps; published ones take thousands.
  void spend(size_t steps) {
    constexpr size_t kMaxSteps = 8'000'000;
    steps_ += 1 + steps;
    if (steps_ > kMaxSteps) error(root_, fmt::format("a schema read in {} steps", kMaxSteps), "a larger one");
  }

  const Json* resolve(const Json& schema, const Json& ref) {
    if (!ref.is_string()) error(schema, "$ref: a text", ref.type_name());
    std::string text = ref.get<std::string>();
    if (!text.starts_with('#'))
      error(schema, "$ref within this schema (#/...)", "'" + printable(text, 80) + "'");
    const std::string pointer = unescape_uri(schema, text.substr(1));
    if (!pointer.empty() && pointer[0] != '/')
      error(schema, "$ref: # or #/json/pointer", "'" + printable(text, 80) + "'");
    const Json* at = &root_;
    for (size_t begin = 1; begin <= pointer.size();) {
      const size_t end = std::min(pointer.find('/', begin), pointer.size());
      std::string step = pointer.substr(begin, end - begin);
      for (size_t i = 0; (i = step.find('~', i)) != std::string::npos; ++i) {
        const char c = i + 1 < step.size() ? step[i + 1] : '\0';
        if (c != '0' && c != '1') error(schema, "~0 or ~1 in $ref", "'" + printable(text, 80) + "'");
        step.replace(i, 2, c == '0' ? "~" : "/");
      }
      // Below an "$id" a reference would mean another document.
      if (at != &root_ && at->is_object() && at->contains("$id"))
        error(schema, "$ref that passes no $id", text);
      const Json* next = nullptr;
      spend(at->is_object() ? at->size() : 0);
      if (at->is_object() && at->contains(step)) next = &at->at(step);
      if (at->is_array() && !step.empty() && step.size() < 7 &&
          step.find_first_not_of("0123456789") == std::string::npos && std::stoul(step) < at->size())
        next = &at->at(std::stoul(step));
      if (!next) error(schema, "$ref to a place in this schema", "'" + printable(text, 80) + "'");
      at = next;
      begin = end + 1;
    }
    note(*at, text);
    return at;
  }

  std::string unescape_uri(const Json& schema, const std::string& text) const {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      unsigned byte = 0;
      const char* digits = text.data() + i + 1;
      if (text[i] != '%') {
        out += text[i];
      } else if (i + 2 < text.size() && std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
        out += static_cast<char>(byte);
        i += 2;
      } else {
        error(schema, "%XX in $ref", "'" + printable(text, 80) + "'");
      }
    }
    return out;
  }

  void check_keywords(const Json& schema) {
    if (!checked_.insert(&schema).second) return;
    for (const auto& [name, value] : schema.items()) {
      const auto* row = std::find_if(kKeywords.begin(), kKeywords.end(),
                                     [&, &key = name](const auto& k) { return k.name == key; });
      if (row == kKeywords.end())
        error(schema, "keywords that this grammar supports", "'" + printable(name, 60) + "'");
      if (row->use == Use::refused)
        error(schema, "keywords that this grammar supports", fmt::format("'{}'", name), row->note);
      if ((name == "$id" || name == "$schema") && &schema != &root_)
        error(schema, "'" + name + "' of the whole schema only", "one inside");
    }
  }

  const Json* get(const Json& schema, const char* keyword) const {
    auto it = schema.find(keyword);
    return it == schema.end() ? nullptr : &*it;
  }

  const Json& need(const Json& schema, const Json& value, bool ok, std::string_view what) const {
    if (!ok) error(schema, what, printable(value.dump(-1, ' ', false, Json::error_handler_t::replace), 80));
    return value;
  }

  int64_t count(const Json& schema, const char* keyword, int64_t fallback) const {
    const Json* v = get(schema, keyword);
    if (!v) return fallback;
    const bool ok =
        v->is_number() && v->get<double>() >= 0 && std::floor(v->get<double>()) == v->get<double>();
    need(schema, *v, ok, fmt::format("'{}' to be a count", keyword));
    return static_cast<int64_t>(std::min(v->get<double>(), 1e9));
  }

  // ------------------------------------------------------------------------------------------- applicators

  // One list per way through anyOf and oneOf: of `todo`, which apply together, without what only refers to
  // others.
  void expand(Schemas todo, Schemas flat, std::vector<Schemas> branches, int depth,
              std::vector<Schemas>& out) {
    constexpr int kMaxDepth = 300;
    if (depth > kMaxDepth)
      error(root_, fmt::format("at most {} levels of anyOf and oneOf", kMaxDepth), "more");
    for (const Schemas& branch : branches) spend(branch.size());
    for (size_t i = 0; i < todo.size(); ++i) {
      const Json& s = *todo[i];
      spend(flat.size());
      if (s.is_boolean()) {
        if (!s.get<bool>()) return;
        continue;
      }
      if (std::find(flat.begin(), flat.end(), &s) != flat.end()) continue;
      const Json* ref = get(s, "$ref");
      if (ref) todo.push_back(resolve(s, *ref));
      if (ref && dialect_ == SchemaDialect::draft7) continue;  // what stands beside it has no meaning
      flat.push_back(&s);
      for (const Json* option : options(s, "allOf")) todo.push_back(option);
      if (get(s, "anyOf")) branches.push_back(options(s, "anyOf"));
      if (get(s, "oneOf")) {
        branches.push_back(options(s, "oneOf"));
        unproven_.emplace_back(&s, branches.back());
      }
    }
    if (branches.empty()) {
      out.push_back(std::move(flat));
      return;
    }
    const Schemas choice = branches.back();
    branches.pop_back();
    for (const Json* option : choice) expand({option}, flat, branches, depth + 1, out);
  }

  // The schemas that `s` applies to the same value.
  Schemas applied(const Json& s) {
    if (s.is_boolean()) return {};
    if (!s.is_object()) error(s, "a schema: an object, true or false", s.type_name());
    const Json* ref = get(s, "$ref");
    if (ref && dialect_ == SchemaDialect::draft7) return {resolve(s, *ref)};
    check_keywords(s);
    Schemas out;
    if (ref) out.push_back(resolve(s, *ref));
    for (const char* keyword : {"allOf", "anyOf", "oneOf"})
      for (const Json* option : options(s, keyword)) out.push_back(option);
    return out;
  }

  // Refuses a schema that comes back to itself without going into a member or an item: it would say nothing.
  void check_progress(const Json& first) {
    struct Step {
      const Json* schema;
      Schemas next;
      size_t at = 0;
    };
    if (color_[&first] != 0) return;
    std::vector<Step> path;
    const auto enter = [&](const Json* s) {
      color_[s] = 1;
      path.push_back({s, applied(*s)});
    };
    for (enter(&first); !path.empty();) {
      Step& step = path.back();
      if (step.at == step.next.size()) {
        color_[step.schema] = 2;
        path.pop_back();
        continue;
      }
      const Json* next = step.next[step.at++];
      if (color_[next] == 1) error(*next, "a schema that does not refer back to itself at once", "a circle");
      if (color_[next] == 0) enter(next);
    }
  }

  std::vector<const Json*> options(const Json& s, const char* keyword) {
    const Json* list = get(s, keyword);
    std::vector<const Json*> out;
    if (!list) return out;
    need(s, *list, list->is_array() && !list->empty(), fmt::format("'{}' to be a list of schemas", keyword));
    for (size_t i = 0; i < list->size(); ++i)
      out.push_back(sub(s, list->at(i), fmt::format("{}/{}", keyword, i)));
    return out;
  }

  std::vector<Schemas> leaves(const Schemas& schemas) {
    std::vector<Schemas> out;
    for (const Json* s : schemas) check_progress(*s);
    expand(schemas, {}, {}, 0, out);
    // oneOf is anyOf where no value matches two options.
    while (!unproven_.empty()) {
      const auto [schema, list] = unproven_.back();
      unproven_.pop_back();
      if (!proven_.insert(schema).second) continue;
      for (size_t i = 0; i < list.size(); ++i)
        for (size_t j = i + 1; j < list.size(); ++j)
          if (!disjoint({list[i]}, {list[j]}, 0))
            error(*schema, "oneOf: options that differ by type, enum or a required member's enum",
                  fmt::format("options {} and {} that a value may both match", i, j), "anyOf allows that");
    }
    return out;
  }

  bool disjoint(const Schemas& a, const Schemas& b, int depth) {
    for (const Schemas& x : leaves(a)) {
      for (const Schemas& y : leaves(b)) {
        const Facts f = facts(x), g = facts(y);
        const unsigned common = f.kinds & g.kinds;
        if (common == 0) continue;
        if (f.values && g.values) {
          spend(100 * f.values->size() * g.values->size());
          const bool meet = std::any_of(f.values->begin(), f.values->end(), [&](const Json* v) {
            return std::any_of(g.values->begin(), g.values->end(),
                               [&](const Json* w) { return same(*v, *w); });
          });
          if (!meet) continue;
        }
        if (common != Kind::object || depth > 4) return false;
        const bool by_member =
            std::any_of(f.required.begin(), f.required.end(), [&](const std::string& name) {
              return g.required.contains(name) && disjoint(member(x, name), member(y, name), depth + 1);
            });
        if (!by_member) return false;
      }
    }
    return true;
  }

  // ------------------------------------------------------------------------------------------- assertions

  Facts facts(const Schemas& schemas) {
    Facts f;
    for (const Json* s : schemas) {
      spend(s->size());
      read(*s, f);
    }
    std::set<std::string> known(f.names.begin(), f.names.end());
    for (const Json* s : schemas) {
      if (const Json* required = get(*s, "required")) {
        need(*s, *required, required->is_array(), "'required' to be a list of names");
        for (const Json& name : *required) {
          need(*s, name, name.is_string(), "'required' to be a list of names");
          f.required.insert(name.get<std::string>());
          if (known.insert(name.get<std::string>()).second) f.names.push_back(name.get<std::string>());
        }
      }
    }
    if (f.values) {
      unsigned kinds = 0;
      for (const Json* v : *f.values) kinds |= kind_of(*v);
      f.kinds &= kinds;
    }
    return f;
  }

  void read(const Json& s, Facts& f) {
    if (const Json* type = get(s, "type")) f.kinds &= read_type(s, *type);
    if (const Json* values = get(s, "enum")) {
      need(s, *values, values->is_array(), "'enum' to be a list");
      std::vector<const Json*> list;
      for (const Json& v : *values) list.push_back(&v);
      spend(f.values ? 100 * f.values->size() * list.size() : list.size());
      restrict(f, list);
    }
    if (const Json* value = get(s, "const")) restrict(f, {value});
    f.min_length = std::max(f.min_length, count(s, "minLength", 0));
    f.max_length = least(f.max_length, count(s, "maxLength", -1));
    f.min_items = std::max(f.min_items, count(s, "minItems", 0));
    f.max_items = least(f.max_items, count(s, "maxItems", -1));
    f.min_members = std::max(f.min_members, count(s, "minProperties", 0));
    f.max_members = least(f.max_members, count(s, "maxProperties", -1));
    if (const Json* unique = get(s, "uniqueItems"))
      f.unique |= need(s, *unique, unique->is_boolean(), "'uniqueItems' to be true or false").get<bool>();
    read_numbers(s, f);
    if (const Json* pattern = get(s, "pattern")) {
      need(s, *pattern, pattern->is_string(), "'pattern' to be a text");
      set_pattern(s, f, pattern->get<std::string>(), false);
    }
    if (const Json* format = get(s, "format")) {
      need(s, *format, format->is_string(), "'format' to be a text");
      const auto pattern = format_pattern(format->get<std::string>());
      need(s, *format, pattern.has_value(), "a format of date, date-time, time, ipv4, uuid");
      set_pattern(s, f, *pattern, true);
    }
    if (const Json* properties = get(s, "properties")) {
      need(s, *properties, properties->is_object(), "'properties' to be an object");
      for (const auto& [name, ignored] : properties->items()) {
        spend(f.names.size());
        if (std::find(f.names.begin(), f.names.end(), name) == f.names.end()) f.names.push_back(name);
      }
    }
  }

  static int64_t least(int64_t a, int64_t b) { return a < 0 ? b : b < 0 ? a : std::min(a, b); }

  unsigned read_type(const Json& s, const Json& type) {
    constexpr std::array<std::pair<std::string_view, unsigned>, 7> names = {
        {{"null", Kind::null},
         {"boolean", Kind::boolean},
         {"integer", Kind::integer},
         {"number", Kind::integer | Kind::fraction},
         {"string", Kind::string},
         {"array", Kind::array},
         {"object", Kind::object}}};
    unsigned out = 0;
    for (const Json& t : type.is_array() ? type : Json::array({type})) {
      const auto* row = std::find_if(names.begin(), names.end(), [&](const auto& n) {
        return t.is_string() && t.get_ref<const std::string&>() == n.first;
      });
      need(s, type, row != names.end(), "'type' to be one of JSON's or a list of them");
      out |= row->second;
    }
    return out;
  }

  static void restrict(Facts& f, const std::vector<const Json*>& list) {
    if (!f.values) {
      f.values = list;
      return;
    }
    std::erase_if(*f.values, [&](const Json* v) {
      return std::none_of(list.begin(), list.end(), [&](const Json* w) { return same(*v, *w); });
    });
  }

  void set_pattern(const Json& s, Facts& f, const std::string& pattern, bool whole) {
    if (f.pattern && (*f.pattern != pattern || f.whole_pattern != whole))
      error(s, "one pattern or format for a text", "several", "patterns are not intersected");
    f.pattern = pattern;
    f.whole_pattern = whole;
  }

  void read_numbers(const Json& s, Facts& f) {
    const auto number = [&](const char* keyword) -> std::optional<double> {
      const Json* v = get(s, keyword);
      if (!v) return std::nullopt;
      const double d = need(s, *v, v->is_number(), fmt::format("'{}' to be a number", keyword)).get<double>();
      if (std::fabs(d) > 9e15) error(s, fmt::format("'{}' of at most 9e15", keyword), fmt::format("{}", d));
      return d;
    };
    const auto raise = [&](double bound) {
      f.low = std::max(f.low.value_or(INT64_MIN), static_cast<int64_t>(bound));
    };
    const auto lower = [&](double bound) {
      f.high = std::min(f.high.value_or(INT64_MAX), static_cast<int64_t>(bound));
    };
    if (const auto d = number("minimum")) {
      raise(std::ceil(*d));
      (*d == 0 ? f.natural : f.bounded_fraction) = true;
    }
    if (const auto d = number("exclusiveMinimum")) raise(std::floor(*d) + 1), f.bounded_fraction = true;
    if (const auto d = number("maximum")) lower(std::floor(*d)), f.bounded_fraction = true;
    if (const auto d = number("exclusiveMaximum")) lower(std::ceil(*d) - 1), f.bounded_fraction = true;
    if (const auto d = number("multipleOf")) {
      if (*d != 1) error(s, "multipleOf: 1", fmt::format("{}", *d));
      f.kinds &= ~static_cast<unsigned>(Kind::fraction);
    }
  }

  // ------------------------------------------------------------------------------------------- rules

  int32_t rule_for(Schemas schemas) {
    std::sort(schemas.begin(), schemas.end());
    schemas.erase(std::unique(schemas.begin(), schemas.end()), schemas.end());
    // `true` says nothing, and two of it are not two rules.
    std::erase_if(schemas, [](const Json* s) { return s->is_boolean() && s->get<bool>(); });
    if (schemas.empty()) return json_.value;
    const auto [it, fresh] = known_.try_emplace(schemas, 0);
    if (fresh) {
      it->second = new_rule("");
      todo_.emplace_back(std::move(schemas), it->second);
    }
    return it->second;
  }

  int32_t new_rule(std::string name, ExprPtr body_of_rule = nullptr) {
    constexpr size_t kMaxRules = 50'000;
    if (rules_.bodies.size() >= kMaxRules)
      error(root_, fmt::format("a schema of at most {} rules", kMaxRules), "a larger one");
    return rules_.add(std::move(name), std::move(body_of_rule));
  }

  ExprPtr body(const Schemas& schemas) {
    // In the order of the document, which is the order of the members.
    Schemas ordered = schemas;
    std::sort(ordered.begin(), ordered.end(),
              [&](const Json* a, const Json* b) { return places_.at(a).order < places_.at(b).order; });
    std::vector<ExprPtr> items;
    for (const Schemas& leaf : leaves(ordered)) {
      const Facts f = facts(leaf);
      if (f.values) {
        for (const Json* v : *f.values)
          if (satisfies(*v, leaf, f)) items.push_back(fixed(*v));
        continue;
      }
      if (f.kinds & Kind::null) items.push_back(rule(json_.null));
      if (f.kinds & Kind::boolean) items.push_back(rule(json_.boolean));
      if (f.kinds & (Kind::integer | Kind::fraction)) items.push_back(number(leaf, f));
      if (f.kinds & Kind::string) items.push_back(text(leaf, f));
      if (f.kinds & Kind::array) items.push_back(list(leaf, f));
      if (f.kinds & Kind::object) items.push_back(members(leaf, f));
    }
    return alternatives(std::move(items));
  }

  bool satisfies(const Json& v, const Schemas& leaf, const Facts& f) {
    if (!(kind_of(v) & f.kinds)) return false;
    if (v.is_structured()) {
      constexpr std::array<const char*, 11> about = {
          "properties",    "required", "additionalProperties", "minProperties",
          "maxProperties", "items",    "prefixItems",          "additionalItems",
          "minItems",      "maxItems", "uniqueItems"};
      for (const Json* s : leaf)
        for (const char* keyword : about)
          if (s->contains(keyword))
            error(*s, "enum without keywords for arrays and objects",
                  fmt::format("'{}' beside one", keyword));
      return true;
    }
    if (v.is_number()) {
      if (f.natural && v.get<double>() < 0) return false;
      if (!f.low && !f.high && !f.bounded_fraction) return true;
      if (kind_of(v) == Kind::fraction) error(*leaf[0], "bounds for integers", "a fraction in enum");
      const double d = v.get<double>();
      return (!f.low || d >= static_cast<double>(*f.low)) && (!f.high || d <= static_cast<double>(*f.high));
    }
    if (!v.is_string()) return true;
    const std::string& s = v.get_ref<const std::string&>();
    if (!valid_utf8(s)) error(*leaf[0], "texts in UTF-8", "other bytes");
    const auto length =
        static_cast<int64_t>(std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xC0) != 0x80; }));
    if (length < f.min_length || (f.max_length >= 0 && length > f.max_length)) return false;
    if (!f.pattern) return true;
    Rules one;
    one.root = one.add("root", parse_regex(*f.pattern, where_, f.whole_pattern));
    return Grammar::compile(one, where_).accepts(s);
  }

  // A value as it is, with white space where JSON allows it.
  ExprPtr fixed(const Json& v) {
    if (!v.is_structured()) return bytes(canonical_json(v));
    const ExprPtr space = rule(json_.space);
    std::vector<ExprPtr> parts = {bytes(v.is_array() ? "[" : "{"), space};
    bool first = true;
    for (const auto& [name, value] : v.items()) {
      if (!first) parts.insert(parts.end(), {bytes(","), space});
      first = false;
      if (v.is_object()) parts.insert(parts.end(), {bytes(json_string(name)), space, bytes(":"), space});
      parts.insert(parts.end(), {fixed(value), space});
    }
    parts.push_back(bytes(v.is_array() ? "]" : "}"));
    return sequence(std::move(parts));
  }

  ExprPtr number(const Schemas& leaf, const Facts& f) {
    if (!(f.kinds & Kind::fraction))
      return f.low || f.high ? integer_range(f.low, f.high) : rule(json_.integer);
    if (f.bounded_fraction)
      error(*leaf[0], "minimum and maximum of type integer (minimum 0 of any number)",
            "bounds of type number");
    if (!f.natural) return rule(json_.number);
    if (natural_ < 0) {
      const auto digits = repeat(characters({'0', '9'}), 1, -1);
      const auto optional = [](ExprPtr e) { return repeat(std::move(e), 0, 1); };
      CharacterSet e('e', 'e'), sign('+', '+');
      e.add('E', 'E');
      sign.add('-', '-');
      natural_ = new_rule(
          "natural", sequence({integer_range(0, std::nullopt), optional(sequence({bytes("."), digits})),
                               optional(sequence({characters(e), optional(characters(sign)), digits}))}));
    }
    return rule(natural_);
  }

  ExprPtr text(const Schemas& leaf, const Facts& f) {
    const bool lengths = f.min_length > 0 || f.max_length >= 0;
    if (f.pattern) {
      if (lengths) error(*leaf[0], "pattern or format without minLength and maxLength", "both");
      return sequence(
          {bytes("\""), parse_regex(*f.pattern, where_, f.whole_pattern, json_characters), bytes("\"")});
    }
    if (!lengths) return rule(json_.string);
    if (f.max_length >= 0 && f.max_length < f.min_length) return nothing();
    check_size(leaf, std::max(f.min_length, f.max_length), "characters");
    return sequence({bytes("\""), repeat(rule(json_.character), f.min_length, f.max_length), bytes("\"")});
  }

  void check_size(const Schemas& leaf, int64_t size, std::string_view what) const {
    constexpr int64_t kMaxSize = 10'000;
    if (size > kMaxSize)
      error(*leaf[0], fmt::format("limits of at most {} {}", kMaxSize, what), fmt::format("{}", size));
  }

  // "[" items "]": a rule for each number of items written, each of which ends or goes on to the next.
  ExprPtr list(const Schemas& leaf, const Facts& f) {
    if (f.unique && (f.max_items < 0 || f.max_items > 1))
      error(*leaf[0], "uniqueItems: false", "true", "a grammar cannot compare items");
    if (f.max_items >= 0 && f.max_items < f.min_items) return nothing();
    size_t prefix = 0;
    bool plain = true;
    for (const Json* s : leaf) {
      const Json* items = get(*s, "items");
      const bool tuple = items && items->is_array();
      if (tuple && dialect_ != SchemaDialect::draft7)
        error(*s, "'items' to be a schema", "a list", "prefixItems takes lists");
      if (!tuple && get(*s, "prefixItems")) {
        if (dialect_ == SchemaDialect::draft7) error(*s, "keywords of draft 7", "'prefixItems'");
        need(*s, *get(*s, "prefixItems"), get(*s, "prefixItems")->is_array(), "'prefixItems' to be a list");
        prefix = std::max(prefix, get(*s, "prefixItems")->size());
      }
      if (tuple) prefix = std::max(prefix, items->size());
      plain &= !items && !get(*s, "prefixItems") && !get(*s, "additionalItems");
    }
    if (plain && f.min_items == 0 && f.max_items < 0) return rule(json_.array);
    const auto size = std::max({static_cast<int64_t>(prefix), f.min_items, f.max_items});
    check_size(leaf, size, "items");
    // From the last number of items to the first.
    int32_t next = -1;
    for (int64_t written = size; written >= 0; --written) {
      std::vector<ExprPtr> ways;
      if (written >= f.min_items && (f.max_items < 0 || written <= f.max_items)) ways.push_back(bytes(""));
      const int32_t here = new_rule("");
      const int32_t then = written == size ? here : next;
      if (f.max_items < 0 || written < f.max_items) {
        std::vector<ExprPtr> more;
        if (written > 0) more = {bytes(","), rule(json_.space)};
        more.insert(more.end(), {rule(rule_for(item(leaf, static_cast<size_t>(written)))), rule(json_.space),
                                 rule(then)});
        ways.push_back(sequence(std::move(more)));
      }
      rules_.bodies[static_cast<size_t>(here)] = alternatives(std::move(ways));
      // Items without a first: [item, item] needs its comma.
      if (written == size && size == 0 && f.max_items != 0) {
        const int32_t again = new_rule("");
        const ExprPtr one = rule(rule_for(item(leaf, 0)));
        rules_.bodies[static_cast<size_t>(again)] = alternatives(
            {bytes(""), sequence({bytes(","), rule(json_.space), one, rule(json_.space), rule(again)})});
        rules_.bodies[static_cast<size_t>(here)] =
            alternatives({bytes(""), sequence({one, rule(json_.space), rule(again)})});
      }
      next = here;
    }
    return sequence({bytes("["), rule(json_.space), rule(next), bytes("]")});
  }

  Schemas item(const Schemas& leaf, size_t i) {
    Schemas out;
    for (const Json* s : leaf) {
      const Json* items = get(*s, "items");
      const bool tuple = items && items->is_array();
      const char* list_name = tuple ? "items" : "prefixItems";
      const char* rest_name = tuple ? "additionalItems" : "items";
      const Json* listed = get(*s, list_name);
      if (listed && i < listed->size()) {
        out.push_back(sub(*s, listed->at(i), fmt::format("{}/{}", list_name, i)));
      } else if (const Json* rest = get(*s, rest_name)) {
        out.push_back(sub(*s, *rest, rest_name));
      }
    }
    return out;
  }

  Schemas member(const Schemas& leaf, const std::string& name) {
    Schemas out;
    for (const Json* s : leaf) {
      const Json* properties = get(*s, "properties");
      spend(properties ? properties->size() : 0);
      if (properties && properties->contains(name)) {
        out.push_back(sub(*s, properties->at(name), "properties/" + name));
      } else if (const Json* rest = get(*s, "additionalProperties")) {
        out.push_back(sub(*s, *rest, "additionalProperties"));
      }
    }
    return out;
  }

  // "{" members "}": a rule for each (next name, members written), which writes that name, passes it, or
  // ends.
  ExprPtr members(const Schemas& leaf, const Facts& f) {
    Schemas additional;
    for (const Json* s : leaf)
      if (const Json* rest = get(*s, "additionalProperties"))
        additional.push_back(sub(*s, *rest, "additionalProperties"));
    const bool closed = std::any_of(additional.begin(), additional.end(),
                                    [](const Json* s) { return s->is_boolean() && !s->get<bool>(); });
    if (f.names.empty() && additional.empty() && f.min_members == 0 && f.max_members < 0)
      return rule(json_.object);
    if (f.min_members > 1 && !closed)
      error(*leaf[0], "minProperties above 1 only with additionalProperties: false",
            fmt::format("{}", f.min_members), "a grammar cannot tell whether names differ");
    const auto names = static_cast<int64_t>(f.names.size());
    const int64_t counted = std::max({int64_t{1}, f.min_members, f.max_members});
    check_size(leaf, counted, "members");
    const ExprPtr space = rule(json_.space);
    const auto pair = [&](ExprPtr name, const Schemas& schemas) {
      return rule(new_rule(
          "", sequence({std::move(name), space, bytes(":"), space, rule(rule_for(schemas)), space})));
    };
    std::vector<ExprPtr> pairs;
    for (const std::string& name : f.names) {
      if (!valid_utf8(name)) error(*leaf[0], "names in UTF-8", "other bytes");
      pairs.push_back(pair(bytes(json_string(name)), member(leaf, name)));
    }
    const ExprPtr other = closed ? nullptr : pair(rule(other_names(f.names)), additional);
    // below[c]: the rule for the name after, with c members written.
    std::vector<int32_t> below, here(static_cast<size_t>(counted) + 1);
    for (int64_t i = names; i >= 0; --i) {
      for (int32_t& r : here) r = new_rule("");
      for (int64_t c = 0; c <= counted; ++c) {
        std::vector<ExprPtr> ways;
        const bool full = f.max_members >= 0 && c >= f.max_members;
        const auto write = [&](const ExprPtr& what, const std::vector<int32_t>& after) {
          std::vector<ExprPtr> parts;
          if (c > 0) parts = {bytes(","), space};
          parts.insert(parts.end(), {what, rule(after[static_cast<size_t>(std::min(c + 1, counted))])});
          ways.push_back(sequence(std::move(parts)));
        };
        if (i < names) {
          if (!full) write(pairs[static_cast<size_t>(i)], below);
          if (!f.required.contains(f.names[static_cast<size_t>(i)]))
            ways.push_back(rule(below[static_cast<size_t>(c)]));
        } else {
          if (!full && other) write(other, here);
          if (c >= f.min_members && (f.max_members < 0 || c <= f.max_members)) ways.push_back(bytes(""));
        }
        rules_.bodies[static_cast<size_t>(here[static_cast<size_t>(c)])] = alternatives(std::move(ways));
      }
      below = here;
    }
    return sequence({bytes("{"), space, rule(below[0]), bytes("}")});
  }

  // A string that is none of the names: a trie of them, left where a character differs or before its end.
  int32_t other_names(const std::vector<std::string>& names) {
    if (rest_ < 0)
      rest_ = new_rule("rest", sequence({repeat(json_characters(CharacterSet::any()), 0, -1), bytes("\"")}));
    struct Level {
      std::vector<std::string_view> rests;
      int32_t index;
    };
    const int32_t first = new_rule("");
    std::vector<Level> todo = {{{names.begin(), names.end()}, first}};
    while (!todo.empty()) {
      const Level level = std::move(todo.back());
      todo.pop_back();
      std::map<char32_t, std::vector<std::string_view>> by_first;
      bool ends = false;
      for (const std::string_view text : level.rests) {
        size_t at = 0;
        if (text.empty()) {
          ends = true;
        } else {
          const char32_t c = next_code_point(text, at);
          by_first[c].push_back(text.substr(at));
        }
      }
      CharacterSet taken;
      std::vector<ExprPtr> ways;
      if (!ends) ways.push_back(bytes("\""));
      for (auto& [c, rests] : by_first) {
        taken.add(c, c);
        const int32_t next = new_rule("");
        ways.push_back(sequence({json_characters({c, c}), rule(next)}));
        todo.push_back({std::move(rests), next});
      }
      ways.push_back(sequence({json_characters(taken.complement()), rule(rest_)}));
      rules_.bodies[static_cast<size_t>(level.index)] = alternatives(std::move(ways));
    }
    return new_rule("", sequence({bytes("\""), rule(first)}));
  }

  const Json& root_;
  std::string_view where_;
  SchemaDialect dialect_;
  Rules rules_;
  JsonRules json_;
  struct Place {
    std::string path;
    size_t order;
  };
  std::map<const Json*, Place> places_;
  std::set<const Json*> checked_, proven_;
  std::vector<std::pair<const Json*, std::vector<const Json*>>> unproven_;
  std::map<const Json*, int> color_;  // 1: on the path, 2: done
  std::map<Schemas, int32_t> known_;
  std::vector<std::pair<Schemas, int32_t>> todo_;
  int32_t rest_ = -1, natural_ = -1;
  size_t steps_ = 0;
};

// ECMAScript's Number::toString, as RFC 8785 asks for.
std::string canonical_number(const Json& v) {
  if (v.is_number_integer()) return v.dump();
  const double d = v.get<double>();
  if (d == 0) return "0";
  std::array<char, 64> buffer{};
  const bool plain = std::fabs(d) >= 1e-6 && std::fabs(d) < 1e21;
  const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
  std::string out(buffer.data(), std::to_chars(buffer.data(), buffer.data() + buffer.size(), d, format).ptr);
  if (const size_t e = out.find('e'); e != std::string::npos && out[e + 2] == '0')
    out.erase(e + 2, 1);  // e-07
  return out;
}

void append_canonical(std::string& out, const Json& v, bool sorted) {
  if (v.is_string()) {
    out += json_string(v.get_ref<const std::string&>());
  } else if (v.is_number()) {
    out += canonical_number(v);
  } else if (v.is_array()) {
    out += '[';
    for (size_t i = 0; i < v.size(); ++i) {
      if (i > 0) out += ',';
      append_canonical(out, v[i], sorted);
    }
    out += ']';
  } else if (v.is_object()) {
    std::vector<std::pair<std::string, const Json*>> entries;
    for (const auto& [name, value] : v.items()) entries.emplace_back(name, &value);
    if (sorted) std::sort(entries.begin(), entries.end());
    out += '{';
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out += ',';
      out += json_string(entries[i].first) + ":";
      append_canonical(out, *entries[i].second, sorted);
    }
    out += '}';
  } else {
    out += v.dump();
  }
}

void check_document(const Json& v, std::string_view where, int depth, size_t& nodes) {
  constexpr size_t kMaxNodes = 200'000;
  constexpr int kMaxDepth = 200;
  if (depth > kMaxDepth)
    throw input_error(where, fmt::format("a schema of at most {} levels", kMaxDepth), "more");
  if (++nodes > kMaxNodes)
    throw input_error(where, fmt::format("a schema of at most {} values", kMaxNodes), "more");
  if (v.is_string() && !valid_utf8(v.get_ref<const std::string&>()))
    throw input_error(where, "UTF-8", "other bytes");
  if (v.is_array())
    for (const Json& item : v) check_document(item, where, depth + 1, nodes);
  if (v.is_object()) {
    for (const auto& [name, item] : v.items()) {
      if (!valid_utf8(name)) throw input_error(where, "UTF-8", "other bytes");
      check_document(item, where, depth + 1, nodes);
    }
  }
}

}  // namespace

std::span<const SchemaKeyword> schema_keywords() { return kKeywords; }

std::string canonical_json(const Json& v, bool sorted) {
  std::string out;
  append_canonical(out, v, sorted);
  return out;
}

namespace {

Rules schema_rules(const Json& schema, std::string_view where, SchemaDialect dialect) {
  size_t nodes = 0;
  check_document(schema, where, 0, nodes);
  return Compiler(schema, where, dialect).run();
}

}  // namespace

Grammar json_schema(const Json& schema, std::string_view where, SchemaDialect dialect) {
  return Grammar::compile(schema_rules(schema, where, dialect), where);
}

Grammar json_schemas(const Json& schema, std::string_view where, const Repeated& r) {
  Rules rules = schema_rules(schema, where, SchemaDialect::draft2020_12);
  const auto space = std::ranges::find(rules.names, "space") - rules.names.begin();
  rules.bodies[static_cast<size_t>(space)] = alternatives({bytes(""), bytes(" ")});
  const ExprPtr one = rule(rules.root);
  rules.root = rules.add(
      "instances", sequence({one, repeat(sequence({bytes(r.between), one}), 0, r.most - 1), bytes(r.after)}));
  return Grammar::compile(rules, where);
}

}  // namespace lathe
