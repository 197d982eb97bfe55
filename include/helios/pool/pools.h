// All pools of one core: slices, backends, their timers, and their share of the mailbox.
//
// Slices are made when the first session needs them or another core asks for a loan, and go when
// nobody has used them for a while. One object per core, used by its thread only.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "helios/base/clock.h"
#include "helios/base/slab.h"
#include "helios/net/stream.h"
#include "helios/pool/backend.h"
#include "helios/pool/canceller.h"
#include "helios/pool/parameters.h"
#include "helios/pool/slice.h"
#include "helios/runtime/mailbox.h"
#include "helios/runtime/timer_wheel.h"
#include "helios/wire/crypto.h"
#include "helios/wire/key_derivation.h"
#include "helios/wire/writer.h"

namespace helios {

// What the pools of a core work with. Everything outlives them.
struct PoolsContext {
  NetContext& net;
  TimerWheel& timers;
  Clock& clock;
  Postbox& postbox;
  KeyDerivation& keys;
  Random& random;
  // Backends that are in messages between cores, over all cores: the process must not end before
  // they have arrived.
  std::atomic<uint32_t>& transfers_count;
};

// What sessions need to know about a pool besides its slice.
struct PoolEntry {
  explicit PoolEntry(PoolSpecRef spec, SlicePort& port, Postbox& postbox) noexcept
      : slice(std::move(spec), port, postbox) {}
  Slice slice;
  // What the newest backend's server reported at login: the welcome of clients. Empty until the
  // first login. Set by Pools::set_welcome, with what is made of it: the set that a client starts
  // with, and the welcome of one that asks for nothing else.
  ParameterList welcome;
  ParameterSetRef welcome_set;
  std::vector<uint8_t> welcome_bytes;
  // Spellings that servers have given values of start-up parameters: (name, value as asked) ->
  // value as reported.
  std::unordered_map<std::string, std::string> canonical_values;
  uint32_t failures_count = 0;  // Connects that failed in a row.
  PoolError last_error;
};

// The welcome of a pool, on its way to another core. Owned by the message that carries it.
struct WelcomeNews {
  PoolSpecRef spec;
  ParameterList welcome;
};

struct PoolsCounters {
  uint64_t connects = 0;
  uint64_t connect_failures = 0;
  uint64_t closes = 0;
  uint64_t moves_out = 0;
  uint64_t moves_in = 0;
  uint64_t cancels = 0;
  uint64_t violations = 0;
  uint64_t late_ends = 0;  // Servers that did not close in time.
};

class Pools final : public SlicePort {
 public:
  Pools(const PoolsContext& context, uint32_t backends_max) noexcept;
  ~Pools();  // Requires: is_empty().

  // The pool of this specification, made when it is not there.
  [[nodiscard]] PoolEntry& pool_of(const PoolSpecRef& spec) noexcept;
  // The pool with this key; nullptr when it is not there.
  [[nodiscard]] PoolEntry* find_pool(const std::string& key) noexcept;

  // Leases an idle backend to `lessee` at once, or queues it. True: on_leased was called.
  bool acquire(Slice& slice, Lessee& lessee) noexcept;

  // Sends a cancel request to the server process behind `backend`. `done` may be null.
  void start_cancel(Backend& backend, Canceller::Done done, void* context) noexcept;

  // True when the message was one of the pool's.
  bool on_message(const Message& message) noexcept;
  // Once per turn.
  void on_turn_end(Nanoseconds now) noexcept;

  // Something is left for the next turn, which must come at once.
  [[nodiscard]] bool has_work() const noexcept {
    return !active_.empty() || !finished_.empty() || !finished_cancellers_.empty();
  }

  // Closes what is idle and lets nothing become idle any more. Leases go on until they are given
  // back.
  void start_drain() noexcept;
  // Cuts every connection.
  void stop() noexcept;
  [[nodiscard]] bool is_draining() const noexcept { return draining_; }
  [[nodiscard]] bool is_stopped() const noexcept { return stopped_; }
  [[nodiscard]] bool is_empty() const noexcept {
    return backends_.used_count() == 0 && cancellers_.empty() && finished_cancellers_.empty();
  }
  [[nodiscard]] uint32_t backends_count() const noexcept { return backends_.used_count(); }
  [[nodiscard]] const PoolsCounters& counters() const noexcept { return counters_; }
  // Calls visit(Backend&) for each; it may not end one. For statistics and tests.
  template <typename Visit>
  void for_each_backend(Visit visit) noexcept {
    backends_.for_each(visit);
  }

  // --- For Backend, Canceller and Session ---

  [[nodiscard]] const PoolsContext& context() noexcept { return context_; }
  [[nodiscard]] ParameterStore& parameters() noexcept { return parameters_; }
  // For a message of the pooler's own: an empty writer that keeps its memory from one to the next.
  // What is written to it is sent before anybody else asks for it.
  [[nodiscard]] MessageWriter& writer() noexcept {
    writer_.clear();
    return writer_;
  }
  [[nodiscard]] PoolsCounters& counters() noexcept { return counters_; }
  [[nodiscard]] Nanoseconds now() noexcept { return context_.clock.now(); }
  [[nodiscard]] PoolEntry& entry_of(Slice& slice) noexcept;
  // Another pool waits for a limit of which this pool's backends hold permits.
  [[nodiscard]] bool is_room_wanted(const PoolSpec& spec) const noexcept;
  [[nodiscard]] Nanoseconds expiry(const PoolSpec& spec) noexcept;
  void on_backend_ready(Backend& backend, const ParameterList& welcome) noexcept;
  // The login failed: tells those who wait, sets the time of the next attempt.
  void on_login_failed(Backend& backend, const PoolError& error) noexcept;
  // A backend has ended and its server let go.
  void on_backend_gone(Backend& backend) noexcept;
  void on_backend_destroyable(Backend& backend) noexcept;
  void send_backend(Slice& slice, CoreId to, std::unique_ptr<BackendTransfer> transfer) noexcept;
  void on_canceller_closed(Canceller* canceller) noexcept;

  // --- SlicePort ---

  bool connect(Slice& slice) noexcept override;
  void hand_over(Slice& slice, PooledBackend& backend, Waiter& waiter) noexcept override;
  void move(Slice& slice, PooledBackend& backend, CoreId to) noexcept override;
  void activate(Slice& slice) noexcept override;

 private:
  [[nodiscard]] bool take_limits(const PoolSpec& spec) noexcept;
  [[nodiscard]] bool has_room(const PoolSpec& spec) const noexcept;
  void ask_for_room(Limit& limit, uint64_t pool) noexcept;
  void close_if_superfluous(Backend& backend) noexcept;
  bool make_room(const Limit& limit, uint64_t pool) noexcept;
  void set_welcome(PoolEntry& entry, ParameterList welcome) noexcept;
  void spread_welcome(const PoolEntry& entry) noexcept;
  void on_welcome(const Message& message) noexcept;
  void give_back_limits(const PoolSpec& spec) noexcept;
  void tell_limit_freed() noexcept;
  void on_limit_freed() noexcept;
  void on_backend_arrived(const Message& message) noexcept;
  void fail_waiters(PoolEntry& entry, const PoolError& error) noexcept;
  void sweep(Nanoseconds now) noexcept;
  void sweep_pool(PoolEntry& entry, Nanoseconds now) noexcept;
  static void on_sweep(void* self) noexcept;
  static void on_retry(void* self) noexcept;
  void destroy_finished() noexcept;

  PoolsContext context_;
  ParameterStore parameters_;
  MessageWriter writer_;
  Slab<Backend> backends_;
  std::unordered_map<std::string, std::unique_ptr<PoolEntry>> entries_;
  IntrusiveList<Slice, ActiveSliceTag> active_;
  std::vector<SlabId> finished_;
  std::vector<Canceller*> cancellers_;
  std::vector<Canceller*> finished_cancellers_;
  PoolsCounters counters_;
  uint32_t addresses_tried_ = 0;
  Timer sweep_timer_;
  Timer retry_timer_;
  bool draining_ = false;
  bool stopped_ = false;
};

}  // namespace helios
