// What a client did wrong, in the shape that OpenAI's clients read.
#pragma once

#include <chrono>
#include <map>
#include <string>

#include "core/json.h"

namespace lathe {

class ApiError : public Error {
 public:
  ApiError(int status, std::string type, const std::string& message, std::string param = {})
      : Error(message), status_(status), type_(std::move(type)), param_(std::move(param)) {}
  static ApiError bad_request(const std::string& message, std::string param = {}) {
    return {400, "invalid_request_error", message, std::move(param)};
  }
  static ApiError internal() { return {500, "server_error", "internal error"}; }  // the log says which
  static ApiError wrong_field(const std::string& where, std::string_view expected) {
    return bad_request(fmt::format("{}: expected {}", where, expected), where);
  }

  ApiError after(std::chrono::seconds wait) const {  // not earlier
    ApiError e = *this;
    e.retry_after_ = wait;
    return e;
  }

  int status() const { return status_; }
  std::chrono::seconds retry_after() const { return retry_after_; }  // of 429 and 503
  std::map<std::string, std::string> headers() const {
    if (status_ == 429 || status_ == 503) return {{"Retry-After", std::to_string(retry_after_.count())}};
    if (status_ == 401) return {{"WWW-Authenticate", "Bearer"}};
    return {};
  }
  Json body() const {
    return {{"error",
             {{"message", what()},
              {"type", type_},
              {"param", param_.empty() ? Json() : Json(param_)},
              {"code", status_}}}};
  }

 private:
  int status_;
  std::chrono::seconds retry_after_{1};
  std::string type_, param_;
};

}  // namespace lathe
