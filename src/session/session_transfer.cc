// A client's way to a core of its pool, between its login and its welcome.
//
// It has been told AuthenticationOk, and has no backend, no place among the clients of its pool and
// no cancel key yet: what moves is the descriptor, the start-up parameters, and what it has sent
// since. When that has left this core and the receive has ended, its descriptor goes by mailbox.
// Whoever ends the session before, the client, its time-out or the end of the process, ends it
// here.
#include <memory>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/session/session.h"
#include "helios/session/sessions.h"
#include "helios/wire/error_response.h"
#include "session/session_login.h"

namespace helios {

void Session::start_move(const PoolSpecRef& spec, CoreId to) noexcept {
  set_state(State::moving);
  login_->pool = spec;
  login_->moving_to = to;
  // AuthenticationOk is still to be sent (on_drained).
  ASSERT(stream_.unsent_size() > 0);
  stream_.want_drained(true);
}

void Session::on_detachable(Stream& stream) noexcept {
  ASSERT(state_ == State::moving);
  LOG(debug, "client %u moves to core %u", sessions_.process_id_of(*this), login_->moving_to);
  auto transfer = std::make_unique<SessionTransfer>();
  transfer->pool = std::move(login_->pool);
  transfer->minor = login_->minor;
  transfer->wanted = std::move(login_->wanted);
  for (; !inbox_.empty(); inbox_.consume(inbox_.front().size()))
    transfer->received.insert(transfer->received.end(), inbox_.front().begin(),
                              inbox_.front().end());
  transfer->login_deadline = login_->deadline;
  transfer->family = stream.family();
  transfer->fd = stream.release_fd();
  // It is counted there.
  ASSERT(counted_);
  ASSERT(!uses_pool_);
  counted_ = false;
  sessions_.timers().cancel(timer_);
  const CoreId to = login_->moving_to;
  forget_login();
  set_state(State::ending);
  sessions_.send_session(to, std::move(transfer));
  sessions_.on_session_destroyable(*this);
}

void Session::start(SessionTransfer& transfer) noexcept {
  login_ = sessions_.make_login();
  login_->minor = transfer.minor;
  login_->wanted = std::move(transfer.wanted);
  counted_ = true;
  set_login_deadline(transfer.login_deadline);
  stream_.open(transfer.fd, transfer.family);
  inbox_.append(transfer.received);
  if (sessions_.is_draining()) return fail(sqlstate::admin_shutdown, "the pooler is shutting down");
  Pools& pools = sessions_.pools();
  PoolEntry* pool = &pools.pool_of(transfer.pool);
  if (pool->slice.is_superseded()) pool = pools.successor_of(*pool);
  if (pool != nullptr) return enter(*pool);
  fail(pools.why_removed(transfer.pool->database, transfer.pool->user));
}

}  // namespace helios
