#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "search/journal.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;

TEST(Journal, RemembersPerStudy) {
  const TemporaryDirectory dir;
  const fs::path path = dir.path() / "a.study" / "journal.sqlite";
  const Json mine = {{"model", "x"}}, other = {{"model", "y"}};
  {
    Journal journal(path, mine);
    EXPECT_FALSE(journal.find("speed", "s"));
    journal.record("speed", "s", {{"value", 0.1}});
    journal.record("speed", "t", {{"value", 2}});
    EXPECT_EQ(journal.find("speed", "s")->at("value"), 0.1);
  }
  Journal again(path, mine);
  EXPECT_EQ(again.find("speed", "s")->at("value"), 0.1);
  EXPECT_EQ(again.count("speed"), 2);
  EXPECT_EQ(again.count("memory"), 0);
  Journal different(path, other);  // another study in the same file
  EXPECT_FALSE(different.find("speed", "s"));
}

void expect_refused(const fs::path& path) {
  try {
    Journal journal(path, Json::object());
    FAIL() << "accepted";
  } catch (const InputError& e) {
    EXPECT_THAT(e.what(), HasSubstr(path.string()));
    EXPECT_THAT(e.what(), HasSubstr("delete it to start afresh"));
  }
}

TEST(Journal, ADamagedFileIsNamed) {
  const TemporaryDirectory dir;
  const fs::path noise = dir.path() / "noise.sqlite";
  std::ofstream(noise) << std::string(8192, 'x');
  expect_refused(noise);

  const fs::path cut = dir.path() / "cut.sqlite";
  {
    Journal journal(cut, Json::object());
    for (int i = 0; i < 400; ++i)
      journal.record("speed", std::to_string(i), {{"text", std::string(300, 'y')}});
  }
  fs::resize_file(cut, fs::file_size(cut) / 2);
  expect_refused(cut);
}

TEST(Journal, AnotherProgramsDatabaseIsLeftAlone) {
  const TemporaryDirectory dir;
  const fs::path path = dir.path() / "other.sqlite";
  { Journal journal(path, Json::object()); }
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(68);  // the application id in SQLite's header
  file.write("\0\0\0\7", 4);
  file.close();
  expect_refused(path);
}

}  // namespace
}  // namespace lathe
