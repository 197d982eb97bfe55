#include "load/client.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string>

#include "helios/base/assert.h"
#include "helios/wire/backend_messages.h"
#include "helios/wire/error_response.h"
#include "helios/wire/message.h"
#include "helios/wire/writer.h"
#include "load/load_core.h"

namespace helios::bench {
namespace {

// Of a message that came in pieces, so much is kept: enough for a number or an error's text.
constexpr size_t held_size_max = 1024;
// The pause before a connect is tried again; it doubles with each failure.
constexpr Nanoseconds retry_pause_min = milliseconds(50);
constexpr uint32_t retry_doublings_max = 4;

// The text of one column of a DataRow's body; nothing for NULL and for a column that is not there.
std::string_view column_of(ByteSpan body, uint32_t column) noexcept {
  if (body.size() < 2 || load_be16(body.data()) <= column) return {};
  body = body.subspan(2);
  for (;; --column) {
    if (body.size() < 4) return {};
    const uint32_t size = load_be32(body.data());
    body = body.subspan(4);
    const bool is_null = size == UINT32_MAX;
    if (!is_null && size > body.size()) return {};
    if (column == 0) return is_null ? std::string_view() : as_text(body.first(size));
    if (!is_null) body = body.subspan(size);
  }
}

// A server that refuses with one of these may take us a moment later.
bool is_passing(std::string_view code) noexcept {
  return code.starts_with("53") || code.starts_with("57P") || code.starts_with("08");
}

std::string error_text(StreamEnd end, int error) {
  return end == StreamEnd::peer_closed ? "the server closed the connection" : std::strerror(error);
}

}  // namespace

struct Client::Login {
  Login(const BackendLoginOptions& options, Random& random) noexcept
      : dialogue(options, random), assembler(BackendLogin::message_size_max) {}

  BackendLogin dialogue;
  MessageAssembler assembler;
  std::vector<uint8_t> early;  // What came while the key was being derived.
  bool waits_for_key = false;
};

Client::Client(LoadCore& core, uint32_t index)
    : core_(core),
      stream_(core.net(), *this, BufferGroup::backend),
      timer_(on_timer, this),
      transactions_(core.shared().options.pipeline),
      answers_(core.shared().options.pipeline == 1
                   ? 1
                   : core.shared().options.pipeline *
                         core.scripts().statements_per_transaction_max),
      variables_(core.variables_of(index)),
      prepared_(core.prepared_of(index)),
      target_(core.shared().target_of(index)),
      login_options_(core.shared().login_of(index)),
      local_index_(core.shared().number_at_target(index) / core.shared().clients_per_address) {
  variables_[VariableNames::scale] = core.shared().options.scale;
  variables_[VariableNames::client_id] = index;
}

Client::~Client() = default;

// ---------------------------------------------------------------- connections

void Client::start_connect(Nanoseconds now) noexcept {
  ASSERT(state_ == State::waiting || state_ == State::resting);
  state_ = State::connecting;
  connect_began_ = now;
  core_.on_connect_begun();
  stream_.start_connect(open_socket_for(target_, local_index_), target_.address.get(),
                        target_.address.size());
}

void Client::on_connected(Stream&) noexcept {
  ASSERT(state_ == State::connecting);
  state_ = State::login;
  login_ = std::make_unique<Login>(login_options_, core_.login_random());
  on_login_step(login_->dialogue.start());
}

void Client::on_login_step(LoginStep step) noexcept {
  BackendLogin& dialogue = login_->dialogue;
  if (dialogue.has_output()) {
    std::string output = dialogue.take_output();
    stream_.send(as_bytes(output));
    wipe(output);
  }
  switch (step) {
    case LoginStep::more:
      return;
    case LoginStep::need_key:
      login_->waits_for_key = true;
      return core_.keys().request(dialogue.password(), as_bytes(dialogue.salt()), dialogue.rounds(),
                                  *this);
    case LoginStep::done:
      return on_logged_in();
    case LoginStep::failed:
      // A copy: the texts go with the login.
      const PoolError error = dialogue.error();
      return fail_login(error.sqlstate, error.message, !is_passing(error.sqlstate));
  }
}

void Client::on_key(const Sha256Digest& salted_password) noexcept {
  ASSERT(state_ == State::login);
  login_->waits_for_key = false;
  on_login_step(login_->dialogue.on_key(salted_password));
  if (state_ != State::login) return;
  const std::vector<uint8_t> early = std::move(login_->early);
  login_->early.clear();
  consume_login(early);
}

void Client::consume_login(ByteSpan input) noexcept {
  while (!input.empty()) {
    if (login_->waits_for_key) {
      if (login_->early.size() + input.size() > BackendLogin::message_size_max)
        return fail_login("io", "the server sends too much in the login", true);
      login_->early.insert(login_->early.end(), input.begin(), input.end());
      return;
    }
    const FrameStatus status = login_->assembler.feed(input);
    if (status == FrameStatus::need_more) return;
    if (status == FrameStatus::malformed)
      return fail_login("io", "the server sent a malformed message in the login", true);
    on_login_step(login_->dialogue.on_message(login_->assembler.tag(), login_->assembler.body()));
    if (state_ == State::running) return consume_answers(input, core_.now());
    if (state_ != State::login) return;
  }
}

void Client::on_logged_in() noexcept {
  const Nanoseconds now = core_.now();
  login_.reset();
  state_ = State::running;
  failures_in_row_ = 0;
  reader_.reset();
  in_body_ = false;
  std::fill(prepared_.begin(), prepared_.end(), 0);
  core_.statistics().connect.record(static_cast<uint64_t>(now - connect_began_));
  core_.on_connect_ended(true);
  if (core_.is_stopping() && transactions_.empty()) return leave();
  if (transactions_.empty()) return core_.add_ready(*this);
  run_steps(transactions_.front());
}

void Client::fail_login(std::string_view code, std::string_view message,
                        bool is_hopeless) noexcept {
  ++failures_in_row_;
  const std::string text = code == "io" || code == "timeout"
                               ? std::string(message)
                               : std::string(code) + ": " + std::string(message);
  core_.on_login_failed(text, is_hopeless);
  break_off(code, message);
  close(AfterClose::connect_later);
}

// The ports of our address are used up (connections that ended keep theirs for a while): on
// loopback there are further addresses. Whatever waits for the connection goes on waiting.
bool Client::try_next_address(int error) noexcept {
  if (error != EADDRNOTAVAIL || !target_.is_loopback) return false;
  if (++failures_in_row_ > local_addresses_max) return false;
  local_index_ = local_index_ % local_addresses_max + 1;
  close(AfterClose::connect_now);
  return true;
}

void Client::close(AfterClose after) noexcept {
  ASSERT(state_ != State::waiting);
  ASSERT(state_ != State::resting);
  after_close_ = after;
  if (state_ == State::closing) return;
  if (login_ != nullptr) {
    core_.keys().cancel(*this);
    login_.reset();
  }
  if (state_ == State::running) {
    core_.on_disconnected();
  } else {
    core_.on_connect_ended(false);
  }
  core_.forget(*this);
  is_pausing_ = false;
  core_.timers().cancel(timer_);
  state_ = State::closing;
  if (after == AfterClose::connect_now || after == AfterClose::connect_later)
    return stream_.terminate();
  // A farewell, where there is somebody to take it.
  MessageWriter writer;
  write_terminate(writer);
  stream_.send(writer.bytes());
  stream_.terminate_after_flush();
}

void Client::on_closed(Stream&) noexcept {
  ASSERT(state_ == State::closing);
  const bool is_over = core_.is_stopping() && transactions_.empty();
  if (is_over || after_close_ == AfterClose::end) return end_run();
  if (after_close_ == AfterClose::rest) {
    state_ = State::resting;
    return pause_or_ready(core_.now());
  }
  state_ = State::waiting;
  if (after_close_ == AfterClose::connect_now) return start_connect(core_.now());
  const uint32_t doublings = std::min(failures_in_row_, retry_doublings_max);
  core_.timers().schedule(timer_, core_.now() + (retry_pause_min << doublings));
}

void Client::on_timer(void* self) noexcept {
  Client& client = *static_cast<Client*>(self);
  client.is_pausing_ = false;
  if (client.state_ == State::waiting) return client.core_.add_unconnected(client);
  client.core_.add_ready(client);
}

void Client::on_ended(Stream&, StreamEnd end, int error) noexcept {
  switch (state_) {
    case State::connecting:
      if (!try_next_address(error)) fail_login("io", std::strerror(error), false);
      return;
    case State::login:
      return fail_login("io", error_text(end, error) + " in the login", false);
    case State::running:
      return fail_connection(error_text(end, error));
    case State::closing:
      return stream_.terminate();
    case State::waiting:
    case State::resting:
    case State::ended:
      break;
  }
  UNREACHABLE("the end of a connection that is not there");
}

void Client::on_drained(Stream&) noexcept {}  // What is sent is bounded by the pipeline.

void Client::on_detachable(Stream&) noexcept {
  UNREACHABLE("clients keep their descriptors");
}

// ---------------------------------------------------------------- the end

void Client::leave() noexcept {
  switch (state_) {
    case State::waiting:
    case State::resting:
      return end_run();
    case State::connecting:
    case State::login:
      // Somebody asked for this connection: it is part of his transaction.
      if (transactions_.empty()) close(AfterClose::end);
      return;
    case State::running:
      if (transactions_.empty()) close(AfterClose::end);
      return;
    case State::closing:
      after_close_ = AfterClose::end;
      return;
    case State::ended:
      return;
  }
}

void Client::end_run() noexcept {
  core_.forget(*this);
  core_.timers().cancel(timer_);
  state_ = State::ended;
  core_.on_client_ended();
}

void Client::give_up() noexcept {
  if (has_ended()) return;
  if (!transactions_.empty()) break_off("timeout", "no answer when the run had ended");
  if (state_ == State::waiting || state_ == State::resting) return end_run();
  close(AfterClose::end);
  stream_.terminate();
}

void Client::fail_if_late(Nanoseconds sent_before) noexcept {
  if (state_ == State::connecting || state_ == State::login) {
    if (connect_began_ < sent_before)
      fail_login("timeout", "the login was not done within --answer-timeout", false);
  } else if (state_ == State::running && !transactions_.empty() &&
             transactions_.front().sent_at < sent_before) {
    break_off("timeout", "no answer within --answer-timeout");
    close(AfterClose::connect_later);
  }
}

void Client::fail_connection(std::string_view message) noexcept {
  break_off("io", message);
  close(AfterClose::connect_later);
}

// Whatever was under way has failed, for this reason; a transaction that has an error of its own
// keeps that.
void Client::break_off(std::string_view code, std::string_view message) noexcept {
  if (transactions_.empty() && core_.has_begun()) core_.count_error(code, message);
  const Nanoseconds now = core_.now();
  for (; !transactions_.empty(); transactions_.pop()) {
    if (!transactions_.front().has_failed) core_.count_error(code, message);
    core_.count_failed();
    core_.count_transaction(transactions_.front().script, transactions_.front().due, now, false);
  }
  answers_.clear();
}

// ---------------------------------------------------------------- transactions

bool Client::can_begin() const noexcept {
  const bool has_room = !transactions_.full() && !is_pausing_;
  return has_room && (state_ == State::running || state_ == State::resting);
}

bool Client::is_pipelined() const noexcept {
  return core_.shared().options.pipeline > 1;
}

void Client::begin(Nanoseconds due, Nanoseconds now) noexcept {
  ++begun_count_;
  const ScriptSet& scripts = core_.scripts();
  const uint32_t script =
      scripts.scripts.size() == 1 ? 0 : scripts.choose(core_.random().below(scripts.weights_total));
  Transaction& transaction = transactions_.push({due, now, script, 0, false, false});
  if (state_ == State::resting) return start_connect(now);
  run_steps(transaction);
}

// Sends the next statement, in a pipeline all of them.
void Client::run_steps(Transaction& transaction) noexcept {
  const Script& script = core_.scripts().scripts[transaction.script];
  while (transaction.step < script.steps.size()) {
    const uint32_t index = transaction.step++;
    const Step& step = script.steps[index];
    if (step.statement == Step::none) {
      const EvaluationError error =
          step.expression.evaluate(core_.evaluation(variables_), variables_[step.slot]);
      if (error == EvaluationError::none) continue;
      return core_.set_fatal(step.place + ": " + std::string(text_of(error)));
    }
    send_statement(step.statement, index == script.last_statement_step);
    if (!is_pipelined()) return;
  }
}

void Client::send_statement(uint32_t index, bool is_last) noexcept {
  const ScriptStatement& statement = core_.scripts().statements[index];
  const uint64_t bit = 1ULL << (index % 64);
  uint64_t& word = prepared_[index / 64];
  Answer answer;
  answer.statement = index;
  answer.is_last = is_last;
  if (statement.checked_slot != VariableNames::none)
    answer.expected = variables_[statement.checked_slot];
  answer.parses = core_.shared().options.mode == QueryMode::prepared && (word & bit) == 0 &&
                  !statement.copies_in;
  if (answer.parses) word |= bit;
  answers_.push(answer);
  stream_.send(core_.writer().write(statement, variables_, answer.parses));
}

void Client::send_rollback() noexcept {
  Answer answer;
  answer.is_rollback = true;
  answers_.push(answer);
  MessageWriter writer;
  write_query(writer, "ROLLBACK");
  stream_.send(writer.bytes());
}

void Client::finish(Nanoseconds now) noexcept {
  const Transaction transaction = transactions_.front();
  transactions_.pop();
  if (transaction.has_failed) core_.count_failed();
  const bool is_good = !transaction.has_failed && !transaction.is_wrong;
  if (core_.count_transaction(transaction.script, transaction.due, now, is_good))
    ++counted_transactions_;

  if (core_.is_stopping()) return leave();
  const Script& script = core_.scripts().scripts[transaction.script];
  if (script.reconnects || core_.shared().options.reconnect) return close(AfterClose::rest);
  pause_or_ready(now);
}

void Client::pause_or_ready(Nanoseconds now) noexcept {
  const Nanoseconds mean = core_.shared().think_time;
  if (mean == 0) return core_.add_ready(*this);
  is_pausing_ = true;
  const double pause = core_.random().exponential(static_cast<double>(mean));
  core_.timers().schedule(timer_, now + static_cast<Nanoseconds>(pause));
}

// ---------------------------------------------------------------- answers

void Client::on_received(Stream&, ByteSpan bytes, BufferRef) noexcept {
  const Nanoseconds now = core_.now();
  if (core_.shared().control.is_counted(now)) core_.statistics().bytes_received += bytes.size();
  if (state_ == State::login) return consume_login(bytes);
  if (state_ == State::running) consume_answers(bytes, now);
}

void Client::consume_answers(ByteSpan input, Nanoseconds now) noexcept {
  while (state_ == State::running) {
    if (!in_body_) {
      const FrameStatus status = reader_.read_header(input);
      if (status == FrameStatus::need_more) return;
      if (status == FrameStatus::malformed)
        return fail_connection("the server sent a malformed message");
      in_body_ = true;
      held_.clear();
    }
    const uint8_t tag = reader_.header().tag;
    ByteSpan body = reader_.take_body(input);
    const bool is_whole = reader_.body_left() == 0;
    if ((!is_whole || !held_.empty()) && is_held(tag)) {
      hold(body);
      body = held_;
    }
    if (!is_whole) return;
    in_body_ = false;
    on_message(tag, body, now);
  }
}

// Messages whose body is read.
bool Client::is_held(uint8_t tag) const noexcept {
  return tag == backend_tag::error_response || tag == backend_tag::ready_for_query ||
         tag == backend_tag::data_row || tag == backend_tag::command_complete;
}

void Client::hold(ByteSpan body) noexcept {
  const size_t size = std::min(body.size(), held_size_max - std::min(held_size_max, held_.size()));
  held_.insert(held_.end(), body.begin(), body.begin() + static_cast<ptrdiff_t>(size));
}

void Client::on_message(uint8_t tag, ByteSpan body, Nanoseconds now) noexcept {
  switch (tag) {
    case backend_tag::ready_for_query:
      return on_ready(body, now);
    case backend_tag::data_row:
      return on_row(body);
    case backend_tag::copy_data:
      return on_copied();
    case backend_tag::command_complete:
      return on_complete(body);
    case backend_tag::error_response:
      return on_error(body);
    case backend_tag::parse_complete:
      if (!answers_.empty()) answers_.front().parses = false;
      return;
    case backend_tag::copy_in_response:
      return on_copy_in();
    default:
      return;  // Descriptions, notices: nothing that is looked at.
  }
}

// What the answer that is coming is compared with; null when it is with nothing.
const ScriptStatement* Client::expectation() noexcept {
  if (answers_.empty() || answers_.front().is_rollback || !core_.shared().options.checks)
    return nullptr;
  const ScriptStatement& statement = core_.scripts().statements[answers_.front().statement];
  return statement.expected_tag.empty() ? nullptr : &statement;
}

void Client::on_row(ByteSpan body) noexcept {
  const ScriptStatement* expected = expectation();
  if (expected == nullptr) return;
  Answer& answer = answers_.front();
  ++answer.rows_count;
  if (expected->checked_slot == VariableNames::none) return;
  const std::string_view text = column_of(body, expected->checked_column);
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool is_number = error == std::errc() && end == text.data() + text.size();
  if (!is_number || number != answer.expected)
    mark_wrong("asked for " + std::to_string(answer.expected) + ", the answer holds \"" +
               std::string(text) + "\"");
}

void Client::on_copied() noexcept {
  if (!answers_.empty()) ++answers_.front().rows_count;
}

void Client::on_complete(ByteSpan body) noexcept {
  const ScriptStatement* expected = expectation();
  if (expected == nullptr) return;
  std::string_view tag = as_text(body);
  if (tag.ends_with('\0')) tag.remove_suffix(1);
  Answer& answer = answers_.front();
  if (tag == expected->expected_tag && !answer.has_tag) {
    answer.has_tag = true;
  } else if (!transactions_.front().has_failed) {
    mark_wrong("the server completed \"" + std::string(tag) + "\" where \"" +
               expected->expected_tag + "\" was due" +
               (tag.ends_with(" 0") ? " (is --scale that of the tables?)" : ""));
  }
}

// The answer is at its end. What a statement says behind the failed one of its transaction (COMMIT
// becomes ROLLBACK) is no answer to what was asked.
void Client::check_whole(const ScriptStatement& expected) noexcept {
  if (transactions_.front().has_failed) return;
  const Answer& answer = answers_.front();
  if (answer.rows_count != expected.expected_rows) {
    mark_wrong("an answer of " + std::to_string(expected.expected_rows) + " rows was due, and " +
               std::to_string(answer.rows_count) + " came (is --scale that of the tables?)");
  } else if (!answer.has_tag) {
    mark_wrong("the answer ended without \"" + expected.expected_tag + "\"");
  }
}

void Client::mark_wrong(const std::string& what) noexcept {
  Transaction& transaction = transactions_.front();
  if (transaction.is_wrong) return;
  transaction.is_wrong = true;
  core_.count_wrong();
  core_.count_error("wrong", what);
}

void Client::on_error(ByteSpan body) noexcept {
  const ErrorFields fields = read_error(body);
  core_.count_error(fields.sqlstate.empty() ? "?????" : fields.sqlstate, fields.message);
  if (answers_.empty()) return;  // The server's last word before it closes.
  const Answer& answer = answers_.front();
  transactions_.front().has_failed = true;
  if (answer.parses) prepared_[answer.statement / 64] &= ~(1ULL << (answer.statement % 64));
}

void Client::on_copy_in() noexcept {
  const bool is_wanted = !answers_.empty() && !answers_.front().is_rollback &&
                         core_.scripts().statements[answers_.front().statement].copies_in;
  if (is_wanted) return stream_.send(ByteSpan(core_.scripts().copy_in_data));
  break_off("script", "COPY FROM STDIN: a script of one's own has no data for it");
  close(AfterClose::connect_later);
}

void Client::on_ready(ByteSpan body, Nanoseconds now) noexcept {
  const std::optional<uint8_t> status = read_ready_for_query(body);
  if (!status || answers_.empty())
    return fail_connection("the server sent a ReadyForQuery that is malformed or not wanted");
  if (const ScriptStatement* expected = expectation(); expected != nullptr) check_whole(*expected);
  const Answer answer = answers_.front();
  answers_.pop();

  if (is_pipelined() && !answer.is_last) return;
  if (is_pipelined() || answer.is_rollback) return finish(now);
  Transaction& transaction = transactions_.front();
  if (!transaction.has_failed) {
    run_steps(transaction);
    if (answers_.empty()) finish(now);
  } else if (*status == transaction_status::idle) {
    finish(now);
  } else {
    send_rollback();
  }
}

}  // namespace helios::bench
