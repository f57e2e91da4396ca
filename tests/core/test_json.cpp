#include <gmock/gmock.h>

#include "core/json.h"
#include "support.h"

namespace lathe {
namespace {

using testing::HasSubstr;

template <class Act>
std::string input_error_of(Act act) {
  try {
    act();
  } catch (const InputError& e) {
    return e.what();
  }
  return "no InputError";
}

TEST(Json, KeepsTheOrderOfKeys) {
  EXPECT_EQ(parse_json(R"({"z": 1, "a": [true, null, "x"]})", "t").dump(), R"({"z":1,"a":[true,null,"x"]})");
}

TEST(Json, IsTheDocumentThatTheLibraryReads) {
  for (
      const std::string text :
      {R"({"a": {"b": [[], {}, [{"c": [1, -2, 18446744073709551615, 0.5, "\u00e9", true, false, null]}]], "d": {}},
           "e": ["x", {"y": {"z": []}}, 3], "f": ""})",
       "[]", "{}", "3", "\"x\"", "null", "[[[]], [[1]], {}]"})
    EXPECT_EQ(parse_json(text, "t").dump(), Json::parse(text).dump()) << text;
  std::string many = "{\"k0\":0";
  for (int i = 1; i < 5000; ++i) many += fmt::format(",\"k{}\":{}", i, i);
  EXPECT_EQ(parse_json(many + "}", "t").dump(), many + "}");
}

TEST(Json, RefusesWhatIsNotJson) {
  struct Case {
    std::string text;
    const char* message;
  };
  const Case cases[] = {
      {"", "t: expected valid JSON"},
      {"{", "t: expected valid JSON"},
      {"{\"a\": 1,}", "t: expected valid JSON"},
      {"[1 2]", "t: expected valid JSON"},
      {"NaN", "t: expected valid JSON"},
      {"1e999", "t: expected valid JSON"},
      {"{} {}", "t: expected valid JSON"},
      {"\"\xff\"", "t: expected valid JSON"},
      {"\"\xed\xa0\x80\"", "t: expected valid JSON"},
      {std::string("\"a\0b\"", 5), "t: expected valid JSON"},
      {R"({"a": 1, "b": {"x": 1}, "a": 2})", "expected distinct keys, found 'a' twice"},
      {R"({"o": [{"k": 1, "k": 2}]})", "expected distinct keys, found 'k' twice"},
      {std::string(100'000, '['), "at most 256 levels of nesting"},
  };
  for (const Case& c : cases)
    EXPECT_THAT(input_error_of([&] { parse_json(c.text, "t"); }), HasSubstr(c.message))
        << c.text.substr(0, 40);
  EXPECT_NO_THROW(parse_json(R"([{"a": 1}, {"a": 2}])", "t"));  // the same key in two objects
  EXPECT_NO_THROW(parse_json(std::string(200, '[') + std::string(200, ']'), "t"));
}

TEST(Json, TypedReadsNameTheKeyAndWhatWasFound) {
  const Json o =
      parse_json(R"({"i": 7, "big": 18446744073709551615, "f": 2.5, "s": "x", "b": true, "n": null})", "t");
  EXPECT_EQ(get_int(o, "i", "t", 0, 9), 7);
  EXPECT_EQ(get_int_or(o, "n", "t", 0, 9, 3), 3);
  EXPECT_EQ(get_number(o, "i", "t"), 7);
  EXPECT_EQ(get_number_or(o, "none", "t", 1.5), 1.5);
  EXPECT_EQ(get_string(o, "s", "t"), "x");
  EXPECT_EQ(get_string_or(o, "n", "t", "y"), "y");
  EXPECT_TRUE(get_bool_or(o, "b", "t", false));
  struct Case {
    std::function<void()> read;
    const char* message;
  };
  const Case cases[] = {
      {[&] { get_int(o, "i", "t", 8, 9); }, "t: key 'i': expected an integer from 8 to 9, found 7"},
      {[&] { get_int(o, "big", "t", 0, INT64_MAX); }, "found 18446744073709551615"},
      {[&] { get_int(o, "f", "t", 0, 9); }, "expected an integer from 0 to 9, found 2.5"},
      {[&] { get_int(o, "none", "t", 0, 9); }, "t: expected key 'none', found none"},
      {[&] { get_int(o, "n", "t", 0, 9); }, "t: expected key 'n', found none"},
      {[&] { get_number(o, "s", "t"); }, "t: key 's': expected a number, found \"x\""},
      {[&] { get_string(o, "i", "t"); }, "t: key 'i': expected a string, found 7"},
      {[&] { get_bool_or(o, "i", "t", true); }, "t: key 'i': expected true or false, found 7"},
      {[&] { get_int(Json::array(), "i", "t", 0, 9); }, "t: expected an object, found array"},
  };
  for (const Case& c : cases) EXPECT_THAT(input_error_of(c.read), HasSubstr(c.message));
}

TEST(Json, FilesAreNamed) {
  testing_support::TemporaryDirectory dir;
  EXPECT_THAT(input_error_of([&] { read_json(dir / "none.json"); }), HasSubstr("none.json: cannot open"));
  EXPECT_THAT(input_error_of([&] { read_json(dir.put("bad.json", "{")); }),
              HasSubstr("bad.json: expected valid JSON"));
  EXPECT_THAT(input_error_of([&] { read_json(dir.put("empty.json", "")); }),
              HasSubstr("empty.json: expected valid JSON"));
}

}  // namespace
}  // namespace lathe
