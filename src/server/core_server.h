// Everything that one core runs: listeners, sessions, pools, and the key derivation between turns.
//
// Made and destroyed in the core's thread (see runtime/core.h).
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "helios/net/listen_sockets.h"
#include "helios/net/listener.h"
#include "helios/net/stream.h"
#include "helios/pool/pools.h"
#include "helios/pool/statistics_collector.h"
#include "helios/runtime/core.h"
#include "helios/session/sessions.h"

namespace helios {

// A new configuration, on its way to a core. Owned by the message that carries it.
struct ConfigNews {
  std::shared_ptr<const Directory> directory;
  std::shared_ptr<std::atomic<uint32_t>> cores_left;  // That have not taken it over.
};

// What all cores share. Outlives them.
struct ServerShared {
  ServerShared(const Directory& directory, uint32_t clients_max, Nanoseconds login_timeout,
               CoreId cores_count)
      : sessions{directory, clients_max, login_timeout, {}, {}, {}},
        clients_room(clients_max),
        loads(cores_count),
        last_statistics(cores_count) {}
  SessionsShared sessions;
  const uint32_t clients_room;               // Clients that there is memory for.
  std::vector<std::atomic<uint32_t>> loads;  // Clients of each core.
  std::atomic<uint32_t> transfers_count{0};  // Backends and sessions in messages.
  std::atomic<uint32_t> settled_count{0};   // Cores that have nothing left while the process stops.
  std::vector<Statistics> last_statistics;  // Each core's, written at its end.
};

struct CoreServerOptions {
  std::vector<ListenSocket> sockets;
  uint32_t sessions_max;
  uint32_t backends_max;
};

class CoreServer final : public CoreApplication, public ListenerOwner {
 public:
  CoreServer(CoreContext& context, ServerShared& shared, CoreServerOptions options);
  ~CoreServer() override;

  void on_start() noexcept override;
  void on_message(const Message& message) noexcept override;
  bool on_turn_end(Nanoseconds now) noexcept override;
  bool is_finished() noexcept override;

 private:
  void on_accepted(Listener& listener, int fd, int family) noexcept override;
  void on_stopped(Listener&) noexcept override {
    ASSERT(listening_count_ > 0);
    --listening_count_;
  }

  [[nodiscard]] CoreId least_loaded() noexcept;
  void log_counters() const noexcept;
  void reload(const Message& message) noexcept;
  void start_drain() noexcept;
  [[nodiscard]] bool has_nothing_left() const noexcept;
  void tell_all(MessageKind kind) noexcept;

  CoreContext& context_;
  ServerShared& shared_;
  CoreServerOptions options_;
  IntrusiveList<Stream, FlushTag> flush_list_;
  ChunkPool chunks_;
  NetContext net_;
  SystemRandom random_;
  KeyDerivation keys_;
  Pools pools_;
  std::shared_ptr<const Directory> directory_;  // Since the first reload.
  Sessions sessions_;
  StatisticsCollector statistics_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  size_t listening_count_ = 0;
  bool draining_ = false;
  bool settled_ = false;
};

}  // namespace helios
