#include "cli/bench_serve_client.h"

#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <variant>

#include "core/error.h"

namespace lathe {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using Clock = std::chrono::steady_clock;
using Plain = beast::tcp_stream;
using Tls = beast::ssl_stream<beast::tcp_stream>;
constexpr auto as_tuple = asio::as_tuple(asio::use_awaitable);
constexpr size_t most_error_bytes = 64 << 10;

struct Connection {
  std::variant<Plain, Tls> stream;
  beast::flat_buffer buffer;
  bool used = false;
};

// The text of one chunk of either endpoint.
std::string_view text_of(const Json& choice) {
  const auto string_at = [](const Json& j, std::string_view key) -> std::string_view {
    const auto it = j.find(key);
    return it != j.end() && it->is_string() ? std::string_view(it->get_ref<const std::string&>()) : "";
  };
  const auto delta = choice.find("delta");
  if (delta == choice.end() || !delta->is_object()) return string_at(choice, "text");
  for (const std::string_view key : {"content", "reasoning_content", "reasoning"})
    if (const std::string_view text = string_at(*delta, key); !text.empty()) return text;
  return "";
}

// Servers may say null where they do not know.
void read_usage(const Json& usage, Measured& m) {
  const auto count = [](const Json& j, std::string_view key) {
    const auto it = j.find(key);
    return it != j.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
  };
  m.prompt_tokens = count(usage, "prompt_tokens");
  m.output_tokens = count(usage, "completion_tokens");
  if (const auto it = usage.find("prompt_tokens_details"); it != usage.end() && it->is_object())
    m.cached_tokens = count(*it, "cached_tokens");
}

std::string said_by(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const std::exception& e) {
    return e.what();
  }
}

class Load {
 public:
  Load(const ClientOptions& options, asio::io_context& io, Clock::time_point start)
      : options_(options), io_(io), start_(start) {
    endpoints_ = tcp::resolver(io).resolve(options.server.host, options.server.port);
    if (options.server.tls) trust();
  }
  double now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  // A connection that the server closed while nobody used it fails before any byte of an answer: once more,
  // on a new one.
  asio::awaitable<void> ask(std::string body, Measured& m) {
    m.sent = now();
    for (bool again = true; again;) {
      std::unique_ptr<Connection> connection = take();
      const bool reused = connection->used;
      bool answered = false;
      const boost::system::error_code failed = co_await std::visit(
          [&](auto& stream) { return exchange(stream, *connection, body, m, answered); }, connection->stream);
      again = failed && reused && !answered;
      if (again) continue;
      if (failed) fail(m, failed == beast::error::timeout ? "the request took too long" : failed.message());
      if (!failed && connection->used) idle_.push_back(std::move(connection));
    }
  }

  asio::awaitable<void> get(std::string path, std::string& answer, boost::system::error_code& failed) {
    const std::unique_ptr<Connection> c = connection();
    failed = co_await std::visit(
        [&](auto& stream) { return get_on(stream, c->buffer, head(http::verb::get, path), answer); },
        c->stream);
  }

  static void fail(Measured& m, std::string why) {
    m.outcome = Measured::Outcome::failed;
    m.error = std::move(why);
  }

 private:
  void trust() {
    tls_.emplace(asio::ssl::context::tls_client);
    if (options_.insecure) return;
    tls_->set_verify_mode(asio::ssl::verify_peer);
    boost::system::error_code failed;
    if (options_.authority.empty())
      tls_->set_default_verify_paths(failed);
    else
      tls_->load_verify_file(options_.authority.string(), failed);
    if (failed) throw input_error(options_.authority.string(), "PEM certificates", failed.message());
  }

  std::unique_ptr<Connection> connection() {
    if (!tls_) return std::make_unique<Connection>(Connection{Plain(io_), {}});
    auto c = std::make_unique<Connection>(Connection{Tls(io_, *tls_), {}});
    Tls& stream = std::get<Tls>(c->stream);
    SSL_set_tlsext_host_name(stream.native_handle(), options_.server.host.c_str());
    if (!options_.insecure)
      stream.set_verify_callback(asio::ssl::host_name_verification(options_.server.host));
    return c;
  }

  template <class Stream>
  asio::awaitable<boost::system::error_code> connect(Stream& stream) {
    boost::system::error_code failed;
    Plain& lowest = beast::get_lowest_layer(stream);
    std::tie(failed, std::ignore) = co_await lowest.async_connect(endpoints_, as_tuple);
    if (failed) co_return failed;
    lowest.socket().set_option(tcp::no_delay(true), failed);
    if constexpr (std::is_same_v<Stream, Tls>)
      std::tie(failed) = co_await stream.async_handshake(asio::ssl::stream_base::client, as_tuple);
    co_return failed;
  }

  template <class Stream>
  asio::awaitable<boost::system::error_code> get_on(Stream& stream, beast::flat_buffer& buffer,
                                                    http::request<http::string_body> request,
                                                    std::string& answer) {
    beast::get_lowest_layer(stream).expires_after(std::chrono::seconds(30));
    boost::system::error_code failed = co_await connect(stream);
    if (failed) co_return failed;
    std::tie(failed, std::ignore) = co_await http::async_write(stream, request, as_tuple);
    if (failed) co_return failed;
    http::response<http::string_body> response;
    std::tie(failed, std::ignore) = co_await http::async_read(stream, buffer, response, as_tuple);
    answer = std::move(response.body());
    co_return failed;
  }

  http::request<http::string_body> head(http::verb verb, const std::string& path) const {
    http::request<http::string_body> r{verb, options_.server.prefix + path, 11};
    r.set(http::field::host, options_.server.host);
    r.set(http::field::user_agent, "lathe-bench");
    if (!options_.api_key.empty()) r.set(http::field::authorization, "Bearer " + options_.api_key);
    return r;
  }

  std::unique_ptr<Connection> take() {
    if (idle_.empty()) return connection();
    std::unique_ptr<Connection> c = std::move(idle_.back());
    idle_.pop_back();
    return c;
  }

  void take_event(std::string_view data, Measured& m, bool& ended) const {
    if (data == "[DONE]") {
      ended = true;
      return;
    }
    const Json j = Json::parse(data, nullptr, false);
    if (!j.is_object()) return fail(m, "an event that is not JSON");
    if (const auto it = j.find("error"); it != j.end() && !it->is_null()) return fail(m, it->dump());
    if (const auto it = j.find("usage"); it != j.end() && it->is_object()) read_usage(*it, m);
    const auto choices = j.find("choices");
    if (choices == j.end() || !choices->is_array() || choices->empty()) return;
    if (text_of((*choices)[0]).empty()) return;
    const double t = now();
    if (m.first == 0)
      m.first = t;
    else
      m.gaps.push_back(t - m.last);
    m.last = t;
  }

  template <class Stream>
  asio::awaitable<boost::system::error_code> exchange(Stream& stream, Connection& c, const std::string& body,
                                                      Measured& m, bool& answered) {
    boost::system::error_code failed;
    beast::get_lowest_layer(stream).expires_after(
        std::chrono::milliseconds(static_cast<int64_t>(options_.timeout * 1e3)));
    if (!c.used) failed = co_await connect(stream);
    if (failed) co_return failed;
    http::request<http::string_body> request = head(http::verb::post, options_.path);
    request.set(http::field::content_type, "application/json");
    request.body() = body;
    request.prepare_payload();
    std::tie(failed, std::ignore) = co_await http::async_write(stream, request, as_tuple);
    if (failed) co_return failed;

    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    std::tie(failed, std::ignore) = co_await http::async_read_header(stream, c.buffer, parser, as_tuple);
    if (failed) co_return failed;
    answered = true;
    const unsigned status = parser.get().result_int();
    SseReader events;
    std::string whole;  // of an error
    bool ended = false;
    char bytes[16384];
    while (!parser.is_done()) {
      parser.get().body().data = bytes;
      parser.get().body().size = sizeof bytes;
      std::tie(failed, std::ignore) = co_await http::async_read_some(stream, c.buffer, parser, as_tuple);
      if (failed == http::error::need_buffer) failed = {};
      if (failed) co_return failed;
      const std::string_view got(bytes, sizeof bytes - parser.get().body().size);
      if (status != 200 && whole.size() < most_error_bytes) whole += got;
      if (status == 200) events.push(got, [&](std::string_view data) { take_event(data, m, ended); });
    }
    c.used = parser.get().keep_alive();
    conclude(status, whole, ended, m);
    co_return failed;
  }

  void conclude(unsigned status, const std::string& body, bool ended, Measured& m) const {
    if (m.outcome == Measured::Outcome::failed) return;
    if (status == 429 || status == 503)
      m.outcome = Measured::Outcome::refused;
    else if (status != 200)
      fail(m, fmt::format("status {}: {}", status, printable(body)));
    else if (!ended)
      fail(m, "the stream ended without [DONE]");
    else
      m.outcome = Measured::Outcome::done;
    if (m.first == 0) m.first = m.last = now();  // an answer without text
    if (m.output_tokens == 0) m.output_tokens = static_cast<int64_t>(m.gaps.size()) + 1;  // no usage: chunks
  }

  const ClientOptions& options_;
  asio::io_context& io_;
  Clock::time_point start_;
  tcp::resolver::results_type endpoints_;
  std::optional<asio::ssl::context> tls_;
  std::vector<std::unique_ptr<Connection>> idle_;
};

}  // namespace

void SseReader::push(std::string_view bytes, const std::function<void(std::string_view)>& take) {
  for (const char c : bytes) {
    if (c != '\n') {
      line_ += c;
      continue;
    }
    if (line_.ends_with('\r')) line_.pop_back();
    if (line_.empty() && !data_.empty()) {
      take(data_);
      data_.clear();
    } else if (line_.starts_with("data:")) {
      if (!data_.empty()) data_ += '\n';
      data_ += std::string_view(line_).substr(line_.starts_with("data: ") ? 6 : 5);
    }
    line_.clear();
  }
}

ServerUrl parse_url(std::string_view text) {
  const auto wrong = [&] { return input_error("URL", "http[s]://HOST[:PORT][/PREFIX]", printable(text)); };
  static constexpr std::string_view plain = "http://", secure = "https://";
  ServerUrl url;
  url.tls = text.starts_with(secure);
  if (!url.tls && !text.starts_with(plain)) throw wrong();
  std::string_view rest = text.substr((url.tls ? secure : plain).size());
  const size_t slash = std::min(rest.find('/'), rest.size());
  url.prefix = rest.substr(slash);
  while (url.prefix.ends_with('/')) url.prefix.pop_back();
  if (url.prefix.ends_with("/v1")) url.prefix.resize(url.prefix.size() - 3);
  rest = rest.substr(0, slash);
  const size_t bracket = rest.starts_with('[') ? rest.find(']') : 0;
  if (bracket == std::string_view::npos) throw wrong();
  const size_t colon = rest.find(':', bracket);
  url.host = bracket > 0 ? rest.substr(1, bracket - 1) : rest.substr(0, colon);
  url.port = colon == std::string_view::npos ? (url.tls ? "443" : "80") : rest.substr(colon + 1);
  if (url.host.empty() || url.port.empty() || url.port.find_first_not_of("0123456789") != std::string::npos)
    throw wrong();
  return url;
}

std::string served_model(const ClientOptions& options) {
  const std::string where = fmt::format("{}:{}", options.server.host, options.server.port);
  std::string answer;
  boost::system::error_code failed;
  try {
    asio::io_context io{1};
    Load load(options, io, Clock::now());
    asio::co_spawn(io, load.get("/v1/models", answer, failed), asio::detached);
    io.run();
  } catch (const boost::system::system_error& e) {
    failed = e.code();
  }
  if (failed.category() == asio::error::get_ssl_category())
    throw Error(
        fmt::format("{}: expected a certificate that is trusted, found: {}; --ca FILE names who signed "
                    "it, --insecure trusts any",
                    where, failed.message()));
  if (failed) throw Error(fmt::format("{}: expected a server, found none ({})", where, failed.message()));
  const Json j = Json::parse(answer, nullptr, false);
  if (j.is_object())
    if (const auto it = j.find("data");
        it != j.end() && it->is_array() && !it->empty() && (*it)[0].is_object())
      return (*it)[0].value("id", std::string());
  throw Error(fmt::format("{}/v1/models: expected a list of models, found {}", where, printable(answer)));
}

double send_load(const ClientOptions& options, const std::vector<Arrival>& arrivals,
                 const std::function<std::string(size_t)>& body, std::vector<Measured>& results,
                 const std::function<void(int64_t)>& finished, const std::atomic<bool>& stop) {
  asio::io_context io{1};
  Load load(options, io, Clock::now());
  asio::steady_timer timer(io), room(io), watch(io);
  int64_t open = 0;
  bool all_sent = false;
  double end = 0;
  results.assign(arrivals.size(), {});
  const auto send = [&]() -> asio::awaitable<void> {
    for (size_t i = 0; i < arrivals.size(); ++i) {
      const double wait = arrivals[i].at - load.now();
      if (wait > 0) {
        timer.expires_after(std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(wait)));
        co_await timer.async_wait(as_tuple);
      }
      while (options.concurrency > 0 && open >= options.concurrency) {
        room.expires_at(Clock::time_point::max());
        co_await room.async_wait(as_tuple);
      }
      std::string text = body(i);
      ++open;
      asio::co_spawn(io, load.ask(std::move(text), results[i]), [&, i](const std::exception_ptr& thrown) {
        if (thrown) Load::fail(results[i], said_by(thrown));
        --open;
        end = load.now();
        finished(open);
        room.cancel();
        if (all_sent && open == 0) watch.cancel();
      });
    }
    all_sent = true;
  };
  const auto look = [&]() -> asio::awaitable<void> {  // an interrupt stops all within a tenth of a second
    while (!stop && !(all_sent && open == 0)) {
      watch.expires_after(std::chrono::milliseconds(100));
      co_await watch.async_wait(as_tuple);
    }
    if (stop) end = load.now();
    io.stop();
  };
  std::exception_ptr unsent;
  asio::co_spawn(io, send(), [&](std::exception_ptr thrown) {
    unsent = std::move(thrown);
    if (unsent) io.stop();
  });
  asio::co_spawn(io, look(), asio::detached);
  io.run();
  if (unsent) std::rethrow_exception(unsent);
  return end;
}

}  // namespace lathe
