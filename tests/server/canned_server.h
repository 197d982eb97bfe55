// A PostgreSQL-like server for tests of the whole program: the answers of helios-bench backend over
// blocking sockets, one thread for each connection.
//
// Made and destroyed by the test's thread; everything else is its own threads'. Requires: what
// connects to it has ended, or ends by the end of its connection.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "load/conversation.h"

namespace helios::test {

// The socket of one test connection. Closes it.
class Socket {
 public:
  explicit Socket(int fd) noexcept : fd_(fd) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket();

  [[nodiscard]] int fd() const noexcept { return fd_; }
  // All of it; false when the other side is gone.
  [[nodiscard]] bool send(ByteSpan bytes) const noexcept;
  // What is there; empty at the end of the connection.
  [[nodiscard]] ByteSpan receive(std::vector<uint8_t>& room) const noexcept;
  void shut_down() const noexcept;

 private:
  int fd_;
};

// A TCP socket that listens on 127.0.0.1, on a port that was free.
[[nodiscard]] int listen_on_free_port();
[[nodiscard]] uint16_t port_of(int fd);

class CannedServer {
 public:
  CannedServer();
  ~CannedServer();
  CannedServer(const CannedServer&) = delete;
  CannedServer& operator=(const CannedServer&) = delete;

  [[nodiscard]] uint16_t port() const { return port_of(listener_.fd()); }
  // Accepted since the beginning.
  [[nodiscard]] uint32_t connections_count() const noexcept { return connections_count_; }

 private:
  void accept_all();

  const bench::CannedAnswers answers_;
  std::atomic<uint32_t> clients_count_{0};  // Logged in now.
  std::atomic<uint32_t> connections_count_{0};
  Socket listener_;
  // The accepting thread's, until it has ended.
  std::vector<std::unique_ptr<Socket>> sockets_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace helios::test
