#include "tests/support/session_bench.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
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
}

void ServerSession::write(std::string_view bytes) {
  if (is_open()) network_.write(fd_, bytes);
}

void ServerSession::end() {
  if (is_open()) network_.close(std::exchange(fd_, -1));
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

ScriptedServer::ScriptedServer(SimNetwork& network, uint16_t port)
    : network_(network), port_(port) {
  start_listening();
}

void ScriptedServer::start_listening() {
  if (listen_fd_ < 0) listen_fd_ = network_.listen_tcp(port_);
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
    sessions_.push_back(std::make_unique<ServerSession>(network_, fd, next_process_id_++));
    sessions_.back()->is_silent = new_is_silent;
    is_busy = true;
  }
  for (size_t i = 0; i < sessions_.size(); ++i)
    if (sessions_[i]->is_open()) is_busy |= pump_one(*sessions_[i]);
  return is_busy;
}

bool ScriptedServer::pump_one(ServerSession& session) {
  const bool holds_login = holds_logins || logins_left == 0;
  if (session.is_deaf || (session.kind_ == ServerSession::Kind::fresh && holds_login)) return false;
  const std::string bytes = network_.read(session.fd_);
  session.inbox_ += bytes;
  if (session.kind_ == ServerSession::Kind::fresh && session.inbox_.size() >= 4 &&
      session.inbox_.size() >= int32_at(session.inbox_, 0)) {
    const std::string packet = session.inbox_.substr(0, int32_at(session.inbox_, 0));
    session.inbox_.erase(0, packet.size());
    on_startup(session, packet);
  }
  if (session.is_open() && session.kind_ == ServerSession::Kind::session) {
    for (const WireMessage& message : take_messages(session.inbox_)) {
      session.log.push_back(message);
      if (session.is_open() && !session.is_silent) on_message(session, message);
    }
  }
  if (session.is_open() && network_.is_at_end(session.fd_) && !holds_ends &&
      !(session.kind_ == ServerSession::Kind::cancel && holds_cancels)) {
    session.end();
    return true;
  }
  return !bytes.empty();
}

void ScriptedServer::on_startup(ServerSession& session, std::string_view packet) {
  if (int32_at(packet, 4) == cancel_code) {
    session.kind_ = ServerSession::Kind::cancel;
    session.cancelled_process_id = int32_at(packet, 8);
    session.cancelled_key = packet.substr(12);
    if (!holds_cancels) session.end();
    return;
  }
  if (!login_error.empty()) {
    session.write(login_error);
    return session.end();
  }
  if (logins_left != SIZE_MAX) --logins_left;
  session.kind_ = ServerSession::Kind::session;
  std::string answer = frame('R', int32(0));
  for (const auto& [name, value] : session.parameters_)
    answer += frame('S', zero_ended(name) + zero_ended(value));
  answer += frame('K', int32(session.process_id_) + session.cancel_key_);
  session.write(answer + ready() + after_login);
}

void ScriptedServer::on_message(ServerSession& session, const WireMessage& message) {
  if (message.tag == 'X') {
    if (!holds_ends) session.end();
    return;
  }
  if (session.copying_) {
    if (message.tag == 'c' || message.tag == 'f') end_copy(session, message.tag == 'f');
    return;
  }
  if (session.skipping_ && message.tag != 'S') return;
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
  // Several statements are told apart for the pooler's own SETs only.
  while (begins_with(text, "SET ") && text.find("';SET ") != std::string_view::npos) {
    const size_t end = text.find("';SET ") + 1;
    answer += run(session, text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  answer += run(session, text);
  session.write(answer);
  if (!session.copying_) session.write(ready(session.status_));
}

// The replies of one statement. An error leaves its mark on the transaction.
std::string ScriptedServer::run(ServerSession& session, std::string_view text) {
  const auto fail_with = [&](std::string_view code, std::string_view message) {
    if (session.status_ == 'T') session.status_ = 'E';
    return error_reply("ERROR", code, message);
  };
  if (text.empty()) return frame('I', {});
  if (text == "BEGIN") {
    session.status_ = 'T';
    return complete("BEGIN");
  }
  if (text == "COMMIT" || text == "ROLLBACK") {
    session.status_ = 'I';
    return complete(text);
  }
  if (session.status_ == 'E') return fail_with("25P02", "current transaction is aborted");
  if (begins_with(text, "FAIL")) return fail_with("22012", "division by zero");
  if (text == "DISCARD ALL" || text == "DEALLOCATE ALL") {
    session.statements_.clear();
    return complete(text);
  }
  if (begins_with(text, "PREPARE ")) {
    session.statements_[std::string(text.substr(8, text.find(' ', 8) - 8))] = text;
    return complete("PREPARE");
  }
  if (begins_with(text, "DEALLOCATE ")) {
    session.statements_.erase(std::string(text.substr(11)));
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
    if (known != session.parameters_.end() && known->second != value) {
      known->second = value;
      answer = frame('S', zero_ended(name) + zero_ended(value));
    }
    return answer + complete("SET");
  }
  if (text == "COPYIN") {
    session.copying_ = true;
    session.copy_is_extended_ = false;
    return frame('G', std::string(3, '\0'));
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
      session.statements_[name] = text;
      return session.write(frame('1', {}));
    }
    case 'B': {
      const std::string portal = first_text(message.body);
      const auto found = session.statements_.find(
          first_text(std::string_view(message.body).substr(portal.size() + 1)));
      if (found == session.statements_.end()) return fail(session);
      session.bound_ = found->second;
      return session.write(frame('2', {}));
    }
    case 'D':
      return session.write(frame('n', {}));
    case 'E': {
      const std::string text = session.bound_;
      if (begins_with(text, "FAIL")) return fail(session);
      std::string answer = run(session, text);
      if (session.copying_) session.copy_is_extended_ = true;
      // Execute does not describe its rows.
      if (answer[0] == 'T') answer.erase(0, int32_at(answer, 1) + 1);
      return session.write(answer);
    }
    case 'C':
      session.statements_.erase(first_text(std::string_view(message.body).substr(1)));
      return session.write(frame('3', {}));
    case 'S':
      session.skipping_ = false;
      return session.write(ready(session.status_));
    default:
      FAIL("the pooler sent a message that no client may send");
  }
}

void ScriptedServer::fail(ServerSession& session) {
  session.skipping_ = true;
  if (session.status_ == 'T') session.status_ = 'E';
  session.write(error_reply("ERROR", "22012", "division by zero"));
}

void ScriptedServer::end_copy(ServerSession& session, bool failed) {
  session.copying_ = false;
  if (!failed) {
    session.write(complete("COPY 1"));
  } else if (session.copy_is_extended_) {
    return fail(session);
  } else {
    session.write(error_reply("ERROR", "57014", "COPY from stdin failed"));
  }
  if (!session.copy_is_extended_) session.write(ready(session.status_));
}

// ---------------------------------------------------------------- the directory

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
  if (user == "stranger") return secret;
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
  auto* spec = new PoolSpec();
  spec->key = pool_key(database, user, settings);
  spec->login.parameters.assign(settings.begin(), settings.end());
  spec->database = database;
  spec->user = user;
  spec->node = &node_;
  spec->login.user = user;
  spec->login.database = database;
  spec->limits = limits;
  spec->database_clients = database_clients;
  spec->user_clients = user_clients;
  spec->shared = registry.shared_of(spec->key, limits);
  return PoolSpecRef(spec);
}

// ---------------------------------------------------------------- cores

BenchCore::BenchCore(SessionBench& bench, CoreId id)
    : bench_(bench),
      id_(id),
      io(bench.options.buffers_count, &bench.network),
      net{io, chunks, flush_list},
      timers(bench.clock.now()),
      random(bench.options.network.seed * 64 + id),
      keys(random),
      pools(PoolsContext{net, timers, bench.clock, *this, keys, random, bench.transfers_count},
            1000),
      sessions(bench.shared, pools, net, 20'000),
      collector(pools, *this) {}

BenchCore::~BenchCore() {
  ASSERT(io.lent_count(BufferGroup::client) == 0);
  ASSERT(io.lent_count(BufferGroup::backend) == 0);
  ASSERT(chunks.lent_count() == 0);
}

CoreId BenchCore::cores_count() const noexcept {
  return bench_.options.cores_count;
}

void BenchCore::send(CoreId to, const Message& message) noexcept {
  ASSERT(to != id_);
  Message copy = message;
  copy.from = id_;
  bench_.mail_[{id_, to}].push_back(copy);
}

void BenchCore::deliver(const Message& message) {
  io.tell_ended_sends();
  const bool taken =
      pools.on_message(message) || sessions.on_message(message) || collector.on_message(message);
  ASSERT(taken);
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
      server(network, server_port) {
  set_log_level(LogLevel::error);
  resolver.start();
  for (CoreId id = 0; id < options.cores_count; ++id)
    cores_.push_back(std::make_unique<BenchCore>(*this, id));
}

SessionBench::~SessionBench() {
  finish();
}

bool SessionBench::deliver_one() {
  std::vector<std::pair<CoreId, CoreId>> ways;
  for (const auto& [way, messages] : mail_)
    if (!messages.empty()) ways.push_back(way);
  if (ways.empty()) return false;
  const auto way = ways[network.random().below(ways.size())];
  std::deque<Message>& messages = mail_[way];
  const Message message = messages.front();
  messages.pop_front();
  core(way.second).deliver(message);
  core(way.second).end_turn();
  return true;
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

void SessionBench::pass(Nanoseconds difference) {
  clock.advance(difference);
  for (const auto& one : cores_) {
    one->io.tell_ended_sends();
    one->timers.advance(clock.now());
    one->end_turn();
  }
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
  return core(id).pools.pool_of(directory.pool_of(database, user, {})).slice;
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
  bench.core(core).sessions.accept(theirs, AF_INET);
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

}  // namespace helios::test
