// The page's files and the model's report: who gets them, as what, and what a browser may do with them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <regex>

#include "core/file.h"
#include "server/serving.h"
#include "support.h"

namespace lathe {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST(Page, IsThereWhileTheModelLoadsAndWithoutAKey) {
  AppOptions keys;
  keys.api_keys = {"k"};
  Serving s(keys);
  const Got page = s.ask("GET", "/");
  EXPECT_EQ(page.status, 200);
  EXPECT_THAT(page.head, AllOf(HasSubstr("Content-Type: text/html; charset=utf-8\r\n"),
                               HasSubstr("X-Content-Type-Options: nosniff\r\n"),
                               HasSubstr("Content-Security-Policy: default-src 'none'; script-src 'self'; "
                                         "style-src 'self'; connect-src 'self';"),
                               Not(HasSubstr("unsafe"))));
  EXPECT_THAT(page.body, HasSubstr("<!doctype html>"));
  EXPECT_EQ(s.ask("GET", "/?a=b").status, 200);
  EXPECT_EQ(s.ask("GET", "/report.json").status, 401);
  EXPECT_EQ(s.ask("GET", "/report.html").status, 401);
  EXPECT_EQ(s.ask("POST", "/").status, 401);
}

// Everything that it names is served, as what it is; nothing is inline, for the policy would refuse it.
TEST(Page, NamesOnlyFilesThatAreServed) {
  Serving s;
  s.ready();
  const std::string page = s.ask("GET", "/").body;
  EXPECT_THAT(page, AllOf(Not(HasSubstr("<style")), Not(HasSubstr("style=")), Not(HasSubstr("onclick")),
                          Not(HasSubstr("http"))));
  std::set<std::string> todo = {"page/style.css", "page/start.js"}, seen;
  for (const std::string& name : todo) EXPECT_THAT(page, HasSubstr('"' + name + '"'));
  while (!todo.empty()) {
    const std::string name = todo.extract(todo.begin()).value();
    seen.insert(name);
    const Got got = s.ask("GET", "/" + name);
    ASSERT_EQ(got.status, 200) << name;
    EXPECT_THAT(got.head, HasSubstr(name.ends_with(".js") ? "Content-Type: text/javascript; charset=utf-8\r\n"
                                                          : "Content-Type: text/css; charset=utf-8\r\n"));
    EXPECT_THAT(got.body, AllOf(Not(HasSubstr("innerHTML")), Not(HasSubstr("@import")))) << name;
    static const std::regex import("from \"\\./([a-z]+\\.js)\"");
    for (std::sregex_iterator it(got.body.begin(), got.body.end(), import), end; it != end; ++it)
      if (const std::string next = "page/" + (*it)[1].str(); !seen.contains(next)) todo.insert(next);
  }
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(testing_support::source_dir() / "src/server/page")) {
    ++files;
    EXPECT_TRUE(entry.path().filename() == "index.html" ||
                seen.contains("page/" + entry.path().filename().string()))
        << entry.path();
  }
  EXPECT_EQ(files, seen.size() + 1);
}

TEST(Page, HasNoOtherFiles) {
  Serving s;
  s.ready();
  for (const std::string path :
       {"/page", "/page/", "/page/index.html", "/page/none.js", "/page/../page/chat.js", "//", "/style.css",
        "page/chat.js", "/page/chat.js/"})
    EXPECT_EQ(s.ask("GET", path).status, 404) << path;
  EXPECT_EQ(s.ask("POST", "/page/chat.js").status, 404);
}

TEST(Page, ServesTheReportBesideTheModel) {
  const testing_support::TemporaryDirectory dir;
  EXPECT_TRUE(load_report(dir.path()).json.empty());
  EXPECT_TRUE(load_report(dir.path() / "none.gguf").html.empty());
  fs::create_directories(dir.path() / "lathe");
  write_file_atomically(dir.path() / "lathe/report.json", "{\"a\": 1}");
  write_file_atomically(dir.path() / "lathe/report.html", "<script>alert(1)</script>");
  Serving s;
  s.ready();
  for (const char* path : {"/report.json", "/report.html"}) {
    const Got none = s.ask("GET", path);
    EXPECT_EQ(none.status, 404);
    EXPECT_THAT(none.json()["error"]["message"].get<std::string>(), HasSubstr("lathe optimize"));
  }
  Serving with;
  with.service().report = load_report(dir.path());
  with.ready();
  const Got json = with.ask("GET", "/report.json"), html = with.ask("GET", "/report.html");
  EXPECT_EQ(json.json(), Json({{"a", 1}}));
  EXPECT_THAT(json.head, HasSubstr("Content-Type: application/json\r\n"));
  EXPECT_EQ(html.body, "<script>alert(1)</script>");
  EXPECT_THAT(html.head, AllOf(HasSubstr("Content-Type: text/html; charset=utf-8\r\n"),
                               HasSubstr("Content-Security-Policy: sandbox; default-src 'none'; style-src"),
                               Not(HasSubstr("script-src")), Not(HasSubstr("allow-scripts"))));
  write_file_atomically(dir.path() / "lathe/report.json", std::string((2 << 20) + 1, ' '));
  EXPECT_TRUE(load_report(dir.path()).json.empty()) << "no report is that large";
}

}  // namespace
}  // namespace lathe
