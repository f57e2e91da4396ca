// The main job: find the smallest, or the best, model that meets the limits, and write it with its recipe and
// report.
#pragma once

#include <string>

#include "search/report.h"

namespace lathe {

struct OptimizeOptions {
  std::string model, output;  // as given on the command line, for the recipe and the report
  std::filesystem::path calibration;
  std::filesystem::path evaluation;  // empty: the last part of the calibration text is held out
  Constraints constraints;           // none: the perplexity may rise by 1 %
  int max_trials = 48;
  bool emulated = false;  // formats without a kernel of this machine are candidates too
  StudyOptions study;
};

struct Optimized {
  bool met = false;
  std::string headline, table;
  Json report;
};

// Writes into `directory` (an AtomicDirectory's path()): the model, lathe/recipe.yaml, lathe/report.json and
// lathe/report.html. The journal is <output>.study/journal.sqlite, so that a killed run resumes.
Optimized optimize(const OptimizeOptions&, const Checkpoint&, const Model&,
                   const std::filesystem::path& directory);

std::filesystem::path journal_path(const std::string& output);

}  // namespace lathe
