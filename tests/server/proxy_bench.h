// The real program in this process: run_server before a canned server, and clients with blocking
// sockets.
#pragma once

#include <atomic>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "helios/config/config.h"
#include "helios/runtime/signals.h"
#include "helios/wire/frame_reader.h"
#include "helios/wire/writer.h"
#include "server/canned_server.h"

namespace helios::test {

// What a client received.
struct Answers {
  std::string tags;  // Of all messages, a run of equal ones as one.
  std::string row;   // The body of the last DataRow.
  size_t size = 0;   // Bytes.
};

class Client {
 public:
  // Connects and logs in; takes the welcome.
  explicit Client(uint16_t port, const std::vector<TextPair>& parameters = {});
  ~Client();  // Says goodbye.

  void write(const MessageWriter& messages);
  void write_query(std::string_view text);
  // Up to the `count`-th ReadyForQuery.
  [[nodiscard]] Answers read(size_t count = 1);
  // Up to a message with this tag, which must be the last that has come.
  [[nodiscard]] Answers read_to(uint8_t tag, size_t count = 1);
  [[nodiscard]] Answers query(std::string_view text) {
    write_query(text);
    return read();
  }

 private:
  Socket socket_;
  MessageAssembler messages_;
  std::vector<uint8_t> room_;
};

// One core, one database "app", one user "app" (trust). Stopped as by a user: with SIGTERM.
class ProxyBench {
 public:
  ProxyBench(PoolMode mode, uint32_t backends_count);
  // Requires: its clients are gone.
  ~ProxyBench();
  ProxyBench(const ProxyBench&) = delete;
  ProxyBench& operator=(const ProxyBench&) = delete;

  [[nodiscard]] uint16_t port() const noexcept { return port_; }
  // Since the beginning.
  [[nodiscard]] uint32_t server_connections_count() const noexcept {
    return server_.connections_count();
  }

 private:
  void wait_until_ready();

  // Before any thread is made, which inherits it: only run_server waits for signals.
  struct SignalBlock {
    SignalBlock() noexcept { block_signals(); }
  };
  SignalBlock signal_block_;
  CannedServer server_;
  Config config_;
  uint16_t port_;
  std::string failure_;  // The thread's, until it has ended.
  std::atomic<bool> has_ended_{false};
  std::thread thread_;
};

}  // namespace helios::test
