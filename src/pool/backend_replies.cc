// Reading what a server sends: which bytes go to the lessee, which are the pooler's own, and when
// the server is done.
#include <array>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/pool/backend.h"
#include "helios/pool/pools.h"
#include "helios/wire/backend_messages.h"
#include "helios/wire/message.h"
#include "helios/wire/writer.h"

namespace helios {
namespace {

// Bytes that are kept of a body that comes in pieces: of a notification all (its payload has up to
// 8000 in the encoding of the database).
constexpr size_t collected_size_max = 40 * 1024;
// ErrorResponses may be longer than this: their first fields tell enough, and one that is not FATAL
// is passed on from there.
constexpr size_t held_error_size_max = 16 * 1024;

// What a kind of message means here.
namespace trait {
constexpr uint8_t unasked = 1;   // Belongs to no request.
constexpr uint8_t effect = 2;    // Its body is read.
constexpr uint8_t decisive = 4;  // Its effect may be a word of ours to the client, or the end of
                                 // the lease: what came so far is delivered before.
constexpr uint8_t repeated = 8;  // Comes in long runs, and changes nothing: what the ledger said of
                                 // the first holds for all.
constexpr uint8_t part = 16;     // As a rule a part of an answer, and the client's.
}  // namespace trait

constexpr std::array<uint8_t, 256> traits_of_tags() {
  std::array<uint8_t, 256> traits{};
  traits[backend_tag::notice_response] = trait::unasked;
  traits[backend_tag::notification_response] = trait::unasked | trait::effect;
  traits[backend_tag::parameter_status] = trait::unasked | trait::effect;
  traits[backend_tag::ready_for_query] = trait::effect | trait::decisive;
  traits[backend_tag::command_complete] = trait::effect;
  traits[backend_tag::error_response] = trait::effect | trait::decisive;
  traits[backend_tag::row_description] = trait::part;
  traits[backend_tag::data_row] = trait::repeated | trait::part;
  traits[backend_tag::copy_data] = trait::repeated;
  return traits;
}
constexpr std::array<uint8_t, 256> tag_traits = traits_of_tags();

}  // namespace

[[gnu::hot]] void Backend::on_received(Stream&, ByteSpan bytes, BufferRef buffer) noexcept {
  if (state_ == State::closing || state_ == State::ended) return;
  if (state_ == State::connecting || state_ == State::login) return on_login_bytes(bytes);
  relay(bytes, buffer);
}

// Walks the messages of `input`. Bytes of neighbouring messages that go to the lessee are handed
// over in one run.
[[gnu::hot]] void Backend::relay(ByteSpan input, BufferRef buffer) noexcept {
  const uint8_t* run = nullptr;  // Start of the run; null when there is none.
  const auto flush = [&](const uint8_t* end, bool at_boundary) {
    if (run != nullptr && run != end && lessee_ != nullptr)
      lessee_->on_reply(ByteSpan(run, end), buffer, at_boundary);
    run = nullptr;
  };
  if (forwarding_ && reader_.body_left() > 0) run = input.data();

  while (!input.empty()) {
    if (reader_.body_left() == 0) {
      const uint8_t* start = input.data();
      const bool is_split = reader_.held_header_size() > 0;
      const FrameStatus status = reader_.read_header(input);
      if (status == FrameStatus::need_more) {
        flush(start, true);
        break;
      }
      if (status == FrameStatus::malformed) {
        flush(start, true);
        return violate("a malformed message");
      }
      const bool was_forwarding = run != nullptr;
      begin_message();
      if (state_ == State::closing) return;
      if (!forwarding_) {
        flush(start, true);
      } else if (is_split) {
        lessee_->on_reply_copy(reader_.raw_header(), reader_.body_left() == 0);
        run = input.data();
      } else if (!was_forwarding) {
        run = start;
      }
    }
    const ByteSpan body = reader_.take_body(input);
    if (is_held_) [[unlikely]] {
      take_held(body);
      if (state_ == State::closing || state_ == State::ended) return;
      if (reader_.body_left() > 0) break;
      if (ledger_.has_due_fake()) answer_fakes();
      continue;
    }
    if (reader_.body_left() > 0) {
      if ((traits_ & trait::effect) != 0) collect(body);
      break;
    }
    if ((traits_ & trait::repeated) != 0) reader_.skip_alike(input);
    if ((traits_ & trait::decisive) != 0) flush(input.data(), true);
    if ((traits_ & trait::effect) != 0) {
      finish_message(body);
      if (state_ == State::closing || state_ == State::ended) return;
    }
    if (ledger_.has_due_fake()) [[unlikely]] {
      flush(input.data(), true);
      answer_fakes();
    }
  }
  if (run != nullptr) flush(input.data(), reader_.body_left() == 0);
  on_end_of_input();
}

// A header is complete: whose message is it?
void Backend::begin_message() noexcept {
  const uint8_t tag = reader_.header().tag;
  skipping_ = false;
  forwarding_ = false;
  traits_ = tag_traits[tag];
  if ((traits_ & trait::unasked) != 0) {
    // The lessee hears of a notification when all of it is here.
    if (tag == backend_tag::notification_response) return;
    // During a statement of our own, its notices and parameters are ours.
    const bool is_own = !ledger_.empty() && ledger_.is_head_skipped();
    forwarding_ = lessee_ != nullptr && !is_own;
    skipping_ = is_own;
    is_told_ = tag == backend_tag::parameter_status && forwarding_ && lessee_->tells_parameters();
    if (is_told_) forwarding_ = false;
    return;
  }
  if ((traits_ & trait::part) != 0 && ledger_.is_part_of_answer(tag) && lessee_ != nullptr &&
      !batch_.is_kept()) {
    // What begin_reply would find, for most messages of most answers.
    transaction_status_ = 0;
    forwarding_ = true;
    return;
  }
  is_held_ = is_held_back(tag);
  if (!is_held_) begin_reply(tag);
}

// Until all of it is here nothing of it is answered, nor goes to the client: an error may be FATAL,
// and a ReadyForQuery may be one that the lessee wants to see first.
bool Backend::is_held_back(uint8_t tag) const noexcept {
  if (lessee_ == nullptr) return false;
  return tag == backend_tag::error_response ||
         (tag == backend_tag::ready_for_query && is_ready_held_);
}

// It belongs to what is owed.
[[gnu::hot]] void Backend::begin_reply(uint8_t tag) noexcept {
  if (tag == backend_tag::error_response && is_batch_waiting()) ledger_.on_batch_failed();
  const Reply reply = ledger_.on_reply(tag);
  if (reply.verdict == ReplyVerdict::violation) return violate("a message that nothing asked for");
  skipping_ = reply.verdict == ReplyVerdict::skip;
  forwarding_ = !skipping_ && lessee_ != nullptr;
  if (batch_.is_kept() && !skipping_) forwarding_ = note_answer(tag);
  if (skipping_ && probe_ != nullptr && tag == backend_tag::data_row) traits_ = trait::effect;
  if (tag != backend_tag::ready_for_query) {
    transaction_status_ = 0;
  } else if (forwarding_ && is_ready_held_) {
    forwarding_ = false;  // finish_ready sends it.
  }
  if (reply.marks != 0 || ledger_.has_dropped()) [[unlikely]]
    note_statements(tag, reply);
}

// A reply to the client while a batch is kept: with the first the client has seen something of it.
// False: it is the end of one that is sent again.
bool Backend::note_answer(uint8_t tag) noexcept {
  if (batch_.is_due()) return false;
  if (tag != backend_tag::error_response) batch_.forget();
  return true;
}

// The next piece of such a message.
void Backend::take_held(ByteSpan body) noexcept {
  const uint8_t tag = reader_.header().tag;
  if (tag == backend_tag::error_response) return take_error(body);
  if (reader_.body_left() > 0) return collect(body);
  is_held_ = false;
  begin_reply(tag);
  if (state_ != State::closing) finish_message(body);
}

// The next piece of an error, while there is a lessee. It is held back until it is known whether it
// is FATAL, which no client gets to see as such: its session may go on. As a rule all of it is
// here.
void Backend::take_error(ByteSpan body) noexcept {
  const bool is_whole = reader_.body_left() == 0;
  const size_t held_size = collected_.size();
  if (!is_whole && held_size + body.size() <= held_error_size_max) return collect(body);
  is_held_ = false;
  if (held_size > 0 || !is_whole) collect(body);
  const ByteSpan known = collected_.empty() ? body : ByteSpan(collected_);
  const ErrorFields fields = read_error(known);
  if (fields.is_fatal() && lessee_ != nullptr) return lose_to(fields);
  begin_reply(backend_tag::error_response);
  if (state_ == State::closing) return;
  if (is_whole && is_worth_another_try(fields.sqlstate)) {
    judge_statement(fields.sqlstate);
    collected_.clear();
    forwarding_ = false;
    ledger_.hide_failure();
    return batch_.wait();
  }
  batch_.forget();
  if (forwarding_) {
    lessee_->on_reply_copy(reader_.raw_header(), reader_.header().body_size == 0);
    if (held_size > 0) lessee_->on_reply_copy(ByteSpan(collected_).first(held_size), false);
    lessee_->on_reply_copy(body, is_whole);
  }
  if (!is_whole) return;
  finish_error(known);
  collected_.clear();
}

// The server has said that it ends. Nothing of what it owes will come.
void Backend::lose_to(const ErrorFields& fields) noexcept {
  fatal_seen_ = true;
  LOG_LIMITED(warning, "server process %u on %s while %s: %.*s: %.*s", process_id_,
              address_.text().c_str(), to_text(state_), static_cast<int>(fields.severity.size()),
              fields.severity.data(), static_cast<int>(fields.message.size()),
              fields.message.data());
  const bool is_plain = fields.sqlstate.size() == 5;
  const PoolError error{std::string(is_plain ? fields.sqlstate : sqlstate::connection_failure),
                        std::string(fields.message), std::string(fields.detail),
                        std::string(fields.hint)};
  Lessee* lessee = lessee_;
  // It reads no Terminate any more.
  close("the server has said that it ends", CloseReason::failed, true);
  lessee->on_backend_lost(error, Loss::connection);
}

void Backend::collect(ByteSpan body) noexcept {
  const size_t room = collected_size_max - collected_.size();
  const size_t size = body.size() < room ? body.size() : room;
  collected_.insert(collected_.end(), body.begin(), body.begin() + static_cast<ptrdiff_t>(size));
}

// `last`: the body, or the rest of it.
void Backend::finish_message(ByteSpan last) noexcept {
  if (collected_.empty()) return apply_message(last);
  collect(last);
  apply_message(collected_);
  collected_.clear();
}

[[gnu::hot]] void Backend::apply_message(ByteSpan body) noexcept {
  switch (reader_.header().tag) {
    case backend_tag::ready_for_query:
      return finish_ready(body);
    case backend_tag::error_response:
      return finish_error(body);
    case backend_tag::parameter_status:
      return finish_parameter(body);
    case backend_tag::data_row:
      return probe_->add_row(body);
    case backend_tag::notification_response:
      return finish_notification(body);
    default:
      break;
  }
  if (!forwarding_ || body.empty() || !may_change_session(body.front())) return;
  const auto tag = read_command_complete(body);
  if (!tag) return;
  if (drops_statements(*tag)) {
    statements_.drop_settled();
    set_sql_statements({});
  }
  lessee_->on_command_complete(*tag);
}

void Backend::finish_ready(ByteSpan body) noexcept {
  const auto status = read_ready_for_query(body);
  if (!status) return violate("a malformed ReadyForQuery");
  transaction_status_ = last_status_ = *status;
  if (batch_.is_due()) return send_again();
  if (cancels_in_flight_ > 0 && !skipping_) pools_.cancels().on_request_ended(*this);
  if (skipping_ && probe_ != nullptr) finish_probe();
  if (lessee_ == nullptr) return;
  lessee_->on_ready(*status, skipping_);
  if (lessee_ == nullptr || skipping_ || !is_ready_held_) return;
  MessageWriter& writer = pools_.writer();
  write_ready_for_query(writer, *status);
  lessee_->on_reply_copy(writer.bytes(), true);
}

void Backend::finish_notification(ByteSpan body) noexcept {
  const auto notification = read_notification(body);
  if (!notification) return violate("a malformed NotificationResponse");
  if (lessee_ != nullptr) lessee_->on_notification(*notification);
}

// It is asked while nothing else is due: the first answer to a statement of our own is its answer.
void Backend::finish_probe() noexcept {
  const std::unique_ptr<StateProbe> probe = std::move(probe_);
  if (probe->asks_settings) is_state_known_ = true;  // As far as it can be.
  if (!probe->has_failed() && probe->asks_settings) {
    parameters_ =
        pools_.parameters().with_settings(parameters_, probe->settings(parameters_->list()));
    set_names_ = probe->set_names();
  }
  if (lessee_ != nullptr) lessee_->on_state(*probe);
}

void Backend::finish_error(ByteSpan body) noexcept {
  const ErrorFields fields = read_error(body);
  if (fields.is_fatal()) fatal_seen_ = true;
  const bool is_prepare = (failed_.marks & ledger_mark::prepares) != 0;
  if (failed_.marks != 0) judge_statement(fields.sqlstate);
  if (is_prepare && !fatal_seen_) return;
  if (is_being_made()) return fail_after_login(fields);
  if (lessee_ == nullptr) {
    // Of something that a client asked for which has gone; an error that nobody asked for is the
    // server's own.
    const bool was_asked = !ledger_.empty() || ledger_.is_skipping_to_sync();
    if (state_ == State::recovering && was_asked && !skipping_ && !fatal_seen_) return;
    LOG_LIMITED(warning, "server process %u on %s while %s: %.*s: %.*s", process_id_,
                address_.text().c_str(), to_text(state_), static_cast<int>(fields.severity.size()),
                fields.severity.data(), static_cast<int>(fields.message.size()),
                fields.message.data());
    return close("the server reported an error");
  }
  if (!skipping_) return lessee_->on_error();
  if (probe_ == nullptr || fatal_seen_) return lessee_->on_skipped_error(fields);
  LOG_LIMITED(warning, "server process %u on %s does not tell its state: %.*s", process_id_,
              address_.text().c_str(), static_cast<int>(fields.message.size()),
              fields.message.data());
  probe_->fail();
}

// An error behind the login: of connect_query, or the server's own.
void Backend::fail_after_login(const ErrorFields& fields) noexcept {
  const std::string_view code =
      fields.sqlstate.size() == 5 ? fields.sqlstate : sqlstate::internal_error;
  const char* what = state_ == State::preparing ? "connect_query failed: " : "";
  fail_login({std::string(code), what + std::string(fields.message)});
}

void Backend::finish_parameter(ByteSpan body) noexcept {
  const auto parameter = read_parameter_status(body);
  if (!parameter) return violate("a malformed ParameterStatus");
  parameters_ = pools_.parameters().with(parameters_, parameter->name, parameter->value);
  if (login_ != nullptr) note_reported(parameter->name, parameter->value);
  const bool tells = std::exchange(is_told_, false);
  if (lessee_ != nullptr && (forwarding_ || tells))
    lessee_->on_parameter(parameter->name, parameter->value, tells);
}

[[gnu::hot]] void Backend::on_end_of_input() noexcept {
  choose_drained();
  switch (state_) {
    case State::leased:
      return lessee_->on_input_end();
    case State::preparing:
      return finish_preparing();
    case State::idle:
      if (login_ != nullptr) return become_ready();
      if (reader_.at_boundary()) return;
      // Half a message that nobody asked for (a notice, say): out of reach until the rest is here.
      if (is_linked()) slice_->take_idle(*this);
      return hold();
    case State::held:
      if (cancels_in_flight_ == 0 && is_quiet()) settle();
      return;
    case State::recovering:
      return go_on_recovering();
    case State::cleaning:
    case State::testing:
      // The last reply may be here before the completion of our own send; on_drained calls again.
      if (!is_quiet()) return;
      if (transaction_status_ != 'I')
        return close("not idle after a statement of the pooler's own");
      if (ask_base_state()) return;
      return settle();
    case State::connecting:
    case State::login:
    case State::moving:
    case State::closing:
    case State::ended:
      return;
  }
}

void Backend::violate(const char* what) noexcept {
  ++slice_->counters.violations;
  LOG_LIMITED(warning, "server process %u on %s sent %s (tag 0x%02x, %s); its connection is closed",
              process_id_, address_.text().c_str(), what, reader_.header().tag, to_text(state_));
  if (state_ == State::preparing)
    return fail_login({std::string(sqlstate::protocol_violation),
                       "the server violated the protocol in its answer to connect_query"});
  Lessee* lessee = lessee_;
  close("protocol violation");
  if (lessee != nullptr)
    lessee->on_backend_lost(
        {std::string(sqlstate::protocol_violation), "the server violated the protocol"},
        Loss::protocol);
}

}  // namespace helios
