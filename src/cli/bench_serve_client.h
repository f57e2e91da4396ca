// A client of an OpenAI-compatible server that times what it reads, over TCP or TLS.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/bench_serve_load.h"
#include "cli/bench_serve_summary.h"

namespace lathe {

// The data of server-sent events, however the bytes are cut. Events end with an empty line; lines with LF or
// CRLF.
class SseReader {
 public:
  void push(std::string_view bytes, const std::function<void(std::string_view data)>&);

 private:
  std::string line_, data_;
};

struct ServerUrl {
  std::string host, port, prefix;  // prefix: what stands before /v1
  bool tls = false;
};
ServerUrl parse_url(std::string_view);  // "http://host:port" or "https://host:port"; InputError otherwise

struct ClientOptions {
  ServerUrl server;
  std::string api_key;
  fs::path authority;     // a PEM file of certificates to trust; empty: the system's
  bool insecure = false;  // trust whoever answers
  std::string path = "/v1/completions";
  int64_t concurrency = 0;  // requests open at once; 0: any number
  double timeout = 600;     // seconds that a request may take
};

// The name of the server's first model. Error when it does not answer.
std::string served_model(const ClientOptions&);

// Sends `body(i)` at arrival i, or as soon as fewer than `concurrency` are open. Returns when all have ended
// or `stop` was set; `finished` is called after each. Returns the seconds it took.
double send_load(const ClientOptions&, const std::vector<Arrival>&,
                 const std::function<std::string(size_t)>& body, std::vector<Measured>&,
                 const std::function<void(int64_t open)>& finished, const std::atomic<bool>& stop);

}  // namespace lathe
