// What a monitoring system scrapes: Prometheus' text format, under the names that vLLM's dashboards use.
#pragma once

#include <memory>
#include <string>

#include "engine/engine.h"

namespace lathe {

// Every member may be called from any thread.
class Metrics {
 public:
  explicit Metrics(const std::string& model);
  ~Metrics();

  void first_token(double seconds);  // since the request arrived
  void next_token(double seconds);   // since the token before
  void request_done(Finish, double seconds, size_t prompt_tokens, size_t generated_tokens);
  void phases(double queue, double prefill, double decode);  // seconds of a choice that wrote something
  void answered(int status);
  void client_left();  // before its answer ended
  std::string text(const EngineStats&) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lathe
