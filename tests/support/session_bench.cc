#include "tests/support/session_bench.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/wire/message.h"
#include "helios/wire/writer.h"

namespace helios::test {
namespace {

constexpr uint16_t server_port = 5432;
constexpr size_t steps_max = 2'000'000;
constexpr uint32_t cancel_code = 80877102;
constexpr uint32_t ssl_request_code = 80877103;

std::string bytes_of(const std::function<void(MessageWriter&)>& write) {
  MessageWriter writer;
  write(writer);
  return std::string(as_text(writer.bytes()));
}

std::string zero_ended(std::string_view text) {
  return std::string(text) + '\0';
}

std::string int32(uint32_t value) {
  uint8_t bytes[4];
  store_be32(bytes, value);
  return std::string(as_text(bytes));
}

uint32_t int32_at(std::string_view bytes, size_t at) {
  ASSERT(at + 4 <= bytes.size());
  return load_be32(as_bytes(bytes).data() + at);
}

bool begins_with(std::string_view text, std::string_view beginning) {
  return text.substr(0, beginning.size()) == beginning;
}

NodeOptions node_options(const BenchOptions& options) {
  NodeOptions node = options.node;
  node.cores_count = options.cores_count;
  return node;
}

// The text up to the first zero byte.
std::string first_text(std::string_view bytes) {
  return std::string(bytes.substr(0, bytes.find('\0')));
}

// A cancel request ends what may take long: not a Close, nor the Parse of nothing.
bool looks_for_interrupts(const WireMessage& message) {
  if (message.tag == 'P') {
    const size_t name_end = message.body.find('\0');
    return message.body.size() > name_end + 1 && message.body[name_end + 1] != '\0';
  }
  return std::string_view("QBDE").find(message.tag) != std::string_view::npos;
}

}  // namespace

// ---------------------------------------------------------------- messages

std::string frame(char tag, std::string_view body) {
  return tag + int32(static_cast<uint32_t>(body.size() + 4)) + std::string(body);
}
std::string query_message(std::string_view text) {
  return frame('Q', zero_ended(text));
}
std::string parse_message(std::string_view name, std::string_view text) {
  return frame('P', zero_ended(name) + zero_ended(text) + std::string(2, '\0'));
}
std::string bind_message(std::string_view portal, std::string_view statement) {
  return frame('B', zero_ended(portal) + zero_ended(statement) + std::string(6, '\0'));
}
std::string execute_message(std::string_view portal) {
  return frame('E', zero_ended(portal) + std::string(4, '\0'));
}
std::string close_message(std::string_view statement) {
  return frame('C', 'S' + zero_ended(statement));
}
std::string describe_message(std::string_view statement) {
  return frame('D', 'S' + zero_ended(statement));
}
std::string sync_message() {
  return frame('S', {});
}
std::string flush_message() {
  return frame('H', {});
}

std::string startup_packet(std::string_view user, std::string_view database,
                           const std::vector<std::pair<std::string, std::string>>& parameters) {
  std::vector<TextPair> all = {{"user", user}, {"database", database}};
  for (const auto& [name, value] : parameters) all.emplace_back(name, value);
  return bytes_of([&](MessageWriter& w) { write_startup(w, protocol_version(3, 0), all); });
}

std::string ready(char status) {
  return frame('Z', std::string(1, status));
}
std::string complete(std::string_view tag) {
  return frame('C', zero_ended(tag));
}
std::string error_reply(std::string_view severity, std::string_view sqlstate,
                        std::string_view message) {
  return frame('E', 'S' + zero_ended(severity) + 'V' + zero_ended(severity) + 'C' +
                        zero_ended(sqlstate) + 'M' + zero_ended(message) + '\0');
}

std::string echo(std::string_view text) {
  const std::string columns =
      frame('T', std::string(1, '\0') + '\1' + zero_ended("echo") + std::string(18, '\0'));
  const std::string row =
      frame('D', std::string(1, '\0') + '\1' + int32(static_cast<uint32_t>(text.size())) +
                     std::string(text));
  return columns + row + complete("SELECT 1");
}

std::vector<WireMessage> take_messages(std::string& bytes) {
  std::vector<WireMessage> messages;
  size_t at = 0;
  while (bytes.size() - at >= 5) {
    const size_t size = int32_at(bytes, at + 1);
    REQUIRE(size >= 4);
    if (bytes.size() - at < size + 1) break;
    messages.push_back({bytes[at], bytes.substr(at + 5, size - 4)});
    at += size + 1;
  }
  bytes.erase(0, at);
  return messages;
}

std::string tags_of(const std::vector<WireMessage>& messages) {
  std::string tags;
  for (const WireMessage& message : messages) tags += message.tag;
  return tags;
}

std::string field_of(const WireMessage& error, char code) {
  size_t at = 0;
  while (at < error.body.size() && error.body[at] != '\0') {
    const std::string text = first_text(std::string_view(error.body).substr(at + 1));
    if (error.body[at] == code) return text;
    at += text.size() + 2;
  }
  return {};
}

// ---------------------------------------------------------------- the server

ServerSession::ServerSession(SimNetwork& network, int fd, uint32_t process_id)
    : network_(network), fd_(fd), process_id_(process_id) {
  cancel_key_ = int32(process_id * 2654435761U);
  parameters_ = {{"server_version", "15.0"}, {"client_encoding", "UTF8"},
                 {"DateStyle", "ISO, MDY"},  {"application_name", ""},
                 {"TimeZone", "UTC"},        {"standard_conforming_strings", "on"}};
  defaults_ = parameters_;
}

void ServerSession::write(std::string_view bytes) {
  if (!is_open()) return;
  if (sends_pieces_) {
    outbox_ += bytes;
  } else {
    network_.write(fd_, bytes);
  }
}

void ServerSession::end() {
  if (!is_open()) return;
  if (!outbox_.empty()) network_.write(fd_, std::exchange(outbox_, {}));
  network_.close(std::exchange(fd_, -1));
}

void ServerSession::reset() {
  if (!is_open()) return;
  network_.reset(fd_);
  end();
}

std::vector<std::string> ServerSession::queries() const {
  std::vector<std::string> texts;
  for (const WireMessage& message : log) {
    if (message.tag != 'Q') continue;
    std::string text = first_text(message.body);
    if (!begins_with(text, "SET ") && text != "DISCARD ALL" && !text.empty())
      texts.push_back(std::move(text));
  }
  return texts;
}

ScriptedServer::ScriptedServer(SimNetwork& network, uint16_t port, const std::string& host)
    : network_(network), address_(literal_address(host, port).value()) {
  start_listening();
}

void ScriptedServer::start_listening() {
  if (listen_fd_ < 0) listen_fd_ = network_.listen(address_.get(), address_.size());
}

void ScriptedServer::stop_listening() {
  if (listen_fd_ >= 0) network_.close(std::exchange(listen_fd_, -1));
}

std::vector<ServerSession*> ScriptedServer::open_sessions() {
  std::vector<ServerSession*> open;
  for (const auto& session : sessions_)
    if (session->is_open() && session->kind() == ServerSession::Kind::session)
      open.push_back(session.get());
  return open;
}

std::vector<ServerSession*> ScriptedServer::cancels() {
  std::vector<ServerSession*> found;
  for (const auto& session : sessions_)
    if (session->kind() == ServerSession::Kind::cancel) found.push_back(session.get());
  return found;
}

std::vector<ServerSession*> ScriptedServer::fresh() {
  std::vector<ServerSession*> found;
  for (const auto& session : sessions_)
    if (session->is_open() && session->kind() == ServerSession::Kind::fresh)
      found.push_back(session.get());
  return found;
}

ServerSession& ScriptedServer::only() {
  const auto open = open_sessions();
  REQUIRE(open.size() == 1);
  return *open[0];
}

bool ScriptedServer::pump() {
  bool is_busy = false;
  while (listen_fd_ >= 0) {
    const int fd = network_.accept(listen_fd_);
    if (fd < 0) break;
    sessions_.push_back(std::make_unique<ServerSession>(network_, fd, next_process_id++));
    sessions_.back()->is_silent = new_is_silent;
    is_busy = true;
  }
  for (size_t i = 0; i < sessions_.size(); ++i)
    if (sessions_[i]->is_open()) is_busy |= pump_one(*sessions_[i]);
  return is_busy;
}

bool ScriptedServer::is_held(const ServerSession& session) const {
  const bool holds_login = holds_logins || logins_left == 0;
  return session.is_deaf || (session.kind_ == ServerSession::Kind::fresh && holds_login);
}

bool ScriptedServer::pump_one(ServerSession& session) {
  if (is_held(session)) return false;
  bool is_busy = read(session);
  is_busy |= send_piece(session);
  while (session.is_open() && session.outbox_.empty() && work(session)) is_busy = true;
  return is_busy;
}

bool ScriptedServer::read(ServerSession& session) {
  const std::string bytes = network_.read(session.fd_);
  session.inbox_ += bytes;
  if (session.kind_ != ServerSession::Kind::session) return !bytes.empty();
  for (WireMessage& message : take_messages(session.inbox_)) {
    if (pace == nullptr) session.log.push_back(message);
    if (!session.is_silent) session.waiting_.push_back(std::move(message));
  }
  return !bytes.empty();
}

bool ScriptedServer::send_piece(ServerSession& session) {
  std::string& outbox = session.outbox_;
  if (outbox.empty() || pace->clock.now() < session.outbox_due_) return false;
  const size_t size = 1 + pace->random.below(outbox.size());
  network_.write(session.fd_, outbox.substr(0, size));
  outbox.erase(0, size);
  pieces_count += outbox.empty() ? 0 : 1;
  session.outbox_due_ = pace->clock.now() + pace->random.up_to(pace->piece_max);
  return true;
}

ScriptedServer::Work ScriptedServer::next_work(const ServerSession& session) const {
  const bool is_cancel = session.kind_ == ServerSession::Kind::cancel;
  if (session.is_done_) return Work::end;
  if (session.kind_ == ServerSession::Kind::fresh && session.inbox_.size() >= 4 &&
      session.inbox_.size() >= int32_at(session.inbox_, 0))
    return Work::startup;
  if (!session.waiting_.empty()) return Work::message;
  const bool is_idle = session.status_ == 'I' && !session.batch_open_ && !session.copying_;
  if (is_idle && !session.notifications_.empty()) return Work::notify;
  const bool may_end = !holds_ends && !(is_cancel && holds_cancels);
  return may_end && network_.is_at_end(session.fd_) ? Work::end : Work::none;
}

Nanoseconds ScriptedServer::duration_of(const ServerSession& session, Work work) const {
  if (work == Work::startup) return pace->random.up_to(pace->login_max);
  if (work == Work::notify) return pace->random.up_to(pace->work_max);
  const bool is_end = work == Work::end || session.waiting_.front().tag == 'X';
  return pace->random.up_to(is_end ? pace->close_max : pace->work_max);
}

// Does the next thing, when its time has come.
bool ScriptedServer::work(ServerSession& session) {
  const Work next = next_work(session);
  if (next == Work::none) return false;
  if (pace != nullptr) {
    if (session.due_ == never) session.due_ = pace->clock.now() + duration_of(session, next);
    if (pace->clock.now() < session.due_) return false;
    session.due_ = never;
    session.sends_pieces_ = pace->random.percent(pace->pieces_percent);
  }
  if (next == Work::startup) {
    const std::string packet = session.inbox_.substr(0, int32_at(session.inbox_, 0));
    session.inbox_.erase(0, packet.size());
    on_startup(session, packet);
    if (session.is_open()) read(session);
  } else if (next == Work::message) {
    const WireMessage message = std::move(session.waiting_.front());
    session.waiting_.pop_front();
    if (session.scram_ != nullptr) {
      on_password(session, message);
      return true;
    }
    if (on_read) on_read(session, message);
    on_message(session, message);
  } else if (next == Work::notify) {
    session.write(std::exchange(session.notifications_, {}));
  } else {
    session.end();
  }
  return true;
}

Nanoseconds ScriptedServer::next_due() const {
  if (listen_fd_ >= 0 && network_.has_pending(listen_fd_)) return 0;
  Nanoseconds next = never;
  for (const auto& session : sessions_) {
    if (!session->is_open() || is_held(*session)) continue;
    if (!network_.peek(session->fd_).empty()) return 0;
    if (!session->outbox_.empty()) {
      next = std::min(next, session->outbox_due_);
    } else if (next_work(*session) != Work::none) {
      next = std::min(next, session->due_ == never ? 0 : session->due_);
    }
  }
  return next;
}

void ScriptedServer::forget_ended() {
  std::erase_if(sessions_, [](const auto& session) { return !session->is_open(); });
}

void ScriptedServer::on_startup(ServerSession& session, std::string_view packet) {
  if (int32_at(packet, 4) == cancel_code) {
    session.kind_ = ServerSession::Kind::cancel;
    session.cancelled_process_id = int32_at(packet, 8);
    session.cancelled_key = packet.substr(12);
    if (obeys_cancels) cancel(session.cancelled_process_id, session.cancelled_key);
    if (!holds_cancels) session.is_done_ = true;
    return;
  }
  if (int32_at(packet, 4) == ssl_request_code) return session.write(std::string(1, tls_answer));
  if (!login_error.empty()) {
    ++refusals_count;
    session.write(login_error);
    return session.end();
  }
  if (logins_left != SIZE_MAX) --logins_left;
  for (size_t at = 8; at < packet.size() && packet[at] != '\0';) {
    const std::string name = first_text(packet.substr(at));
    const std::string value = first_text(packet.substr(at + name.size() + 1));
    at += name.size() + value.size() + 2;
    if (name == "user") session.user_ = value;
    if (name == "database") session.database_ = value;
    if (name != "user" && name != "database") session.startup_[name] = value;
  }
  for (const auto& [name, error] : refused_parameters) {
    if (!session.startup_.contains(name)) continue;
    session.write(frame('R', std::string(4, '\0')) + error);
    return session.end();
  }
  session.kind_ = ServerSession::Kind::session;
  if (!verifier) return welcome(session);
  session.scram_ = std::make_unique<ScramServer>(*verifier, ScramUser::real);
  session.write(frame('R', int32(10) + zero_ended(scram_mechanism) + '\0'));
}

void ScriptedServer::on_password(ServerSession& session, const WireMessage& message) {
  std::string answer;
  const size_t first_at = scram_mechanism.size() + 5;  // Behind the mechanism's name and a length.
  const bool is_first = message.body.starts_with(scram_mechanism);
  const ScramStep step = is_first
                             ? session.scram_->on_client_first(
                                   std::string_view(message.body).substr(first_at), nonces_, answer)
                             : session.scram_->on_client_final(message.body, answer);
  if (message.tag != 'p' || (step != ScramStep::more && step != ScramStep::done)) {
    session.write(error_reply("FATAL", "28P01", "password authentication failed"));
    return session.end();
  }
  session.write(frame('R', int32(is_first ? 11 : 12) + answer));
  if (step != ScramStep::done) return;
  session.scram_.reset();
  welcome(session);
}

void ScriptedServer::welcome(ServerSession& session) {
  ++logins_count;
  std::string answer = frame('R', int32(0));
  for (const auto& [name, value] : session.parameters_)
    answer += frame('S', zero_ended(name) + zero_ended(value));
  answer += frame('K', int32(session.process_id_) + session.cancel_key_);
  session.write(answer + ready() + after_login);
}

// The session stops what it is doing. An idle one does not notice.
void ScriptedServer::cancel(uint32_t process_id, std::string_view key) {
  for (const auto& session : sessions_) {
    if (!session->is_open() || session->kind_ != ServerSession::Kind::session) continue;
    if (session->process_id_ != process_id || session->cancel_key_ != key) continue;
    session->is_cancelled_ = session->due_ != never || session->copying_;
  }
}

void ScriptedServer::answer_cancelled(ServerSession& session, const WireMessage& message) {
  if (session.copying_) return end_copy(session, true);
  if (message.tag != 'Q') return fail(session, "57014", "canceling statement due to user request");
  if (session.status_ == 'T') session.status_ = 'E';
  session.write(error_reply("ERROR", "57014", "canceling statement due to user request"));
  become_ready(session);
}

void ScriptedServer::on_message(ServerSession& session, const WireMessage& message) {
  const bool is_cancelled = std::exchange(session.is_cancelled_, false);
  // Whatever becomes of them, they drop the unnamed statement.
  const bool is_unnamed_parse = message.tag == 'P' && message.body[0] == '\0';
  if ((message.tag == 'Q' || is_unnamed_parse) && !session.skipping_ && !session.copying_)
    session.statements_.erase("");
  if (message.tag == 'X') {
    if (holds_ends) return;
    return session.end();
  }
  if (is_cancelled && session.copying_) return answer_cancelled(session, message);
  if (session.copying_) {
    session.copied_count_ += message.tag == 'd' ? 1 : 0;
    if (message.tag == 'c' || message.tag == 'f') end_copy(session, message.tag == 'f');
    return;
  }
  if (session.skipping_ && message.tag != 'S') return;
  if (is_cancelled && looks_for_interrupts(message)) return answer_cancelled(session, message);
  switch (message.tag) {
    case 'Q':
      return on_query(session, first_text(message.body));
    case 'c':
    case 'd':
    case 'f':
    case 'H':
      return;
    default:
      return on_extended(session, message);
  }
}

void ScriptedServer::on_query(ServerSession& session, std::string_view text) {
  std::string answer;
  for (const std::string& statement : statements_of(text)) {
    const std::string reply = run(session, statement);
    answer += reply;
    if (reply[0] == 'E') break;
  }
  session.write(answer);
  if (!session.copying_) become_ready(session);
}

// Behind a transaction comes what it has notified, and what was kept meanwhile.
void ScriptedServer::become_ready(ServerSession& session) {
  if (session.status_ == 'I') {
    notify(session);
    session.write(std::exchange(session.notifications_, {}));
  }
  session.write(ready(session.status_));
}

// A transaction of this session is over: what it has notified is kept for all that listen, until
// they are idle.
void ScriptedServer::notify(ServerSession& sender) {
  for (const auto& [channel, payload] : std::exchange(sender.state.notified, {})) {
    if (on_notified) on_notified(sender, channel, payload);
    const std::string message =
        frame('A', int32(sender.process_id_) + zero_ended(channel) + zero_ended(payload));
    for (const auto& session : sessions_)
      if (session->is_open() && session->database_ == sender.database_ &&
          session->state.channels.contains(channel))
        session->notifications_ += message;
  }
}

// The replies of one statement. An error leaves its mark on the transaction.
std::string ScriptedServer::run(ServerSession& session, std::string_view text) {
  const auto fail_with = [&](std::string_view code, std::string_view message) {
    if (session.status_ == 'T') session.status_ = 'E';
    return error_reply("ERROR", code, message);
  };
  if (text.empty()) return frame('I', {});
  if (text == "BEGIN" && session.status_ == 'T') return complete("BEGIN");  // With a warning.
  if (text == "BEGIN" && session.status_ == 'I') {
    session.status_ = 'T';
    session.state.begin();
    return complete("BEGIN");
  }
  if (text == "COMMIT" || text == "ROLLBACK") {
    const bool is_open = session.status_ != 'I';
    if (is_open && (text == "ROLLBACK" || session.status_ == 'E')) session.state.roll_back();
    session.status_ = 'I';
    return complete(text);
  }
  if (session.status_ == 'E') return fail_with("25P02", "current transaction is aborted");
  if (begins_with(text, "FAIL")) return fail_with("22012", "division by zero");
  if (text == "DISCARD ALL" || begins_with(text, "RESET ")) {
    if (text[0] == 'D') {
      session.state.held.clear();
      session.state.channels.clear();
      session.state.reset("ROLE");
      session.statements_.clear();
      session.stale_.clear();
    }
    const std::string_view name = text[0] == 'D' ? "ALL" : text.substr(6);
    session.state.reset(std::string(name));
    std::string answer;
    for (auto& [own, value] : session.parameters_) {
      const std::string& initial = session.defaults_.at(own);
      if ((name != "ALL" && name != own) || value == initial) continue;
      value = initial;
      answer += frame('S', zero_ended(own) + zero_ended(value));
    }
    return answer + complete(text[0] == 'D' ? text : "RESET");
  }
  std::erase_if(session.state.prepared,
                [&](const auto& one) { return !session.statements_.contains(one.first); });
  if (const auto answer = session.state.run(text)) return *answer;
  if (text == "DEALLOCATE ALL") {
    session.statements_.clear();
    session.stale_.clear();
    return complete(text);
  }
  if (begins_with(text, "WHO "))
    return echo(std::string(text) + " is " + session.parameters_["application_name"]);
  if (begins_with(text, "STATE ")) {
    const ScriptedState& state = session.state;
    return echo(std::string(text) + " is" + ScriptedState::describe(state.settings, state.held));
  }
  if (begins_with(text, "COPYOUT ")) {
    std::string answer = frame('H', std::string(3, '\0'));
    const unsigned long count = std::strtoul(std::string(text.substr(8)).c_str(), nullptr, 10);
    for (unsigned long i = 0; i < count; ++i) answer += frame('d', text);
    return answer + frame('c', {}) + complete("COPY " + std::to_string(count));
  }
  if (begins_with(text, "PREPARE ")) {
    const std::string name(text.substr(8, text.find(' ', 8) - 8));
    if (session.refuses_prepare) return fail_with("42P01", "relation does not exist");
    const std::string_view content = text.substr(text.find(" AS ") + 4);
    if (!session.statements_.try_emplace(name, content).second)
      return fail_with("42P05", "prepared statement \"" + name + "\" already exists");
    session.state.prepared[name] = text;
    return complete("PREPARE");
  }
  if (begins_with(text, "EXECUTE ")) {
    const auto found = session.statements_.find(std::string(text.substr(8)));
    if (found == session.statements_.end())
      return fail_with("26000", "prepared statement does not exist");
    return echo(found->second);
  }
  if (begins_with(text, "DEALLOCATE ")) {
    std::string name(text.substr(11));
    std::erase(name, '"');
    if (session.statements_.erase(name) == 0)
      return fail_with("26000", "prepared statement \"" + name + "\" does not exist");
    return complete("DEALLOCATE");
  }
  if (begins_with(text, "SET ")) {
    const size_t sign = text.find('=');
    const std::string name(text.substr(4, sign - 4));
    std::string value(text.substr(sign + 2, text.size() - sign - 3));
    const std::string given = value;
    // A part that is not given comes from the default, or from the value before.
    if (name == "DateStyle" && begins_with(value, "DEFAULT, ")) value.erase(0, 9);
    if (value == "bad")
      return fail_with("22023", "invalid value for parameter \"" + name + "\": \"" + given + "\"");
    if (name == "TimeZone") std::transform(value.begin(), value.end(), value.begin(), ::toupper);
    std::string answer;
    const auto known = session.parameters_.find(name);
    if (known == session.parameters_.end()) {
      session.state.settings[name] = value;
      return complete("SET");
    }
    session.state.reported[name] = value;
    if (known->second != value) {
      known->second = value;
      answer = frame('S', zero_ended(name) + zero_ended(value));
    }
    return answer + complete("SET");
  }
  session.is_streaming_ = begins_with(text, "START_REPLICATION");
  if (text == "COPYIN" || session.is_streaming_) {
    session.copying_ = true;
    session.copied_count_ = 0;
    session.copy_is_extended_ = false;
    return frame(session.is_streaming_ ? 'W' : 'G', std::string(3, '\0'));
  }
  if (begins_with(text, "LONG "))
    return echo(std::string(std::strtoul(std::string(text.substr(5)).c_str(), nullptr, 10), 'x'));
  return echo(text);
}

void ScriptedServer::on_extended(ServerSession& session, const WireMessage& message) {
  session.batch_open_ = message.tag != 'S';
  switch (message.tag) {
    case 'P': {
      const std::string name = first_text(message.body);
      const std::string text = first_text(std::string_view(message.body).substr(name.size() + 1));
      if (text == "BADPARSE") return fail(session);
      const bool ends_block = text == "ROLLBACK" || text == "COMMIT";
      if (session.status_ == 'E' && !text.empty() && !ends_block)
        return fail(session, "25P02", "current transaction is aborted");
      if (session.refuses_parse && !text.empty())
        return fail(session, "42P01", "relation does not exist");
      if (!name.empty() && session.statements_.contains(name))
        return fail(session, "42P05", "prepared statement \"" + name + "\" already exists");
      session.statements_[name] = text;
      return session.write(frame('1', {}));
    }
    case 'B': {
      const std::string portal = first_text(message.body);
      const std::string name = first_text(std::string_view(message.body).substr(portal.size() + 1));
      const auto found = session.statements_.find(name);
      if (found == session.statements_.end()) return fail_unknown(session, name);
      if (session.stays_stale || session.stale_.contains(name))
        return fail(session, "0A000", "cached plan must not change result type");
      if (session.status_ == 'E' && found->second != "ROLLBACK" && found->second != "COMMIT")
        return fail(session, "25P02", "current transaction is aborted");
      session.bound_ = found->second;
      return session.write(frame('2', {}));
    }
    case 'D': {
      const std::string name = first_text(std::string_view(message.body).substr(1));
      if (message.body[0] == 'P') return session.write(frame('n', {}));
      if (!session.statements_.contains(name)) return fail_unknown(session, name);
      return session.write(frame('t', std::string(2, '\0')) + frame('n', {}));
    }
    case 'E': {
      const std::string text = session.bound_;
      if (begins_with(text, "FAIL")) return fail(session);
      std::string answer = run(session, text);
      if (answer[0] == 'E') session.skipping_ = true;
      if (session.copying_) session.copy_is_extended_ = true;
      // Execute does not describe its rows.
      if (answer[0] == 'T') answer.erase(0, int32_at(answer, 1) + 1);
      return session.write(answer);
    }
    case 'C':
      session.statements_.erase(first_text(std::string_view(message.body).substr(1)));
      session.stale_.erase(first_text(std::string_view(message.body).substr(1)));
      return session.write(frame('3', {}));
    case 'S':
      session.skipping_ = false;
      return become_ready(session);
    default:
      FAIL("the pooler sent a message that no client may send");
  }
}

void ScriptedServer::fail(ServerSession& session, std::string_view code, std::string_view message) {
  session.skipping_ = true;
  if (session.status_ == 'T') session.status_ = 'E';
  session.write(error_reply("ERROR", code, message));
}

void ScriptedServer::fail_unknown(ServerSession& session, const std::string& name) {
  fail(session, "26000", "prepared statement \"" + name + "\" does not exist");
}

void ScriptedServer::end_copy(ServerSession& session, bool failed) {
  session.copying_ = false;
  if (failed && session.status_ == 'T') session.status_ = 'E';
  if (!failed) {
    if (session.is_streaming_) session.write(frame('c', {}));
    session.write(complete("COPY " + std::to_string(session.copied_count_)));
  } else if (session.copy_is_extended_) {
    return fail(session, "57014", "COPY from stdin failed");
  } else {
    session.write(error_reply("ERROR", "57014", "COPY from stdin failed"));
  }
  if (!session.copy_is_extended_) become_ready(session);
}

// ---------------------------------------------------------------- the directory

PoolLimits limits_without_questions() {
  PoolLimits limits;
  limits.session_state = StatePolicy::warn;
  return limits;
}

BenchOptions with_backends(uint32_t max_connections, CoreId cores_count) {
  BenchOptions options;
  options.cores_count = cores_count;
  options.limits.max_connections = max_connections;
  return options;
}

BenchOptions with_ageless_backends(uint32_t max_connections, CoreId cores_count) {
  BenchOptions options = with_backends(max_connections, cores_count);
  options.limits.test_after = never;
  options.limits.max_lifetime = 0;
  options.limits.idle_timeout = 0;
  return options;
}

NodeOptions scripted_node() {
  NodeOptions node;
  node.name = "main";
  node.label = "127.0.0.1:5432";
  node.hosts = {"127.0.0.1"};
  node.port = server_port;
  node.max_connections = 100;
  return node;
}

UserSecret BenchDirectory::secret_of(std::string_view user) const {
  UserSecret secret;
  if (user == "stranger" || removed_users.contains(std::string(user))) return secret;
  if (begins_with(user, "typist")) {
    secret.kind = UserSecret::Kind::plain_password;
    secret.text = SecretBytes("pencil");
    return secret;
  }
  secret.kind = UserSecret::Kind::trust;
  return secret;
}

PoolSpecRef BenchDirectory::pool_of(std::string_view database, std::string_view user,
                                    const ParameterList& settings) const {
  if (!has_database(database) || removed_users.contains(std::string(user))) return {};
  auto* spec = new PoolSpec();
  spec->key = pool_key(database, user, settings);
  spec->login.parameters.assign(settings.begin(), settings.end());
  spec->database = database;
  spec->user = user;
  spec->node = node;
  spec->login.password = password;
  spec->user_limit = user_limit;
  spec->epoch = number;
  spec->login.user = user;
  spec->login.database = database;
  spec->limits = limits;
  spec->database_clients = database_clients;
  spec->user_clients = user_clients;
  if (adapt) adapt(*spec);
  apply_replication(*spec);
  spec->shared = registry->shared_of(spec->key, *spec, number);
  return PoolSpecRef(spec);
}

// ---------------------------------------------------------------- cores

BenchCore::BenchCore(SessionBench& bench, CoreId id)
    : bench_(bench),
      id_(id),
      mailbox_(bench.mailboxes_, id, *this),
      io(bench.options.buffers_count, &bench.network),
      net{io, chunks, flush_list},
      timers(bench.clock.now()),
      random(bench.options.network.seed * 64 + id),
      keys(random),
      pools(PoolsContext{net, timers, bench.clock, *this, keys, random, bench.transfers_count},
            bench.options.backends_max),
      sessions(bench.shared, pools, net, bench.options.sessions_max),
      collector(pools, *this) {
  if (bench.options.places_sessions) sessions.set_loads(bench.loads);
}

BenchCore::~BenchCore() {
  ASSERT(io.lent_count(BufferGroup::client) == 0);
  ASSERT(io.lent_count(BufferGroup::backend) == 0);
  ASSERT(chunks.lent_count() == 0);
}

void BenchCore::accept(int fd) noexcept {
  if (bench_.options.places_sessions) ++bench_.loads[id_];
  sessions.accept(fd, AF_INET);
}

CoreId BenchCore::cores_count() const noexcept {
  return bench_.options.cores_count;
}

void BenchCore::send(CoreId to, const Message& message) noexcept {
  ASSERT(to != id_);
  Message copy = message;
  copy.from = id_;
  Nanoseconds due = bench_.clock.now();
  if (bench_.options.mail_max > 0) due += bench_.network.random().up_to(bench_.options.mail_max);
  bench_.letters(id_, to).push_back({copy, due, false});
  if (bench_.on_sent) bench_.on_sent(to, copy);
}

void BenchCore::deliver(const Message& message) {
  io.tell_ended_sends();
  const bool taken =
      pools.on_message(message) || sessions.on_message(message) || collector.on_message(message);
  ASSERT(taken);
}

// Exactly what was sent, in the order in which it was sent.
void BenchCore::on_message(const Message& message) noexcept {
  std::deque<Letter>& letters = bench_.letters(message.from, id_);
  ASSERT(!letters.empty());
  ASSERT(letters.front().is_posted);
  ASSERT(std::memcmp(&letters.front().message, &message, sizeof(message)) == 0);
  letters.pop_front();
  deliver(message);
}

void BenchCore::wake(CoreId peer) noexcept {
  bench_.core(peer).is_woken_ = true;
}

bool BenchCore::fall_asleep() noexcept {
  is_woken_ = false;
  return mailbox_.prepare_sleep();
}

void BenchCore::wake_up() noexcept {
  mailbox_.awake();
}

// The same order as CoreServer::on_turn_end.
void BenchCore::end_turn() {
  if (keys.has_work()) keys.run();
  sessions.on_turn_end();
  pools.on_turn_end(bench_.clock.now());
  flush_streams(net);
}

bool BenchCore::has_work() const {
  return keys.has_work() || pools.has_work() || sessions.has_work() || !flush_list.empty();
}

// ---------------------------------------------------------------- the bench

SessionBench::SessionBench(BenchOptions bench_options)
    : options(bench_options),
      network(options.network),
      resolver(options.resolver),
      node(node_options(options), resolver),
      directory(node, options.limits),
      shared{directory, options.clients_max, options.login_timeout, {1}, {2}, {}},
      loads(options.cores_count),
      server(network, server_port),
      mailboxes_(options.cores_count),
      mail_(size_t{options.cores_count} * options.cores_count) {
  set_log_level(LogLevel::error);
  resolver.start();
  for (CoreId id = 0; id < options.cores_count; ++id)
    cores_.push_back(std::make_unique<BenchCore>(*this, id));
}

SessionBench::~SessionBench() {
  finish();
}

bool SessionBench::deliver_one() {
  std::vector<size_t> ways;
  for (size_t way = 0; way < mail_.size(); ++way)
    if (!mail_[way].empty() && mail_[way].front().due <= clock.now()) ways.push_back(way);
  if (ways.empty()) return false;
  const size_t way = ways[network.random().below(ways.size())];
  const Message message = mail_[way].front().message;
  mail_[way].pop_front();
  const CoreId to = static_cast<CoreId>(way % options.cores_count);
  core(to).deliver(message);
  core(to).end_turn();
  return true;
}

// Letters of one pair of cores arrive in order: one that comes late holds up those behind it.
void SessionBench::post_mail() {
  ASSERT(options.has_mailboxes);
  for (CoreId from = 0; from < options.cores_count; ++from) {
    for (CoreId to = 0; to < options.cores_count; ++to) {
      for (Letter& letter : letters(from, to)) {
        if (letter.is_posted) continue;
        if (letter.due > clock.now()) break;
        letter.is_posted = true;
        core(from).mailbox_.send(to, letter.message);
      }
    }
    core(from).mailbox_.flush();
  }
}

Nanoseconds SessionBench::next_mail() const {
  Nanoseconds next = never;
  for (const std::deque<Letter>& way : mail_) {
    for (const Letter& letter : way) {
      if (letter.is_posted) continue;
      next = std::min(next, letter.due);
      break;
    }
  }
  return next;
}

size_t SessionBench::deliver_mail(CoreId to) {
  return core(to).mailbox_.drain(core(to));
}

bool SessionBench::step() {
  const size_t first = network.random().below(3);
  for (size_t i = 0; i < 3; ++i) {
    switch ((first + i) % 3) {
      case 0:
        if (FakeIo* io = network.step(); io != nullptr) {
          for (const auto& one : cores_)
            if (&one->io == io) one->end_turn();
          return true;
        }
        break;
      case 1:
        if (server.pump()) return true;
        for (ScriptedServer* other : others)
          if (other->pump()) return true;
        break;
      default:
        if (deliver_one()) return true;
        break;
    }
  }
  bool is_busy = false;
  for (const auto& one : cores_) {
    if (!one->has_work()) continue;
    one->io.tell_ended_sends();
    one->end_turn();
    is_busy = true;
  }
  return is_busy;
}

void SessionBench::settle() {
  size_t steps = 0;
  // A turn may begin what the next one has to go on with.
  for (int quiet_turns = 0; quiet_turns < 2;) {
    quiet_turns = step() ? 0 : quiet_turns + 1;
    REQUIRE(++steps < steps_max);
  }
}

void SessionBench::advance(Nanoseconds difference) {
  pass(difference);
  settle();
}

void SessionBench::advance_in_steps(Nanoseconds difference, Nanoseconds step) {
  for (Nanoseconds passed = 0; passed < difference; passed += step) advance(step);
}

void SessionBench::pass(Nanoseconds difference) {
  clock.advance(difference);
  for (const auto& one : cores_) {
    one->io.tell_ended_sends();
    one->timers.advance(clock.now());
    one->end_turn();
  }
}

const BenchDirectory& SessionBench::reconfigure(
    const std::function<void(BenchDirectory&)>& change) {
  BenchDirectory next = reconfigured_.empty() ? directory : reconfigured_.back();
  ++next.number;
  change(next);
  return reconfigured_.emplace_back(std::move(next));
}

void SessionBench::reload(const std::function<void(BenchDirectory&)>& change) {
  const BenchDirectory& next = reconfigure(change);
  for (auto& core : cores_) core->sessions.reload(next);
  settle();
}

void SessionBench::start_drain() {
  begin_drain();
  settle();
}

void SessionBench::begin_drain() {
  for (const auto& one : cores_) {
    one->sessions.start_drain();
    one->pools.start_drain();
  }
}

bool SessionBench::is_empty() {
  for (const auto& one : cores_)
    if (!one->sessions.is_empty() || !one->pools.is_empty()) return false;
  return transfers_count == 0;
}

Slice& SessionBench::slice(CoreId id, std::string_view user, std::string_view database) {
  const BenchDirectory& current = reconfigured_.empty() ? directory : reconfigured_.back();
  return core(id).pools.pool_of(current.pool_of(database, user, {})).slice;
}

void SessionBench::finish() {
  if (std::exchange(finished_, true)) return;
  network.options() = options.network;
  network.options().reset_per_mille = 0;
  server.holds_ends = server.holds_cancels = false;
  server.logins_left = SIZE_MAX;
  for (const auto& one : cores_) {
    one->sessions.start_drain();
    one->pools.start_drain();
    one->sessions.stop();
    one->pools.stop();
  }
  settle();
  advance(seconds(10));  // Last words that nobody reads are given up.
  CHECK(is_empty());
  CHECK(node.limit.taken() == 0);
  CHECK(node.gate.taken() == 0);
  CHECK(shared.clients_count == 0);
  for (const auto& load : loads) CHECK(load == 0);
  for (const auto& one : cores_) {
    CHECK(one->io.in_flight_count() == 0);
    CHECK(one->io.targets_count() == 0);
    CHECK(one->chunks.lent_count() == 0);
    CHECK(one->keys.jobs_count() == 0);
  }
  // What is left is asserted by the destructors; an end in a test is easier to read than that.
  REQUIRE(is_empty());
}

// ---------------------------------------------------------------- clients

TestClient::TestClient(SessionBench& bench, CoreId core) : bench_(bench) {
  const auto [ours, theirs] = bench.network.make_pair();
  fd_ = ours;
  bench.core(core).accept(theirs);
}

TestClient::TestClient(SessionBench& bench, CoreId core, std::string_view user,
                       const std::vector<std::pair<std::string, std::string>>& parameters)
    : TestClient(bench, core) {
  write(startup_packet(user, "db", parameters));
  const std::string tags = take_tags();
  REQUIRE(!tags.empty());
  REQUIRE(tags.front() == 'R');
  REQUIRE(tags.back() == 'Z');
}

void TestClient::write(std::string_view bytes) {
  write_later(bytes);
  bench_.settle();
}

void TestClient::write_later(std::string_view bytes) {
  if (fd_ >= 0) bench_.network.write(fd_, bytes);
}

std::string TestClient::take_bytes() {
  std::string bytes = std::exchange(inbox_, {});
  if (fd_ >= 0) bytes += bench_.network.read(fd_);
  return bytes;
}

std::vector<WireMessage> TestClient::take() {
  inbox_ = take_bytes();
  std::vector<WireMessage> messages = take_messages(inbox_);
  CHECK(inbox_.empty());
  return messages;
}

std::string TestClient::take_error() {
  for (const WireMessage& message : take())
    if (message.tag == 'E') return field_of(message, 'C');
  return {};
}

bool TestClient::is_closed() {
  if (fd_ < 0) return true;
  inbox_ += bench_.network.read(fd_);
  return bench_.network.is_at_end(fd_);
}

void TestClient::close() {
  if (fd_ >= 0) bench_.network.close(std::exchange(fd_, -1));
  bench_.settle();
}

void TestClient::reset() {
  if (fd_ >= 0) bench_.network.reset(fd_);
  close();
}

WireMessage log_in(TestClient& client, std::string_view startup) {
  client.write(startup.empty() ? startup_packet("me", "db") : std::string(startup));
  for (const WireMessage& message : client.take())
    if (message.tag == 'K') return message;
  FAIL("no BackendKeyData");
  return {};
}

std::string cancel_request(std::string_view key_data) {
  MessageWriter writer;
  const ByteSpan bytes = as_bytes(key_data);
  write_cancel_request(writer, load_be32(bytes.data()), bytes.subspan(4));
  return std::string(as_text(writer.bytes()));
}

}  // namespace helios::test
