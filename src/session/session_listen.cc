// Notifications: of a client that listens, from its backend or from the hub of its pool, and the
// change from one to the other (session_listening.h).
//
// What the client listens to is the server's word (StateProbe), asked behind each transaction that
// may have changed it; so savepoints, DO and what is rolled back come out as in PostgreSQL. While
// the hub prepares itself, or cannot be had, the backend stays with the client.
#include "session/session_listening.h"

#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/session/session.h"
#include "helios/session/sessions.h"
#include "helios/wire/error_response.h"
#include "helios/wire/writer.h"

namespace helios {

// --- What is delivered ---

void SessionListening::start_handing_over(uint64_t marker) noexcept {
  ASSERT(source_ == Source::backend);
  ASSERT(hub_markers_.empty());
  ASSERT(!is_hub_open_);
  source_ = Source::handing_over;
  own_marker_ = marker;
  hub_markers_.push_back(marker);
}

void SessionListening::start_taking_over(uint64_t marker) noexcept {
  ASSERT(source_ == Source::hub);
  ASSERT(kept_.empty());
  source_ = Source::taking_over;
  own_marker_ = marker;
  hub_markers_.push_back(marker);
}

void SessionListening::on_own_marker(uint64_t id) noexcept {
  if (id != own_marker_ || id == 0) return;
  own_marker_ = 0;
  if (source_ == Source::taking_over) {
    if (hub_markers_.empty()) end_taking_over();
    return;
  }
  ASSERT(source_ == Source::handing_over);
  source_ = Source::hub;
  deliver_kept();
}

bool SessionListening::takes_own(const Notification& notification) noexcept {
  switch (source_) {
    case Source::backend:
    case Source::handing_over:
      return true;
    case Source::hub:  // Behind the marker, and the backend has not been told to UNLISTEN yet.
      return false;
    case Source::taking_over:
      if (own_marker_ == 0) keep(notification);
      return false;
  }
  UNREACHABLE("source of notifications");
}

void SessionListening::on_hub_notification(const Notification& notification) noexcept {
  if (!is_hub_open_) return;
  ASSERT(source_ != Source::backend);
  if (source_ == Source::handing_over) return keep(notification);
  MessageWriter& writer = session_.sessions_.pools().writer();
  write_notification(writer, notification.process_id, notification.channel, notification.payload);
  session_.deliver(writer.bytes());
}

void SessionListening::on_hub_marker(uint64_t id) noexcept {
  // Nobody can know what to notify before it is notified; but somebody may guess.
  if (hub_markers_.empty() || hub_markers_.front() != id)
    return session_.fail(sqlstate::connection_failure, "somebody notifies in the pooler's name");
  hub_markers_.pop_front();
  is_hub_open_ = !is_hub_open_;
  if (source_ != Source::taking_over || own_marker_ != 0 || !hub_markers_.empty()) return;
  Session& session = session_;  // Its end is this object's.
  end_taking_over();
  session.on_backend_taken_over();
}

void SessionListening::end_taking_over() noexcept {
  ASSERT(!is_hub_open_);
  source_ = Source::backend;
  deliver_kept();
}

void SessionListening::keep(const Notification& notification) noexcept {
  MessageWriter writer(kept_);
  const bool is_own = source_ == Source::taking_over;
  write_notification(writer,
                     is_own ? session_.told_process_id(notification) : notification.process_id,
                     notification.channel, notification.payload);
  session_.check_unread(kept_.size());
}

void SessionListening::deliver_kept() noexcept {
  if (kept_.empty()) return;
  const std::vector<uint8_t> kept = std::exchange(kept_, {});
  session_.deliver(kept);
}

void SessionListening::on_hub_ready() noexcept {
  session_.try_release();
}

void SessionListening::on_hub_late() noexcept {
  session_.note_unheard();
}

// What came since its last notification is lost to a session without a backend; one with a backend
// hears everything from that.
void SessionListening::on_hub_lost() noexcept {
  const bool is_heard =
      source_ == Source::backend || (source_ == Source::taking_over && hub_markers_.empty());
  if (is_heard) return;
  session_.fail(sqlstate::connection_failure,
                "the server connection that listened for this client was lost, and notifications "
                "may be with it");
}

// --- The session ---

// Not always the backend's own: the client may have been told one of the pooler's.
uint32_t Session::told_process_id(const Notification& notification) noexcept {
  const bool is_own = backend_ != nullptr && notification.process_id == backend_->process_id();
  return is_own ? process_id_ : notification.process_id;
}

void Session::on_notification(const Notification& notification) noexcept {
  if (state_ == State::leaving || state_ == State::welcome) return;
  if (listening_ != nullptr && listening_->hub() != nullptr) {
    if (notification.channel == listening_->hub()->marker_channel()) {
      if (notification.process_id == backend_->process_id())
        listening_->on_own_marker(NotificationHub::marker_id(notification));
      return;
    }
    if (!listening_->takes_own(notification)) return;
  }
  MessageWriter& writer = sessions_.pools().writer();
  write_notification(writer, told_process_id(notification), notification.channel,
                     notification.payload);
  on_reply_copy(writer.bytes(), true);
  if (stream_.is_above_high_mark()) backend_->pause_receive();
}

// Notifications of the hub, which nothing slows down. Note: may end the session.
void Session::deliver(ByteSpan messages) noexcept {
  if (state_ == State::ending) return;
  ASSERT(client_at_boundary_);
  stream_.send(messages);
  check_unread(0);
}

// `kept_size`: of what is still kept for it. Note: may end the session.
void Session::check_unread(size_t kept_size) noexcept {
  const uint64_t size_max = pool_->slice.spec().limits.max_client_notifications_size;
  if (stream_.unsent_size() + kept_size <= size_max) return;
  fail(sqlstate::out_of_memory,
       "the client does not read its notifications: there are more than "
       "max_client_notifications_size");
}

// The server has told what the client's backend listens to.
void Session::note_channels(const StateProbe& probe) noexcept {
  if (!probe.asks_holdings) return;
  if (probe.has_failed()) {
    if (listening_ != nullptr) listening_->is_known = false;
    return;
  }
  if (policy() == StatePolicy::pin || mode() == LeaseMode::session) return;
  if (probe.channels().empty()) return listening_.reset();
  if (listening_ == nullptr) listening_ = std::make_unique<SessionListening>(*this);
  listening_->wanted = probe.channels();
  listening_->is_known = true;
}

// The backend is quiet and would be given back but for what its client listens to: takes the next
// step towards that. Note: may end the session.
void Session::advance_listening() noexcept {
  if (listening_ == nullptr) return;
  switch (listening_->source()) {
    case SessionListening::Source::hub:
      return session_state_.on_handed_over();
    case SessionListening::Source::backend:
      if (can_hand_over()) hand_over();
      return;
    case SessionListening::Source::handing_over:
    case SessionListening::Source::taking_over:
      if (!listening_->awaits_backend()) return;
      // It has answered, and a server brings its own notifications before its answer.
      drop_backend("its marker has not come");
      return fail(sqlstate::connection_failure, "the server did not deliver a notification");
  }
}

bool Session::can_hand_over() noexcept {
  const PinReasons others =
      session_state_.pins() & static_cast<PinReasons>(~pin_bit(PinReason::listening));
  if (others != 0 || !names_.empty() || !listening_->is_known) return false;
  // What it took the backend for comes first.
  const bool has_more = header_pending_ || !inbox_.empty();
  if (!listening_->has_worked && has_more) return false;
  if (backend_->cancels_in_flight() > 0) return false;
  NotificationHub* hub = hub_of_pool();
  if (hub == nullptr) return false;
  if (listening_->hub() != nullptr && listening_->hub() != hub)
    listening_->hub()->leave(*listening_);
  const std::string* encoding = find_parameter(parameters_->list(), "client_encoding");
  if (encoding == nullptr || !hub->listen(*listening_, listening_->wanted, *encoding)) {
    if (listening_->hub() != nullptr) hub->leave(*listening_);
    note_unheard();
    return false;
  }
  return hub->is_ready_for(*listening_);
}

// That of the pool to which the session goes on.
NotificationHub* Session::hub_of_pool() noexcept {
  Pools& pools = sessions_.pools();
  PoolEntry* entry = pool_;
  if (entry->slice.is_superseded()) entry = pools.successor_of(*entry);
  if (entry == nullptr) return nullptr;
  NotificationHub& hub = pools.hub_of(*entry);
  return hub.serves(pool_->slice.spec()) ? &hub : nullptr;
}

void Session::hand_over() noexcept {
  NotificationHub& hub = *listening_->hub();
  const uint64_t marker = hub.expect_marker(*listening_, backend_->process_id());
  listening_->start_handing_over(marker);
  listening_->is_late = false;
  backend_->start_statement(hub.marker_statement({}, marker));
  backend_->start_statement("UNLISTEN *");
}

// A backend has come; the client's first message waits until its notifications are the client's.
void Session::take_over() noexcept {
  if (!is_heard_in(*pool_)) {
    abandon_backend("other notifications");
    return fail_unheard();
  }
  NotificationHub& hub = *listening_->hub();
  const uint64_t marker = hub.expect_marker(*listening_, backend_->process_id());
  listening_->start_taking_over(marker);
  listening_->has_worked = false;
  session_state_.on_listening();
  backend_->start_statement(hub.marker_statement(listening_->channels(), marker));
  backend_->start_statement("UNLISTEN \"" + hub.marker_channel() + '"');
}

void Session::on_backend_taken_over() noexcept {
  try_release();
  resume();
}

// Its hub hears what clients of that pool notify. (It has no backend, or a new one.)
bool Session::is_heard_in(const PoolEntry& pool) const noexcept {
  return listening_->source() == SessionListening::Source::hub &&
         listening_->hub()->serves(pool.slice.spec());
}

void Session::fail_unheard() noexcept {
  fail(sqlstate::admin_shutdown,
       "the server of this client has changed, and it does not listen to the new one");
}

bool Session::is_changing_over() const noexcept {
  return listening_ != nullptr && backend_ != nullptr &&
         listening_->source() != SessionListening::Source::backend;
}

// There is no hub for it, or not yet: it keeps its backend.
void Session::note_unheard() noexcept {
  if (state_ != State::leased || listening_->source() != SessionListening::Source::backend) return;
  if (!std::exchange(listening_->is_late, true)) note_pins();
}

}  // namespace helios
