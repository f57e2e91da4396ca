// The routes of a server: who may call what, and which function answers.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/http.h"
#include "server/rate_limit.h"
#include "server/service.h"

namespace lathe {

struct AppOptions {
  std::vector<std::string>
      api_keys;                    // one of them in "Authorization: Bearer" or "X-Api-Key"; none: open to all
  std::string cors_origin;         // of pages that may call ("*": any); empty: none
  bool access_log = false;         // a line of JSON per request on stderr
  double requests_per_minute = 0;  // of one key, or of one address where there are no keys; 0: any number
};

// Answers 503 until it is given a service, so that a load balancer sees a server that is loading. /health and
// the page need no key, every other route does.
class App {
 public:
  explicit App(const AppOptions&);
  void serve(Service& service) { service_ = &service; }

  void handle(HttpRequest, std::shared_ptr<HttpExchange>);  // HttpServer::Handler
  static std::string error_body(std::string_view path, int status, std::string_view message);  // ErrorBody

 private:
  // Who asks: the digest of its key, or its address where no keys are needed. Nothing where no valid key was
  // sent.
  std::optional<std::string> caller(const HttpRequest&) const;
  void route(const HttpRequest&, std::shared_ptr<HttpExchange>);

  AppOptions options_;
  RateLimit rate_;
  std::atomic<Service*> service_ = nullptr;
};

}  // namespace lathe
