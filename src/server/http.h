// HTTP/1.1 with server-sent events, over TCP or TLS. Knows no model and no API.
//
// Every limit is a number here: a client that is slow, greedy or gone costs one connection and nothing else.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "core/json.h"

namespace lathe {

struct HttpRequest {
  std::string method, path;  // the path without its query
  std::string query;
  std::map<std::string, std::string, std::less<>> headers;  // names in lower case; of equal names the last
  std::string body;
  std::string client;  // address of the other end
};

// The answer to one request. Every member may be called from any thread; what comes after the end, or after
// the client left, is dropped.
class HttpExchange {
 public:
  using Headers = std::map<std::string, std::string>;
  virtual ~HttpExchange() = default;
  virtual void send(int status, std::string_view content_type, std::string body, const Headers& = {}) = 0;
  // An answer of unknown length, in chunks: start, write any number, finish. A client that does not read what
  // it is sent (HttpLimits::unsent_bytes) counts as gone; what send() is given may be larger.
  virtual void start(int status, std::string_view content_type, const Headers& = {}) = 0;
  virtual void write(std::string chunk) = 0;
  virtual void finish() = 0;
  // Called once, on the server's thread, when the client leaves before the end; at once if it has left.
  virtual void on_gone(std::function<void()>) = 0;
  // What a log should say of it besides; the server itself does not care.
  virtual void annotate(const Json&) {}
};

struct HttpLimits {
  size_t header_bytes = 16 << 10, body_bytes = 16 << 20;
  size_t unsent_bytes = 4 << 20;
  int64_t connections = 1024;  // more wait in the kernel's queue
  int64_t per_address = 0;     // of them; more are closed at once; 0: any number
  std::chrono::milliseconds header_time{10'000}, body_time{30'000}, idle_time{60'000}, write_time{30'000};
};

struct HttpOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8080;       // 0: the system chooses
  fs::path certificate, key;  // PEM files; empty: no TLS
  HttpLimits limits;
};

class HttpServer {
 public:
  using Handler = std::function<void(HttpRequest, std::shared_ptr<HttpExchange>)>;
  // The JSON of an answer that no handler gives: to what is too large, malformed or too late, or made one
  // throw. `path` is empty where none was read. Without one the message is the body.
  using ErrorBody = std::function<std::string(std::string_view path, int status, std::string_view message)>;
  // Listens at once; InputError when the address is taken or not ours, or a certificate does not load. The
  // handler runs on threads of its own, several at once: a prompt of megabytes delays others of its length,
  // no short request and nobody's answer. An exception of it answers 500. A HEAD is answered with no body.
  HttpServer(const HttpOptions&, Handler, ErrorBody = {});
  ~HttpServer();  // stop()

  uint16_t port() const;
  // Serves on this thread until stop(); no handler runs after it has returned.
  void run();
  // No new connections, 503 for new requests; open answers may end. From any thread, and from signal
  // handlers' threads.
  void drain();
  int64_t open_exchanges() const;
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lathe
