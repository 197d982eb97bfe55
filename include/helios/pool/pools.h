// All pools of one core: slices, backends, their timers, and their share of the mailbox.
//
// Slices are made when the first session needs them or another core asks for a loan, and go when
// nobody has used them for a while. One object per core, used by its thread only.
//
// A new configuration (begin_reload) supersedes the pools whose terms it changes: see slice.h and
// pools_reload.cc.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "helios/base/clock.h"
#include "helios/base/slab.h"
#include "helios/net/stream.h"
#include "helios/pool/backend.h"
#include "helios/pool/cancels.h"
#include "helios/pool/node_probe.h"
#include "helios/pool/notification_hub.h"
#include "helios/pool/parameters.h"
#include "helios/pool/pool_messages.h"
#include "helios/pool/pool_source.h"
#include "helios/pool/slice.h"
#include "helios/pool/statement.h"
#include "helios/pool/statistics.h"
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
  // Backends and sessions that are in messages between cores, over all cores: the process must not
  // end before they have arrived.
  std::atomic<uint32_t>& transfers_count;
};

struct GateTag;

// What sessions need to know about a pool besides its slice.
struct PoolEntry : ListNode<GateTag> {
  explicit PoolEntry(PoolSpecRef spec, SlicePort& port, Postbox& postbox) noexcept
      : slice(std::move(spec), port, postbox) {}
  Slice slice;
  // Of the newest backend, at login: the welcome of clients. Set by Pools::set_welcome, with what
  // is made of it: the set that a client starts with, and the welcome of one that asks for nothing
  // else.
  Welcome welcome;
  ParameterSetRef welcome_set;
  std::vector<uint8_t> welcome_bytes;
  // Spellings that servers have given values of start-up parameters: (name, value as asked) ->
  // value as reported.
  std::unordered_map<std::string, std::string> canonical_values;
  uint32_t failures_count = 0;  // Connects that failed in a row.
  PoolError last_error;
  // The backend whose successor is on its way.
  SlabId retiring;
  // At its node's gate (Pools): since when it waits there; a place that is its own and not used.
  Nanoseconds gate_since = 0;
  bool has_place = false;
  // Listens for its clients; null until one of them does.
  std::unique_ptr<NotificationHub> hub;
};

// The welcome of a pool, on its way to another core. Owned by the message that carries it.
struct WelcomeNews {
  PoolSpecRef spec;
  Welcome welcome;
};

class Pools final : public SlicePort {
 public:
  Pools(const PoolsContext& context, uint32_t backends_max) noexcept;
  ~Pools();  // Requires: is_empty().

  // The pool of this specification, made when it is not there: superseded, if the configuration has
  // other terms for it by now.
  [[nodiscard]] PoolEntry& pool_of(const PoolSpecRef& spec) noexcept;
  // The pool with this key, of the newest generation that this core knows; nullptr when it is not
  // there.
  [[nodiscard]] PoolEntry* find_pool(const std::string& key) noexcept;

  // Leases an idle backend to `lessee` at once, or queues it. True: on_leased was called. Note:
  // when the queue is full (max_waiters) on_wait_failed is called.
  bool acquire(Slice& slice, Lessee& lessee) noexcept;

  // Cancels what the server process behind `backend` works on, as long as it does: not what the
  // same client asks for behind it. `done` may be null.
  void start_cancel(Backend& backend, CancelAsker::Done done, void* context) noexcept {
    cancels_.start(backend, CancelAim::request, {done, context});
  }

  // True when the message was one of the pool's.
  bool on_message(const Message& message) noexcept;
  // Once per turn.
  void on_turn_end(Nanoseconds now) noexcept;

  // Something is left for the next turn, which must come at once.
  [[nodiscard]] bool has_work() const noexcept {
    return !active_.empty() || !finished_.empty() || cancels_.has_work() || !closed_probes_.empty();
  }

  // A new configuration: pools that it changes are superseded and their waiters go to the next
  // generation; those of pools that are gone are told. `source` must live until the next one comes.
  void begin_reload(const PoolSource& source) noexcept;
  // Behind it, when the sessions know: idle backends of superseded pools go to the next generation,
  // where they fit, or close. So do those beyond limits that have become smaller.
  void finish_reload() noexcept;
  // The pool that takes over from one that is superseded; nullptr when it was removed.
  [[nodiscard]] PoolEntry* successor_of(const PoolEntry& entry) noexcept;
  // The hub of this pool, made when it is not there.
  [[nodiscard]] NotificationHub& hub_of(PoolEntry& entry) noexcept;
  // What clients of a removed pool are told. Requires: begin_reload was called.
  [[nodiscard]] PoolError why_removed(const std::string& database, const std::string& user) const;

  // Closes what is idle and lets nothing become idle any more. Leases go on until they are given
  // back.
  void start_drain() noexcept;
  // Cuts every connection.
  void stop() noexcept;
  [[nodiscard]] bool is_draining() const noexcept { return draining_; }
  [[nodiscard]] bool is_stopped() const noexcept { return stopped_; }
  [[nodiscard]] bool is_empty() const noexcept {
    return backends_.used_count() == 0 && cancels_.is_empty() && probes_.empty() &&
           closed_probes_.empty();
  }
  [[nodiscard]] uint32_t backends_count() const noexcept { return backends_.used_count(); }
  // A copy of what this core's pools have counted and hold now. Walks all backends: for people, not
  // for the path of a query.
  [[nodiscard]] Statistics statistics() noexcept;
  // Calls visit(Backend&) for each; it may not end one. For statistics and tests.
  template <typename Visit>
  void for_each_backend(Visit visit) noexcept {
    backends_.for_each(visit);
  }

  // Calls visit(PoolEntry&) for each pool of this core, those of earlier generations included; it
  // may not make or end one. For tests.
  template <typename Visit>
  void for_each_pool(Visit visit) noexcept {
    for (auto& [key, entry] : entries_) visit(*entry);
  }

  // --- For Backend, Canceller, NodeProbe and Session ---

  [[nodiscard]] const PoolsContext& context() noexcept { return context_; }
  [[nodiscard]] Cancels& cancels() noexcept { return cancels_; }
  [[nodiscard]] ParameterStore& parameters() noexcept { return parameters_; }
  [[nodiscard]] StatementTable& statements() noexcept { return statements_; }
  // For a message of the pooler's own: an empty writer that keeps its memory from one to the next.
  // What is written to it is sent before anybody else asks for it.
  [[nodiscard]] MessageWriter& writer() noexcept {
    writer_.clear();
    return writer_;
  }
  [[nodiscard]] Nanoseconds now() noexcept { return context_.clock.now(); }
  [[nodiscard]] uint64_t random_number() noexcept;
  [[nodiscard]] uint64_t next_lease() noexcept { return ++leases_count_; }
  [[nodiscard]] PoolEntry& entry_of(Slice& slice) noexcept;
  // A backend of this pool that is released has to close, because another pool wants its place in
  // a limit that both share. Asked once for each backend: the answer counts on it.
  [[nodiscard]] bool must_make_room(Slice& slice) noexcept;
  // Somebody waits for a backend of this pool, and more of them than what is on its way to them and
  // what its sessions have given back and is not clean yet. Walks all backends when somebody waits.
  [[nodiscard]] bool is_short(const Slice& slice) noexcept;
  [[nodiscard]] Nanoseconds expiry(const PoolSpec& spec) noexcept;
  // This backend is idle, and its pool superseded: to the next generation if it fits there, else it
  // ends. Note: may lease it at once.
  void leave_superseded(Backend& backend) noexcept;
  // Why clients of this pool cannot be served: the node is down, or connects of the pool fail.
  // Nothing where neither is so.
  [[nodiscard]] std::optional<PoolError> failure_of(const PoolEntry& entry) const;
  void on_backend_ready(Backend& backend, const Welcome& welcome) noexcept;
  // The login failed: tells those who wait, sets the time of the next attempt.
  void on_login_failed(Backend& backend, const PoolError& error) noexcept;
  // It was doubted with reason. Nobody is told: nothing is learnt of the node.
  void on_connect_given_up(Backend& backend) noexcept;
  // A backend has ended and its server let go.
  void on_backend_gone(Backend& backend) noexcept;
  void on_backend_destroyable(Backend& backend) noexcept;
  void send_backend(Slice& slice, CoreId to, std::unique_ptr<BackendTransfer> transfer) noexcept;
  // `error`: an errno, of a probe that was refused.
  void on_probe_over(NodeProbe& probe, NodeProbe::Outcome outcome, int error) noexcept;
  // Destroyed at the end of the turn: the caller is a handler of its own.
  void on_probe_closed(NodeProbe& probe) noexcept;

  // --- SlicePort ---

  bool connect(Slice& slice) noexcept override;
  void withdraw(Slice& slice) noexcept override;
  bool screen(Slice& slice, PooledBackend& backend) noexcept override;
  void hand_over(Slice& slice, PooledBackend& backend, Waiter& waiter) noexcept override;
  void move(Slice& slice, PooledBackend& backend, CoreId to) noexcept override;
  void close(Slice& slice, PooledBackend& backend) noexcept override;
  void on_reserve_freed(Slice&) noexcept override { tell_limit_freed(); }
  void activate(Slice& slice) noexcept override;

 private:
  // Nodes that are down (pools_nodes.cc).
  void on_node_answered(Node& node, const NodeAttempt& attempt, bool by_words) noexcept;
  void on_attempt_failed(Node& node, const NodeAttempt& attempt, const PoolError& error) noexcept;
  void on_node_failed(Node& node) noexcept;
  [[nodiscard]] static bool has_connection(const PoolSpec& spec) noexcept;
  void on_node_returned(const Node& node, Nanoseconds answered_from) noexcept;
  void doubt_older(const Node& node, Nanoseconds answered_from) noexcept;
  void fail_who_is_late(Slice& slice) noexcept;
  void tell_of_node(MessageKind kind, Node& node, Nanoseconds answered_from = 0) noexcept;
  void abandon(Node& node, const NodeAttempt& attempt) noexcept;
  void watch(Node& node) noexcept;
  [[nodiscard]] bool is_watched(const Node& node) const noexcept;
  void schedule_watch(Nanoseconds due_at) noexcept;
  [[nodiscard]] bool look_after(Node& node) noexcept;
  bool try_node(const Node& node) noexcept;
  [[nodiscard]] bool has_pool_at(const Node& node) const noexcept;
  void start_probe(Node& node) noexcept;
  void stop_probes() noexcept;
  void stop_needless_probes() noexcept;
  void know_addresses(const Node& node) noexcept;
  void follow_addresses(Nanoseconds now) noexcept;
  void expire_outdated(const Node& node, const Resolution& resolution, Nanoseconds now) noexcept;
  static void on_watch(void* self) noexcept;

  // Generations (pools_reload.cc).
  PoolEntry& make_pool(std::string key, const PoolSpecRef& spec) noexcept;
  [[nodiscard]] PoolSpecRef current_terms(const PoolSpec& spec) const;
  [[nodiscard]] bool is_configured(const PoolSpec& spec) const;
  void supersede_changed() noexcept;
  void rename(const std::string& from, const std::string& to) noexcept;
  void hand_on(PoolEntry& old) noexcept;
  [[nodiscard]] PoolEntry* heir_of(const PoolSpec& superseded) noexcept;
  void close_unfit(Backend& backend) noexcept;

  [[nodiscard]] bool take_place(PoolEntry& entry) noexcept;
  void give_back_place(Node& node) noexcept;
  void on_place(Node& node) noexcept;
  void grant_place(PoolEntry& entry) noexcept;
  void serve_gate(Node& node) noexcept;
  void leave_gate(PoolEntry& entry) noexcept;
  [[nodiscard]] PoolEntry* first_at_gate(const Node& node) noexcept;
  [[nodiscard]] bool take_limits(const PoolSpec& spec) noexcept;
  static void count_hub(const PoolSpec& spec, int change) noexcept;
  void close_hubs_in_the_way() noexcept;
  // For connections that nobody waits for.
  [[nodiscard]] bool has_room_to_spare(const PoolSpec& spec) noexcept;
  [[nodiscard]] static std::array<SharedLimit*, 4> limits_of(const PoolSpec& spec) noexcept;
  [[nodiscard]] bool is_due_to_others(SharedLimit& limit, const Slice& slice) noexcept;
  [[nodiscard]] bool is_guaranteed(const SharedLimit& limit, const Slice& slice) noexcept;
  [[nodiscard]] bool is_due_to_rivals(Slice& slice) noexcept;
  void ask_for_room(SharedLimit& limit, uint64_t pool) noexcept;
  void close_if_superfluous(Backend& backend) noexcept;
  bool make_room(SharedLimit& limit, uint64_t pool, uint64_t request) noexcept;
  void set_welcome(PoolEntry& entry, Welcome welcome) noexcept;
  void spread_welcome(const PoolEntry& entry) noexcept;
  void on_welcome(const Message& message) noexcept;
  void give_back_limits(const PoolSpec& spec) noexcept;
  void tell_limit_freed() noexcept;
  void on_limit_freed() noexcept;
  void on_backend_arrived(const Message& message) noexcept;
  Nanoseconds open_spares(Slice& slice, Nanoseconds now) noexcept;
  void start_replacements(Nanoseconds now) noexcept;
  void start_replacement(Backend& backend, Nanoseconds now) noexcept;
  void fail_waiters(PoolEntry& entry, const PoolError& error, WaitFailure reason) noexcept;
  void fail_oldest_waiter(Slice& slice, const PoolError& error, WaitFailure reason) noexcept;
  void sweep(Nanoseconds now) noexcept;
  void sweep_pool(PoolEntry& entry, Nanoseconds now) noexcept;
  static void on_sweep(void* self) noexcept;
  static void on_retry(void* self) noexcept;
  static void on_limit_retry(void* self) noexcept;
  void destroy_finished() noexcept;

  PoolsContext context_;
  ParameterStore parameters_;
  StatementTable statements_;
  MessageWriter writer_;
  Slab<Backend> backends_;
  // By PoolSpec::key; generations besides the one that sessions use by generation_key().
  std::unordered_map<std::string, std::unique_ptr<PoolEntry>> entries_;
  const PoolSource* source_ = nullptr;  // Since the first reload.
  uint64_t epoch_ = 0;                  // Of `source_`.
  uint64_t leases_count_ = 0;
  IntrusiveList<Slice, ActiveSliceTag> active_;
  // Those that wait for a place at the gate of their node, the longest first.
  IntrusiveList<PoolEntry, GateTag> at_gates_;
  std::vector<PoolEntry*> granted_;  // Have got a place since the last turn.
  std::vector<SlabId> finished_;
  Cancels cancels_;
  std::vector<Node*> watched_;  // Down, as far as this core knows: it tries them again.
  std::vector<std::unique_ptr<NodeProbe>> probes_;
  std::vector<std::unique_ptr<NodeProbe>> closed_probes_;  // In this turn.
  // What each node's names stood for at the last sweep.
  struct KnownAddresses {
    uint64_t version = 0;
    std::vector<SocketAddress> addresses;
  };
  std::unordered_map<const Node*, KnownAddresses> addresses_;
  Statistics gone_;  // Of pools that are forgotten.
  Timer sweep_timer_;
  Timer retry_timer_;
  Timer watch_timer_;
  Timer limit_timer_;
  bool draining_ = false;
  bool stopped_ = false;
};

}  // namespace helios
