#include "helios/pool/pools.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/wire/writer.h"
#include "pool/backoff.h"
#include "pool/connect_error.h"

namespace helios {
namespace {

constexpr Nanoseconds sweep_interval = seconds(1);
// After this long without sessions and backends a pool is forgotten.
constexpr Nanoseconds pool_idle_timeout = seconds(60);
// Pause between connects of a pool that its node refuses: doubled each time up to the maximum, less
// a random part.
constexpr Nanoseconds retry_first = milliseconds(50);
constexpr Nanoseconds retry_max = seconds(1);

}  // namespace

Pools::Pools(const PoolsContext& context, uint32_t backends_max) noexcept
    : context_(context),
      backends_(backends_max),
      cancels_(*this),
      sweep_timer_(&Pools::on_sweep, this),
      retry_timer_(&Pools::on_retry, this),
      watch_timer_(&Pools::on_watch, this),
      limit_timer_(&Pools::on_limit_retry, this) {
  context_.timers.schedule(sweep_timer_, now() + sweep_interval);
}

Pools::~Pools() {
  destroy_finished();
  ASSERT(is_empty());
  context_.timers.cancel(sweep_timer_);
  context_.timers.cancel(retry_timer_);
  context_.timers.cancel(watch_timer_);
  context_.timers.cancel(limit_timer_);
  while (active_.pop_front() != nullptr) {
  }
  while (PoolEntry* entry = at_gates_.front()) leave_gate(*entry);
}

PoolEntry* Pools::find_pool(const std::string& key) noexcept {
  auto found = entries_.find(key);
  return found == entries_.end() ? nullptr : found->second.get();
}

// --- Sessions ---

[[gnu::hot]] bool Pools::acquire(Slice& slice, Lessee& lessee) noexcept {
  const PoolLimits& limits = slice.spec().limits;
  while (PooledBackend* backend = slice.try_acquire()) {
    if (!screen(slice, *backend)) continue;
    ++slice.counters.at_once;
    static_cast<Backend&>(*backend).lease_to(lessee);
    return true;
  }
  if (!slice.enqueue(lessee, now()))
    lessee.on_wait_failed({std::string(sqlstate::too_many_connections),
                           "too many clients wait for a server connection of this pool "
                           "(max_waiters = " +
                               std::to_string(limits.max_waiters) + ")"});
  return false;
}

// --- SlicePort ---

bool Pools::connect(Slice& slice) noexcept {
  const PoolSpec& spec = slice.spec();
  Node& node = *spec.node;
  if (backends_.full()) return false;
  const Resolution resolution = node.addresses();
  const auto attempt = node.health.begin_attempt(resolution.addresses, now());
  if (!attempt.has_value()) {
    watch(node);
    return false;
  }
  // Few connects at once; then what the pools share.
  const bool has_place = take_place(entry_of(slice));
  if (!has_place || !take_limits(spec)) {
    abandon(node, *attempt);
    if (has_place) give_back_place(node);
    return false;
  }
  ++slice.counters.connects;
  if (attempt->kind != NodeAttempt::Kind::plain) ++slice.counters.trials;
  backends_.make(*this, slice)->start(*attempt, resolution.error);
  // Whoever has a trial sees to it that the node is asked beside it.
  if (node.health.is_down()) watch(node);
  return true;
}

[[gnu::hot]] bool Pools::screen(Slice& slice, PooledBackend& pooled) noexcept {
  Backend& backend = static_cast<Backend&>(pooled);
  const Nanoseconds idle_timeout = slice.spec().limits.idle_timeout;
  const Nanoseconds time = now();
  if (backend.is_expired(time)) {
    backend.close("lifetime over", CloseReason::lifetime);
  } else if (idle_timeout > 0 && time - backend.idle_since > idle_timeout &&
             slice.backends_count() > slice.minimum()) {
    backend.close("idle for too long", CloseReason::idle);
  } else if (backend.is_stale(time)) {
    backend.start_test();
  } else {
    return true;
  }
  return false;
}

[[gnu::hot]] void Pools::hand_over(Slice& slice, PooledBackend& backend, Waiter& waiter) noexcept {
  ASSERT(&static_cast<Backend&>(backend).slice() == &slice);
  slice.counters.wait_time.record(static_cast<uint64_t>(now() - waiter.waiting_since));
  static_cast<Backend&>(backend).lease_to(static_cast<Lessee&>(waiter));
}

void Pools::move(Slice&, PooledBackend& pooled, CoreId to) noexcept {
  Backend& backend = static_cast<Backend&>(pooled);
  backend.start_move(to);
  // Of no use there. The other core gets its permit instead.
  if (backend.is_expired(now())) backend.close("lifetime over", CloseReason::lifetime);
}

void Pools::close(Slice&, PooledBackend& backend) noexcept {
  static_cast<Backend&>(backend).close("the reserve is not needed any more", CloseReason::idle);
}

[[gnu::hot]] void Pools::activate(Slice& slice) noexcept {
  if (!static_cast<ListNode<ActiveSliceTag>&>(slice).is_linked()) active_.push_back(slice);
}

// --- Backends ---

Nanoseconds Pools::expiry(const PoolSpec& spec) noexcept {
  const Nanoseconds lifetime = spec.limits.max_lifetime;
  if (lifetime == 0) return never;
  // Up to a tenth less, so that connections made together do not end together.
  const Nanoseconds jitter =
      static_cast<Nanoseconds>(random_number() % static_cast<uint64_t>(lifetime / 10 + 1));
  return now() + lifetime - jitter;
}

void Pools::on_backend_ready(Backend& backend, const Welcome& welcome) noexcept {
  PoolEntry& entry = entry_of(backend.slice());
  entry.failures_count = 0;
  on_node_answered(*entry.slice.spec().node, backend.attempt(), true);
  if (entry.welcome != welcome) {
    set_welcome(entry, welcome);
    // Each client of a single-use pool gets the words of its own backend.
    if (!entry.slice.spec().limits.is_single_use) spread_welcome(entry);
  }
  entry.slice.on_connected(backend, now());
  close_if_superfluous(backend);
  give_back_place(*entry.slice.spec().node);
  if (entry.slice.wants_successor) return;  // It has not even begun.
  if (Backend* old = backends_.find(std::exchange(entry.retiring, SlabId()))) old->retire();
}

void Pools::set_welcome(PoolEntry& entry, Welcome welcome) noexcept {
  // With other defaults the server completes what clients ask for in another way.
  if (entry.welcome.reported != welcome.reported) entry.canonical_values.clear();
  entry.welcome = std::move(welcome);
  entry.welcome_set = parameters_.intern(entry.welcome.reported, entry.welcome.settings);
  MessageWriter writer(entry.welcome_bytes);
  writer.clear();
  for (const auto& [name, value] : entry.welcome.reported)
    write_parameter_status(writer, name, value);
}

// The other cores can then welcome clients of this pool without a backend.
void Pools::spread_welcome(const PoolEntry& entry) noexcept {
  for (CoreId core = 0; core < context_.postbox.cores_count(); ++core) {
    if (core == context_.postbox.core() || draining_) continue;
    Message message = make_message(MessageKind::welcome);
    message.words[0] =
        reinterpret_cast<uint64_t>(new WelcomeNews{entry.slice.spec_ref(), entry.welcome});
    context_.postbox.send(core, message);
  }
}

void Pools::on_welcome(const Message& message) noexcept {
  const std::unique_ptr<WelcomeNews> news(reinterpret_cast<WelcomeNews*>(message.words[0]));
  set_welcome(pool_of(news->spec), std::move(news->welcome));
}

void Pools::on_login_failed(Backend& backend, const PoolError& error) noexcept {
  PoolEntry& entry = entry_of(backend.slice());
  const PoolSpec& spec = entry.slice.spec();
  if (draining_ || entry.slice.is_superseded())
    return spec.node->health.on_abandoned(backend.attempt());
  LOG_LIMITED(warning, "%s", connect_error_text(spec, error).c_str());
  if (is_nodes_fault(error, backend.is_answered())) {
    backend.retry_at = 0;  // The node's health decides.
    return on_attempt_failed(*spec.node, backend.attempt(), error);
  }
  const bool by_words = error.sqlstate != sqlstate::connection_failure;
  on_node_answered(*spec.node, backend.attempt(), by_words);
  ++entry.failures_count;
  entry.last_error = connect_error(spec, error);
  backend.retry_at = now() + backoff(retry_first, retry_max, entry.failures_count, random_number());
  // The others of a single-use pool are of no help to who is refused what it asks for.
  const bool is_in_vain = error.is_of_parameters && spec.limits.is_single_use;
  if (is_in_vain || !has_connection(spec))
    fail_waiters(entry, entry.last_error, WaitFailure::node_error);
}

void Pools::on_connect_given_up(Backend& backend) noexcept {
  backend.retry_at = 0;
  backend.slice().spec().node->health.on_abandoned(backend.attempt());
}

std::optional<PoolError> Pools::failure_of(const PoolEntry& entry) const {
  const PoolSpec& spec = entry.slice.spec();
  if (spec.node->health.is_down()) return connect_error(spec, spec.node->health.last_error());
  if (entry.failures_count > 0) return entry.last_error;
  return std::nullopt;
}

uint64_t Pools::random_number() noexcept {
  uint64_t number;
  context_.random.fill({reinterpret_cast<uint8_t*>(&number), sizeof(number)});
  return number;
}

void Pools::on_backend_gone(Backend& backend) noexcept {
  Slice& slice = backend.slice();
  give_back_limits(slice.spec());
  PoolEntry& entry = entry_of(slice);
  if (backend.was_ready()) {
    // Its time was over, at a limit or before its successor could come.
    if (slice.is_used() && backend.is_expired(now()) && !backend.is_retired() &&
        entry.retiring != backends_.id_of(&backend))
      slice.wants_successor = true;
    return slice.on_gone();
  }
  entry.retiring = SlabId();
  give_back_place(*slice.spec().node);
  slice.on_connect_failed(backend.retry_at);
}

bool Pools::is_short(const Slice& slice) noexcept {
  uint32_t unserved_count = slice.unserved_count();
  if (unserved_count == 0) return false;
  backends_.for_each([&](const Backend& backend) {
    if (&backend.slice() == &slice && backend.is_settling() && unserved_count > 0) --unserved_count;
  });
  return unserved_count > 0;
}

void Pools::fail_waiters(PoolEntry& entry, const PoolError& error, WaitFailure reason) noexcept {
  // Those that come back at once, by a new attempt, queue behind.
  for (size_t count = entry.slice.waiters_count(); count > 0; --count)
    fail_oldest_waiter(entry.slice, error, reason);
}

void Pools::fail_oldest_waiter(Slice& slice, const PoolError& error, WaitFailure reason) noexcept {
  ++slice.counters.failures[reason];
  static_cast<Lessee*>(slice.take_oldest_waiter())->on_wait_failed(error);
}

// A backend that went idle, not by a release (see Backend::place).
void Pools::close_if_superfluous(Backend& backend) noexcept {
  if (backend.state() != Backend::State::idle) return;
  if (backend.slice().is_superseded()) return leave_superseded(backend);
  if (backend.slice().spec().limits.is_single_use)
    return backend.close("its client has left before it was ready", CloseReason::single_use);
  if (draining_) return backend.close("shutting down", CloseReason::shutting_down);
  if (must_make_room(backend.slice()))
    backend.close("makes room for another pool", CloseReason::made_room);
}

// Destruction waits for the end of the turn: the caller is a handler of the backend itself.
void Pools::on_backend_destroyable(Backend& backend) noexcept {
  finished_.push_back(backends_.id_of(&backend));
}

void Pools::send_backend(Slice& slice, CoreId to,
                         std::unique_ptr<BackendTransfer> transfer) noexcept {
  ASSERT(&slice.spec() == &*transfer->spec);
  ++slice.counters.moves_out;
  transfer->welcome = entry_of(slice).welcome;
  context_.transfers_count.fetch_add(1);
  Message message = make_message(MessageKind::backend);
  message.words[0] = reinterpret_cast<uint64_t>(transfer.release());
  context_.postbox.send(to, message);
}

void Pools::on_backend_arrived(const Message& message) noexcept {
  const std::unique_ptr<BackendTransfer> transfer(
      reinterpret_cast<BackendTransfer*>(message.words[0]));
  PoolEntry& entry = pool_of(transfer->spec);
  Slice& slice = entry.slice;
  ++slice.counters.moves_in;
  if (entry.welcome.empty()) set_welcome(entry, std::move(transfer->welcome));
  // Backends of all cores together are bounded by the slab of each (see server).
  Backend* backend = backends_.make(*this, slice);
  ASSERT(backend != nullptr);
  backend->start(*transfer);
  context_.transfers_count.fetch_sub(1);
  // Nobody waits any more: what the cores knew of each other's waiters is void.
  if (draining_) slice.forget_wishes();
  slice.on_arrived(message.from, transfer->permit_home);
  // As in acquire(): it may have been idle there for long.
  if (backend->is_stale(now()) && !draining_ && !slice.is_superseded())
    return backend->start_test();
  slice.release(*backend, now());
  close_if_superfluous(*backend);
}

// --- Messages ---

bool Pools::on_message(const Message& message) noexcept {
  const MessageKind kind = static_cast<MessageKind>(message.kind);
  switch (kind) {
    case MessageKind::backend:
      on_backend_arrived(message);
      return true;
    case MessageKind::limit_freed:
      on_limit_freed();
      return true;
    case MessageKind::place:
      on_place(*reinterpret_cast<Node*>(message.words[0]));
      return true;
    case MessageKind::welcome:
      on_welcome(message);
      return true;
    case MessageKind::node_failed:
      on_node_failed(*reinterpret_cast<Node*>(message.words[0]));
      return true;
    case MessageKind::node_returned:
      on_node_returned(*reinterpret_cast<Node*>(message.words[0]),
                       static_cast<Nanoseconds>(message.words[1]));
      return true;
    case MessageKind::make_room:
      (void)make_room(*reinterpret_cast<SharedLimit*>(message.words[0]), message.words[1],
                      message.words[2]);
      return true;
    case MessageKind::want:
    case MessageKind::promise:
    case MessageKind::unpromise:
    case MessageKind::permits:
    case MessageKind::use:
      break;
    case MessageKind::none:
    case MessageKind::statistics_wanted:
    case MessageKind::statistics:
    case MessageKind::cancel:
    case MessageKind::cancel_done:
    case MessageKind::session:
    case MessageKind::client_socket:
    case MessageKind::drain:
    case MessageKind::stop:
    case MessageKind::settled:
    case MessageKind::reload:
    case MessageKind::log_statistics:
      return false;
  }
  const PoolSpecRef spec = PoolSpecRef::take_word(message.words[0]);
  Slice& slice = pool_of(spec).slice;
  if (kind == MessageKind::want) {
    slice.on_want(message.from, message.count, static_cast<Nanoseconds>(message.words[1]),
                  message.words[2]);
  } else if (kind == MessageKind::promise) {
    slice.on_promise(message.from, message.count, static_cast<uint32_t>(message.words[1]));
  } else if (kind == MessageKind::unpromise) {
    slice.on_unpromise(message.from);
  } else if (kind == MessageKind::use) {
    slice.on_use(message.from, message.count != 0);
  } else {
    slice.on_permits(message.from, message.count, static_cast<CoreId>(message.words[1]));
  }
  return true;
}

// --- Turns and time ---

void Pools::on_turn_end(Nanoseconds time) noexcept {
  Nanoseconds wakeup = never;
  std::vector<PoolEntry*> granted;
  granted.swap(granted_);
  // A slice that activates itself again waits for the next turn.
  for (size_t count = active_.size(); count > 0; --count) {
    Slice* slice = active_.pop_front();
    if (draining_) continue;
    wakeup = std::min(wakeup, slice->pump(time));
    wakeup = std::min(wakeup, open_spares(*slice, time));
    if (slice->waiters_count() > 0) fail_who_is_late(*slice);
  }
  for (PoolEntry* entry : granted)
    if (std::exchange(entry->has_place, false)) give_back_place(*entry->slice.spec().node);
  if (wakeup != never && (!retry_timer_.is_scheduled() || retry_timer_.deadline() > wakeup))
    context_.timers.schedule(retry_timer_, wakeup);
  destroy_finished();
}

// Opens what nobody waits for, the minimum and successors, where there is room without taking it
// from others. Returns when to call again; `never` when only on events.
Nanoseconds Pools::open_spares(Slice& slice, Nanoseconds time) noexcept {
  const auto is_wanted = [&] {
    // Successors come one at a time.
    return slice.lacks_backends() || (slice.wants_successor && slice.connecting_count() == 0);
  };
  if (!is_wanted()) return never;
  if (slice.retry_at() > time) return slice.retry_at();
  while (is_wanted() && has_room_to_spare(slice.spec()) && slice.warm_up(time))
    slice.wants_successor = false;
  return never;
}

[[gnu::hot]] void Pools::destroy_finished() noexcept {
  const bool was_full = backends_.full();
  for (const SlabId id : finished_) {
    Backend* backend = backends_.find(id);
    if (backend != nullptr && backend->is_destroyable()) backends_.free(backend);
  }
  finished_.clear();
  closed_probes_.clear();
  if (was_full && !backends_.full()) on_limit_freed();
  cancels_.on_turn_end();
}

void Pools::on_retry(void* self) noexcept {
  Pools& pools = *static_cast<Pools*>(self);
  for (auto& [key, entry] : pools.entries_)
    if (entry->slice.waiters_count() > 0 || entry->slice.lacks_backends())
      pools.activate(entry->slice);
}

void Pools::on_sweep(void* self) noexcept {
  Pools& pools = *static_cast<Pools*>(self);
  pools.follow_addresses(pools.now());
  pools.sweep(pools.now());
  pools.context_.net.chunks.trim();
  pools.context_.net.io.trim_buffers();
  pools.context_.timers.schedule(pools.sweep_timer_, pools.now() + sweep_interval);
}

// Backends that near the end of their lifetime while their pool is in use get a successor first,
// where there is room for both; at a limit their own end makes it (on_backend_gone).
void Pools::start_replacements(Nanoseconds time) noexcept {
  backends_.for_each([&](Backend& backend) {
    if (backend.is_near_its_end(time)) start_replacement(backend, time);
  });
}

// One at a time in each slice. The connect itself begins at the end of the turn.
void Pools::start_replacement(Backend& backend, Nanoseconds time) noexcept {
  PoolEntry& entry = entry_of(backend.slice());
  Slice& slice = entry.slice;
  const bool is_possible = slice.is_used() && slice.permits_free() > 0 &&
                           slice.connecting_count() == 0 && slice.retry_at() <= time &&
                           has_room_to_spare(slice.spec());
  if (!is_possible || slice.wants_successor || backends_.find(entry.retiring) != nullptr) return;
  entry.retiring = backends_.id_of(&backend);
  slice.wants_successor = true;
  activate(slice);
}

void Pools::sweep(Nanoseconds time) noexcept {
  if (!draining_) start_replacements(time);
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    Slice& slice = entry->second->slice;
    sweep_pool(*entry->second, time);
    // While its node is down the pool may be the one that sees it return.
    if (slice.is_used() || slice.backends_count() > 0 || slice.connecting_count() > 0 ||
        is_watched(*slice.spec().node) ||
        (entry->second->hub != nullptr && entry->second->hub->is_used()))
      slice.unused_since = time;
    if (time - slice.unused_since < pool_idle_timeout) {
      ++entry;
      continue;
    }
    slice.give_back_loans();
    const bool is_active = static_cast<ListNode<ActiveSliceTag>&>(slice).is_linked();
    if (!slice.is_pristine() || is_active) {
      ++entry;
      continue;
    }
    gone_.add_gone(*slice.spec().node, slice.counters);
    if (entry->second->is_linked()) leave_gate(*entry->second);
    entry = entries_.erase(entry);
  }
}

// Closes what is idle for too long or too old; looks again whether there is room for the minimum.
void Pools::sweep_pool(PoolEntry& entry, Nanoseconds time) noexcept {
  Slice& slice = entry.slice;
  const PoolLimits& limits = slice.spec().limits;
  const bool is_used = slice.is_used();
  if (is_used) slice.used_at = time;
  if (!is_used) slice.wants_successor = false;
  // A pause between two clients is no reason to give the minimum up.
  const bool keeps_minimum = time - slice.used_at <= limits.idle_timeout;
  bool has_closed_old = false;
  for (PooledBackend* pooled = slice.least_recently_used(); pooled != nullptr;) {
    Backend& backend = static_cast<Backend&>(*pooled);
    pooled = slice.next_idle(*pooled);
    if (backend.is_expired(time)) {
      // While the pool is in use one after the other, so that successors come as they go.
      if (!is_used || !std::exchange(has_closed_old, true))
        backend.close("lifetime over", CloseReason::lifetime);
    } else if (limits.idle_timeout > 0 && time - backend.idle_since > limits.idle_timeout &&
               (!keeps_minimum || slice.idle_count() > slice.minimum())) {
      backend.close("idle for too long", CloseReason::idle);
    }
  }
  if (draining_) return;
  slice.tell_use();
  (void)open_spares(slice, time);
}

// --- The end ---

void Pools::start_drain() noexcept {
  draining_ = true;
  backends_.for_each([](Backend& backend) {
    if (backend.is_being_made() || backend.state() == Backend::State::idle)
      backend.close("shutting down", CloseReason::shutting_down);
  });
  const PoolError error{std::string(sqlstate::admin_shutdown), "the pooler is shutting down"};
  for (auto& [key, entry] : entries_) fail_waiters(*entry, error, WaitFailure::shutting_down);
  while (PoolEntry* entry = at_gates_.front()) leave_gate(*entry);
  stop_probes();
}

void Pools::stop() noexcept {
  draining_ = true;
  stopped_ = true;
  stop_probes();
  backends_.for_each([](Backend& backend) { backend.cut(); });
  cancels_.stop();
}

}  // namespace helios
