// A client that waits for a backend: how long, what it is told meanwhile, and what ends the wait
// besides a backend.
#include <algorithm>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/session/session.h"
#include "helios/session/sessions.h"
#include "helios/wire/message.h"
#include "helios/wire/writer.h"
#include "session/session_login.h"

namespace helios {

Nanoseconds Session::wait_end() const noexcept {
  const Nanoseconds patience = pool_->slice.spec().limits.acquire_timeout;
  return patience > 0 ? waiting_since + patience : never;
}

// The end of the wait, or the time of its notice.
void Session::on_wait_due() noexcept {
  if (sessions_.now() >= wait_end()) return fail_wait();
  send_wait_notice();
  sessions_.timers().schedule(timer_, wait_end());
}

void Session::send_wait_notice() noexcept {
  ASSERT(state_ == State::waiting);
  ASSERT(client_at_boundary_);
  ASSERT(!was_noticed_);
  was_noticed_ = true;
  const PoolSpec& spec = pool_->slice.spec();
  const PoolShared& shared = *spec.shared;
  const uint32_t max = spec.limits.max_connections + shared.reserve.taken();
  const uint32_t count = shared.connections->limit->taken();
  MessageWriter& writer = sessions_.pools().writer();
  write_notice(writer, Severity::notice, sqlstate::successful_completion,
               "waiting for a server connection of user \"" + spec.user + "\" to database \"" +
                   spec.database + "\": " + std::to_string(count) + " of " + std::to_string(max) +
                   " are in use");
  stream_.send(writer.bytes());
}

// A deadline has passed. While the node fails its own error tells more than `otherwise`.
void Session::fail_late(const std::string& deadline, const PoolError& otherwise) noexcept {
  leave_queue(WaitFailure::timed_out);
  const auto cause = sessions_.pools().failure_of(*pool_);
  if (!cause) return fail(otherwise);
  if (cause->is_of_parameters) return fail(*cause);
  fail(cause->sqlstate, deadline + ": " + cause->message);
}

// No backend came in time.
void Session::fail_wait() noexcept {
  fail_late("query_wait_timeout", {std::string(sqlstate::too_many_connections),
                                   "query_wait_timeout: no server connection became free in time"});
}

// In its login a client may wait for a backend, too, which includes what that is asked then: which
// of the two has taken too long?
void Session::fail_login() noexcept {
  const bool waits = static_cast<ListNode<WaiterTag>&>(*this).is_linked();
  if (sessions_.now() < login_->deadline || (waits && leases_at_login())) return fail_wait();
  fail_late("client_login_timeout",
            {std::string(sqlstate::query_canceled), "client_login_timeout"});
}

// As a server would answer, had the query begun: an error, then nothing of the batch up to its
// Sync.
void Session::cancel_wait() noexcept {
  ASSERT(state_ == State::waiting);
  ASSERT(header_pending_);
  ASSERT(client_at_boundary_);
  LOG(debug, "client %u: the wait is cancelled", sessions_.process_id_of(*this));
  leave_queue(WaitFailure::cancelled);
  sessions_.timers().cancel(timer_);
  set_state(State::ready);
  MessageWriter& writer = sessions_.pools().writer();
  write_error(writer, Severity::error, sqlstate::query_canceled,
              "canceling statement due to user request");
  stream_.send(writer.bytes());
  const uint8_t tag = reader_.header().tag;
  const bool is_simple = tag == frontend_tag::query || tag == frontend_tag::function_call;
  skip_ = is_simple ? Skip::query : Skip::batch;
  drop_unnamed(tag, seen_body({}));
  resume();
}

// Who says Terminate leaves the queue at once, though its connection may stay open. What it asked
// before has not begun and does not: nobody reads the answer, so nobody can tell; it is the same
// for a client that only closes its connection, and most do both together. (What a server has begun
// is finished: Session::start_leaving.)
[[gnu::hot]] void Session::heed_goodbye() noexcept {
  const bool waits = state_ == State::waiting || state_ == State::welcome;
  if (waits && has_said_goodbye()) end("client said goodbye while it waited");
}

// Walks over what is kept. (More than is kept is not read while the client waits.)
bool Session::has_said_goodbye() const noexcept {
  // As a rule its letter is nowhere.
  bool may_be_there = reader_.held_header_size() > 0;
  inbox_.walk([&](ByteSpan piece) {
    may_be_there = may_be_there ||
                   as_text(piece).find(char{frontend_tag::terminate}) != std::string_view::npos;
    return !may_be_there;
  });
  if (!may_be_there) return false;
  FrameReader ahead = reader_;
  bool has_found = false;
  inbox_.walk([&](ByteSpan piece) {
    while (!piece.empty()) {
      (void)ahead.take_body(piece);
      if (ahead.body_left() > 0) break;
      const FrameStatus status = ahead.read_header(piece);
      if (status == FrameStatus::need_more) break;
      has_found = status == FrameStatus::message && ahead.header().tag == frontend_tag::terminate;
      if (has_found || status == FrameStatus::malformed) return false;
    }
    return true;
  });
  return has_found;
}

}  // namespace helios
