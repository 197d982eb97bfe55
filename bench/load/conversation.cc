#include "load/conversation.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "helios/base/assert.h"
#include "helios/wire/error_response.h"
#include "helios/wire/message.h"

namespace helios::bench {
namespace {

using Kind = StatementKind;

constexpr std::string_view division_by_zero = "22012";
constexpr std::string_view no_active_transaction = "25P01";

}  // namespace

Conversation::Conversation(ConversationContext& context)
    : context_(context), buffer_(context.buffer), status_(transaction_status::idle) {}

Conversation::~Conversation() {
  if (is_counted_) context_.clients_count.fetch_sub(1, std::memory_order_relaxed);
}

void Conversation::feed(ByteSpan& input) noexcept {
  while (!input.empty() && takes_input() && buffer_.has_room()) {
    if (state_ == State::starting) {
      take_startup(input);
    } else {
      take_message(input);
    }
  }
}

// ---------------------------------------------------------------- the login

void Conversation::take_startup(ByteSpan& input) {
  switch (startup_.feed(input)) {
    case FrameStatus::need_more:
      return;
    case FrameStatus::malformed:
      return refuse_startup(bad_startup_length());
    case FrameStatus::message:
      break;
  }
  const StartupPacket packet = decode_startup(startup_.body());
  if (const auto* error = std::get_if<StartupError>(&packet)) return refuse_startup(*error);
  if (const auto* startup = std::get_if<StartupMessage>(&packet)) return log_in(*startup);
  if (const auto* request = std::get_if<CancelRequest>(&packet)) return take_cancel(*request);
  buffer_.add(as_bytes("N"));  // Encryption is not offered.
}

void Conversation::refuse_startup(const StartupError& error) {
  end_with_error(error.sqlstate, error.message);
}

void Conversation::take_cancel(const CancelRequest& request) {
  state_ = State::ended;
  if (request.key.size() > backend_key_size) return;  // None of ours.
  CancelTarget& target = cancel_target_.emplace();
  target.pid = request.pid;
  target.key_size = static_cast<uint32_t>(request.key.size());
  std::copy(request.key.begin(), request.key.end(), target.key.begin());
}

void Conversation::log_in(const StartupMessage& startup) {
  if (startup.replication != ReplicationMode::none)
    return end_with_error(sqlstate::feature_not_supported,
                          "this server has canned rows only and nothing to replicate");
  is_counted_ = true;
  if (context_.clients_count.fetch_add(1, std::memory_order_relaxed) >= context_.clients_max)
    return end_with_error(sqlstate::too_many_connections, "sorry, too many clients already");
  startup_ = {};
  settings_.log_in(startup);
  key_size_ = startup.agreed_minor() >= 2 ? backend_key_size : cancel_key_size_min;
  MessageWriter& writer = buffer_.writer();
  if (startup.needs_negotiation()) write_negotiation(writer, startup);
  write_authentication_ok(writer);
  settings_.write_all(writer);
  write_backend_key_data(writer, pid_, ByteSpan(key_).first(key_size_));
  buffer_.add_written();
  state_ = State::reading;
  ready();
}

bool Conversation::is_target(const CancelTarget& target) const noexcept {
  return key_size_ > 0 && target.pid == pid_ && target.key_size == key_size_ &&
         std::equal(key_.begin(), key_.begin() + key_size_, target.key.begin());
}

// ---------------------------------------------------------------- messages

void Conversation::take_message(ByteSpan& input) {
  switch (messages_.feed(input)) {
    case FrameStatus::need_more:
      return;
    case FrameStatus::malformed:
      return end_with_error(sqlstate::protocol_violation, "invalid message length");
    case FrameStatus::message:
      break;
  }
  const uint8_t tag = messages_.tag();
  if (tag == frontend_tag::terminate) {
    state_ = State::ended;
  } else if (state_ == State::copying) {
    on_copy_message(tag, messages_.body());
  } else {
    on_message(tag, messages_.body());
  }
}

void Conversation::on_message(uint8_t tag, ByteSpan body) {
  if (tag == frontend_tag::sync) {
    is_skipping_ = false;
    return ready();
  }
  if (!is_client_tag(tag))
    return end_with_error(sqlstate::protocol_violation, "invalid frontend message type");
  if (is_skipping_ || take_extended(tag, body)) return;
  if (tag == frontend_tag::query) return on_query(body);
  if (tag == frontend_tag::function_call) {
    (void)fail(sqlstate::feature_not_supported, "there are no functions to call");
    return ready();
  }
  // Flush: all that was written leaves at once anyway. Copy messages outside COPY are ignored.
}

void Conversation::on_query(ByteSpan body) {
  std::string_view text;
  if (!BodyReader(body).read_text(text))
    return end_with_error(sqlstate::protocol_violation, "invalid string in message");
  running_ = {};
  has_unnamed_statement_ = has_unnamed_portal_ = false;
  run_texts(text);
}

// The statements of a simple query, up to the end, an error, or one that blocks.
void Conversation::run_texts(std::string_view rest) {
  while (true) {
    const std::string_view text = next_statement(rest);
    if (text.empty()) break;
    switch (run({recognise(text), text})) {
      case Outcome::done:
        continue;
      case Outcome::failed:
        return ready();
      case Outcome::blocked:
        rest_ = std::string(rest);
        return;
    }
  }
  if (running_.statement.kind == Kind::empty) buffer_.add(context_.answers.empty_query);
  ready();
}

Conversation::Outcome Conversation::run(const Running& running) {
  running_ = running;
  ++context_.queries_count;
  if (status_ == transaction_status::failed && !leaves_failed_block(running.statement.kind))
    return fail(sqlstate::in_failed_sql_transaction,
                "current transaction is aborted, commands ignored until end of transaction block");
  pause_ = context_.delay;
  if (running.statement.kind == Kind::sleep) pause_ += running.statement.value;
  if (pause_ <= 0) return answer();
  held_text_ = running.text;
  running_.text = held_text_;
  state_ = State::waiting;
  return Outcome::blocked;
}

// ---------------------------------------------------------------- when a statement was blocked

void Conversation::on_time() noexcept {
  ASSERT(state_ == State::waiting);
  state_ = State::reading;
  finish_statement(answer());
}

void Conversation::on_room() noexcept {
  ASSERT(state_ == State::streaming);
  state_ = State::reading;
  finish_statement(pump_rows());
}

void Conversation::cancel() noexcept {
  if (state_ != State::waiting && state_ != State::streaming && state_ != State::copying) return;
  state_ = State::reading;
  finish_statement(fail(sqlstate::query_canceled, "canceling statement due to user request"));
}

// Goes on behind a statement that was blocked.
void Conversation::finish_statement(Outcome outcome) {
  if (outcome == Outcome::blocked) return;
  const bool is_good = outcome == Outcome::done;
  if (running_.portal != nullptr) {
    is_skipping_ = !is_good;
  } else if (is_good) {
    const std::string rest = std::exchange(rest_, {});
    run_texts(rest);
  } else {
    ready();
  }
}

// ---------------------------------------------------------------- answers

Conversation::Outcome Conversation::answer() {
  switch (running_.statement.kind) {
    case Kind::empty:
      buffer_.add(context_.answers.empty_query);
      return Outcome::done;
    case Kind::begin:
    case Kind::start:
      status_ = transaction_status::in_transaction;
      return complete();
    case Kind::commit:
    case Kind::rollback:
      return answer_end_of_block();
    case Kind::rollback_to:
      return answer_rollback_to();
    case Kind::set:
    case Kind::reset:
      return answer_setting();
    case Kind::show:
      return answer_show();
    case Kind::discard_all:
      return answer_discard_all();
    case Kind::deallocate:
      return answer_deallocate();
    case Kind::insert:
    case Kind::update:
    case Kind::delete_rows:
      return complete();
    case Kind::command: {
      char tag[command_tag_size_max];
      add_completion({tag, write_command_tag(running_.text, tag)});
      return Outcome::done;
    }
    case Kind::division_by_zero:
      return fail(division_by_zero, "division by zero");
    case Kind::copy_in:
      begin_copy_in();
      return Outcome::blocked;
    case Kind::copy_out:
      buffer_.add(context_.answers.copy_out);
      return answer_rows();
    case Kind::number:
    case Kind::lookup:
    case Kind::lookup_pair:
    case Kind::count:
    case Kind::partitions:
    case Kind::version:
    case Kind::row:
    case Kind::big:
    case Kind::sleep:
      if (running_.portal == nullptr)
        buffer_.add(context_.answers.description(running_.statement, running_.format));
      return answer_rows();
  }
  UNREACHABLE("a kind of statement that does not exist");
}

Conversation::Outcome Conversation::complete() {
  buffer_.add(context_.answers.completion(running_.statement.kind));
  return Outcome::done;
}

bool Conversation::is_in_block() const noexcept {
  return status_ != transaction_status::idle;
}

Conversation::Outcome Conversation::answer_rollback_to() {
  if (!is_in_block())
    return fail(no_active_transaction,
                "ROLLBACK TO SAVEPOINT can only be used in transaction blocks");
  status_ = transaction_status::in_transaction;
  return complete();
}

Conversation::Outcome Conversation::answer_end_of_block() {
  // COMMIT of a failed block is a ROLLBACK.
  const bool is_kept =
      running_.statement.kind == Kind::commit && status_ != transaction_status::failed;
  if (is_kept) {
    settings_.keep_changes();
  } else {
    settings_.undo_changes();
  }
  status_ = transaction_status::idle;
  buffer_.add(context_.answers.completion(is_kept ? Kind::commit : Kind::rollback));
  return Outcome::done;
}

Conversation::Outcome Conversation::answer_setting() {
  const SettingChange change = read_setting(running_.text);
  const bool is_reset = running_.statement.kind == Kind::reset || change.is_default;
  if (is_reset && is_same_setting(change.name, "all")) {
    settings_.reset_all(is_in_block());
  } else if (is_reset) {
    settings_.reset(change.name, is_in_block());
  } else if (!change.is_local) {
    settings_.set(change.name, change.value, is_in_block());
  }
  return complete();
}

Conversation::Outcome Conversation::answer_show() {
  const SettingChange asked = read_setting(running_.text);
  const std::optional<std::string_view> value = settings_.find(asked.name);
  if (!value.has_value())
    return fail(sqlstate::undefined_object,
                "unrecognized configuration parameter \"" + std::string(asked.name) + "\"");
  if (running_.portal == nullptr) describe_rows(running_.statement, running_.text, running_.format);
  write_text_row(buffer_.writer(), *value);
  buffer_.add_written();
  return complete();
}

Conversation::Outcome Conversation::answer_discard_all() {
  if (is_in_block())
    return fail(sqlstate::active_sql_transaction,
                "DISCARD ALL cannot run inside a transaction block");
  settings_.reset_all(false);
  statements_.clear();
  return complete();
}

Conversation::Outcome Conversation::answer_deallocate() {
  const std::string_view name = read_deallocate(running_.text);
  if (name.empty()) {
    statements_.clear();
    add_completion("DEALLOCATE ALL");
    return Outcome::done;
  }
  const auto found = statements_.find(name);
  if (found == statements_.end())
    return fail(sqlstate::invalid_sql_statement_name,
                "prepared statement \"" + std::string(name) + "\" does not exist");
  statements_.erase(found);
  add_completion("DEALLOCATE");
  return Outcome::done;
}

// ---------------------------------------------------------------- rows

Conversation::Outcome Conversation::answer_rows() {
  const RowSource source = context_.answers.rows(running_.statement.kind);
  rows_left_ = source.rows_count;
  if (running_.portal != nullptr) rows_left_ -= running_.portal->rows_done;
  suspends_ = running_.rows_max > 0 && running_.rows_max <= rows_left_ &&
              running_.statement.kind != Kind::copy_out;
  if (suspends_) rows_left_ = running_.rows_max;
  rows_given_ = rows_left_;
  rows_ = source.block;
  if (rows_ != nullptr || rows_left_ == 0) return pump_rows();
  uint8_t row[CannedAnswers::number_row_size_max];
  buffer_.add({row, CannedAnswers::write_row(running_.statement, running_.format, row)});
  complete_rows();
  return Outcome::done;
}

// As many rows as there is room for.
Conversation::Outcome Conversation::pump_rows() {
  while (rows_left_ > 0) {
    if (!buffer_.has_room()) {
      state_ = State::streaming;
      return Outcome::blocked;
    }
    const uint64_t count = std::min(rows_left_, rows_->rows_count);
    buffer_.add(rows_->first(count));
    rows_left_ -= count;
  }
  complete_rows();
  return Outcome::done;
}

void Conversation::complete_rows() {
  if (running_.portal != nullptr) running_.portal->rows_done += rows_given_;
  if (running_.statement.kind == Kind::copy_out) {
    buffer_.add(context_.answers.copy_done);
    return add_count_completion("COPY ", rows_given_);
  }
  if (suspends_) return buffer_.add(context_.answers.portal_suspended);
  const ByteSpan canned = context_.answers.completion(running_.statement.kind);
  if (!canned.empty() && rows_given_ == context_.answers.rows(running_.statement.kind).rows_count)
    return buffer_.add(canned);
  add_count_completion("SELECT ", rows_given_);
}

void Conversation::add_completion(std::string_view tag) {
  write_completion(buffer_.writer(), tag);
  buffer_.add_written();
}

void Conversation::add_count_completion(std::string_view word, uint64_t count) {
  char tag[32];
  char* digits = std::copy(word.begin(), word.end(), tag);
  char* end = std::to_chars(digits, tag + sizeof(tag), count).ptr;
  add_completion({tag, static_cast<size_t>(end - tag)});
}

// ---------------------------------------------------------------- COPY FROM STDIN

void Conversation::begin_copy_in() {
  buffer_.add(context_.answers.copy_in);
  copied_rows_ = 0;
  state_ = State::copying;
}

void Conversation::on_copy_message(uint8_t tag, ByteSpan body) {
  switch (tag) {
    case frontend_tag::copy_data:
      // A row for each line: pieces may be cut anywhere.
      copied_rows_ += static_cast<uint64_t>(std::count(body.begin(), body.end(), '\n'));
      return;
    case frontend_tag::copy_done:
      state_ = State::reading;
      add_count_completion("COPY ", copied_rows_);
      return finish_statement(Outcome::done);
    case frontend_tag::copy_fail: {
      std::string_view reason;
      if (!BodyReader(body).read_text(reason)) reason = "no reason given";
      state_ = State::reading;
      return finish_statement(
          fail(sqlstate::query_canceled, "COPY from stdin failed: " + std::string(reason)));
    }
    case frontend_tag::flush:
    case frontend_tag::sync:
      return;
    default:
      return end_with_error(sqlstate::protocol_violation,
                            "unexpected message type during COPY from stdin");
  }
}

// ---------------------------------------------------------------- ends

Conversation::Outcome Conversation::fail(std::string_view sqlstate, std::string_view message) {
  write_error(buffer_.writer(), Severity::error, sqlstate, message);
  buffer_.add_written();
  if (is_in_block()) status_ = transaction_status::failed;
  return Outcome::failed;
}

void Conversation::end_with_error(std::string_view sqlstate, std::string_view message) {
  write_error(buffer_.writer(), Severity::fatal, sqlstate, message);
  buffer_.add_written();
  state_ = State::ended;
}

// The end of a simple query or a batch. Portals live no longer than their transaction.
void Conversation::ready() {
  if (settings_.has_changes()) {
    settings_.write_changes(buffer_.writer());
    buffer_.add_written();
  }
  const uint8_t message[] = {backend_tag::ready_for_query, 0, 0, 0, 5, status_};
  buffer_.add(message);
  running_ = {};
  if (is_in_block()) return;
  has_unnamed_portal_ = false;
  if (!portals_.empty()) portals_.clear();
}

}  // namespace helios::bench
