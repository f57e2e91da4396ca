// Each verb does its work, and its JSON has the names that scripts rely on.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "command.h"
#include "core/file.h"
#include "core/leftovers.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;

void expect_keys(const Json& json, const std::vector<std::string>& keys) {
  for (const std::string& key : keys) EXPECT_TRUE(json.contains(key)) << key;
}

std::string in(const TemporaryDirectory& dir, const char* name) {
  return quoted((dir.path() / name).string());
}

// --- inspect

TEST(Inspect, DescribesTheBuiltInModel) {
  const Outcome o = lathe("inspect builtin --json");
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const Json j = o.json();
  expect_keys(j,
              {"architecture", "parameters", "bytes", "formats", "context", "tokenizer", "loads", "modules"});
  EXPECT_EQ(j["architecture"], "LlamaForCausalLM");
  EXPECT_EQ(j["context"], 1024);
  EXPECT_EQ(j["parameters"], 5770496);
  EXPECT_EQ(j["bytes"], 2 * 5770496);
  EXPECT_EQ(j["formats"], Json::array({"bf16"}));
  EXPECT_EQ(j["loads"], true);
  EXPECT_THAT(lathe("inspect builtin").out, HasSubstr("up_proj"));
}

TEST(Inspect, PrintsTheGraphAndTheKernels) {
  EXPECT_THAT(lathe("inspect builtin --graph").out, HasSubstr("model.layers.5.mlp.down_proj"));
  const Json j = lathe("inspect builtin --plan --json").json();
  ASSERT_GT(j["kernels"].size(), 6u * 4);
  expect_keys(j["kernels"][0], {"node", "kernel", "packing", "emulated"});
}

TEST(Inspect, TakesABareConfig) {
  const Outcome o =
      lathe("inspect " + quoted((golden("qwen3") / "config.json").string()) + " --graph --json");
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_EQ(o.json()["parameters"],
            lathe("inspect " + quoted(golden("qwen3").string()) + " --json").json()["parameters"]);
  EXPECT_THAT(o.json()["graph"].get<std::string>(), HasSubstr("q_norm"));
}

// All experts are one kind of module, in a file that has one tensor for those of a layer too.
TEST(Inspect, ExpertsAreOneKindOfModule) {
  const TemporaryDirectory dir;
  const fs::path file = dir / "mixtral.gguf";
  ASSERT_EQ(lathe(fmt::format("export {} --to gguf --type f32 -o {}", quoted(golden("mixtral").string()),
                              quoted(file.string())))
                .exit_code,
            0);
  const Json modules = lathe("inspect --json " + quoted(file.string())).json()["modules"];
  EXPECT_THAT(modules.dump(), HasSubstr("\"ffn_up_exps\""));
  EXPECT_THAT(modules.dump(), testing::Not(HasSubstr("weight[")));
}

// --- quantize and run

TEST(Quantize, WritesAModelThatOpensAndARecipeThatReproducesIt) {
  const TemporaryDirectory dir;
  const Outcome o =
      lathe("quantize builtin --scheme w4a16 --group-size 32 --asymmetric --keep '*.layers.0.*' --json -o " +
            in(dir, "q"));
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const Json j = o.json();
  expect_keys(j, {"bytes_before", "bytes_after", "bits_per_weight_before", "bits_per_weight_after",
                  "source_hash", "result_hash", "formats"});
  EXPECT_LT(j["bytes_after"], j["bytes_before"]);
  EXPECT_THAT(o.err, HasSubstr("rounding 35 matrices: about "));
  EXPECT_EQ(j["forecast"]["bytes_read"], j["bytes_before"]);
  EXPECT_EQ(j["forecast"]["bytes_written"], j["bytes_after"]);

  const Json inspected = lathe("inspect --json " + in(dir, "q")).json();
  EXPECT_EQ(inspected["loads"], true);
  EXPECT_EQ(inspected["bytes"], j["bytes_after"]);
  EXPECT_EQ(inspected["formats"], Json::array({"bf16", "int4 g32 asym"}));

  const Outcome again =
      lathe("run --threads 1 --json " + in(dir, "q/lathe/recipe.yaml") + " -o " + in(dir, "again"));
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(again.json()["result_hash"], j["result_hash"]);
  for (const char* file : {"model.safetensors", "config.json", "tokenizer.json", "lathe/recipe.yaml"})
    EXPECT_EQ(read_text_file(dir.path() / "q" / file), read_text_file(dir.path() / "again" / file)) << file;
}

TEST(Quantize, PoliciesSayWhatEachModuleGets) {
  const TemporaryDirectory dir;
  const std::string arguments =
      "quantize builtin --scheme w4a16 --policy '*.mlp.*=w4a16:g32' --policy lm_head=w8a16";
  const Outcome o = lathe(arguments + " --keep '*.layers.0.*' --json -o " + in(dir, "q"));
  ASSERT_EQ(o.exit_code, 0) << o.err;
  std::map<std::string, Json> modules;
  const Json report = o.json();
  for (const Json& m : report["modules"]) modules[m["module"]] = m;
  EXPECT_EQ(modules.size(), 6u * 7 + 1);
  EXPECT_EQ(modules["model.layers.1.mlp.up_proj"]["after"], "int4 g32");
  EXPECT_EQ(modules["model.layers.1.mlp.up_proj"]["decided_by"], "policy '*.mlp.*=w4a16:g32'");
  EXPECT_EQ(modules["model.layers.1.self_attn.q_proj"]["after"], "int4 g128");
  EXPECT_EQ(modules["model.layers.1.self_attn.q_proj"]["decided_by"], "default");
  EXPECT_EQ(modules["model.layers.0.mlp.up_proj"]["after"], "bf16");
  EXPECT_EQ(modules["model.embed_tokens"]["after"], "int8");
  const Outcome again = lathe("run --json " + in(dir, "q/lathe/recipe.yaml") + " -o " + in(dir, "again"));
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(again.json()["modules"], report["modules"]);
  EXPECT_THAT(lathe(arguments + " -o " + in(dir, "r")).out,
              HasSubstr("int8                      1  policy 'lm_head=w8a16'"));
  const Outcome mixed = lathe("quantize builtin --policy '*.up_proj=w4a16' -o " + in(dir, "s"));
  EXPECT_EQ(mixed.exit_code, 2);
  EXPECT_THAT(mixed.err, HasSubstr("--policy: model.layers.0.mlp.{gate,up}_proj: expected one format"));
  EXPECT_EQ(mixed.error_lines(), 1);
}

TEST(Quantize, WhatIsKeptStaysSoUnderARecipe) {
  const TemporaryDirectory dir;
  const Outcome o = lathe("quantize builtin --recipe int8 --keep '*.layers.0.*' --json -o " + in(dir, "q"));
  ASSERT_EQ(o.exit_code, 0) << o.err;
  int64_t kept = 0;
  const Json report = o.json();
  for (const Json& m : report["modules"])
    if (m["module"].get<std::string>().find(".layers.0.") != std::string::npos) {
      EXPECT_EQ(m["after"], m["before"]) << m;
      ++kept;
    }
  EXPECT_EQ(kept, 7);
}

TEST(Quantize, AutoChoosesARecipeAndSaysWhy) {
  const TemporaryDirectory dir;
  const Outcome o = lathe("quantize builtin --recipe auto --target size --json -o " + in(dir, "q"));
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_THAT(o.err, HasSubstr("recipe int4-g128 for target size: INT4 in groups of 128"));
  const Outcome again = lathe("run auto --model builtin --target size --json -o " + in(dir, "r"));
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(again.json()["result_hash"], o.json()["result_hash"]);
  EXPECT_EQ(lathe("run " + in(dir, "r/lathe/recipe.yaml") + " -o " + in(dir, "s")).exit_code, 0);
  EXPECT_EQ(lathe("quantize builtin --recipe auto --scheme w4a16 -o " + in(dir, "t")).exit_code, 2);
  EXPECT_EQ(lathe("run auto -o " + in(dir, "t")).exit_code, 2);
}

TEST(Quantize, TakesTheExponentRuleOfMxBlocksAndRecordsIt) {
  const TemporaryDirectory dir;
  const auto quantized = [&](const std::string& arguments, const char* to) {
    const Outcome o = lathe("quantize builtin --json " + arguments + " -o " + in(dir, to));
    EXPECT_EQ(o.exit_code, 0) << o.err;
    return o.json();
  };
  const Json searched = quantized("--scheme mxfp4", "searched"),
             floor = quantized("--scheme mxfp4 --mx-rule floor", "floor");
  EXPECT_EQ(searched["steps"][0]["quantize"]["mx_rule"], "search");
  EXPECT_EQ(floor["steps"][0]["quantize"]["mx_rule"], "floor");
  EXPECT_NE(floor["result_hash"], searched["result_hash"]);
  const Outcome again = lathe("run --json " + in(dir, "floor/lathe/recipe.yaml") + " -o " + in(dir, "again"));
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(again.json()["result_hash"], floor["result_hash"]);
  EXPECT_THAT(lathe("quantize builtin --mx-rule ceil -o " + in(dir, "int8")).err,
              HasSubstr("--mx-rule changes nothing"));
}

TEST(Quantize, PrintsATable) {
  const TemporaryDirectory dir;
  const Outcome o = lathe("quantize builtin --head -o " + in(dir, "q"));
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("bits per weight: 16.000 -> 8.0"));
}

TEST(Run, RefusesAnotherSourceAndOtherResults) {
  const TemporaryDirectory dir;
  ASSERT_EQ(lathe("quantize builtin -o " + in(dir, "q")).exit_code, 0);
  std::string recipe = read_text_file(dir.path() / "q/lathe/recipe.yaml");
  auto with_hash = [&](const std::string& key) {
    std::string text = recipe;
    const size_t at = text.find(key) + key.size() + 3;  // key: "
    text[at] = text[at] == '0' ? '1' : '0';
    std::ofstream(dir.path() / "changed.yaml") << text;
    return lathe("run " + in(dir, "changed.yaml") + " -o " + in(dir, "r"));
  };
  EXPECT_EQ(with_hash("source_hash").exit_code, 2);
  EXPECT_EQ(with_hash("result_hash").exit_code, 1);
  EXPECT_FALSE(fs::exists(dir.path() / "r"));
}

// A synth that is at work on a large model, in the middle of writing.
class Writing : public testing::Test {
 protected:
  void SetUp() override {
    Json json = read_json(source_dir() / "models/builtin/config.json");
    json["vocab_size"] = 400000;  // large enough to be caught at work
    json["num_hidden_layers"] = 64;
    config_ = dir_.put("config.json", json.dump());
    child_ = ::fork();
    if (child_ == 0) {
      ::execl(LATHE_BINARY, "lathe", "synth", "--config", config_.c_str(), "-o", output_.c_str(), nullptr);
      ::_exit(127);
    }
    for (int i = 0; i < 1000 && outputs() == 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    ASSERT_EQ(outputs(), 1);
    ASSERT_FALSE(fs::exists(output_));
  }
  int send(int signal) {
    ::kill(child_, signal);
    int status = 0;
    ::waitpid(child_, &status, 0);
    return status;
  }
  // The output and whatever a run left beside it.
  int64_t outputs() const {
    const std::string left = beside(output_, "").filename().string();
    return std::count_if(fs::directory_iterator(dir_.path()), fs::directory_iterator(), [&](const auto& e) {
      return e.path() == output_ || e.path().filename().string().starts_with(left);
    });
  }
  TemporaryDirectory dir_;
  fs::path config_, output_ = dir_ / "out";
  pid_t child_ = -1;
};

TEST_F(Writing, AnInterruptLeavesNothingBehind) {
  EXPECT_EQ(WEXITSTATUS(send(SIGINT)), 128 + SIGINT);
  EXPECT_EQ(outputs(), 0);
}

TEST_F(Writing, AKilledRunLeavesNoHalfOutputAndTheNextOneSweepsUp) {
  EXPECT_TRUE(WIFSIGNALED(send(SIGKILL)));
  EXPECT_FALSE(fs::exists(output_));
  EXPECT_EQ(outputs(), 1);  // the temporary directory: nobody was there to remove it
  const Outcome next = lathe("quantize builtin -o " + quoted(output_.string()));
  ASSERT_EQ(next.exit_code, 0) << next.err;
  EXPECT_EQ(outputs(), 1);
  EXPECT_TRUE(fs::exists(output_ / "config.json"));
}

// --- eval and bench

TEST(Eval, MeasuresAgainstABase) {
  const Outcome o = lathe("eval builtin --against builtin --max-tokens 600 --json --text " + heldout());
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const Json j = o.json();
  expect_keys(j, {"perplexity", "perplexity_stderr", "tokens", "kl_mean", "kl_p99", "top1_agreement"});
  EXPECT_EQ(j["tokens"], 600 - 3);
  EXPECT_EQ(j["kl_mean"], 0);
  EXPECT_EQ(j["top1_agreement"], 1);
  EXPECT_FALSE(lathe("eval builtin --max-tokens 300 --json --text " + heldout()).json().contains("kl_mean"));
}

TEST(Bench, ReportsTheNamesThatScriptsRelyOn) {
  const Outcome o =
      lathe("bench builtin --prompt-tokens 20 --gen-tokens 4 --repeats 1 --threads 1 --batch 2 --json");
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const Json j = o.json();
  expect_keys(
      j, {"prefill_tokens_per_s", "decode_tokens_per_s", "prefill_percent_of_roof", "decode_percent_of_roof",
          "ttft_ms", "threads", "batch", "prompt_tokens", "gen_tokens", "logits_hash", "peak_memory_bytes"});
  EXPECT_EQ(j["batch"], 2);
  EXPECT_EQ(j["threads"], 1);
}

TEST(Bench, TuningIsKeptShownAndChangesNoText) {
  const TemporaryDirectory dir;
  const std::string cache = "LATHE_CACHE=" + quoted(dir.path().string());
  const auto bench = [&](const std::string& more) {
    const Outcome o =
        lathe_with(cache, "bench builtin --prompt-tokens 20 --gen-tokens 4 --repeats 1 --json " + more);
    EXPECT_EQ(o.exit_code, 0) << o.err;
    return o.json();
  };
  const auto plan = [&] { return lathe_with(cache, "inspect builtin --plan --json").json()["plan"]; };
  EXPECT_EQ(plan()["tuned"], false);
  const Json before = bench(""), tuned = bench("--tune"), after = bench("");
  EXPECT_EQ(tuned["logits_hash"], before["logits_hash"]);
  EXPECT_EQ(after["logits_hash"], before["logits_hash"]);
  EXPECT_EQ(plan()["tuned"], true);
  for (const char* key : {"threads", "prefill_threads"}) EXPECT_EQ(plan()[key], after[key]);
  EXPECT_EQ(bench("--threads 1")["prefill_threads"], 1) << "what is asked for comes first";
  EXPECT_EQ(bench("--threads 1 --prefill-threads 2")["prefill_threads"], 2);
}

// --- generate

TEST(Generate, StreamsTheSameTextThatJsonHolds) {
  const std::string arguments = "generate builtin --prompt 'It was a' --max-tokens 12 --seed 3";
  const Outcome text = lathe(arguments), json = lathe(arguments + " --json");
  ASSERT_EQ(text.exit_code, 0) << text.err;
  ASSERT_EQ(json.exit_code, 0) << json.err;
  EXPECT_EQ(text.out, json.json()["text"].get<std::string>() + "\n");
  EXPECT_LE(json.json()["tokens"].size(), 12u);
  EXPECT_THAT(text.err, HasSubstr("tokens/s"));
}

TEST(Generate, GreedyIsRepeatableAndSeedsDiffer) {
  auto text = [](const std::string& more) {
    return lathe("generate builtin --prompt 'She looked' --ignore-eos -n 20 " + more).out;
  };
  EXPECT_EQ(text("--greedy"), text("--greedy --threads 1"));
  EXPECT_EQ(text("--seed 1"), text("--seed 1"));
  EXPECT_NE(text("--seed 1 --temperature 1"), text("--seed 2 --temperature 1"));
  EXPECT_EQ(text("--top-k 1 --temperature 2"), text("--greedy"));
  EXPECT_EQ(text("--min-p 1 --temperature 2"), text("--greedy"));
  EXPECT_NE(text("--greedy --repetition-penalty 3"), text("--greedy"));
  EXPECT_EQ(lathe("generate builtin --prompt x --min-p 2").exit_code, 2);
}

TEST(Generate, AChatIsThePromptThatTheTemplateWrites) {
  const std::string more = " --greedy -n 20 --json";
  const auto text = [&](const std::string& arguments) {
    const Outcome outcome = lathe("generate builtin " + arguments + more);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.json()["text"];
  };
  const std::string ask = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n";
  EXPECT_EQ(text("--chat --prompt 'Who?'"), text("--prompt " + quoted(ask)));
  EXPECT_EQ(text("--chat --prompt 'Who?' --system 'Be brief.'"),
            text("--prompt " + quoted("<|im_start|>system\nBe brief.<|im_end|>\n" + ask)));
  EXPECT_EQ(lathe("generate builtin --prompt x --system y").exit_code, 2);
  const TemporaryDirectory plain;
  fs::copy(source_dir() / "models/builtin", plain.path());
  Json config = read_json(plain / "tokenizer_config.json");
  config.erase("chat_template");
  plain.put("tokenizer_config.json", config.dump());
  const Outcome none = lathe("generate " + quoted(plain.path().string()) + " --chat --prompt x");
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_THAT(none.err, HasSubstr("--chat: expected a model with a chat template"));
}

// --- synth

TEST(Synth, HasTheShapeOfTheConfigAndFollowsTheSeed) {
  const TemporaryDirectory dir;
  const std::string config = quoted((golden("qwen2.5") / "config.json").string());
  auto synth = [&](const char* name, const std::string& more) {
    return lathe("synth --config " + config + " -o " + in(dir, name) + " --json " + more);
  };
  const Outcome a = synth("a", "--seed 1"), b = synth("b", "--seed 1 --threads 1"),
                c = synth("c", "--seed 2 --tokenizer " + builtin());
  ASSERT_EQ(a.exit_code, 0) << a.err;
  EXPECT_EQ(a.json()["hash"], b.json()["hash"]);
  EXPECT_NE(a.json()["hash"], c.json()["hash"]);
  EXPECT_FALSE(fs::exists(dir.path() / "a/tokenizer.json"));
  EXPECT_TRUE(fs::exists(dir.path() / "c/tokenizer.json"));
  const Outcome inspected = lathe("inspect --json " + in(dir, "a"));
  EXPECT_EQ(inspected.exit_code, 0) << inspected.err;
  EXPECT_EQ(inspected.json()["parameters"], lathe("inspect --json " + config).json()["parameters"]);
  EXPECT_EQ(synth("a", "--seed 3").exit_code, 0) << "what Lathe wrote, it replaces";
}

}  // namespace
}  // namespace lathe
