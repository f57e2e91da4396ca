#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "core/file.h"
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
  EXPECT_THROW(write_file_atomically(dir / "no" / "a", "x"), InputError);
}

TEST(AtomicDirectory, AppearsOnCommitAndOnlyThen) {
  testing_support::TemporaryDirectory dir;
  {
    AtomicDirectory out(dir / "model");
    put(out.path() / "config.json", "{}");
    EXPECT_FALSE(fs::exists(dir / "model"));
    out.commit();
  }
  EXPECT_THAT(names_in(dir.path()), ElementsAre("model"));
  {
    AtomicDirectory abandoned(dir / "model");
    put(abandoned.path() / "config.json", "{\"half\": 1}");
  }
  EXPECT_THAT(names_in(dir.path()), ElementsAre("model"));
  EXPECT_EQ(testing_support::read_text_file(dir / "model/config.json"), "{}");
}

TEST(AtomicDirectory, ReplacesAnEarlierModel) {
  testing_support::TemporaryDirectory dir;
  put(dir / "model/config.json", "old");
  put(dir / "model/other", "old");
  AtomicDirectory out(dir / "model/");  // a trailing slash names the same directory
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
  EXPECT_THROW(AtomicDirectory(dir / "home"), InputError);
  EXPECT_THROW(AtomicDirectory(dir / "file"), InputError);
  EXPECT_THROW(AtomicDirectory(""), InputError);
  EXPECT_EQ(testing_support::read_text_file(dir / "home/thesis.txt"), "precious");
  fs::create_directories(dir / "empty");
  EXPECT_NO_THROW(AtomicDirectory(dir / "empty"));
}

TEST(AtomicDirectory, SweepsWhatDeadRunsLeft) {
  testing_support::TemporaryDirectory dir;
  const std::string dead = std::to_string(dead_pid()), alive = std::to_string(::getppid());
  put(dir / ("model.tmp-" + dead) / "half", "x");
  put(dir / ("model.tmp-" + alive) / "half", "x");
  put(dir / ("other.tmp-" + dead) / "half", "x");
  { AtomicDirectory out(dir / "model"); }
  EXPECT_THAT(names_in(dir.path()), testing::UnorderedElementsAre("model.tmp-" + alive, "other.tmp-" + dead));
}

TEST(AtomicDirectory, RestoresTheOldModelAfterACrashBetweenTheRenames) {
  testing_support::TemporaryDirectory dir;
  const std::string dead = std::to_string(dead_pid());
  put(dir / ("model.old-" + dead) / "config.json", "old");
  { AtomicDirectory out(dir / "model"); }
  EXPECT_THAT(names_in(dir.path()), ElementsAre("model"));
  EXPECT_EQ(testing_support::read_text_file(dir / "model/config.json"), "old");
  // With the new model in place the old one is litter.
  put(dir / ("model.old-" + dead) / "config.json", "older");
  { AtomicDirectory out(dir / "model"); }
  EXPECT_THAT(names_in(dir.path()), ElementsAre("model"));
  EXPECT_EQ(testing_support::read_text_file(dir / "model/config.json"), "old");
}

}  // namespace
}  // namespace lathe
