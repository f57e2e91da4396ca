// The whole verb on the built-in model with small token budgets, as a process where a kill is part of the
// test.
#include <chrono>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "core/file.h"
#include "search/optimize.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;
using testing::Not;

struct Finished {
  int status = -1;  // the exit code; 128 + signal when killed
  std::string out, err;
};

// One run of the binary with its output in files of `dir`.
class Process {
 public:
  Process(const fs::path& dir, const std::vector<std::string>& arguments)
      : out_(dir / "stdout"), err_(dir / "stderr") {
    std::vector<char*> argv = {const_cast<char*>(LATHE_BINARY)};
    for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      if (!std::freopen(out_.c_str(), "w", stdout) || !std::freopen(err_.c_str(), "w", stderr)) _exit(127);
      execv(LATHE_BINARY, argv.data());
      _exit(127);
    }
  }
  std::string err() const { return read_text_file(err_); }
  void kill() { ::kill(pid_, SIGKILL); }
  Finished wait() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read_text_file(out_), err()};
  }

 private:
  fs::path out_, err_;
  pid_t pid_ = -1;
};

class Optimize : public testing::Test {
 protected:
  // Small enough for a test; large enough for the search to take every step.
  std::vector<std::string> arguments(std::vector<std::string> more) const {
    std::vector<std::string> all = {"optimize",
                                    (builtin_).string(),
                                    "--calibration",
                                    (builtin_ / "calibration.txt").string(),
                                    "--eval",
                                    (builtin_ / "heldout.txt").string(),
                                    "-o",
                                    out_.string(),
                                    "--search-tokens",
                                    "1024",
                                    "--eval-tokens",
                                    "1024",
                                    "--prompt-tokens",
                                    "32"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  Finished lathe(const std::vector<std::string>& args) const { return Process(dir_.path(), args).wait(); }
  Json report() const { return read_json(out_ / "lathe" / "report.json"); }

  TemporaryDirectory dir_;
  fs::path builtin_ = source_dir() / "models/builtin", out_ = dir_.path() / "out";
};

TEST_F(Optimize, FindsAMixtureThatNoUniformFormatBeats) {
  const Finished run = lathe(arguments({"--max-kl", "0.01"}));
  ASSERT_EQ(run.status, 0) << run.err;

  const Json r = report();
  for (const char* key : {"subject", "provenance", "totals", "nodes", "verdict", "constraints", "base",
                          "chosen", "uniform_check", "trials", "kernels", "reproduce"})
    EXPECT_TRUE(r.contains(key)) << key;
  EXPECT_TRUE(r["verdict"]["met"].get<bool>());
  EXPECT_TRUE(r["uniform_check"]["holds"].get<bool>());
  EXPECT_EQ(r["chosen"]["kind"], "mixed");
  EXPECT_LE(r["chosen"]["held_out"]["kl_mean"].get<double>(), 0.01);
  EXPECT_LT(r["chosen"]["bytes"].get<size_t>(), r["base"]["bytes"].get<size_t>() / 2);
  for (const Json& t : r["trials"])
    if (t["kind"] == "uniform" && t["bytes"] <= r["chosen"]["bytes"]) {
      EXPECT_GT(t["search"]["kl_mean"], r["chosen"]["search"]["kl_mean"]) << t["name"];
    }

  const Model written = load(Checkpoint::open(out_));
  EXPECT_EQ(written.bytes(), r["chosen"]["bytes"].get<size_t>());
  EXPECT_EQ(hash_of(written), r["provenance"]["result_hash"].get<std::string>());
  EXPECT_THAT(run.out, HasSubstr("chosen: mixed"));
  const std::string page = read_text_file(out_ / "lathe" / "report.html");
  EXPECT_THAT(page, HasSubstr("limits met"));
  EXPECT_THAT(page, Not(HasSubstr("http")));

  const fs::path again = dir_.path() / "again";
  const Finished reproduced = lathe({"run", (out_ / "lathe" / "recipe.yaml").string(), "-o", again.string()});
  ASSERT_EQ(reproduced.status, 0) << reproduced.err;
  EXPECT_EQ(hash_of(load(Checkpoint::open(again))), hash_of(written));
}

TEST_F(Optimize, AMemoryLimitKeepsTheMostQualityThatFits) {
  const Finished run = lathe(arguments({"--max-memory", "12MB", "--context", "256", "--json"}));
  ASSERT_EQ(run.status, 0) << run.err;
  const Json r = parse_json(run.out, "stdout");
  EXPECT_EQ(r["verdict"]["goal"], "the least KL that meets every limit");
  EXPECT_LE(r["chosen"]["memory_bytes"].get<size_t>(), 12'000'000u);
  for (const Json& t : r["trials"])
    if (t["memory_bytes"] <= 12'000'000) {
      EXPECT_GE(t["search"]["kl_mean"], r["chosen"]["search"]["kl_mean"]) << t["name"];
    }
}

TEST_F(Optimize, AnUnmetLimitIsSaidAndTheNearestKept) {
  const Finished run = lathe(arguments({"--max-memory", "100kB", "--max-trials", "10"}));
  EXPECT_EQ(run.status, 1);
  EXPECT_THAT(run.err, HasSubstr("--max-memory: at most 100.0 kB, measured"));
  EXPECT_THAT(run.err, HasSubstr("over"));
  EXPECT_THAT(run.err, HasSubstr("the limits were not met"));
  const Json r = report();
  EXPECT_FALSE(r["verdict"]["met"].get<bool>());
  EXPECT_GT(load(Checkpoint::open(out_)).bytes(), 0u);
  for (const Json& t : r["trials"]) EXPECT_GE(t["memory_bytes"], r["chosen"]["memory_bytes"]);
}

TEST_F(Optimize, AKilledRunResumes) {
  const auto args = arguments({"--max-kl", "0.01", "--max-trials", "12"});
  Process first(dir_.path(), args);
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (first.err().find("trial 5/") == std::string::npos && std::chrono::steady_clock::now() < limit)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  first.kill();
  EXPECT_EQ(first.wait().status, 128 + SIGKILL);
  EXPECT_FALSE(fs::exists(out_));

  const Finished second = lathe(args);
  ASSERT_EQ(second.status, 0) << second.err;
  EXPECT_THAT(second.err, HasSubstr("resumed "));
  EXPECT_THAT(second.err, HasSubstr("(from the journal)"));
  EXPECT_GE(report()["provenance"]["resumed_trials"].get<int64_t>(), 5);
  const std::string hash = report()["provenance"]["result_hash"];

  // Nothing is measured again, and the answer is the same.
  const Finished third = lathe(args);
  ASSERT_EQ(third.status, 0) << third.err;
  EXPECT_EQ(report()["provenance"]["result_hash"], hash);
  EXPECT_EQ(report()["provenance"]["resumed_trials"], report()["trials"].size());

  // Other numbers are another study in the same journal.
  const Finished other = lathe(arguments({"--max-kl", "0.01", "--max-trials", "3", "--seed", "5"}));
  EXPECT_EQ(other.status, 0) << other.err;
  EXPECT_THAT(other.err, Not(HasSubstr("resumed ")));
}

TEST_F(Optimize, RefusesBadInput) {
  const struct {
    std::vector<std::string> more;
    const char* says;
  } cases[] = {
      {{"--max-ppl-increase", "much"}, "--max-ppl-increase"},
      {{"--max-memory", "12XB"}, "--max-memory"},
      {{"--max-kl", "-1"}, "--max-kl"},
      {{"--max-kl", "nan"}, "--max-kl"},
      {{"--min-decode", "inf"}, "--min-decode"},
      {{"--context", "999999"}, "--context"},
  };
  for (const auto& c : cases) {
    const Finished run = lathe(arguments(c.more));
    EXPECT_EQ(run.status, 2) << run.err;
    EXPECT_THAT(run.err, HasSubstr(c.says));
  }
  EXPECT_FALSE(fs::exists(out_));
  // Judging by the text that was searched on.
  const Finished same =
      lathe({"optimize", builtin_.string(), "--calibration", (builtin_ / "heldout.txt").string(), "--eval",
             (builtin_ / "heldout.txt").string(), "-o", out_.string()});
  EXPECT_EQ(same.status, 2);
  EXPECT_THAT(same.err, HasSubstr("held out"));
}

TEST_F(Optimize, ADamagedJournalIsNamed) {
  const fs::path journal = journal_path(out_.string());
  fs::create_directories(journal.parent_path());
  std::ofstream(journal) << std::string(5000, 'x');
  const Finished run = lathe(arguments({"--max-kl", "0.01"}));
  EXPECT_EQ(run.status, 2);
  EXPECT_THAT(run.err, HasSubstr(journal.string()));
  EXPECT_EQ(read_text_file(journal).size(), 5000u);  // left alone
}

}  // namespace
}  // namespace lathe
