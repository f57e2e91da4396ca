#include <atomic>
#include <cstdio>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "core/error.h"
#include "core/file.h"
#include "core/leftovers.h"
#include "support.h"

namespace lathe {
namespace {

using testing::ElementsAre;

// The id of a process that has ended.
pid_t dead_pid() {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(0);
  ::waitpid(pid, nullptr, 0);
  return pid;
}

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(directory)) out.push_back(entry.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

void put(const fs::path& path, std::string_view contents) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << contents;
}

TEST(Mapping, ReadsRegularFilesOnly) {
  testing_support::TemporaryDirectory dir;
  EXPECT_EQ(Mapping(dir.put("a", "hello")).text(), "hello");
  EXPECT_EQ(Mapping(dir.put("empty", "")).text(), "");
  EXPECT_THROW(Mapping(dir / "none"), InputError);
  EXPECT_THROW(Mapping(dir.path()), InputError);
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_THROW(Mapping(dir / "pipe"), InputError);  // and does not wait for a writer
}

TEST(Mapping, ViewsOutliveItAndStayInside) {
  testing_support::TemporaryDirectory dir;
  Storage view;
  {
    const Mapping m(dir.put("a", "hello"));
    view = m.view(1, 3);
    EXPECT_THROW(m.view(3, 3), Error);
    EXPECT_THROW(m.view(SIZE_MAX, 1), Error);
    m.forget(0, 5);
  }
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(view.data), view.bytes), "ell");
}

TEST(WriteFileAtomically, ReplacesAndLeavesNothingElse) {
  testing_support::TemporaryDirectory dir;
  write_file_atomically(dir / "a", "one");
  write_file_atomically(dir / "a", "two");
  EXPECT_EQ(testing_support::read_text_file(dir / "a"), "two");
  EXPECT_THAT(names_in(dir.path()), ElementsAre("a"));
  EXPECT_THROW(write_file_atomically(dir / "a" / "b", "x"), fs::filesystem_error);
  EXPECT_THROW(write_file_atomically(dir.path(), "x"), InputError);
}

bool has_config(const fs::path& directory) { return fs::exists(directory / "config.json"); }

TEST(AtomicDirectory, AppearsOnCommitAndOnlyThen) {
  testing_support::TemporaryDirectory dir;
  {
    AtomicDirectory out(dir / "model", has_config);
    put(out.path() / "config.json", "{}");
    EXPECT_FALSE(fs::exists(dir / "model"));
    out.commit();
  }
  EXPECT_THAT(names_in(dir.path()), ElementsAre("model"));
  {
    AtomicDirectory abandoned(dir / "model", has_config);
    put(abandoned.path() / "config.json", "{\"half\": 1}");
  }
  EXPECT_THAT(names_in(dir.path()), ElementsAre("model"));
  EXPECT_EQ(testing_support::read_text_file(dir / "model/config.json"), "{}");
}

TEST(AtomicDirectory, ReplacesAnEarlierModel) {
  testing_support::TemporaryDirectory dir;
  put(dir / "model/config.json", "old");
  put(dir / "model/other", "old");
  AtomicDirectory out(dir / "model/", has_config);  // a trailing slash names the same directory
  put(out.path() / "config.json", "new");
  out.commit();
  EXPECT_THAT(names_in(dir.path()), ElementsAre("model"));
  EXPECT_THAT(names_in(dir / "model"), ElementsAre("config.json"));
  EXPECT_EQ(testing_support::read_text_file(dir / "model/config.json"), "new");
}

TEST(AtomicDirectory, RefusesWhatItDidNotWrite) {
  testing_support::TemporaryDirectory dir;
  put(dir / "home/thesis.txt", "precious");
  put(dir / "file", "precious");
  EXPECT_THROW(AtomicDirectory(dir / "home", has_config), InputError);
  EXPECT_THROW(AtomicDirectory(dir / "file", has_config), InputError);
  EXPECT_THROW(AtomicDirectory("", has_config), InputError);
  EXPECT_EQ(testing_support::read_text_file(dir / "home/thesis.txt"), "precious");
  fs::create_directories(dir / "empty");
  EXPECT_NO_THROW(AtomicDirectory(dir / "empty", has_config));
}

// A reader looks all the while.
TEST(AtomicDirectory, ThereIsAModelAtEveryMoment) {
  testing_support::TemporaryDirectory dir;
  put(dir / "model/config.json", "{}");
  put(dir / "other/config.json", "{}");
  if (::renameat2(AT_FDCWD, (dir / "model").c_str(), AT_FDCWD, (dir / "other").c_str(), RENAME_EXCHANGE) != 0)
    GTEST_SKIP() << "this file system exchanges no names";
  std::atomic<bool> done = false;
  int64_t missing = 0;
  std::thread reader([&] {
    while (!done) missing += fs::exists(dir / "model") ? 0 : 1;
  });
  for (int i = 0; i < 20; ++i) {
    AtomicDirectory out(dir / "model", has_config);
    put(out.path() / "config.json", std::to_string(i));
    out.commit();
  }
  done = true;
  reader.join();
  EXPECT_EQ(missing, 0);
  EXPECT_EQ(testing_support::read_text_file(dir / "model/config.json"), "19");
  EXPECT_THAT(names_in(dir.path()), ElementsAre("model", "other"));
}

TEST(AtomicDirectory, SweepsWhatDeadRunsLeft) {
  testing_support::TemporaryDirectory dir;
  const std::string dead = std::to_string(dead_pid()), alive = std::to_string(::getppid());
  const auto left = [&](const char* target, const std::string& pid) {
    return beside(dir / target, "tmp-" + pid);
  };
  put(left("model", dead) / "half", "x");
  put(left("model", alive) / "half", "x");
  put(left("other", dead) / "half", "x");
  { AtomicDirectory out(dir / "model", has_config); }
  EXPECT_THAT(names_in(dir.path()),
              testing::UnorderedElementsAre(left("model", alive).filename(), left("other", dead).filename()));
}

TEST(AtomicDirectory, LeavesWhatOthersCallAlike) {
  testing_support::TemporaryDirectory dir;
  const std::string dead = std::to_string(dead_pid());
  for (const std::string& name :
       {std::string("model.old-backup"), std::string("model.tmp-notes"), "model.old-" + dead,
        "model.tmp-" + dead, std::string("model.old-99999999"), std::string(".model.lathe-old-"),
        ".model.lathe-tmp-" + dead + "x", ".model.lathe-tmp--" + dead, ".model.lathe-old-" + dead + ".1",
        std::string(".model.lathe-tmp-99999999999999999999")})
    put(dir / name / "thesis.txt", "precious");
  const std::vector<std::string> before = names_in(dir.path());
  { AtomicDirectory out(dir / "model", has_config); }
  EXPECT_EQ(names_in(dir.path()), before);
}

// Of a process with this one's number: in containers all are 1.
TEST(AtomicDirectory, BeginsEmpty) {
  testing_support::TemporaryDirectory dir;
  put(temporary_beside(dir / "model") / "half", "x");
  AtomicDirectory out(dir / "model", has_config);
  EXPECT_THAT(names_in(out.path()), testing::IsEmpty());
}

// Where the file system exchanges no names.
TEST(AtomicDirectory, RestoresTheOldModelAfterACrashBetweenTheRenames) {
  testing_support::TemporaryDirectory dir;
  const fs::path old = beside(dir / "model", "old-" + std::to_string(dead_pid()));
  put(old / "config.json", "old");
  { AtomicDirectory out(dir / "model", has_config); }
  EXPECT_THAT(names_in(dir.path()), ElementsAre("model"));
  EXPECT_EQ(testing_support::read_text_file(dir / "model/config.json"), "old");
  // With the new model in place the old one is litter.
  put(old / "config.json", "older");
  { AtomicDirectory out(dir / "model", has_config); }
  EXPECT_THAT(names_in(dir.path()), ElementsAre("model"));
  EXPECT_EQ(testing_support::read_text_file(dir / "model/config.json"), "old");
}

}  // namespace
}  // namespace lathe
