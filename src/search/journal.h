// What was measured, kept on disk: a killed search resumes where it stopped.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/json.h"

namespace lathe {

// An SQLite file of studies. A study is everything that changes numbers (model, texts, token budgets, seed,
// machine); in it, a measurement is found by its kind ("quality.search", "speed", ...) and its subject (the
// hash of a choice). Each record is on disk when record() returns, so a kill loses at most the measurement
// that was running.
class Journal {
 public:
  // Creates the file and its folder when there is none. InputError naming the file when it is damaged or not
  // a journal.
  Journal(const std::filesystem::path&, const Json& study);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  std::optional<Json> find(std::string_view kind, std::string_view subject) const;
  void record(std::string_view kind, std::string_view subject, const Json& measured);
  int64_t count(std::string_view kind) const;  // of this study

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lathe
