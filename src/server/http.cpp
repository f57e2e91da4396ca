#include "server/http.h"

#include <array>
#include <atomic>
#include <boost/asio.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <deque>
#include <optional>
#include <poll.h>
#include <utility>

#include "core/log.h"

namespace lathe {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using namespace asio::experimental::awaitable_operators;
using Plain = beast::tcp_stream;
using Tls = beast::ssl_stream<beast::tcp_stream>;
constexpr auto as_tuple = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::milliseconds linger{500};  // what a refused client may still send
constexpr std::chrono::milliseconds look_again{200};
constexpr size_t long_body =
    64 << 10;  // takes milliseconds to read and to tokenize; longer ones up to seconds

// What a connection writes, filled from any thread, emptied by the connection's coroutine.
class Exchange final : public HttpExchange, public std::enable_shared_from_this<Exchange> {
 public:
  // `wake` is the connection's: what holds the exchange may outlive it, and the server. `give_up` ends a
  // write that waits for the client.
  Exchange(asio::any_io_executor executor, asio::steady_timer& wake, size_t most, bool keep_alive,
           unsigned version, bool head_only, std::function<void()> give_up)
      : executor_(executor),
        wake_(&wake),
        most_(most),
        keep_alive_(keep_alive),
        version_(version),
        head_only_(head_only),
        give_up_(std::move(give_up)) {
    rearm();
  }

  void send(int status, std::string_view content_type, std::string body, const Headers& headers) override {
    post([=, this, type = std::string(content_type), body = std::move(body)] {
      if (started_) return;
      whole_ = true;
      push(head(status, type, headers, fmt::format("Content-Length: {}\r\n", body.size())));
      if (!head_only_) push(body);
      ended_ = true;
    });
  }
  void start(int status, std::string_view content_type, const Headers& headers) override {
    post([=, this, type = std::string(content_type)] {
      if (started_) return;
      // HTTP/1.0 knows no chunks: the end of the connection is the end of the answer.
      chunked_ = version_ >= 11;
      if (!chunked_) keep_alive_ = false;
      push(head(status, type, headers, chunked_ ? "Transfer-Encoding: chunked\r\n" : ""));
    });
  }
  void write(std::string chunk) override {
    if (chunk.empty()) return;
    post([this, chunk = std::move(chunk)] {
      if (!started_ || ended_ || head_only_) return;
      push(chunked_ ? fmt::format("{:x}\r\n{}\r\n", chunk.size(), chunk) : chunk);
    });
  }
  void finish() override {
    post([this] {
      if (!started_ || ended_) return;
      if (chunked_ && !head_only_) push("0\r\n\r\n");
      ended_ = true;
    });
  }
  void on_gone(std::function<void()> call) override {
    post([this, call = std::move(call)]() mutable {
      if (gone_)
        call();
      else if (!ended_)
        call_when_gone_ = std::move(call);
    });
  }

  // On the server's thread.
  bool keep_alive() const { return keep_alive_; }
  bool complete() const { return ended_ && out_.empty(); }
  bool overflowed() const { return !whole_ && unsent_ > most_; }
  bool has_output() const { return !out_.empty(); }
  std::string take_output() {
    std::string all;
    for (std::string& part : out_) all += part;
    out_.clear();
    unsent_ = 0;
    return all;
  }
  auto woken() { return wake_->async_wait(as_tuple); }
  void rearm() { wake_->expires_at(std::chrono::steady_clock::time_point::max()); }
  void rearm(std::chrono::milliseconds longest) { wake_->expires_after(longest); }
  void leave() {
    const auto call = std::exchange(call_when_gone_, {});
    if (complete() || gone_) return;
    gone_ = true;
    if (call) call();
  }
  // The connection ends. What is called when the client leaves often holds this exchange itself.
  void forget() {
    call_when_gone_ = {};
    wake_ = nullptr;
  }

 private:
  template <class F>
  void post(F&& f) {
    asio::post(executor_, [self = shared_from_this(), f = std::forward<F>(f)]() mutable {
      f();
      if (self->wake_) self->wake_->cancel();
    });
  }
  std::string head(int status, const std::string& type, const Headers& headers, const std::string& length) {
    started_ = true;
    std::string text = fmt::format("HTTP/1.1 {} {}\r\n", status,
                                   std::string(http::obsolete_reason(static_cast<http::status>(status))));
    if (!type.empty()) text += "Content-Type: " + type + "\r\n";
    for (const auto& [name, value] : headers) text += name + ": " + value + "\r\n";
    return text + length + (keep_alive_ ? "" : "Connection: close\r\n") + "\r\n";
  }
  void push(std::string bytes) {
    if (gone_) return;
    unsent_ += bytes.size();
    out_.push_back(std::move(bytes));
    if (overflowed()) give_up_();
  }

  asio::any_io_executor executor_;
  asio::steady_timer* wake_;  // null: the connection has ended
  size_t most_, unsent_ = 0;
  std::deque<std::string> out_;
  bool keep_alive_, started_ = false, chunked_ = false, ended_ = false, gone_ = false;
  bool whole_ = false;  // an answer at once: as large as it is
  unsigned version_;
  bool head_only_;
  std::function<void()> give_up_, call_when_gone_;
};

std::string path_of(std::string_view target) { return std::string(target.substr(0, target.find('?'))); }

HttpRequest plain(http::request<http::string_body>&& from, const std::string& client) {
  HttpRequest r;
  r.method = std::string(from.method_string());
  const std::string target(from.target());
  const size_t mark = target.find('?');
  r.path = path_of(target);
  if (mark != std::string::npos) r.query = target.substr(mark + 1);
  for (const auto& field : from) {
    std::string name(field.name_string());
    for (char& c : name) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    r.headers[name] = std::string(field.value());
  }
  r.body = std::move(from.body());
  r.client = client;
  return r;
}

// Whether the other end has closed, unread bytes or not.
bool hung_up(tcp::socket& socket) {
  pollfd asked{socket.native_handle(), POLLRDHUP, 0};
  return ::poll(&asked, 1, 0) > 0;
}

}  // namespace

struct HttpServer::Impl {
  HttpOptions options;
  Handler handler;
  ErrorBody error_body;
  asio::io_context io{1};
  // After io: their threads end first. Long bodies wait for one another, and so take one core from what runs;
  // nobody else waits for them.
  asio::thread_pool handlers{2}, long_handlers{1};
  tcp::acceptor acceptor{io};
  std::optional<asio::ssl::context> tls;
  asio::steady_timer room{io};
  int64_t connections = 0;
  std::map<std::string, int64_t> from;  // of them, by address
  std::atomic<int64_t> exchanges = 0;
  bool draining = false;
  uint16_t port = 0;

  Impl(const HttpOptions& o, Handler h, ErrorBody e)
      : options(o), handler(std::move(h)), error_body(std::move(e)) {
    const std::string where = fmt::format("{}:{}", o.host, o.port);
    boost::system::error_code failed;
    tcp::resolver resolver(io);
    const auto found = resolver.resolve(o.host, std::to_string(o.port), failed);
    if (failed || found.empty())
      throw input_error("--host " + o.host, "an address of this machine", failed.message());
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor.open(endpoint.protocol());
    acceptor.set_option(asio::socket_base::reuse_address(true));
    acceptor.bind(endpoint, failed);
    if (failed)
      throw input_error(where, "an address to listen on", failed.message(), "choose another --port");
    acceptor.listen(asio::socket_base::max_listen_connections, failed);
    if (failed) throw input_error(where, "an address to listen on", failed.message());
    port = acceptor.local_endpoint().port();
    if (!o.certificate.empty()) load_certificate();
    asio::co_spawn(io, accept(), asio::detached);
  }

  void load_certificate() {
    tls.emplace(asio::ssl::context::tls_server);
    tls->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 |
                     asio::ssl::context::no_tlsv1_1);
    boost::system::error_code failed;
    tls->use_certificate_chain_file(options.certificate.string(), failed);
    if (failed) throw input_error(options.certificate.string(), "a PEM certificate chain", failed.message());
    tls->use_private_key_file(options.key.string(), asio::ssl::context::pem, failed);
    if (failed) throw input_error(options.key.string(), "the certificate's PEM key", failed.message());
  }

  asio::awaitable<void> accept() {
    while (acceptor.is_open()) {
      if (connections >= options.limits.connections) {
        room.expires_at(std::chrono::steady_clock::time_point::max());
        co_await room.async_wait(as_tuple);
        continue;
      }
      auto [failed, socket] = co_await acceptor.async_accept(as_tuple);
      if (failed == asio::error::operation_aborted) co_return;
      if (failed) {  // out of descriptors, say: connections that end will free some
        room.expires_after(std::chrono::milliseconds(50));
        co_await room.async_wait(as_tuple);
        continue;
      }
      boost::system::error_code ignored;
      const std::string client = socket.remote_endpoint(ignored).address().to_string();
      int64_t& of_client = from[client];
      if (options.limits.per_address > 0 && of_client >= options.limits.per_address) continue;
      ++connections;
      ++of_client;
      asio::co_spawn(io, connection(std::move(socket), client), [this, client](std::exception_ptr) {
        --connections;
        if (--from[client] == 0) from.erase(client);
        room.cancel();
      });
    }
  }

  asio::awaitable<void> connection(tcp::socket socket, std::string client) {
    boost::system::error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    socket.non_blocking(true, ignored);  // answer() peeks
    if (!tls) {
      Plain stream(std::move(socket));
      co_await serve(stream, client);
      stream.socket().shutdown(tcp::socket::shutdown_both, ignored);
      co_return;
    }
    Tls stream(std::move(socket), *tls);
    beast::get_lowest_layer(stream).expires_after(options.limits.header_time);
    const auto [failed] = co_await stream.async_handshake(asio::ssl::stream_base::server, as_tuple);
    if (failed) co_return;
    co_await serve(stream, client);
    beast::get_lowest_layer(stream).expires_after(linger);
    co_await stream.async_shutdown(as_tuple);
  }

  template <class Stream>
  asio::awaitable<void> serve(Stream& stream, const std::string& client) {
    auto& timer = beast::get_lowest_layer(stream);
    const HttpLimits& limits = options.limits;
    beast::flat_buffer buffer(limits.header_bytes + 64 * 1024);
    for (bool first = true; !draining; first = false) {
      http::request_parser<http::string_body> parser;
      parser.header_limit(static_cast<uint32_t>(limits.header_bytes));
      parser.body_limit(limits.body_bytes);
      timer.expires_after(first || buffer.size() > 0 ? limits.header_time : limits.idle_time);
      auto [failed, n] = co_await http::async_read_header(stream, buffer, parser, as_tuple);
      if (!failed) {
        if (parser.get()[http::field::expect] == "100-continue") {
          static constexpr std::string_view go_on = "HTTP/1.1 100 Continue\r\n\r\n";
          co_await asio::async_write(stream, asio::buffer(go_on), as_tuple);
        }
        timer.expires_after(limits.body_time);
        std::tie(failed, n) = co_await http::async_read(stream, buffer, parser, as_tuple);
      }
      if (failed) {
        co_await refuse(stream, failed, path_of(parser.get().target()));
        co_return;
      }
      const unsigned version = parser.get().version();
      asio::steady_timer wake(io);
      auto exchange = std::make_shared<Exchange>(
          io.get_executor(), wake, limits.unsent_bytes, parser.get().keep_alive() && !draining, version,
          parser.get().method() == http::verb::head, [&timer] { timer.cancel(); });
      ++exchanges;
      struct Forget {  // also when the server ends amid an answer
        Exchange& exchange;
        ~Forget() { exchange.forget(); }
      } const forget{*exchange};
      if (draining)
        send_error(*exchange, path_of(parser.get().target()), 503, "the server is ending",
                   {{"Retry-After", "1"}});
      else
        dispatch(plain(parser.release(), client), exchange);
      const bool sent = co_await answer(stream, *exchange);
      exchange->leave();
      --exchanges;
      if (!sent || !exchange->keep_alive()) co_return;
    }
  }

  void dispatch(HttpRequest request, std::shared_ptr<Exchange> exchange) {
    asio::thread_pool& threads = request.body.size() > long_body ? long_handlers : handlers;
    asio::post(threads, [this, request = std::move(request), exchange = std::move(exchange)]() mutable {
      handle(std::move(request), exchange);
    });
  }

  // On a handlers' thread.
  void handle(HttpRequest request, const std::shared_ptr<Exchange>& exchange) {
    const std::string path = request.path;
    try {
      handler(std::move(request), exchange);
    } catch (const std::exception& e) {
      warn("http: {}", printable(e.what()));
      send_error(*exchange, path, 500, "internal error");
    }
  }

  std::string body_of(std::string_view path, int status, std::string_view message) const {
    return error_body ? error_body(path, status, message) : std::string(message);
  }
  void send_error(Exchange& exchange, std::string_view path, int status, std::string_view message,
                  const HttpExchange::Headers& headers = {}) const {
    exchange.send(status, error_type(), body_of(path, status, message), headers);
  }
  const char* error_type() const { return error_body ? "application/json" : "text/plain"; }

  // True when the whole answer is out. A client that closes meanwhile is noticed without writing to it.
  template <class Stream>
  asio::awaitable<bool> answer(Stream& stream, Exchange& exchange) {
    auto& timer = beast::get_lowest_layer(stream);
    bool watch = true;
    while (!exchange.complete()) {
      if (exchange.overflowed()) co_return false;
      if (exchange.has_output()) {
        const std::string bytes = exchange.take_output();
        timer.expires_after(options.limits.write_time);
        const auto [failed, n] = co_await asio::async_write(stream, asio::buffer(bytes), as_tuple);
        if (failed) co_return false;
        continue;
      }
      timer.expires_never();
      if (!watch) {
        if (hung_up(timer.socket())) co_return false;
        exchange.rearm(look_again);
        co_await exchange.woken();
        continue;
      }
      exchange.rearm();
      auto woke = co_await (exchange.woken() || timer.socket().async_wait(tcp::socket::wait_read, as_tuple));
      if (woke.index() == 0) continue;
      // Readable: the end of the connection, or the next request, which can wait. An end behind that is seen
      // by looking again.
      char byte;
      boost::system::error_code failed;
      const size_t n = timer.socket().receive(asio::buffer(&byte, 1), tcp::socket::message_peek, failed);
      if (failed == asio::error::would_block) continue;
      if (failed || n == 0) co_return false;
      watch = false;
    }
    co_return true;
  }

  template <class Stream>
  asio::awaitable<void> refuse(Stream& stream, boost::system::error_code why, std::string path) {
    int status = 400;
    if (why == http::error::end_of_stream || why == asio::error::operation_aborted) co_return;
    if (why == beast::error::timeout) co_return;  // nothing was asked, or too slowly to be worth an answer
    if (why == http::error::body_limit) status = 413;
    if (why == http::error::header_limit || why == http::error::buffer_overflow) status = 431;
    if (why.category() != make_error_code(http::error::bad_method).category())
      co_return;  // the connection broke
    const std::string body = body_of(path, status, printable(why.message()));
    const std::string all =
        fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
                    status, std::string(http::obsolete_reason(static_cast<http::status>(status))),
                    error_type(), body.size(), body);
    beast::get_lowest_layer(stream).expires_after(options.limits.write_time);
    co_await asio::async_write(stream, asio::buffer(all), as_tuple);
    // Unread bytes at a close would reset the connection before the answer is read.
    auto& socket = beast::get_lowest_layer(stream).socket();
    boost::system::error_code ignored;
    socket.shutdown(tcp::socket::shutdown_send, ignored);
    std::array<char, 4096> rest;
    const auto end = std::chrono::steady_clock::now() + linger;
    while (std::chrono::steady_clock::now() < end) {
      beast::get_lowest_layer(stream).expires_at(end);
      const auto [failed, n] =
          co_await beast::get_lowest_layer(stream).async_read_some(asio::buffer(rest), as_tuple);
      if (failed) break;
    }
  }
};

HttpServer::HttpServer(const HttpOptions& options, Handler handler, ErrorBody error_body)
    : impl_(std::make_unique<Impl>(options, std::move(handler), std::move(error_body))) {}
HttpServer::~HttpServer() { stop(); }
uint16_t HttpServer::port() const { return impl_->port; }
void HttpServer::run() {
  impl_->io.run();
  for (asio::thread_pool* threads : {&impl_->handlers, &impl_->long_handlers}) {
    threads->stop();
    threads->join();
  }
}
void HttpServer::stop() { impl_->io.stop(); }
int64_t HttpServer::open_exchanges() const { return impl_->exchanges; }
void HttpServer::drain() {
  asio::post(impl_->io, [this] {
    impl_->draining = true;
    impl_->acceptor.close();
  });
}

}  // namespace lathe
