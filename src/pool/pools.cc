#include "helios/pool/pools.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/wire/writer.h"

namespace helios {
namespace {

constexpr Nanoseconds sweep_interval = seconds(1);
// After this long without sessions and backends a pool is forgotten.
constexpr Nanoseconds pool_idle_timeout = seconds(60);
// Pause between connects to a node that fails: doubled each time up to the maximum, less a random
// part.
constexpr Nanoseconds retry_first = milliseconds(50);
constexpr Nanoseconds retry_max = seconds(1);

uint64_t random_number(Random& random) noexcept {
  uint64_t number;
  random.fill({reinterpret_cast<uint8_t*>(&number), sizeof(number)});
  return number;
}

// Tells pools apart where a wrong answer costs a connection at most. Never 0.
uint64_t pool_number(const PoolSpec& spec) noexcept {
  return std::hash<std::string>{}(spec.key) | 1;
}

Message make_message(MessageKind kind) noexcept {
  Message message;
  message.kind = static_cast<uint16_t>(kind);
  return message;
}

}  // namespace

Pools::Pools(const PoolsContext& context, uint32_t backends_max) noexcept
    : context_(context),
      backends_(backends_max),
      sweep_timer_(&Pools::on_sweep, this),
      retry_timer_(&Pools::on_retry, this) {
  context_.timers.schedule(sweep_timer_, now() + sweep_interval);
}

Pools::~Pools() {
  destroy_finished();
  ASSERT(is_empty());
  context_.timers.cancel(sweep_timer_);
  context_.timers.cancel(retry_timer_);
  while (active_.pop_front() != nullptr) {
  }
}

PoolEntry& Pools::pool_of(const PoolSpecRef& spec) noexcept {
  auto found = entries_.find(spec->key);
  if (found != entries_.end()) return *found->second;
  auto made = std::make_unique<PoolEntry>(spec, *this, context_.postbox);
  PoolEntry& entry = *made;
  entry.slice.unused_since = now();
  entries_.emplace(spec->key, std::move(made));
  return entry;
}

PoolEntry* Pools::find_pool(const std::string& key) noexcept {
  auto found = entries_.find(key);
  return found == entries_.end() ? nullptr : found->second.get();
}

PoolEntry& Pools::entry_of(Slice& slice) noexcept {
  PoolEntry* found = find_pool(slice.spec().key);
  ASSERT(found != nullptr);
  return *found;
}

// --- Sessions ---

bool Pools::acquire(Slice& slice, Lessee& lessee) noexcept {
  const PoolLimits& limits = slice.spec().limits;
  const Nanoseconds time = now();
  while (PooledBackend* pooled = slice.try_acquire()) {
    Backend& backend = static_cast<Backend&>(*pooled);
    if (limits.idle_timeout > 0 && time - backend.idle_since > limits.idle_timeout &&
        slice.backends_count() > slice.minimum()) {
      backend.close("idle for too long", CloseReason::idle);
    } else if (limits.test_after > 0 && time - backend.idle_since > limits.test_after) {
      // It comes back through release, which serves the queue.
      backend.start_test();
    } else {
      ++slice.counters.at_once;
      backend.lease_to(lessee);
      return true;
    }
  }
  slice.enqueue(lessee, time);
  return false;
}

void Pools::start_cancel(Backend& backend, Canceller::Done done, void* context) noexcept {
  ++backend.slice().counters.cancels;
  auto* canceller = new Canceller(*this, backend, done, context);
  cancellers_.push_back(canceller);
  canceller->start();
}

void Pools::on_canceller_closed(Canceller* canceller) noexcept {
  cancellers_.erase(std::find(cancellers_.begin(), cancellers_.end(), canceller));
  finished_cancellers_.push_back(canceller);
}

// --- SlicePort ---

bool Pools::connect(Slice& slice) noexcept {
  const PoolSpec& spec = slice.spec();
  if (backends_.full() || !take_limits(spec)) return false;
  Backend* backend = backends_.make(*this, slice);
  const auto addresses = spec.node->resolver.snapshot(spec.node->resolver_id);
  ++slice.counters.connects;
  if (addresses->addresses.empty()) {
    backend->fail_to_resolve(addresses->error);
  } else {
    const size_t index = addresses_tried_ % addresses->addresses.size();
    backend->start(addresses->addresses[index]);
  }
  return true;
}

void Pools::hand_over(Slice& slice, PooledBackend& backend, Waiter& waiter) noexcept {
  ASSERT(&static_cast<Backend&>(backend).slice() == &slice);
  slice.counters.wait_time.record(static_cast<uint64_t>(now() - waiter.waiting_since));
  static_cast<Backend&>(backend).lease_to(static_cast<Lessee&>(waiter));
}

void Pools::move(Slice&, PooledBackend& backend, CoreId to) noexcept {
  static_cast<Backend&>(backend).start_move(to);
}

void Pools::activate(Slice& slice) noexcept {
  if (!static_cast<ListNode<ActiveSliceTag>&>(slice).is_linked()) active_.push_back(slice);
}

// The order is fixed, and nothing is kept when one is full: no two pools can wait for each other.
bool Pools::take_limits(const PoolSpec& spec) noexcept {
  Limit* limits[] = {&spec.node->limit, spec.database_limit.get(), spec.user_limit.get()};
  size_t taken = 0;
  for (Limit* limit : limits) {
    if (limit != nullptr && !limit->try_take(pool_number(spec))) break;
    ++taken;
  }
  if (taken == std::size(limits)) return true;
  bool tell = false;
  for (size_t i = 0; i < taken; ++i) tell |= limits[i] != nullptr && limits[i]->give_back();
  if (tell) tell_limit_freed();
  ask_for_room(*limits[taken], pool_number(spec));
  return false;
}

// A limit is full and a pool starves: an idle backend of another pool makes room, here or on
// another core.
void Pools::ask_for_room(Limit& limit, uint64_t pool) noexcept {
  if (make_room(limit, pool)) return;
  Message message = make_message(MessageKind::make_room);
  message.words[0] = reinterpret_cast<uint64_t>(&limit);
  message.words[1] = pool;
  for (CoreId core = 0; core < context_.postbox.cores_count(); ++core)
    if (core != context_.postbox.core()) context_.postbox.send(core, message);
}

// Closes the backend that was idle for longest among those of other pools that hold a permit of
// this limit. (Its own pool's idle backends come to it by lending.)
bool Pools::make_room(const Limit& limit, uint64_t pool) noexcept {
  PooledBackend* oldest = nullptr;
  for (auto& [key, entry] : entries_) {
    const PoolSpec& spec = entry->slice.spec();
    if (&spec.node->limit != &limit && spec.database_limit.get() != &limit &&
        spec.user_limit.get() != &limit)
      continue;
    if (pool_number(spec) == pool) continue;
    PooledBackend* candidate = entry->slice.least_recently_used();
    if (candidate != nullptr && (oldest == nullptr || candidate->idle_since < oldest->idle_since))
      oldest = candidate;
  }
  if (oldest == nullptr) return false;
  static_cast<Backend*>(oldest)->close("makes room for another pool", CloseReason::made_room);
  return true;
}

bool Pools::has_room(const PoolSpec& spec) const noexcept {
  return spec.node->limit.has_room() &&
         (spec.database_limit == nullptr || spec.database_limit->has_room()) &&
         (spec.user_limit == nullptr || spec.user_limit->has_room());
}

bool Pools::is_room_wanted(const PoolSpec& spec) const noexcept {
  const auto is_starved = [&](const Limit* limit) {
    return limit != nullptr && limit->is_starved() && limit->is_starved_by_other(pool_number(spec));
  };
  return is_starved(&spec.node->limit) || is_starved(spec.database_limit.get()) ||
         is_starved(spec.user_limit.get());
}

void Pools::give_back_limits(const PoolSpec& spec) noexcept {
  bool tell = spec.node->limit.give_back();
  if (spec.database_limit != nullptr) tell |= spec.database_limit->give_back();
  if (spec.user_limit != nullptr) tell |= spec.user_limit->give_back();
  if (tell) tell_limit_freed();
}

void Pools::tell_limit_freed() noexcept {
  for (CoreId core = 0; core < context_.postbox.cores_count(); ++core)
    if (core != context_.postbox.core())
      context_.postbox.send(core, make_message(MessageKind::limit_freed));
  on_limit_freed();
}

void Pools::on_limit_freed() noexcept {
  for (auto& [key, entry] : entries_) entry->slice.on_limit_freed();
}

// --- Backends ---

Nanoseconds Pools::expiry(const PoolSpec& spec) noexcept {
  const Nanoseconds lifetime = spec.limits.max_lifetime;
  if (lifetime == 0) return never;
  // Up to a tenth less, so that connections made together do not end together.
  const Nanoseconds jitter = static_cast<Nanoseconds>(random_number(context_.random) %
                                                      static_cast<uint64_t>(lifetime / 10 + 1));
  return now() + lifetime - jitter;
}

void Pools::on_backend_ready(Backend& backend, const ParameterList& welcome) noexcept {
  PoolEntry& entry = entry_of(backend.slice());
  entry.failures_count = 0;
  if (entry.welcome != welcome) {
    set_welcome(entry, welcome);
    spread_welcome(entry);
  }
  entry.slice.on_connected(backend, now());
  close_if_superfluous(backend);
}

void Pools::set_welcome(PoolEntry& entry, ParameterList welcome) noexcept {
  // With other defaults the server completes what clients ask for in another way.
  if (entry.welcome != welcome) entry.canonical_values.clear();
  entry.welcome = std::move(welcome);
  entry.welcome_set = parameters_.intern(entry.welcome);
  MessageWriter writer(entry.welcome_bytes);
  writer.clear();
  for (const auto& [name, value] : entry.welcome) write_parameter_status(writer, name, value);
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
  ++entry.slice.counters.connect_failures;
  ++entry.failures_count;
  ++addresses_tried_;
  spec.node->resolver.refresh_soon(spec.node->resolver_id);
  entry.last_error = {error.sqlstate, "cannot connect to node \"" + spec.node->name + "\" (" +
                                          spec.node->label + ") as user \"" + spec.login.user +
                                          "\": " + error.message};
  if (!draining_) LOG_LIMITED(warning, "%s", entry.last_error.message.c_str());
  // A server that is starting up will be there soon; and while other backends live, they serve
  // those who wait.
  const bool may_pass = error.sqlstate == sqlstate::cannot_connect_now;
  // This one is still counted as connecting.
  if (!may_pass && entry.slice.backends_count() == 0 && entry.slice.connecting_count() <= 1)
    fail_waiters(entry, entry.last_error, WaitFailure::node_error);
}

void Pools::on_backend_gone(Backend& backend) noexcept {
  Slice& slice = backend.slice();
  give_back_limits(slice.spec());
  if (backend.was_ready()) return slice.on_gone();
  const uint32_t failures = entry_of(slice).failures_count;
  const Nanoseconds longest = std::min(retry_max, retry_first << std::min(failures, 10U));
  const Nanoseconds pause = longest - static_cast<Nanoseconds>(random_number(context_.random) %
                                                               static_cast<uint64_t>(longest / 4));
  slice.on_connect_failed(now() + pause);
}

void Pools::fail_waiters(PoolEntry& entry, const PoolError& error, WaitFailure reason) noexcept {
  // Those that come back at once, by a new attempt, queue behind.
  for (size_t count = entry.slice.waiters_count(); count > 0; --count) {
    ++entry.slice.counters.failures[reason];
    static_cast<Lessee*>(entry.slice.take_oldest_waiter())->on_wait_failed(error);
  }
}

// A backend that went idle, not by a release (see Backend::place).
void Pools::close_if_superfluous(Backend& backend) noexcept {
  if (backend.state() != Backend::State::idle) return;
  if (draining_) return backend.close("shutting down", CloseReason::shutting_down);
  const Slice& slice = backend.slice();
  if (is_room_wanted(slice.spec()) && !slice.has_waiters())
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
  slice.on_arrived(*backend, message.from, transfer->permit_home, now());
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
    case MessageKind::welcome:
      on_welcome(message);
      return true;
    case MessageKind::make_room:
      (void)make_room(*reinterpret_cast<Limit*>(message.words[0]), message.words[1]);
      return true;
    case MessageKind::want:
    case MessageKind::promise:
    case MessageKind::unpromise:
    case MessageKind::permits:
      break;
    case MessageKind::none:
    case MessageKind::statistics_wanted:
    case MessageKind::statistics:
    case MessageKind::cancel:
    case MessageKind::cancel_done:
    case MessageKind::client_socket:
    case MessageKind::drain:
    case MessageKind::stop:
    case MessageKind::settled:
    case MessageKind::log_statistics:
      return false;
  }
  const PoolSpecRef spec = PoolSpecRef::take_word(message.words[0]);
  Slice& slice = pool_of(spec).slice;
  if (kind == MessageKind::want) {
    slice.on_want(message.from, message.count, static_cast<Nanoseconds>(message.words[1]),
                  message.words[2] != 0);
  } else if (kind == MessageKind::promise) {
    slice.on_promise(message.from, message.count);
  } else if (kind == MessageKind::unpromise) {
    slice.on_unpromise(message.from);
  } else {
    slice.on_permits(message.from, message.count, static_cast<CoreId>(message.words[1]));
  }
  return true;
}

// --- Turns and time ---

void Pools::on_turn_end(Nanoseconds time) noexcept {
  Nanoseconds wakeup = never;
  // A slice that activates itself again waits for the next turn.
  for (size_t count = active_.size(); count > 0; --count) {
    Slice* slice = active_.pop_front();
    if (!draining_) wakeup = std::min(wakeup, slice->pump(time));
  }
  if (wakeup != never && (!retry_timer_.is_scheduled() || retry_timer_.deadline() > wakeup))
    context_.timers.schedule(retry_timer_, wakeup);
  destroy_finished();
}

void Pools::destroy_finished() noexcept {
  const bool was_full = backends_.full();
  for (const SlabId id : finished_) {
    Backend* backend = backends_.find(id);
    if (backend != nullptr && backend->is_destroyable()) backends_.free(backend);
  }
  finished_.clear();
  if (was_full && !backends_.full()) on_limit_freed();
  for (Canceller* canceller : finished_cancellers_) {
    delete canceller;
  }
  finished_cancellers_.clear();
}

void Pools::on_retry(void* self) noexcept {
  Pools& pools = *static_cast<Pools*>(self);
  for (auto& [key, entry] : pools.entries_)
    if (entry->slice.waiters_count() > 0) pools.activate(entry->slice);
}

void Pools::on_sweep(void* self) noexcept {
  Pools& pools = *static_cast<Pools*>(self);
  pools.sweep(pools.now());
  pools.context_.net.chunks.trim();
  pools.context_.net.io.trim_buffers();
  pools.context_.timers.schedule(pools.sweep_timer_, pools.now() + sweep_interval);
}

void Pools::sweep(Nanoseconds time) noexcept {
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    Slice& slice = entry->second->slice;
    sweep_pool(*entry->second, time);
    if (slice.sessions_count > 0 || slice.backends_count() > 0 || slice.connecting_count() > 0)
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
    entry = entries_.erase(entry);
  }
}

// Closes what is idle for too long or too old; opens what the minimum lacks.
void Pools::sweep_pool(PoolEntry& entry, Nanoseconds time) noexcept {
  Slice& slice = entry.slice;
  const PoolLimits& limits = slice.spec().limits;
  const bool is_used = slice.sessions_count > 0;
  for (PooledBackend* pooled = slice.least_recently_used(); pooled != nullptr;) {
    Backend& backend = static_cast<Backend&>(*pooled);
    pooled = slice.next_idle(*pooled);
    if (backend.is_expired(time)) {
      backend.close("lifetime over", CloseReason::lifetime);
    } else if (limits.idle_timeout > 0 && time - backend.idle_since > limits.idle_timeout &&
               (!is_used || slice.idle_count() > slice.minimum())) {
      backend.close("idle for too long", CloseReason::idle);
    }
  }
  if (is_used && !draining_ && has_room(slice.spec()) &&
      slice.backends_count() + slice.connecting_count() < slice.minimum())
    slice.warm_up(time);
}

// --- The end ---

void Pools::start_drain() noexcept {
  draining_ = true;
  backends_.for_each([](Backend& backend) {
    const Backend::State state = backend.state();
    const bool is_useless = state == Backend::State::idle || state == Backend::State::connecting ||
                            state == Backend::State::login;
    if (is_useless) backend.close("shutting down", CloseReason::shutting_down);
  });
  const PoolError error{std::string(sqlstate::admin_shutdown), "the pooler is shutting down"};
  for (auto& [key, entry] : entries_) fail_waiters(*entry, error, WaitFailure::shutting_down);
}

void Pools::stop() noexcept {
  draining_ = true;
  stopped_ = true;
  backends_.for_each([](Backend& backend) { backend.cut(); });
  for (Canceller* canceller : cancellers_) canceller->stop();
}

}  // namespace helios
