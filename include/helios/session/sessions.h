// All sessions of one core.
//
// Makes them for accepted sockets, finds them for cancel requests (of any core), drains them. One
// object per core, used by its thread only.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "helios/base/slab.h"
#include "helios/pool/pools.h"
#include "helios/session/directory.h"
#include "helios/session/session.h"

namespace helios {

// What every core's sessions share. Any thread may read it; the counter is atomic.
struct SessionsShared {
  const Directory& directory;         // Of the start.
  std::atomic<uint32_t> clients_max;  // Relaxed; a new configuration may change them.
  std::atomic<Nanoseconds> login_timeout;
  Sha256Digest login_secret;   // For salts of unknown users (ClientLogin).
  Sha256Digest cancel_secret;  // Cancel keys are made of it.
  // Clients that have sent a start-up message, over all cores: touched at login and at the end
  // only.
  std::atomic<uint32_t> clients_count{0};
  // Of all prepared statements of a core. Relaxed; a new configuration may change it.
  std::atomic<uint64_t> statements_size_max{256 * 1024 * 1024};
};

// A client that has logged in, on its way to a core of its pool. Owned by the message that carries
// it.
struct SessionTransfer {
  PoolSpecRef pool;
  int fd = -1;
  int family = 0;
  uint16_t minor = 0;             // Of the protocol version.
  ParameterList wanted;           // Start-up parameters that are set after the login.
  std::vector<uint8_t> received;  // What it has sent behind its login.
  Nanoseconds login_deadline = never;
};

// A cancel request on its way between cores. Owned by the message that carries it.
struct CancelJob {
  uint32_t process_id = 0;
  std::string key;
  CoreId cores_left = 0;  // Those that are to be asked still, from the next one on.
  CoreId asker_core = 0;
  SlabId asker;  // The session of the connection that brought it.
};

struct SessionsCounters {
  uint64_t accepted = 0;
  uint64_t logged_in = 0;
  uint64_t refused = 0;  // Told an error before they were welcome, whatever it was.
  uint64_t moved = 0;    // To another core, after the login.
};

class Sessions {
 public:
  Sessions(SessionsShared& shared, Pools& pools, NetContext& net, uint32_t sessions_max) noexcept;
  ~Sessions();  // Requires: is_empty().

  // A client has connected. The descriptor is closed when there is no room.
  void accept(int fd, int family) noexcept;
  // Clients that each core has, by core, as all cores see it: new ones go where there are fewest.
  // The one who assigns a client counts it, the core that has it takes it off. Without these
  // sessions stay on the core where they were accepted.
  void set_loads(std::span<std::atomic<uint32_t>> loads) noexcept { loads_ = loads; }
  // True when the message was one of the sessions'.
  bool on_message(const Message& message) noexcept;
  void on_turn_end() noexcept;

  [[nodiscard]] bool has_work() const noexcept { return !finished_.empty(); }

  // A new configuration, with a higher epoch. `directory` must live until the next one comes.
  void reload(const Directory& directory) noexcept;

  void start_drain() noexcept;
  // Cuts every connection.
  void stop() noexcept;
  [[nodiscard]] bool is_draining() const noexcept { return draining_; }
  [[nodiscard]] bool is_empty() const noexcept { return sessions_.used_count() == 0; }
  [[nodiscard]] uint32_t count() const noexcept { return sessions_.used_count(); }
  // Calls visit(Session&) for each; it may not end one. For statistics and tests.
  template <typename Visit>
  void for_each(Visit visit) noexcept {
    sessions_.for_each(visit);
  }

  // --- For Session ---

  [[nodiscard]] SessionsShared& shared() noexcept { return shared_; }
  // The configuration, as this core knows it.
  [[nodiscard]] const Directory& directory() const noexcept { return *directory_; }
  [[nodiscard]] Pools& pools() noexcept { return pools_; }
  [[nodiscard]] NetContext& net() noexcept { return net_; }
  [[nodiscard]] TimerWheel& timers() noexcept { return pools_.context().timers; }
  [[nodiscard]] Nanoseconds now() noexcept { return pools_.now(); }
  [[nodiscard]] SessionsCounters& counters() noexcept { return counters_; }
  [[nodiscard]] const SessionsCounters& counters() const noexcept { return counters_; }
  // The number of a client: a process id of the pooler's own, above those of servers. In the log.
  [[nodiscard]] uint32_t process_id_of(const Session& session) noexcept;
  // What a client is told to cancel with: the process id of `backend`, where it has one for ever,
  // else the pooler's own; 4 bytes of key for protocol 3.0, 32 for 3.2.
  [[nodiscard]] uint32_t tell_process_id(const Session& session, const Backend* backend) noexcept;
  [[nodiscard]] std::string cancel_key_of(const Session& session, size_t size) noexcept;
  void on_cancel_request(Session& asker, uint32_t process_id, ByteSpan key) noexcept;
  void on_session_destroyable(Session& session) noexcept;
  // What a session needs until its client is welcome.
  [[nodiscard]] SessionLogin* make_login() noexcept;
  void free_login(SessionLogin* login) noexcept;
  // Where a client of this pool belongs: on the home core (pool_cores.h) that has fewest clients,
  // counted there if it is not this one. While this core stops, and where this is a home core too,
  // it is this one.
  [[nodiscard]] CoreId place_of(const PoolSpec& pool) noexcept;
  // A client that was counted for this core does not come, or has gone.
  void uncount(CoreId core) noexcept;
  void send_session(CoreId to, std::unique_ptr<SessionTransfer> transfer) noexcept;
  [[nodiscard]] SlabId id_of(const Session& session) const noexcept {
    return sessions_.id_of(&session);
  }

 private:
  void on_session_arrived(const Message& message) noexcept;
  void send_cancel(CoreId to, CancelJob* job) noexcept;
  [[nodiscard]] Session* find_cancelled(const CancelJob& job) noexcept;
  [[nodiscard]] bool has_key(const Session& session, const CancelJob& job) noexcept;
  void deliver_cancel(CancelJob* job) noexcept;
  void finish_cancel(CancelJob* job) noexcept;
  void forget_process_id(const Session& session) noexcept;
  void destroy_finished() noexcept;

  SessionsShared& shared_;
  const Directory* directory_;
  Pools& pools_;
  NetContext& net_;
  // Logins lie apart from the sessions: when thousands come at once, their memory goes back to the
  // kernel as soon as they are welcome.
  const std::unique_ptr<Slab<SessionLogin>> logins_;
  Slab<Session> sessions_;
  std::vector<SlabId> finished_;
  // Sessions that were told the process id of a backend. (Servers of several nodes may have the
  // same.)
  std::unordered_multimap<uint32_t, SlabId> told_backends_;
  SessionsCounters counters_;
  std::span<std::atomic<uint32_t>> loads_;
  bool draining_ = false;
};

}  // namespace helios
