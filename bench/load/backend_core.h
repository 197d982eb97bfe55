// One core of the canned server: its listeners and connections.
//
// Made and destroyed in the core's thread (runtime/core.h). Cores share what BackendShared holds,
// hand new clients to the core that has fewest, and pass cancel requests on to the core whose
// client is meant. A connection's pid tells its core and its place in the slab.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "helios/base/slab.h"
#include "helios/net/listen_sockets.h"
#include "helios/net/listener.h"
#include "helios/runtime/core.h"
#include "load/backend_connection.h"
#include "load/canned_answers.h"

namespace helios::bench {

// Outlives the cores. The atomics are counters: relaxed.
struct BackendShared {
  BackendShared(uint32_t rows, uint32_t row_size, CoreId cores_count)
      : answers(rows, row_size), loads(cores_count) {}

  const CannedAnswers answers;
  Nanoseconds delay = 0;
  uint32_t piece_size = 0;
  uint32_t clients_max = 0;
  std::atomic<uint32_t> clients_count{0};    // Logged in.
  std::vector<std::atomic<uint32_t>> loads;  // Connections of each core.
  std::atomic<uint64_t> connections_total{0};
  std::atomic<uint64_t> queries_total{0};  // Each core adds its own when it ends.
};

// What cores send each other; the main thread sends `stop`.
enum class BackendMessage : uint16_t {
  client_socket,  // words: the descriptor, the family.
  cancel,         // count: the key's size; words: the pid, the key.
  stop,
};

// Connections beside those of clients that are logged in: cancel requests, and clients that will be
// told that there is no room.
inline constexpr uint32_t spare_connections = 256;

class BackendCore final : public CoreApplication, public ListenerOwner, public ConnectionHost {
 public:
  BackendCore(CoreContext& context, BackendShared& shared, std::vector<ListenSocket> sockets);
  ~BackendCore() override;

  void on_start() noexcept override;
  void on_message(const Message& message) noexcept override;
  bool on_turn_end(Nanoseconds now) noexcept override;
  bool is_finished() noexcept override;

 private:
  void on_accepted(Listener& listener, int fd, int family) noexcept override;
  void on_stopped(Listener& listener) noexcept override;
  void on_connection_closed(BackendConnection& connection) noexcept override;
  void on_cancel_request(const CancelTarget& target) noexcept override;

  [[nodiscard]] CoreId least_loaded() const noexcept;
  void take_client(int fd, int family) noexcept;
  void cancel_here(const CancelTarget& target) noexcept;
  void stop() noexcept;

  CoreContext& context_;
  BackendShared& shared_;
  std::vector<ListenSocket> sockets_;
  IntrusiveList<Stream, FlushTag> flush_list_;
  ChunkPool chunks_;
  NetContext net_;
  std::unique_ptr<AnswerBuffer> buffer_;
  ConversationContext conversations_;
  ConnectionContext connections_context_;
  Slab<BackendConnection> connections_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  size_t listening_count_ = 0;
  bool is_stopping_ = false;
};

}  // namespace helios::bench
