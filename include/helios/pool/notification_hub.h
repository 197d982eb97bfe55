// One server connection that LISTENs for many clients: the hub of a pool on one core.
//
// A client that LISTENs needs no backend of its own while it is idle: the hub listens to its
// channels and hands on what comes. Who gives its backend back, or takes one, changes over from one
// connection's notifications to the other's without loss, doubling or disorder by a marker: the
// backend LISTENs to the hub's marker channel and NOTIFYs an id there. PostgreSQL delivers
// notifications in the order of commits, so the marker stands at one and the same place in what
// either connection brings: before it the one counts, behind it the other
// (session/session_listen.cc does that; here are both ends of the hub).
//
// Each core has its own hub for each pool: nothing of a notification crosses between cores. The
// hub's connection belongs to a small pool of its own (make_hub_spec), so it never takes a permit
// of the pool that it serves; it counts in the limits of node, database and user. It is opened for
// the first listener and closed behind the last. Where it cannot be had, who waits for it keeps its
// backend, and the hub goes on trying.
//
// State   | meaning
// closed  | nobody listens
// waiting | in the queue for its connection
// open    | has it
// resting | it could not be had; the next attempt comes by timer
//
// Owned by the PoolEntry of its pool; used by its core only. Invariant: closed exactly when it has
// no listener, but within a call to one of them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "helios/base/clock.h"
#include "helios/pool/lessee.h"
#include "helios/pool/pool_spec.h"
#include "helios/runtime/timer_wheel.h"

namespace helios {

class NotificationHub;
class Pools;

// Somebody who listens through a hub: a session. Any of these calls may make it leave, or end it.
class HubListener {
 public:
  // The hub listens to all of its channels now. Told once for each listen() that was not ready at
  // once, and again when the connection was lost and is back.
  virtual void on_hub_ready() noexcept = 0;
  // There is no connection for the hub yet, and none in sight. Told to those who wait for
  // on_hub_ready.
  virtual void on_hub_late() noexcept = 0;
  // On one of its channels; in the order of commits, among themselves and with its markers.
  virtual void on_hub_notification(const Notification& notification) noexcept = 0;
  virtual void on_hub_marker(uint64_t id) noexcept = 0;
  // The connection is gone: what came meanwhile is lost, and so are the markers that are due. It
  // still listens, to a connection that is to come.
  virtual void on_hub_lost() noexcept = 0;

  // What it listens to.
  [[nodiscard]] const std::vector<std::string>& channels() const noexcept { return channels_; }
  // Null: it does not listen.
  [[nodiscard]] NotificationHub* hub() const noexcept { return hub_; }

 protected:
  virtual ~HubListener();

 private:
  friend class NotificationHub;
  NotificationHub* hub_ = nullptr;
  std::vector<std::string> channels_;
  bool is_waiting_ = false;  // For on_hub_ready.
};

class NotificationHub final : private ClientlessLessee {
 public:
  // `pool`: the one that it serves.
  NotificationHub(Pools& pools, PoolSpecRef pool) noexcept;
  NotificationHub(const NotificationHub&) = delete;
  NotificationHub& operator=(const NotificationHub&) = delete;
  ~NotificationHub();  // Requires: nobody listens.

  [[nodiscard]] bool is_used() const noexcept { return !listeners_.empty(); }
  // Notifications of clients of this pool come to the hub, and the other way round.
  [[nodiscard]] bool serves(const PoolSpec& pool) const noexcept;
  // It goes on in the next generation of its pool. Requires: serves(*pool).
  void set_pool(PoolSpecRef pool) noexcept;

  // `listener` listens to these channels and no others. `encoding`: the client_encoding of its
  // client, in which their names are and in which notifications come. False, and nothing was done:
  // the hub has another encoding. Requires: it listens here or nowhere.
  bool listen(HubListener& listener, const std::vector<std::string>& channels,
              std::string_view encoding) noexcept;
  void leave(HubListener& listener) noexcept;
  // It listens to all of the listener's channels.
  [[nodiscard]] bool is_ready_for(const HubListener& listener) const noexcept;

  // A limit has become so small that hubs hold all of it: the connection is given up, as if it were
  // lost.
  void give_up() noexcept;
  // The pool of its connection; null when it never had one.
  [[nodiscard]] const PoolSpecRef& own_pool() const noexcept { return own_pool_; }

  // The channel of the markers. Nobody else can know it.
  [[nodiscard]] const std::string& marker_channel() const noexcept { return marker_channel_; }
  // A marker that is about to be sent by the server process `process_id`; the listener is told when
  // it is seen. Returns its id, never 0. Requires: is_ready_for(listener).
  [[nodiscard]] uint64_t expect_marker(HubListener& listener, uint32_t process_id) noexcept;
  // What makes a server send it: one transaction, in which it begins to listen to `channels` and to
  // the markers.
  [[nodiscard]] std::string marker_statement(const std::vector<std::string>& channels,
                                             uint64_t id) const;
  // The id that a notification of the marker channel carries; 0: it is none.
  [[nodiscard]] static uint64_t marker_id(const Notification& marker) noexcept;

 private:
  enum class State : uint8_t { closed, waiting, open, resting };
  enum class Hearing : uint8_t { no, asked, yes };
  struct Channel {
    std::vector<HubListener*> listeners;  // Null: left while the list was walked.
    Hearing hearing = Hearing::no;
    bool is_used = true;  // Somebody is among `listeners`.
  };
  struct TextHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const noexcept {
      return std::hash<std::string_view>{}(text);
    }
  };
  // A marker that is due.
  struct Marker {
    uint64_t id = 0;
    HubListener* listener = nullptr;
    uint32_t process_id = 0;
    Nanoseconds since = 0;
  };

  // --- Lessee ---
  void on_leased(Backend& backend) noexcept override;
  void on_wait_failed(const PoolError& error) noexcept override;
  void on_pool_changed(PoolEntry&) noexcept override;
  void on_notification(const Notification& notification) noexcept override;
  void on_ready(uint8_t status, bool skipped) noexcept override;
  void on_skipped_error(const ErrorFields& fields) noexcept override;
  void on_backend_lost(const PoolError& error, Loss loss) noexcept override;

  void add(HubListener& listener, const std::string& channel) noexcept;
  void remove(HubListener& listener, const std::string& channel) noexcept;
  void erase(std::vector<HubListener*>& list, HubListener& listener) noexcept;
  template <typename Visit>
  void walk(std::vector<HubListener*>& list, Visit visit) noexcept;
  void go_on() noexcept;
  void open() noexcept;
  void close() noexcept;
  void ask() noexcept;
  void start_statement(const std::string& text) noexcept;
  void tell_ready() noexcept;
  void on_marker(const Notification& notification) noexcept;
  void lose(const char* why) noexcept;
  void rest() noexcept;
  void schedule(Nanoseconds deadline) noexcept;
  static void on_timeout(void* self) noexcept;

  Pools& pools_;
  PoolSpecRef pool_;
  PoolSpecRef own_pool_;      // That of its connection.
  bool is_outdated_ = false;  // It was made for an earlier generation.
  State state_ = State::closed;
  Backend* backend_ = nullptr;
  uint32_t answers_due_ = 0;  // To statements of its own.
  bool hears_markers_ = false;
  bool has_changed_ = false;  // `channels_`, since the server was told.
  bool has_left_ = false;     // Somebody, while a list was walked.
  int walks_count_ = 0;       // Lists of listeners that are being walked.
  uint64_t last_id_ = 0;
  std::string encoding_;
  std::string marker_channel_;
  std::vector<HubListener*> listeners_;  // All; null: left while the list was walked.
  std::unordered_map<std::string, Channel, TextHash, std::equal_to<>> channels_;
  std::vector<Marker> markers_;  // The oldest first.
  Timer timer_;                  // waiting: says that it is late. open: a marker. resting: its end.
};

}  // namespace helios
