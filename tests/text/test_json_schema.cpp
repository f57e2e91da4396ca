// JSON schemas as grammars, against JSON-Schema-Test-Suite: of the schemas that are not refused, every valid
// instance in its canonical text is accepted and every invalid one is not.
#include <gmock/gmock.h>
#include <map>

#include "core/json.h"
#include "support.h"
#include "text/json_schema.h"

namespace lathe {
namespace {

using namespace testing_support;

Json parse(const std::string& text) { return parse_json(text, "test"); }

void expect_language(const std::string& schema, std::vector<std::string> accepted,
                     std::vector<std::string> rejected) {
  const Grammar g = json_schema(parse(schema));
  for (const std::string& text : accepted) EXPECT_TRUE(g.accepts(text)) << schema << "\n" << text;
  for (const std::string& text : rejected) EXPECT_FALSE(g.accepts(text)) << schema << "\n" << text;
}

// Names in the order in which a schema has them.
void collect_names(const Json& schema, std::map<std::string, int>& order) {
  if (schema.is_object())
    for (const auto& [name, value] : schema.items()) order.try_emplace(name, static_cast<int>(order.size()));
  if (schema.is_structured())
    for (const Json& item : schema) collect_names(item, order);
}

// Members in the order of `order`, then others as they are.
Json arrange(const Json& value, const std::map<std::string, int>& order) {
  if (value.is_array()) {
    Json out = Json::array();
    for (const Json& item : value) out.push_back(arrange(item, order));
    return out;
  }
  if (!value.is_object()) return value;
  std::vector<std::pair<int, std::string>> names;
  for (const auto& [name, ignored] : value.items()) {
    const auto it = order.find(name);
    names.emplace_back(it == order.end() ? INT_MAX : it->second, name);
  }
  std::stable_sort(names.begin(), names.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  Json out = Json::object();
  for (const auto& [ignored, name] : names) out[name] = arrange(value.at(name), order);
  return out;
}

struct Count {
  int schemas = 0, refused = 0, valid = 0, invalid = 0, leap_seconds = 0;
};

Count run_suite(const fs::path& file, SchemaDialect dialect, std::map<std::string, int>& reasons) {
  Count count;
  for (const Json& group : read_json(file)) {
    ++count.schemas;
    const Json& schema = group.at("schema");
    std::optional<Grammar> grammar;
    bool nothing = false;
    try {
      grammar = json_schema(schema, "schema", dialect);
    } catch (const InputError& e) {
      const std::string message = e.what();
      nothing = message == "schema: expected a grammar that some text matches, found one that none does";
      if (!nothing) {
        ++count.refused;
        const size_t begin = message.find("expected");
        const bool keyword = message.find("keywords that this grammar supports") != std::string::npos;
        ++reasons[message.substr(begin, keyword ? std::string::npos : message.find(", found") - begin)];
        continue;
      }
    }
    std::map<std::string, int> order;
    collect_names(schema, order);
    for (const Json& test : group.at("tests")) {
      const std::string text = canonical_json(arrange(test.at("data"), order));
      const bool valid = test.at("valid");
      // A leap second is never written: schema_keywords() says so.
      if (valid && test.at("description").get<std::string>().find("leap second") != std::string::npos) {
        ++count.leap_seconds;
        EXPECT_FALSE(grammar->accepts(text)) << text;
        continue;
      }
      ++(valid ? count.valid : count.invalid);
      EXPECT_EQ(!nothing && grammar->accepts(text), valid)
          << file << "\n"
          << group.at("description") << ": " << test.at("description") << "\n"
          << schema << "\n"
          << text;
    }
  }
  return count;
}

void expect_suite(const std::string& draft, SchemaDialect dialect, Count expected) {
  const auto folder = shared_data("tests/json_schema_suite/tests/" + draft);
  SKIP_WITHOUT(folder);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    // format.json reads formats as annotations; here they are asserted, as optional/format has them.
    if (entry.path().extension() == ".json" && entry.path().stem() != "format") files.push_back(entry.path());
  for (const char* name : {"date", "date-time", "time", "ipv4", "uuid"})
    files.push_back(folder / "optional" / "format" / (std::string(name) + ".json"));
  std::sort(files.begin(), files.end());
  Count total;
  std::map<std::string, int> reasons;
  std::cout << fmt::format("{:<32}{:>9}{:>9}{:>9}{:>9}\n", draft, "schemas", "refused", "valid", "invalid");
  for (const fs::path& file : files) {
    if (!fs::exists(file)) continue;
    const Count c = run_suite(file, dialect, reasons);
    std::cout << fmt::format("{:<32}{:>9}{:>9}{:>9}{:>9}\n", file.stem().string(), c.schemas, c.refused,
                             c.valid, c.invalid);
    total.schemas += c.schemas;
    total.refused += c.refused;
    total.valid += c.valid;
    total.invalid += c.invalid;
    total.leap_seconds += c.leap_seconds;
  }
  std::cout << fmt::format("{:<32}{:>9}{:>9}{:>9}{:>9}\n", "all", total.schemas, total.refused, total.valid,
                           total.invalid);
  for (const auto& [reason, times] : reasons) std::cout << fmt::format("{:>4}  {}\n", times, reason);
  EXPECT_EQ(total.schemas, expected.schemas);
  EXPECT_EQ(total.refused, expected.refused);
  EXPECT_EQ(total.valid, expected.valid);
  EXPECT_EQ(total.invalid, expected.invalid);
  EXPECT_EQ(total.leap_seconds, expected.leap_seconds);
}

TEST(JsonSchema, TestSuiteDraft7) { expect_suite("draft7", SchemaDialect::draft7, {244, 102, 306, 349, 8}); }
TEST(JsonSchema, TestSuiteDraft2020) {
  expect_suite("draft2020-12", SchemaDialect::draft2020_12, {369, 227, 332, 366, 8});
}

TEST(JsonSchema, Objects) {
  const std::string person =
      R"({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0},
                                 "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}},
                                 "required": ["name"], "additionalProperties": false})";
  expect_language(
      person,
      {R"({"name":"x"})", R"({"name": "x", "age": 3})", R"({"name":"\u00e9\n","age":0,"tags":["a" , "b"]})",
       "{\n  \"name\": \"x\",\n  \"tags\": []\n}"},
      {R"({})", R"({"age":3})", R"({"name":"x","age":-1})", R"({"name":"x","age":1.0})",
       R"({"name":"x","other":1})", R"({"name":"x","tags":["a","b","a"]})", R"({"name":"x",})",
       R"({"age":3,"name":"x"})", R"({"name":"x"} )"});
  expect_language(
      R"({"type": "object", "properties": {"ab": {"const": 1}}, "additionalProperties": {"type": "null"}})",
      {R"({"ab":1,"a":null,"abc":null,"b\n":null})", "{}", R"({"":null})"},
      {R"({"ab":null})", R"({"a\u0062":null})", R"({"\u0061b":null})", R"({"b":1})"});
  expect_language(
      R"({"type": "object", "properties": {"a": {}, "b": {}}, "additionalProperties": false, "minProperties": 1, "maxProperties": 1})",
      {R"({"a":1})", R"({"b":[]})"}, {"{}", R"({"a":1,"b":2})"});
}

TEST(JsonSchema, RecursionAndReferences) {
  expect_language(
      R"({"$ref": "#/$defs/tree~1node", "$defs": {"tree/node": {"type": "object", "required": ["v"],
                     "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/tree~1node"}]}}}}})",
      {R"({"v":1})", R"({"v":1,"next":{"v":2,"next":null}})"}, {R"({"v":1,"next":{}})", "null"});
  for (const char* circle :
       {R"({"$ref": "#"})", R"({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}})",
        R"({"anyOf": [{"type": "string"}, {"$ref": "#"}]})"})
    EXPECT_THROW(json_schema(parse(circle)), InputError) << circle;
}

TEST(JsonSchema, IntegerBoundsAreExact) {
  const std::vector<std::optional<int64_t>> bounds = {std::nullopt, -1234, -100, -99,  -10, -1, 0, 1, 9,
                                                      10,           99,    100,  1000, 1234};
  for (const auto& low : bounds) {
    for (const auto& high : bounds) {
      Json schema = {{"type", "integer"}};
      if (low) schema["minimum"] = *low;
      if (high) schema["exclusiveMaximum"] = *high + 1;
      if (low && high && *low > *high) continue;
      const Grammar g = json_schema(schema);
      for (int64_t n = -1300; n <= 1300; ++n)
        ASSERT_EQ(g.accepts(std::to_string(n)), (!low || n >= *low) && (!high || n <= *high))
            << schema << " " << n;
      EXPECT_EQ(g.accepts("12345678901234567890"), !high) << schema;
      EXPECT_EQ(g.accepts("-12345678901234567890"), !low) << schema;
      EXPECT_FALSE(g.accepts("01") || g.accepts("")) << schema;
      EXPECT_EQ(g.accepts("-0"), !low && !high) << schema;
    }
  }
}

TEST(JsonSchema, RefusalsNamePlaceAndKeyword) {
  const auto refused = [](const std::string& schema) {
    try {
      json_schema(parse(schema));
      return std::string();
    } catch (const InputError& e) {
      return std::string(e.what());
    }
  };
  EXPECT_EQ(refused(R"({"properties": {"a": {"not": {}}}})"),
            "schema: #/properties/a: expected keywords that this grammar supports, found 'not'; grammars "
            "have no complement");
  EXPECT_EQ(refused(R"({"items": {"nullable": true}})"),
            "schema: #/items: expected keywords that this grammar supports, found 'nullable'");
  EXPECT_THAT(refused(R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})"),
              testing::HasSubstr("options 0 and 1"));
  EXPECT_EQ(refused(R"({"oneOf": [{"type": "integer"}, {"type": "string"}]})"), "");
  EXPECT_EQ(refused(R"({"oneOf": [{"required": ["k"], "type": "object", "properties": {"k": {"const": "a"}}},
                                  {"required": ["k"], "type": "object", "properties": {"k": {"enum": ["b", "c"]}}}]})"),
            "");
  for (const char* schema : {"1",
                             "[]",
                             R"({"type": "text"})",
                             R"({"type": 1})",
                             R"({"enum": 1})",
                             R"({"minLength": -1})",
                             R"({"minLength": 1.5})",
                             R"({"maxLength": 100000})",
                             R"({"required": "a"})",
                             R"({"required": [1]})",
                             R"({"properties": []})",
                             R"({"pattern": "("})",
                             R"({"pattern": "a", "minLength": 3})",
                             R"({"format": "email"})",
                             R"({"multipleOf": 2})",
                             R"({"type": "number", "maximum": 3})",
                             R"({"uniqueItems": true})",
                             R"({"$ref": "http://x.y/z"})",
                             R"({"$ref": "#/nowhere"})",
                             R"({"$schema": "http://x"})",
                             R"({"minimum": 1e300})",
                             R"({"allOf": []})",
                             R"({"anyOf": {}})",
                             R"({"minItems": 1e8})",
                             R"({"items": [{}]})",
                             R"({"minProperties": 2})",
                             R"({"enum": [{"a": 1}], "required": ["a"]})",
                             R"({"const": "a", "type": "integer"})",
                             "false"})
    EXPECT_THROW(json_schema(parse(schema)), InputError) << schema;
}

TEST(JsonSchema, SizeIsLimited) {
  Json wide = {{"type", "object"}, {"properties", Json::object()}};
  for (int i = 0; i < 1000; ++i) wide["properties"]["p" + std::to_string(i)] = {{"type", "integer"}};
  EXPECT_TRUE(json_schema(wide).accepts(R"({"p1":1,"p999":2})"));
  Json combined = {{"allOf", Json::array()}};
  for (int i = 0; i < 30; ++i)
    combined["allOf"].push_back({{"anyOf", {{{"minimum", i}}, {{"maxLength", i}}}}});
  EXPECT_THROW(json_schema(combined), InputError);
  Json deep = Json::object();
  for (int i = 0; i < 300; ++i) deep = {{"items", deep}};
  EXPECT_THROW(json_schema(deep), InputError);
}

TEST(JsonSchema, CanonicalTexts) {
  EXPECT_EQ(canonical_json(parse(
                R"({"b": [1.0, -0.0, 1e21, 1e-7, 0.000001, 1.5, 12345678901234567], "a": "\u001f\n\"é"})")),
            "{\"b\":[1,0,1e+21,1e-7,0.000001,1.5,12345678901234567],\"a\":\"\\u001f\\n\\\"é\"}");
  EXPECT_EQ(canonical_json(parse(R"({"b": 1, "a": {"d": 1, "c": 2}})"), true),
            R"({"a":{"c":2,"d":1},"b":1})");
}

}  // namespace
}  // namespace lathe
