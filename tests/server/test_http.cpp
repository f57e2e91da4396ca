#include <atomic>
#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <future>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>

#include "server/certificate.h"
#include "server/client.h"
#include "server/http.h"

namespace lathe {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

HttpOptions options() {
  HttpOptions o;
  o.port = 0;
  o.limits.header_bytes = 2048;
  o.limits.body_bytes = 10'000;
  o.limits.header_time = std::chrono::milliseconds(300);
  o.limits.body_time = std::chrono::milliseconds(300);
  o.limits.unsent_bytes = 1 << 20;
  return o;
}

// A server on a thread of its own.
class Serving {
 public:
  explicit Serving(HttpServer::Handler handler, const HttpOptions& o = options())
      : server_(o, std::move(handler)), thread_([this] { server_.run(); }) {}
  ~Serving() {
    server_.stop();
    thread_.join();
  }
  HttpServer& operator*() { return server_; }
  uint16_t port() const { return server_.port(); }

 private:
  HttpServer server_;
  std::thread thread_;
};

void echo(HttpRequest r, std::shared_ptr<HttpExchange> e) {
  e->send(200, "text/plain", fmt::format("{} {} {}", r.method, r.path, r.body), {{"X-Query", r.query}});
}

TEST(Http, AnswersAndKeepsTheConnection) {
  Serving server(echo);
  Client client(server.port());
  for (int i = 0; i < 3; ++i) {
    client.send("POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    const std::string got = client.read_until("POST /a abc");
    EXPECT_THAT(got, StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_THAT(got, HasSubstr("X-Query: b=c\r\n"));
    EXPECT_THAT(got, HasSubstr("Content-Length: 11\r\n"));
  }
}

TEST(Http, AHeadIsAnsweredWithoutABody) {
  Serving server([](HttpRequest r, std::shared_ptr<HttpExchange> e) {
    if (r.path == "/whole") return e->send(200, "text/plain", "body");
    e->start(200, "text/plain");
    e->write("chunk");
    e->finish();
  });
  Client client(server.port());
  client.send(
      "HEAD /whole HTTP/1.1\r\n\r\nHEAD /stream HTTP/1.1\r\n\r\nGET /whole HTTP/1.1\r\nConnection: "
      "close\r\n\r\n");
  EXPECT_EQ(
      client.read_all(),
      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n"
      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody");
}

TEST(Http, RequestsOfOneConnectionAreAnsweredInTurn) {
  Serving server(echo);
  Client client(server.port());
  client.send("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\nConnection: close\r\n\r\n");
  const std::string all = client.read_all();
  EXPECT_LT(all.find("GET /1"), all.find("GET /2"));
  EXPECT_THAT(all, HasSubstr("Connection: close"));
}

TEST(Http, StreamsInChunksFromAnotherThread) {
  std::promise<std::shared_ptr<HttpExchange>> asked;
  Serving server([&](HttpRequest, std::shared_ptr<HttpExchange> e) { asked.set_value(std::move(e)); });
  Client client(server.port());
  client.send("GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
  std::thread writer([e = asked.get_future().get()] {
    e->start(200, "text/event-stream");
    e->write("data: 1\n\n");
    e->write("data: 22\n\n");
    e->finish();
    e->write("too late");
  });
  EXPECT_THAT(client.read_all(),
              testing::EndsWith("\r\n\r\n9\r\ndata: 1\n\n\r\na\r\ndata: 22\n\n\r\n0\r\n\r\n"));
  writer.join();
}

TEST(Http, AHandlerThatTakesItsTimeHoldsUpNoAnswer) {
  std::promise<std::shared_ptr<HttpExchange>> streaming;
  std::promise<void> busy, go_on;
  Serving server([&](HttpRequest r, std::shared_ptr<HttpExchange> e) {
    if (r.path == "/stream") {
      e->start(200, "text/plain");
      return streaming.set_value(e);
    }
    busy.set_value();
    go_on.get_future().wait();
    e->send(200, "text/plain", "at last");
  });
  Client reader(server.port()), slow(server.port());
  reader.send("GET /stream HTTP/1.1\r\n\r\n");
  const std::shared_ptr<HttpExchange> stream = streaming.get_future().get();
  slow.send("GET /slow HTTP/1.1\r\n\r\n");
  busy.get_future().wait();
  stream->write("meanwhile");
  EXPECT_THAT(reader.read_until("meanwhile"), HasSubstr("meanwhile"));
  go_on.set_value();
  EXPECT_THAT(slow.read_until("at last"), HasSubstr("at last"));
  stream->finish();
}

TEST(Http, AShortRequestWaitsForNoLongOnes) {
  std::promise<void> go_on;
  const std::shared_future<void> gone_on = go_on.get_future().share();
  HttpOptions o = options();
  o.limits.body_bytes = 1 << 20;
  Serving server(
      [&](HttpRequest r, std::shared_ptr<HttpExchange> e) {
        if (r.path == "/long") gone_on.wait();
        e->send(200, "text/plain", r.path + " is done");
      },
      o);
  std::vector<std::unique_ptr<Client>> waiting;
  for (int i = 0; i < 4; ++i) {
    waiting.push_back(std::make_unique<Client>(server.port()));
    waiting.back()->send("POST /long HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + std::string(100'000, 'x'));
  }
  while ((*server).open_exchanges() < 4) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  Client client(server.port());
  client.send("POST /short HTTP/1.1\r\nContent-Length: 1\r\n\r\nx");
  EXPECT_THAT(client.read_until("is done"), HasSubstr("/short is done"));
  go_on.set_value();
  for (const auto& c : waiting) EXPECT_THAT(c->read_until("is done"), HasSubstr("/long is done"));
}

TEST(Http, AnOldClientGetsTheStreamWithoutChunks) {
  Serving server([](HttpRequest, std::shared_ptr<HttpExchange> e) {
    e->start(200, "text/plain");
    e->write("one");
    e->finish();
  });
  Client client(server.port());
  client.send("GET / HTTP/1.0\r\n\r\n");
  EXPECT_THAT(client.read_all(), testing::EndsWith("\r\n\r\none"));
}

TEST(Http, NoticesThatTheClientLeft) {
  std::promise<void> gone;
  std::shared_ptr<HttpExchange> kept;
  std::promise<void> asked;
  Serving server([&](HttpRequest, std::shared_ptr<HttpExchange> e) {
    e->start(200, "text/event-stream");
    e->on_gone([&] { gone.set_value(); });
    kept = e;
    asked.set_value();
  });
  Client client(server.port());
  client.send("GET / HTTP/1.1\r\n\r\n");
  asked.get_future().wait();
  client.leave();
  EXPECT_EQ(gone.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
  kept->write("nobody reads this");
}

TEST(Http, NoticesThatTheClientLeftBehindItsNextRequest) {
  std::promise<void> gone, asked;
  Serving server([&](HttpRequest, std::shared_ptr<HttpExchange> e) {
    e->on_gone([&] { gone.set_value(); });
    asked.set_value();
  });
  Client client(server.port());
  client.send("GET / HTTP/1.1\r\n\r\nG");
  asked.get_future().wait();
  client.leave();
  EXPECT_EQ(gone.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
}

// It holds the whole answer of a request.
TEST(Http, ForgetsWhatToCallOnceTheAnswerIsOut) {
  std::weak_ptr<int> held;
  std::promise<void> asked;
  Serving server([&](HttpRequest, std::shared_ptr<HttpExchange> e) {
    auto reply = std::make_shared<int>(0);
    held = reply;
    e->on_gone([reply, e] {});
    e->send(200, "text/plain", "done");
    asked.set_value();
  });
  Client client(server.port());
  client.send("GET / HTTP/1.1\r\n\r\n");
  EXPECT_THAT(client.read_until("done"), StartsWith("HTTP/1.1 200"));
  asked.get_future().wait();
  for (int i = 0; i < 1000 && !held.expired(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(held.expired());
}

TEST(Http, AClientThatDoesNotReadIsGone) {
  std::promise<void> gone;
  std::atomic<bool> stop = false;
  std::thread writer;
  {
    Serving server([&](HttpRequest, std::shared_ptr<HttpExchange> e) {
      e->start(200, "text/event-stream");
      e->on_gone([&] { gone.set_value(); });
      writer = std::thread([&stop, e] {
        const std::string chunk(100'000, 'x');
        while (!stop) {
          e->write(chunk);
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
      });
    });
    Client client(server.port());
    client.send("GET / HTTP/1.1\r\n\r\n");
    EXPECT_EQ(gone.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
    stop = true;
    writer.join();
  }
}

TEST(Http, AnAnswerAtOnceMayBeLargerThanWhatAStreamMayHold) {
  const std::string large(8 << 20, 'x');
  Serving server([&](HttpRequest, std::shared_ptr<HttpExchange> e) { e->send(200, "text/plain", large); });
  Client client(server.port());
  client.send("GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
  const std::string all = client.read_all();
  EXPECT_THAT(all, StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(all.size() - all.find("\r\n\r\n") - 4, large.size());
}

TEST(Http, RefusesWhatIsTooLargeMalformedOrSlow) {
  std::atomic<int> handled = 0;
  Serving server([&](HttpRequest r, std::shared_ptr<HttpExchange> e) {
    ++handled;
    echo(std::move(r), std::move(e));
  });
  const auto answer = [&](std::string_view bytes) {
    Client client(server.port());
    client.send(bytes);
    return client.read_all();
  };
  EXPECT_THAT(answer("GET / HTTP/1.1\r\nA: " + std::string(5000, 'a') + "\r\n\r\n"),
              StartsWith("HTTP/1.1 431"));
  EXPECT_THAT(answer("POST / HTTP/1.1\r\nContent-Length: 10001\r\n\r\n"), StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(
      answer("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4e20\r\n" + std::string(20'000, 'x')),
      StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(answer("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(answer("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
              StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(answer("what is this\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(answer(std::string("GET /\0 HTTP/1.1\r\n\r\n", 19)), StartsWith("HTTP/1.1 400"));
  EXPECT_EQ(answer("GET / HT"), "");                                        // and nothing more
  EXPECT_EQ(answer("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab"), "");  // likewise
  EXPECT_EQ(handled, 0);
}

TEST(Http, AHandlerThatThrowsIsAnInternalError) {
  Serving server([](HttpRequest, std::shared_ptr<HttpExchange>) { throw Error("secret"); });
  Client client(server.port());
  client.send("GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
  const std::string all = client.read_all();
  EXPECT_THAT(all, StartsWith("HTTP/1.1 500"));
  EXPECT_THAT(all, testing::Not(HasSubstr("secret")));
}

TEST(Http, DrainingFinishesWhatIsOpen) {
  std::shared_ptr<HttpExchange> open;
  std::promise<void> asked;
  Serving server([&](HttpRequest r, std::shared_ptr<HttpExchange> e) {
    if (r.path == "/idle") return echo(std::move(r), std::move(e));
    open = e;
    asked.set_value();
  });
  Client idle(server.port()), client(server.port());
  idle.send("GET /idle HTTP/1.1\r\n\r\n");
  EXPECT_THAT(idle.read_until("/idle "), StartsWith("HTTP/1.1 200"));
  client.send("GET / HTTP/1.1\r\n\r\n");
  asked.get_future().wait();
  (*server).drain();
  EXPECT_EQ((*server).open_exchanges(), 1);
  idle.send("GET /idle HTTP/1.1\r\n\r\n");
  const std::string refused = idle.read_all();  // and then it is closed
  EXPECT_THAT(refused, StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(refused, HasSubstr("Retry-After"));
  open->send(200, "text/plain", "done");
  EXPECT_THAT(client.read_all(), testing::EndsWith("done"));  // and then it is closed
  EXPECT_THROW(
      {
        for (int i = 0; i < 100; ++i) {
          Client late(server.port());
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
      },
      std::runtime_error);
}

namespace asio = boost::asio;
using TlsStream = asio::ssl::stream<asio::ip::tcp::socket>;

std::string ask_over_tls(uint16_t port, const fs::path& trusted, const std::string& request, int newest = 0) {
  asio::io_context io;
  asio::ssl::context context(asio::ssl::context::tls_client);
  context.load_verify_file(trusted.string());
  context.set_verify_mode(asio::ssl::verify_peer);
  context.set_verify_callback(asio::ssl::host_name_verification("localhost"));
  if (newest) SSL_CTX_set_max_proto_version(context.native_handle(), newest);
  TlsStream stream(io, context);
  stream.next_layer().connect({asio::ip::address_v4::loopback(), port});
  stream.handshake(asio::ssl::stream_base::client);
  asio::write(stream, asio::buffer(request));
  std::string all;
  boost::system::error_code end;
  asio::read(stream, asio::dynamic_buffer(all), end);
  // Closed in order: nobody between cut the answer short.
  EXPECT_EQ(end, asio::error::eof);
  return all;
}

TEST(Http, OverTls) {
  const Certificate files;
  HttpOptions o = options();
  o.certificate = files.certificate;
  o.key = files.key;
  Serving server(
      [](HttpRequest r, std::shared_ptr<HttpExchange> e) {
        if (r.path == "/stream") {
          e->start(200, "text/event-stream");
          e->write("data: " + std::string(200'000, 'x') + "\n\n");
          return e->finish();
        }
        echo(std::move(r), std::move(e));
      },
      o);
  EXPECT_THAT(ask_over_tls(server.port(), files.certificate,
                           "POST /a HTTP/1.1\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"),
              testing::EndsWith("POST /a abc"));
  const std::string streamed =
      ask_over_tls(server.port(), files.certificate, "GET /stream HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_GT(streamed.size(), 200'000u);
  EXPECT_THAT(streamed, testing::EndsWith("\r\n0\r\n\r\n"));
  EXPECT_THROW(ask_over_tls(server.port(), files.certificate, "", TLS1_1_VERSION),
               boost::system::system_error)
      << "an old protocol";
  // Without TLS there is no answer, and the server lives on; likewise when a client leaves in its handshake.
  Client plain(server.port());
  plain.send("GET / HTTP/1.1\r\n\r\n");
  EXPECT_EQ(plain.read_all().find("200"), std::string::npos);
  Client(server.port()).send(std::string("\x16\x03\x01", 3));
  EXPECT_THAT(ask_over_tls(server.port(), files.certificate, "GET /b HTTP/1.1\r\nConnection: close\r\n\r\n"),
              testing::EndsWith("GET /b "));
  o.key = files.certificate;
  EXPECT_THROW(HttpServer(o, echo), InputError);
}

TEST(Http, OneAddressMayHaveSoManyConnections) {
  HttpOptions o = options();
  o.limits.per_address = 2;
  o.limits.idle_time = std::chrono::seconds(20);
  Serving server(echo, o);
  const std::string request = "GET /a HTTP/1.1\r\n\r\n";
  const auto answered = [&](Client& c) {
    c.send(request);
    return c.read().starts_with("HTTP/1.1 200");
  };
  auto first = std::make_unique<Client>(server.port());
  Client second(server.port());
  EXPECT_TRUE(answered(*first));
  EXPECT_TRUE(answered(second));
  Client third(server.port());
  EXPECT_EQ(third.read(), "") << "closed at once";
  EXPECT_TRUE(answered(second)) << "the others go on";
  first.reset();
  bool again = false;  // once the server has seen the end
  for (int i = 0; i < 200 && !again; ++i) {
    Client next(server.port());
    again = answered(next);
    if (!again) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(again);
}

TEST(Http, AnAddressThatIsTakenIsAnInputError) {
  Serving server(echo);
  HttpOptions o = options();
  o.port = server.port();
  EXPECT_THROW(HttpServer(o, echo), InputError);
  o = options();
  o.host = "203.0.113.77";
  EXPECT_THROW(HttpServer(o, echo), InputError);
}

}  // namespace
}  // namespace lathe
