// What a client does for too long: a query, a transaction, silence within a transaction or outside
// of one.
//
// A query is cancelled, and the client goes on with the server's own answer to that; only when none
// comes does the session end. The other limits end the session with a FATAL error; its backend is
// recovered as that of any client that goes. A client that waits for a backend has none of these
// limits but acquire_timeout (session_waiting.cc).
#include "session/session_timeouts.h"

#include <algorithm>
#include <memory>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/session/session.h"
#include "helios/session/sessions.h"
#include "helios/wire/error_response.h"
#include "helios/wire/message.h"

namespace helios {
namespace {

// How long a server may take to answer a cancelled query.
constexpr Nanoseconds cancel_patience = seconds(5);
// A cancel request ends one query only, or comes too early: another one follows after this time.
constexpr Nanoseconds cancel_interval = milliseconds(500);
// How soon an idle transaction that is spared while nobody waits finds out that somebody does.
constexpr Nanoseconds spared_interval = milliseconds(100);

}  // namespace

// The limit that is exceeded next, if nothing happens until then.
struct Session::Due {
  TimeLimit limit = TimeLimit::query;
  Nanoseconds at = never;
};

// The pool has these limits from now on.
void Session::follow_time_limits() noexcept {
  if (!pool_->slice.spec().limits.time_limits.is_any_set()) return forget_time_limits();
  if (timeouts_ == nullptr) {
    const auto check = [](void* self) noexcept {
      static_cast<Session*>(self)->check_time_limits();
    };
    timeouts_ = std::make_unique<SessionTimeouts>(check, this);
    timeouts_->step_since = sessions_.now();
  }
  schedule_time_limit();
}

void Session::forget_time_limits() noexcept {
  if (timeouts_ != nullptr) sessions_.timers().cancel(timeouts_->timer);
  timeouts_.reset();
}

// --- What happens. Called where there are limits. ---

void Session::note_state() noexcept {
  if (state_ == State::ending) return forget_time_limits();
  if (state_ == State::leaving) return;  // The server goes on with what it does.
  timeouts_->step_since = sessions_.now();
  timeouts_->transaction_since = timeouts_->step_since;
  timeouts_->is_running = false;
  schedule_time_limit();
}

// The client's next message goes to the backend. (There are some that nothing answers.)
void Session::note_request(uint8_t status_before) noexcept {
  if (timeouts_->is_running || backend_->ledger().empty()) return;
  timeouts_->is_running = true;
  timeouts_->step_since = sessions_.now();
  if (status_before == transaction_status::idle)
    timeouts_->transaction_since = timeouts_->step_since;
  schedule_time_limit();
}

// Whatever stands behind in the pipeline begins now. It is due later than what has ended: nothing
// is to be scheduled.
void Session::note_ready(uint8_t status) noexcept {
  timeouts_->step_since = sessions_.now();
  if (status == transaction_status::idle) timeouts_->transaction_since = timeouts_->step_since;
}

// Maybe everything has been answered.
void Session::note_answered() noexcept {
  if (state_ != State::leased || !timeouts_->is_running || !backend_->ledger().empty()) return;
  timeouts_->is_running = false;
  timeouts_->step_since = sessions_.now();
  schedule_time_limit();
}

// The client has sent something that needs no backend.
void Session::note_sign_of_life() noexcept {
  ASSERT(backend_ == nullptr);
  timeouts_->step_since = sessions_.now();
}

// --- What is due ---

Session::Due Session::next_due() const noexcept {
  const TimeLimits& limits = pool_->slice.spec().limits.time_limits;
  Due due;
  const auto consider = [&due](TimeLimit limit, Nanoseconds since, Nanoseconds patience) {
    if (patience > 0 && since + patience < due.at) due = {limit, since + patience};
  };
  const bool is_leased = state_ == State::leased || state_ == State::leaving;
  if (is_leased && !backend_->ledger().empty()) {
    consider(TimeLimit::query, timeouts_->step_since, limits.query);
    consider(TimeLimit::transaction, timeouts_->transaction_since, limits.transaction);
  } else if (is_leased && backend_->transaction_status() != transaction_status::idle) {
    consider(TimeLimit::idle_transaction, timeouts_->step_since, limits.idle_transaction);
    consider(TimeLimit::transaction, timeouts_->transaction_since, limits.transaction);
  } else if (is_leased || state_ == State::ready) {
    consider(TimeLimit::client_idle, timeouts_->step_since, limits.client_idle);
  }
  return due;
}

// The timer fires in time for what is due next, or earlier.
void Session::schedule_time_limit() noexcept {
  Timer& timer = timeouts_->timer;
  const Due due = next_due();
  if (due.at != never && (!timer.is_scheduled() || due.at < timer.deadline()))
    sessions_.timers().schedule(timer, due.at);
}

// The timer has fired.
void Session::check_time_limits() noexcept {
  const Due due = next_due();
  if (sessions_.now() < due.at) return schedule_time_limit();
  switch (due.limit) {
    case TimeLimit::query:
      return end_query(due);
    case TimeLimit::idle_transaction:
      return end_idle_transaction();
    case TimeLimit::transaction:
      return end_transaction(due);
    case TimeLimit::client_idle:
      count_overrun(TimeLimit::client_idle);
      return fail(sqlstate::idle_session_timeout, "client_idle_timeout");
  }
}

void Session::count_overrun(TimeLimit limit) noexcept {
  ++pool_->slice.counters.overruns[limit];
}

void Session::end_idle_transaction() noexcept {
  const bool is_spared = pool_->slice.spec().limits.time_limits.idle_transaction_if_waited_for &&
                         !sessions_.pools().is_short(pool_->slice);
  if (is_spared)
    return sessions_.timers().schedule(timeouts_->timer, sessions_.now() + spared_interval);
  count_overrun(TimeLimit::idle_transaction);
  fail(sqlstate::idle_in_transaction_timeout, "idle transaction timeout");
}

// What still runs is cancelled with the session. But in the middle of a message of its answer
// nothing can be said: then it is cancelled before.
void Session::end_transaction(const Due& due) noexcept {
  if (!client_at_boundary_ && cancel_overrun(due)) return;
  if (timeouts_->overrun_at != due.at) count_overrun(TimeLimit::transaction);
  fail(sqlstate::transaction_timeout, "transaction timeout");
}

void Session::end_query(const Due& due) noexcept {
  if (cancel_overrun(due)) return;
  drop_backend("a cancelled query did not end in time");
  fail(sqlstate::query_canceled, "query timeout");
}

// Sends cancel requests until what runs has ended. False: it has not, in the time that is given to
// it.
bool Session::cancel_overrun(const Due& due) noexcept {
  SessionTimeouts& times = *timeouts_;
  const Nanoseconds now = sessions_.now();
  if (times.overrun_at != due.at) {
    times.overrun_at = due.at;
    times.cancel_ends_at = now + cancel_patience;
    count_overrun(due.limit);
    LOG_LIMITED(info, "client %u: %s for longer than its limit; what runs is cancelled",
                sessions_.process_id_of(*this), to_text(due.limit));
  }
  if (now >= times.cancel_ends_at) return false;
  // Not a statement of ours, which stands before the client's own.
  if (backend_->cancels_in_flight() == 0 && backend_->process_id() != 0 &&
      !backend_->ledger().is_head_skipped())
    sessions_.pools().start_cancel(*backend_, nullptr, nullptr);
  sessions_.timers().schedule(times.timer, std::min(now + cancel_interval, times.cancel_ends_at));
  return true;
}

}  // namespace helios
