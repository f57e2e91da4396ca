#include <CLI/CLI.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/config_file.h"
#include "cli/verbs.h"
#include "command.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

struct Verb {
  CLI::App app;
  std::string model, name = "n";
  int port = 1;
  bool log = false, cache = true;
  std::vector<std::string> keys;
  std::vector<std::pair<std::string, std::string>> adapters;

  Verb() {
    app.add_option("MODEL", model);
    app.add_option("--name", name);
    app.add_option("--port", port)->check(CLI::Range(0, 65535));
    app.add_option("--key", keys);
    app.add_option("--lora", adapters);
    app.add_flag("--log", log);
    app.add_flag("!--no-cache", cache);
  }
  // The command line, then the file.
  void run(const std::string& yaml, std::vector<std::string> arguments = {}) {
    const TemporaryDirectory dir;
    app.parse(std::move(arguments));
    apply_config(app, dir.put("c.yaml", yaml).string());
  }
};

TEST(ConfigFile, SetsWhatFlagsSet) {
  Verb v;
  v.run("model: dir/m\nport: 8000\nkey: [a, b]\nlora: [[x, dir/x], [y, dir/y]]\nlog: true\nno-cache: true\n");
  EXPECT_EQ(v.model, "dir/m");
  EXPECT_EQ(v.port, 8000);
  EXPECT_EQ(v.name, "n") << "what is not in it keeps its default";
  EXPECT_THAT(v.keys, ElementsAre("a", "b"));
  EXPECT_THAT(v.adapters, ElementsAre(Pair("x", "dir/x"), Pair("y", "dir/y")));
  EXPECT_TRUE(v.log);
  EXPECT_FALSE(v.cache);
}

TEST(ConfigFile, TheCommandLineComesFirst) {
  Verb v;
  v.run("model: file\nport: 8000\nkey: [a, b]\nname: file\n",
        {"c", "--key", "8001", "--port", "m"});  // last first
  EXPECT_EQ(v.model, "m");
  EXPECT_EQ(v.port, 8001);
  EXPECT_THAT(v.keys, ElementsAre("c"));
  EXPECT_EQ(v.name, "file");
}

TEST(ConfigFile, SaysTheLineAndWhatIsWrong) {
  const auto said = [](const std::string& yaml) -> std::string {
    try {
      Verb().run(yaml);
    } catch (const InputError& e) {
      return e.what();
    }
    return "nothing";
  };
  EXPECT_THAT(said("port: 1\nprot: 2\n"),
              HasSubstr("c.yaml: line 2: expected one of key, log, lora, model, name, "
                        "no-cache, port, found key 'prot'"));
  EXPECT_THAT(said("help: true\n"), HasSubstr("found key 'help'"));
  EXPECT_THAT(said("port: 1\nport: 2\n"), HasSubstr("line 2: expected distinct keys"));
  EXPECT_THAT(said("name: a\nport: 99999\n"), HasSubstr("line 2: --port: "));
  EXPECT_THAT(said("port: much\n"), HasSubstr("line 1: --port: "));
  EXPECT_THAT(said("port: [1, 2]\n"), HasSubstr("line 1: "));
  EXPECT_THAT(said("log: maybe\n"), HasSubstr("line 1: expected true or false as 'log'"));
  EXPECT_THAT(said("lora: {a: b}\n"), HasSubstr("line 1: expected a value, or a list of values"));
  EXPECT_THAT(said("port:\n"), HasSubstr("line 1: expected a value"));
  EXPECT_THAT(said("- port\n"), HasSubstr("expected a mapping"));
  EXPECT_THAT(said("port: [1\n"), HasSubstr("expected valid YAML"));
}

TEST(ConfigFile, TheDocumentedExampleIsOneOfServe) {
  CLI::App app;
  add_serve(app);
  CLI::App& serve = *app.get_subcommand("serve");
  EXPECT_NO_THROW(apply_config(serve, (source_dir() / "docs/serve.yaml").string()));
  EXPECT_EQ(serve.get_option("--port")->as<int>(), 8000);
  EXPECT_EQ(serve.get_option("--api-key")->count(), 2u);
}

TEST(ConfigFile, OfServeEndsAStartThatCannotBe) {
  const TemporaryDirectory dir;
  const std::string file = quoted(dir.put("s.yaml", "prot: 80\n").string());
  const Outcome unknown = lathe("serve builtin --config " + file);
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("s.yaml: line 1: expected one of access-log, "));
  EXPECT_THAT(unknown.err, HasSubstr("found key 'prot'"));
  EXPECT_EQ(unknown.error_lines(), 1);
  EXPECT_EQ(lathe("serve").exit_code, 2);
  EXPECT_THAT(lathe("serve").err, HasSubstr("MODEL"));
}

}  // namespace
}  // namespace lathe
