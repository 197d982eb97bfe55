#include "helios/session/sessions.h"

#include <algorithm>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/pool/pool_cores.h"
#include "session/session_login.h"

namespace helios {
namespace {

// Process ids of the pooler's own, positive in 32 bits: so many for each core, by the session's
// slot. Those of servers are smaller: Linux has none from here on (PID_MAX_LIMIT, threads.h).
constexpr uint32_t own_ids_begin = 1U << 22;
constexpr uint32_t ids_of_core = 2'000'000;
constexpr uint32_t cores_max = (INT32_MAX - own_ids_begin) / ids_of_core;

uint64_t word_of(SlabId id) {
  return (static_cast<uint64_t>(id.generation) << 32) | id.index;
}
SlabId id_of_word(uint64_t word) {
  return {static_cast<uint32_t>(word), static_cast<uint32_t>(word >> 32)};
}

}  // namespace

Sessions::Sessions(SessionsShared& shared, Pools& pools, NetContext& net,
                   uint32_t sessions_max) noexcept
    : shared_(shared),
      directory_(&shared.directory),
      pools_(pools),
      net_(net),
      logins_(std::make_unique<Slab<SessionLogin>>(sessions_max)),
      sessions_(sessions_max) {
  ASSERT(sessions_max < ids_of_core);
  ASSERT(pools.context().postbox.cores_count() <= cores_max);
}

Sessions::~Sessions() {
  destroy_finished();
  ASSERT(is_empty());
}

void Sessions::accept(int fd, int family) noexcept {
  Session* session = sessions_.make(*this);
  if (session == nullptr) {
    LOG_LIMITED(warning, "no room for another client on this core; its connection is closed");
    net_.io.close_fd(fd);
    return uncount(pools_.context().postbox.core());
  }
  ++counters_.accepted;
  session->start(fd, family);
}

CoreId Sessions::place_of(const PoolSpec& pool) noexcept {
  const Postbox& postbox = pools_.context().postbox;
  const CoreId here = postbox.core();
  if (loads_.empty() || draining_) return here;
  const CoreId homes_count = home_cores_count(pool, postbox.cores_count());
  if (homes_count == postbox.cores_count()) return here;
  const PoolCores cores(pool.key, postbox.cores_count());
  if (cores.position_of(here) < homes_count) return here;
  const auto load_of = [this](CoreId core) { return loads_[core].load(std::memory_order_relaxed); };
  CoreId best = cores.core_at(0);
  for (CoreId position = 1; position < homes_count; ++position)
    if (load_of(cores.core_at(position)) < load_of(best)) best = cores.core_at(position);
  loads_[best].fetch_add(1, std::memory_order_relaxed);
  return best;
}

void Sessions::uncount(CoreId core) noexcept {
  if (!loads_.empty()) loads_[core].fetch_sub(1, std::memory_order_relaxed);
}

void Sessions::send_session(CoreId to, std::unique_ptr<SessionTransfer> transfer) noexcept {
  ++counters_.moved;
  pools_.context().transfers_count.fetch_add(1);
  Message message = make_message(MessageKind::session);
  message.words[0] = reinterpret_cast<uint64_t>(transfer.release());
  pools_.context().postbox.send(to, message);
}

void Sessions::on_session_arrived(const Message& message) noexcept {
  const std::unique_ptr<SessionTransfer> transfer(
      reinterpret_cast<SessionTransfer*>(message.words[0]));
  Session* session = sessions_.make(*this);
  if (session == nullptr) {
    LOG_LIMITED(warning, "no room for a client of another core; its connection is closed");
    net_.io.close_fd(transfer->fd);
    shared_.clients_count.fetch_sub(1, std::memory_order_relaxed);
    uncount(pools_.context().postbox.core());
  } else {
    session->start(*transfer);
  }
  pools_.context().transfers_count.fetch_sub(1);
}

SessionLogin* Sessions::make_login() noexcept {
  SessionLogin* login = logins_->make(shared_.login_secret, pools_.context().random);
  ASSERT(login != nullptr);  // There are as many as sessions.
  return login;
}

void Sessions::free_login(SessionLogin* login) noexcept {
  logins_->free(login);
}

uint32_t Sessions::process_id_of(const Session& session) noexcept {
  const uint32_t core = pools_.context().postbox.core();
  return own_ids_begin + core * ids_of_core + sessions_.id_of(&session).index + 1;
}

uint32_t Sessions::tell_process_id(const Session& session, const Backend* backend) noexcept {
  // A server on another system may have larger ones; other poolers have none.
  const uint32_t id = backend == nullptr ? 0 : backend->process_id();
  if (id == 0 || id >= own_ids_begin) return process_id_of(session);
  told_backends_.emplace(id, id_of(session));
  return id;
}

std::string Sessions::cancel_key_of(const Session& session, size_t size) noexcept {
  uint8_t identity[12];
  const SlabId id = sessions_.id_of(&session);
  store_be32(identity, process_id_of(session));
  store_be32(identity + 4, id.index);
  store_be32(identity + 8, id.generation);
  const Sha256Digest digest = hmac_sha256(shared_.cancel_secret, ByteSpan(identity));
  ASSERT(size <= digest.size());
  return std::string(reinterpret_cast<const char*>(digest.data()), size);
}

void Sessions::on_cancel_request(Session& asker, uint32_t process_id, ByteSpan key) noexcept {
  const Postbox& postbox = pools_.context().postbox;
  auto job = std::make_unique<CancelJob>();
  job->process_id = process_id;
  job->key = as_text(key);
  job->asker_core = postbox.core();
  job->asker = id_of(asker);
  // Whose client was told a backend's process id is asked of one core after the other.
  CoreId to = postbox.core();
  if (process_id < own_ids_begin) {
    job->cores_left = static_cast<CoreId>(postbox.cores_count() - 1);
  } else {
    const uint32_t core = (process_id - own_ids_begin) / ids_of_core;
    if (core >= postbox.cores_count()) return asker.on_cancel_finished();
    to = static_cast<CoreId>(core);
  }
  if (to == postbox.core()) return deliver_cancel(job.release());
  send_cancel(to, job.release());
}

void Sessions::send_cancel(CoreId to, CancelJob* job) noexcept {
  Message message = make_message(MessageKind::cancel);
  message.words[0] = reinterpret_cast<uint64_t>(job);
  pools_.context().postbox.send(to, message);
}

bool Sessions::has_key(const Session& session, const CancelJob& job) noexcept {
  return session.process_id() == job.process_id && job.key.size() == session.cancel_key_size() &&
         constant_time_equal(as_bytes(job.key), as_bytes(cancel_key_of(session, job.key.size())));
}

// The session of this core that was told this process id and key; nullptr when there is none.
Session* Sessions::find_cancelled(const CancelJob& job) noexcept {
  if (job.process_id >= own_ids_begin) {
    const uint32_t number = (job.process_id - own_ids_begin) % ids_of_core;
    Session* session = number == 0 ? nullptr : sessions_.at(number - 1);
    return session != nullptr && has_key(*session, job) ? session : nullptr;
  }
  const auto [begin, end] = told_backends_.equal_range(job.process_id);
  for (auto entry = begin; entry != end; ++entry)
    if (Session* session = sessions_.find(entry->second); has_key(*session, job)) return session;
  return nullptr;
}

namespace {

struct CancelContext {
  Sessions* sessions;
  CancelJob* job;
  void (*finish)(Sessions&, CancelJob*) noexcept;
};

}  // namespace

// On the core of the session that is to be cancelled, or on one that may have it.
void Sessions::deliver_cancel(CancelJob* job) noexcept {
  Session* session = find_cancelled(*job);
  if (session == nullptr && job->cores_left > 0) {
    --job->cores_left;
    const Postbox& postbox = pools_.context().postbox;
    return send_cancel(static_cast<CoreId>((postbox.core() + 1) % postbox.cores_count()), job);
  }
  if (session != nullptr && session->state() == Session::State::waiting) {
    session->cancel_wait();
    return finish_cancel(job);
  }
  Backend* backend = session != nullptr ? session->backend() : nullptr;
  // Nothing runs: nothing to cancel.
  if (backend == nullptr || backend->cancel_due() == CancelDue::nothing) return finish_cancel(job);
  auto* context = new CancelContext{
      this, job, [](Sessions& self, CancelJob* done) noexcept { self.finish_cancel(done); }};
  pools_.start_cancel(
      *backend,
      [](void* opaque) noexcept {
        auto* own = static_cast<CancelContext*>(opaque);
        own->finish(*own->sessions, own->job);
        delete own;
      },
      context);
}

// Back to the connection that asked: it is closed when the server has taken the request, as a
// server does.
void Sessions::finish_cancel(CancelJob* job) noexcept {
  if (job->asker_core != pools_.context().postbox.core()) {
    Message message = make_message(MessageKind::cancel_done);
    message.words[0] = word_of(job->asker);
    pools_.context().postbox.send(job->asker_core, message);
  } else if (Session* asker = sessions_.find(job->asker); asker != nullptr) {
    asker->on_cancel_finished();
  }
  delete job;
}

bool Sessions::on_message(const Message& message) noexcept {
  switch (static_cast<MessageKind>(message.kind)) {
    case MessageKind::cancel:
      deliver_cancel(reinterpret_cast<CancelJob*>(message.words[0]));
      return true;
    case MessageKind::cancel_done:
      if (Session* asker = sessions_.find(id_of_word(message.words[0])); asker != nullptr)
        asker->on_cancel_finished();
      return true;
    case MessageKind::session:
      on_session_arrived(message);
      return true;
    case MessageKind::none:
    case MessageKind::want:
    case MessageKind::promise:
    case MessageKind::unpromise:
    case MessageKind::permits:
    case MessageKind::use:
    case MessageKind::backend:
    case MessageKind::limit_freed:
    case MessageKind::place:
    case MessageKind::welcome:
    case MessageKind::make_room:
    case MessageKind::node_failed:
    case MessageKind::node_returned:
    case MessageKind::statistics_wanted:
    case MessageKind::statistics:
    case MessageKind::client_socket:
    case MessageKind::drain:
    case MessageKind::stop:
    case MessageKind::settled:
    case MessageKind::reload:
    case MessageKind::log_statistics:
      return false;
  }
  return false;
}

void Sessions::on_turn_end() noexcept {
  destroy_finished();
}

// All in one turn: afterwards nothing on this core begins under the old configuration.
void Sessions::reload(const Directory& directory) noexcept {
  directory_ = &directory;
  pools_.begin_reload(directory);
  sessions_.for_each([](Session& session) { session.on_reload(); });
  pools_.finish_reload();
}

void Sessions::start_drain() noexcept {
  draining_ = true;
  sessions_.for_each([](Session& session) { session.drain(); });
}

void Sessions::stop() noexcept {
  draining_ = true;
  sessions_.for_each([](Session& session) { session.cut(); });
}

void Sessions::forget_process_id(const Session& session) noexcept {
  const auto [begin, end] = told_backends_.equal_range(session.process_id());
  const auto is_its = [&](const auto& entry) { return entry.second == id_of(session); };
  if (const auto entry = std::find_if(begin, end, is_its); entry != end)
    told_backends_.erase(entry);
}

void Sessions::on_session_destroyable(Session& session) noexcept {
  finished_.push_back(sessions_.id_of(&session));
}

[[gnu::hot]] void Sessions::destroy_finished() noexcept {
  for (const SlabId id : finished_) {
    Session* session = sessions_.find(id);
    if (session != nullptr && session->is_destroyable()) {
      forget_process_id(*session);
      sessions_.free(session);
      uncount(pools_.context().postbox.core());
    }
  }
  finished_.clear();
}

}  // namespace helios
