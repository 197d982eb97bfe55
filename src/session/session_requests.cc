// What a client sends once it is logged in: from its stream or inbox to the backend.
#include <cstring>
#include <utility>

#include "helios/base/assert.h"
#include "helios/session/session.h"
#include "helios/session/sessions.h"
#include "helios/wire/message.h"
#include "helios/wire/writer.h"
#include "session/session_listening.h"
#include "session/session_login.h"
#include "session/session_statements.h"

namespace helios {
namespace {

// Bytes kept for a client that cannot go on; its receive is stopped above this.
constexpr size_t inbox_size_max = 16 * 1024;
// PQ_SMALL_MESSAGE_LIMIT of PostgreSQL, less the length itself.
constexpr uint32_t short_body_size_max = 10'000 - 4;

bool begins_work(uint8_t tag) {
  switch (tag) {
    case frontend_tag::query:
    case frontend_tag::parse:
    case frontend_tag::bind:
    case frontend_tag::describe:
    case frontend_tag::execute:
    case frontend_tag::close:
    case frontend_tag::function_call:
      return true;
    default:
      return false;
  }
}

// As long as a server takes it. (It answers a longer one by closing the connection, which may be
// another client's by then.)
bool is_too_long(const FrameHeader& header) {
  if (header.body_size <= short_body_size_max) [[likely]]
    return false;
  switch (header.tag) {
    case frontend_tag::close:
    case frontend_tag::describe:
    case frontend_tag::execute:
    case frontend_tag::flush:
    case frontend_tag::sync:
    case frontend_tag::copy_done:
    case frontend_tag::copy_fail:
    case frontend_tag::terminate:
      return true;
    default:
      return false;
  }
}

// COMMIT, END, ROLLBACK, ABORT.
bool may_end_block(uint8_t first) {
  switch (first | 0x20) {
    case 'c':
    case 'e':
    case 'r':
    case 'a':
      return true;
    default:
      return false;
  }
}

}  // namespace

// Processes messages until the input is used up or something must be waited for. `buffer`: where
// the input lies; null when it is not in a receive buffer. Returns how many bytes were used.
[[gnu::hot]] size_t Session::consume(ByteSpan input, const BufferRef* buffer) noexcept {
  ByteSpan rest = input;
  const uint8_t* run = nullptr;  // Start of bytes that go to the backend in one piece.
  const auto flush = [&](const uint8_t* end) {
    const uint8_t* const begin = std::exchange(run, nullptr);
    if (begin == nullptr || begin == end) return;
    const ByteSpan piece(begin, end);
    if (buffer != nullptr) {
      backend_->send_received(piece, *buffer);
    } else {
      backend_->send(piece);
    }
  };
  const auto used = [&] { return input.size() - rest.size(); };
  const auto is_parse = [&] { return forwarding_ && reader_.header().tag == frontend_tag::parse; };

  while (state_ == State::ready || state_ == State::leased) {
    if (!in_message_) {
      const uint8_t* start = rest.data();
      bool is_split = true;
      if (!header_pending_) {
        if (rest.empty()) break;
        is_split = reader_.held_header_size() > 0;
        const FrameStatus status = reader_.read_header(rest);
        if (status == FrameStatus::need_more) {
          flush(start);
          return used();
        }
        if (status == FrameStatus::malformed || is_too_long(reader_.header())) {
          flush(start);
          fail(sqlstate::protocol_violation, "invalid message length");
          return used();
        }
        header_pending_ = true;
        // What may end the session, or needs a message of ours in front of it, comes after
        // everything before it was sent.
        const uint8_t tag = reader_.header().tag;
        if (run != nullptr && (tag == frontend_tag::terminate || !is_client_tag(tag) ||
                               may_lack_unnamed(tag) || has_unnamed_commands()))
          flush(start);
      }
      const Look message = must_look(reader_.header().tag) ? look(rest) : Look::plain;
      if (message != Look::plain) flush(start);
      if (message == Look::need_more) return used();
      if (!(message == Look::named ? begin_named(rest) : begin_message(seen_body(rest)))) {
        if (backend_ != nullptr) flush(start);
        return used();
      }
      header_pending_ = false;
      in_message_ = true;
      if (!forwarding_) {
        flush(start);
        drop_collected();
      } else if (message == Look::named) {
        run = rest.data();
      } else if (is_split || has_collected()) {
        flush(start);
        backend_->send(reader_.raw_header());
        if (has_collected()) {
          if (is_parse()) keep_unnamed(statements_->collected, rest);
          pass_on_collected(0);
        }
        if (state_ == State::ending) return used();
        run = rest.data();
      } else if (run == nullptr) {
        run = start;
      }
    } else if (run == nullptr && forwarding_) {
      run = rest.data();
    }
    const ByteSpan body = reader_.take_body(rest);
    if (is_reading_text_) {
      read_text(body);
      if (state_ == State::ending) return used();
    }
    if (inspecting_) inspect(body);
    if (reader_.body_left() > 0) break;
    if (is_parse() && body.size() == reader_.header().body_size) keep_unnamed(body, rest);
    finish_message();
    // As the first, so the others: neither the ledger nor the lease changes by them.
    if (reader_.header().tag == frontend_tag::copy_data) reader_.skip_alike(rest);
    if (is_blocked()) {
      flush(rest.data());
      break;
    }
  }
  flush(rest.data());
  if (is_blocked()) stream_.pause_receive();
  return used();
}

// A header is complete, and `seen` is what has come of the body. False: it cannot be begun now, or
// the session has ended.
bool Session::begin_message(ByteSpan seen) noexcept {
  const uint8_t tag = reader_.header().tag;
  forwarding_ = false;
  inspecting_ = false;
  is_reading_text_ = false;
  if (!is_client_tag(tag)) {
    // What was asked for before is answered before, as by a server.
    if (backend_ != nullptr && backend_->ledger().ends_with_ready_request() &&
        !backend_->ledger().is_copying_in()) {
      held_ = true;
      return false;
    }
    fail(sqlstate::protocol_violation, "invalid frontend message type " + std::to_string(tag));
    return false;
  }
  if (tag == frontend_tag::terminate) {
    if (backend_ != nullptr && state_ == State::leased &&
        backend_->ledger().ends_with_ready_request()) {
      // What was asked for is finished, as a server would; then the backend is free again.
      start_leaving();
    } else {
      end("client said goodbye");
    }
    return false;
  }
  // It has no answer that would keep the backend until the server has refused it.
  if (tag == frontend_tag::flush && reader_.header().body_size > 0) {
    fail(sqlstate::protocol_violation, "invalid message format");
    return false;
  }
  const Prepared prepared = prepare(tag, seen);
  if (prepared != Prepared::yes) return prepared != Prepared::no;
  const bool is_of_portal = tag == frontend_tag::describe && !seen.empty() && seen.front() == 'P';
  const bool may_lack = !is_of_portal && may_lack_unnamed(tag);
  if (may_lack && backend_->ledger().awaits_unnamed()) {
    held_ = true;
    return false;
  }
  if (has_unnamed_commands() && !use_unnamed_commands(tag, seen)) [[unlikely]] {
    held_ = true;
    return false;
  }
  if (may_lack) provide_unnamed();
  announce(tag, is_deallocating(seen));
  return true;
}

// Whether a message with this body, as far as it is here, can be begun: no: something must be
// waited for, or the session has ended; drop: it needs no server.
[[gnu::hot]] Session::Prepared Session::prepare(uint8_t tag, ByteSpan seen) noexcept {
  if (skip_ != Skip::none && tag != frontend_tag::sync) return Prepared::drop;
  if (backend_ == nullptr && (begin_without_backend(tag) || refuse(tag, seen)))
    return Prepared::drop;
  if (must_hold(tag)) {
    held_ = true;
    return Prepared::no;
  }
  note_sequences(tag, seen);
  if (backend_ == nullptr && !acquire()) return Prepared::no;
  if (state_ != State::leased) return Prepared::no;
  if (is_changing_over() && must_hold(tag)) {  // The backend has just come.
    held_ = true;
    return Prepared::no;
  }
  const bool is_copy_message = tag == frontend_tag::copy_data || tag == frontend_tag::copy_done ||
                               tag == frontend_tag::copy_fail;
  if (is_copy_message && backend_->ledger().empty())
    return Prepared::drop;  // Left over from a COPY that failed: the server would ignore it.
  if (backend_->ledger().full()) {
    // The server may keep the replies until it is asked for them, and what asks may be behind this.
    backend_->send_flush();
    held_ = true;
    return Prepared::no;
  }
  if (listening_ != nullptr) listening_->has_worked = true;
  return Prepared::yes;
}

// A message begins to go to the server as it is.
[[gnu::hot]] void Session::announce(uint8_t tag, bool deallocates) noexcept {
  const uint8_t status = backend_->transaction_status();
  if (tag == frontend_tag::execute && deallocates) [[unlikely]] {
    announce_deallocate();
  } else {
    backend_->on_request(tag);
  }
  if (timeouts_ != nullptr) note_request(status);
  forwarding_ = true;
  is_reading_text_ = reads_text(tag);
  inspecting_ =
      tag == frontend_tag::parse || tag == frontend_tag::close || tag == frontend_tag::query;
  if (tag == frontend_tag::query) {
    query_text_.clear();
  } else if (inspecting_) {
    name_reader_.start(tag);
  }
  if (begins_work(tag)) deallocated_name_ = 0;
}

// A message with this tag may mean an unnamed statement that the server does not have, or that is
// another client's.
[[gnu::hot]] bool Session::may_lack_unnamed(uint8_t tag) const noexcept {
  const Ledger& ledger = backend_->ledger();
  if (ledger.may_mean_foreign(tag)) return true;
  return statements_ != nullptr && statements_->unnamed.may_be_kept() &&
         ledger.may_lack_unnamed(tag);
}

// Messages of a client without a lease that need no server. True: dealt with, its body is dropped.
bool Session::begin_without_backend(uint8_t tag) noexcept {
  if (has_lost_transaction()) {
    begin_lost(tag);
    return true;
  }
  switch (tag) {
    case frontend_tag::sync:
      // Outside of a transaction, and of a batch but one that is skipped: the answer is known. One
      // with a body is refused by the server.
      if (skip_ == Skip::none && reader_.header().body_size > 0) return false;
      end_skip();
      return true;
    case frontend_tag::flush:
    case frontend_tag::copy_data:
    case frontend_tag::copy_done:
    case frontend_tag::copy_fail:
      return true;  // Left over from a COPY that the server has ended: ignored, as by a server.
    default:
      return false;
  }
}

void Session::end_skip() noexcept {
  skip_ = Skip::none;
  if (timeouts_ != nullptr) note_sign_of_life();
  MessageWriter& writer = sessions_.pools().writer();
  write_ready_for_query(
      writer, has_lost_transaction() ? transaction_status::failed : transaction_status::idle);
  stream_.send(writer.bytes());
}

// One without a body, that needs no server.
void Session::send_answer(uint8_t tag) noexcept {
  MessageWriter& writer = sessions_.pools().writer();
  write_empty_message(writer, tag);
  stream_.send(writer.bytes());
}

// While others wait for a backend, nothing new is begun behind a Sync or Query that has not been
// answered: a client that pipelines without end would never give its backend back. What belongs to
// work already begun goes on.
// Nothing goes out before what is sent again.
// Nor is anything begun while a cancel request for what was asked before may still arrive; nor
// behind a RESET that has not been answered, and asked about: it leads to what the backend began
// with, not to what the client did.
[[gnu::hot]] bool Session::must_hold(uint8_t tag) noexcept {
  if (backend_ != nullptr && backend_->is_sending_again()) return true;
  if (backend_ == nullptr || !begins_work(tag)) return false;
  if (backend_->cancels_in_flight() > 0 || is_changing_over()) return true;
  const bool is_due = backend_->ledger().ready_due_count() > 0 || session_state_.is_asking();
  if (!is_due || backend_->ledger().is_copying_in() || backend_->ledger().is_skipping_to_sync())
    return false;
  if (session_state_.awaits_reset()) return true;
  return mode() != LeaseMode::session &&
         (pool_->slice.has_waiters() || pool_->slice.is_superseded());
}

[[gnu::hot]] void Session::inspect(ByteSpan body) noexcept {
  if (!forwarding_) return keep_lost(body);
  if (reader_.header().tag != frontend_tag::query) {
    if (!name_reader_.is_done()) name_reader_.add(body);
    const size_t name_end = as_text(body).find('\0');
    if (reader_.header().tag == frontend_tag::parse && name_end != std::string_view::npos)
      foresee(as_text(body).substr(name_end + 1));
    return;
  }
  // Most queries are told by their first letters.
  if (query_text_.empty() && !body.empty()) {
    if (!may_be_dropping(body.front()) && !may_end_block(body.front())) {
      inspecting_ = false;
      return;
    }
  }
  if (query_text_.size() + body.size() > query_text_max) {
    inspecting_ = false;  // Too long for one that could be read.
    query_text_.clear();
    return;
  }
  query_text_.append(as_text(body));
}

void Session::finish_message() noexcept {
  in_message_ = false;
  if (skip_ == Skip::query) return end_skip();
  if (!inspecting_) return;
  if (!forwarding_) return finish_lost();
  const uint8_t tag = reader_.header().tag;
  if (tag != frontend_tag::query) {
    backend_->ledger().name_newest(tag, name_reader_.name());
    if (tag == frontend_tag::close && name_reader_.is_unnamed_statement())
      backend_->ledger().note_drop();
    if (follows_statements_ && name_reader_.name() != 0) note_pinned();
    return;
  }
  // What may end a block is kept for the loss of the backend only (session_lost.cc).
  if (query_text_.empty() || may_end_block(static_cast<uint8_t>(query_text_.front()))) return;
  foresee(query_text_);
  // With anything else in flight the next tag could belong to that.
  if (names_.empty() || backend_->ledger().ready_due_count() > 1) return;
  if (const std::string name = read_deallocated_name(query_text_); !name.empty())
    deallocated_name_ = hash_name(name);
}

// Nothing more is taken from the client for now: it waits, its backend takes no more, or it does
// not read its answers. (What it sends in a stream of replication makes no answers.)
[[gnu::hot]] bool Session::is_blocked() const noexcept {
  return state_ == State::moving || state_ == State::welcome || state_ == State::waiting || held_ ||
         (stream_.is_above_high_mark() && !is_streaming()) ||
         (backend_ != nullptr && backend_->is_above_high_mark());
}

void Session::keep(ByteSpan bytes, BufferRef buffer) noexcept {
  if (state_ == State::leased) {
    inbox_.append_received(bytes, buffer);
  } else {
    inbox_.append(bytes);
  }
  if (inbox_.size() > inbox_size_max) stream_.pause_receive();
}

// Goes on with what was kept, then with the stream.
[[gnu::hot]] void Session::resume() noexcept {
  if (state_ != State::ready && state_ != State::leased) return;
  if (held_ && backend_ != nullptr &&
      (must_hold(reader_.header().tag) || backend_->ledger().full()))
    return;
  held_ = false;
  // As a rule nothing was kept, and nothing stopped.
  if (header_pending_ || !inbox_.empty() || stream_.is_receive_paused()) run_inbox();
}

[[gnu::hot]] void Session::run_inbox() noexcept {
  // A message without body may be pending with nothing behind it.
  if (header_pending_ && inbox_.empty() && !is_blocked()) (void)consume({}, nullptr);
  while (!is_blocked() && (state_ == State::ready || state_ == State::leased) && !inbox_.empty()) {
    const ByteSpan piece = inbox_.front();
    const size_t consumed = consume(piece, inbox_.front_buffer());
    if (state_ == State::ending || state_ == State::leaving) return;  // The inbox is gone.
    inbox_.consume(consumed);
    if (consumed < piece.size() && is_blocked()) break;
  }
  // It has lost its backend on the way: who has none must not hold what replies need.
  if (state_ != State::leased) inbox_.copy_borrowed();
  if (inbox_.empty() && !is_blocked() && stream_.is_open() && stream_.is_receive_paused())
    stream_.resume_receive();
  heed_goodbye();
}

}  // namespace helios
