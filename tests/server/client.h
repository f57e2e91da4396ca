// A client of a server on this machine that sends exactly the bytes it is told to, well-formed or not.
#pragma once

#include <arpa/inet.h>
#include <cerrno>
#include <chrono>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <unistd.h>

namespace lathe {

class Client {
 public:
  explicit Client(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const timeval patience{20, 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(socket_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0)
      throw std::runtime_error("cannot connect");
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client() { leave(); }

  void send(std::string_view bytes) {
    [[maybe_unused]] auto n = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  void leave() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }
  // More bytes; empty: the server closed.
  std::string read() {
    char buffer[65536];
    ssize_t n = 0;
    do {
      n = recv(socket_, buffer, sizeof buffer, 0);
    } while (n < 0 && errno == EINTR);  // a process that was stopped and goes on
    return n > 0 ? std::string(buffer, static_cast<size_t>(n)) : std::string();
  }
  std::string read_until(std::string_view end) {
    std::string all;
    while (all.find(end) == std::string::npos) {
      const std::string more = read();
      if (more.empty()) break;
      all += more;
    }
    return all;
  }
  std::string read_all() {
    std::string all;
    for (std::string more = read(); !more.empty(); more = read()) all += more;
    return all;
  }

 private:
  int socket_;
};

}  // namespace lathe
