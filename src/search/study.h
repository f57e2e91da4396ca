// Measures candidates of one model, each of them once: the journal is asked first and told after.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "eval/dataset.h"
#include "eval/quality.h"
#include "eval/speed.h"
#include "search/candidate.h"
#include "search/journal.h"

namespace lathe {

// Everything that changes what is measured. Its JSON form, with the model's and the texts' hashes, is the
// study's key.
struct StudyOptions {
  int64_t search_tokens = 0, eval_tokens = 0;  // scored per candidate; 0: by the size of the model
  int64_t context = 0;  // tokens of KV cache that the memory figure counts; 0: the model's, at most 4096
  int64_t prompt_tokens = 0,
          gen_tokens = 0;  // of the speed measurement; 0: 512 and 32, or what the context holds
  uint64_t seed = 0;       // draws the windows of text
  Target target;           // threads and ISA
  ScaleSearch scale_search = ScaleSearch::mse;
};

// The parts of the texts that candidates are scored on.
enum class Excerpt : uint8_t {
  sensitivity,  // a quarter of `search`: one unit at a time
  search,       // of the calibration text: what every choice of the search rests on
  held_out,     // of the other text: verdicts only
};

class Study {
 public:
  // Fills the zeros of `options`. Windows of both texts are drawn by the seed.
  Study(const Model& base, std::vector<Unit>, std::vector<Format> menu, StudyOptions options,
        const Text& calibration, const Text& held_out, const std::string& model_hash,
        const std::filesystem::path& journal);

  const Model& base() const { return base_; }
  const std::vector<Unit>& units() const { return units_; }
  const std::vector<Format>& menu() const { return menu_; }
  const StudyOptions& options() const { return options_; }
  const Json& key() const { return key_; }
  Choice as_is() const { return Choice(units_.size(), 0); }

  // Compared with the base model on the same windows.
  Quality quality(const Choice&, Excerpt);
  Speed speed(const Choice&);
  // Packed weights + KV cache of options().context tokens + activations, as a plan for serving allocates
  // them.
  size_t memory_bytes(const Choice&);
  size_t bytes(const Choice& c) const { return stored_bytes(base_, units_, c); }
  double bits_per_weight(const Choice&) const;  // over all parameters, scales included
  std::vector<Plan::Choice> kernels(const Choice&);
  const Model& build(const Choice&);  // valid until another choice is measured

  bool measured(const Choice&, Excerpt) const;
  int64_t resumed() const { return resumed_; }  // trials that an earlier run left in the journal
  int64_t held_out_reads() const;               // candidates ever scored on the held-out text
  std::span<const int32_t> tokens(Excerpt) const;
  int64_t window() const { return window_; }
  std::string subject(const Choice&) const;  // the hash of what the choice means

 private:
  const BaseLogits* base_logits(Excerpt);  // null where they would take too much memory
  template <class Measured, class Measure>
  Measured once(std::string_view kind, const Choice&, Measure);
  Target serving() const;

  const Model& base_;
  std::vector<Unit> units_;
  std::vector<Format> menu_;
  StudyOptions options_;
  int64_t window_ = 256;
  std::vector<int32_t> sensitivity_, search_, held_out_;
  Json key_;
  std::filesystem::path journal_path_;
  std::optional<Journal> journal_;
  std::optional<Plan> base_plan_;  // for scoring
  std::map<Excerpt, BaseLogits> base_logits_;
  std::optional<Roof> roof_;  // measured once
  Choice built_choice_;       // of built_: measuring several things of one candidate quantizes once
  std::optional<Model> built_;
  int64_t resumed_ = 0;
};

// Windows of `window` tokens drawn without repetition until `budget` tokens are reached, in the order of the
// text.
std::vector<int32_t> draw_windows(std::span<const int32_t> tokens, int64_t window, int64_t budget,
                                  uint64_t seed);

}  // namespace lathe
