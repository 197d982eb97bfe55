// Sessions and pools without a kernel: real Sessions, Pools and KeyDerivation on simulated cores,
// scripted clients on one side and a scripted PostgreSQL on the other, all in one thread.
//
// A test speaks as a client (TestClient) and, when it wants to, as the server (ServerSession with
// is_silent). settle() runs everything until nothing can happen any more without it. The order of
// events depends on the seed only. By default the network cuts, delays and breaks nothing.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "helios/net/resolver.h"
#include "helios/net/stream.h"
#include "helios/pool/pool_registry.h"
#include "helios/pool/pools.h"
#include "helios/pool/statistics_collector.h"
#include "helios/runtime/timer_wheel.h"
#include "helios/session/sessions.h"
#include "helios/wire/crypto.h"
#include "helios/wire/key_derivation.h"
#include "helios/wire/scram.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_io.h"
#include "tests/support/scripted_state.h"

namespace helios::test {

class SessionBench;

// One message, as either side sends it.
struct WireMessage {
  char tag = 0;
  std::string body;
};

[[nodiscard]] std::string frame(char tag, std::string_view body);
[[nodiscard]] std::string query_message(std::string_view text);
[[nodiscard]] std::string parse_message(std::string_view name, std::string_view text);
[[nodiscard]] std::string bind_message(std::string_view portal, std::string_view statement);
[[nodiscard]] std::string execute_message(std::string_view portal = {});
[[nodiscard]] std::string close_message(std::string_view statement);
[[nodiscard]] std::string describe_message(std::string_view statement);
[[nodiscard]] std::string sync_message();
[[nodiscard]] std::string flush_message();
[[nodiscard]] std::string startup_packet(
    std::string_view user, std::string_view database,
    const std::vector<std::pair<std::string, std::string>>& parameters = {});
[[nodiscard]] std::string ready(char status = 'I');
[[nodiscard]] std::string complete(std::string_view tag);
[[nodiscard]] std::string error_reply(std::string_view severity, std::string_view sqlstate,
                                      std::string_view message);
// What the scripted server answers to a query that it only echoes, without ReadyForQuery.
[[nodiscard]] std::string echo(std::string_view text);

// Takes the complete messages off the front of `bytes`.
[[nodiscard]] std::vector<WireMessage> take_messages(std::string& bytes);
[[nodiscard]] std::string tags_of(const std::vector<WireMessage>& messages);
// Field `code` of an ErrorResponse or NoticeResponse; empty when it has none.
[[nodiscard]] std::string field_of(const WireMessage& error, char code);

// How long a scripted server takes for what it does, by chance up to these. Without a pace it does
// everything at once.
struct ServerPace {
  Clock& clock;
  SimRandom& random;
  Nanoseconds login_max = 0;
  Nanoseconds work_max = 0;     // For each message.
  Nanoseconds close_max = 0;    // After Terminate, or after our end of file.
  uint32_t pieces_percent = 0;  // Answers that are sent in pieces...
  Nanoseconds piece_max = 0;    // ...with up to this between two of them.
};

// One connection to the scripted server, seen from the server.
class ServerSession {
 public:
  enum class Kind : uint8_t { fresh, session, cancel };

  explicit ServerSession(SimNetwork& network, int fd, uint32_t process_id);

  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] Kind kind() const { return kind_; }
  [[nodiscard]] bool is_open() const { return fd_ >= 0; }
  [[nodiscard]] uint32_t process_id() const { return process_id_; }
  [[nodiscard]] const std::string& cancel_key() const { return cancel_key_; }
  [[nodiscard]] char status() const { return status_; }
  [[nodiscard]] bool is_batch_open() const { return batch_open_; }
  [[nodiscard]] const std::map<std::string, std::string>& parameters() const { return parameters_; }
  // Prepared statements: text by name.
  [[nodiscard]] const std::map<std::string, std::string>& statements() const { return statements_; }
  // A table was changed: the plans of all statements are of no use any more.
  void make_stale() {
    for (const auto& [name, text] : statements_) stale_.insert(name);
  }
  // As the start-up packet named them.
  [[nodiscard]] const std::string& user() const { return user_; }
  [[nodiscard]] const std::string& database() const { return database_; }
  // Its other parameters.
  [[nodiscard]] const std::map<std::string, std::string>& startup() const { return startup_; }

  // Everything that came behind the login, whether it was answered or not.
  std::vector<WireMessage> log;
  // For a cancel connection: what it asked for.
  uint32_t cancelled_process_id = 0;
  std::string cancelled_key;

  // What it has beyond the parameters that are reported.
  ScriptedState state;

  bool refuses_prepare = false;  // In SQL.
  bool refuses_parse = false;    // Of names.
  bool stays_stale = false;      // No statement can be bound.
  bool is_silent = false;        // Reads, and answers nothing: the test does.
  bool is_deaf = false;          // Does not even read.
  // Is told to leave the connection of a cancel request, or of a Terminate, open.
  bool stays_open = false;

  // Each returns at once; settle() delivers.
  void write(std::string_view bytes);
  void end();    // Our end of file, and closed.
  void reset();  // Both ends fail.

  // Texts of the simple queries that came, without the pooler's own.
  [[nodiscard]] std::vector<std::string> queries() const;
  [[nodiscard]] std::string tags() const { return tags_of(log); }

 private:
  friend class ScriptedServer;

  SimNetwork& network_;
  int fd_;
  uint32_t process_id_;
  Kind kind_ = Kind::fresh;
  std::string cancel_key_;
  std::string user_;
  std::string database_;
  std::map<std::string, std::string> startup_;
  std::string inbox_;
  std::deque<WireMessage> waiting_;  // Received and not yet answered.
  Nanoseconds due_ = never;          // When the next thing is done, once it is known.
  std::string outbox_;               // The rest of an answer that goes out in pieces.
  std::string notifications_;        // For its client, as soon as its transaction is over.
  Nanoseconds outbox_due_ = 0;
  bool sends_pieces_ = false;
  std::unique_ptr<ScramServer> scram_;  // While it logs in with a password.
  bool is_done_ = false;                // Nothing comes any more but the end of the connection.
  bool is_cancelled_ = false;
  uint32_t copied_count_ = 0;
  std::map<std::string, std::string> parameters_;
  std::map<std::string, std::string> defaults_;
  std::map<std::string, std::string> statements_;  // Text by name.
  std::set<std::string> stale_;                    // Names whose Bind fails with 0A000.
  std::string bound_;                              // Text of the statement bound last.
  char status_ = 'I';
  bool skipping_ = false;
  bool copying_ = false;
  bool copy_is_extended_ = false;
  bool is_streaming_ = false;
  bool batch_open_ = false;
};

// A server that knows enough of PostgreSQL for these tests. Statements it understands: BEGIN,
// COMMIT, ROLLBACK, SET name='value', DISCARD ALL, LISTEN, NOTIFY, those of ScriptedState, PREPARE,
// DEALLOCATE, FAIL (an error), COPYIN, COPYOUT n (n rows with this text), LONG n (a row of n
// bytes), WHO (a row with the text and the session's application_name), STATE (a row with the text
// and what else the session has set and holds), START_REPLICATION (what it streams the test
// writes); everything else comes back as one row with its text.
class ScriptedServer {
 public:
  explicit ScriptedServer(SimNetwork& network, uint16_t port,
                          const std::string& host = "127.0.0.1");

  // Accepts, reads and answers what is there. True when something happened.
  bool pump();
  // With a pace: when there is something to do for pump(); `never` when only others can tell.
  [[nodiscard]] Nanoseconds next_due() const;
  // Connections that have ended are kept for tests that ask what was sent; this forgets them.
  void forget_ended();

  [[nodiscard]] std::vector<std::unique_ptr<ServerSession>>& sessions() { return sessions_; }
  // The connections that are sessions of PostgreSQL and open, in the order of their making.
  [[nodiscard]] std::vector<ServerSession*> open_sessions();
  [[nodiscard]] std::vector<ServerSession*> cancels();
  // Open connections that have not said yet what they are for.
  [[nodiscard]] std::vector<ServerSession*> fresh();
  // The only open session. Requires: there is exactly one.
  [[nodiscard]] ServerSession& only();

  void stop_listening();
  void start_listening();

  // The password that logins must know; nothing: the server trusts.
  std::optional<ScramVerifier> verifier;
  // Is told of each message behind the login before it is dealt with. May be empty.
  std::function<void(const ServerSession&, const WireMessage&)> on_read;
  // Is told of each notification when its transaction is over: sender, channel, payload. May be
  // empty.
  std::function<void(const ServerSession&, const std::string&, const std::string&)> on_notified;
  // The server refuses logins with this error; empty: it accepts them.
  std::string login_error;
  // Start-up parameters that it refuses behind the authentication, with these errors.
  std::map<std::string, std::string> refused_parameters;
  // Connections are accepted and not answered.
  bool holds_logins = false;
  // What it says to a request for TLS.
  char tls_answer = 'N';
  // So many more logins are answered.
  size_t logins_left = SIZE_MAX;
  // New sessions begin like this.
  bool new_is_silent = false;
  // Of the next session.
  uint32_t next_process_id = 4000;
  // Cancel connections stay open until the test ends them.
  bool holds_cancels = false;
  // A connection stays open after Terminate and after our end of file.
  bool holds_ends = false;
  // Behind the login's ReadyForQuery, in the same bytes.
  std::string after_login;
  // Everything takes its time. Null: none.
  const ServerPace* pace = nullptr;
  // Cancel requests end what their session is doing, as in PostgreSQL.
  bool obeys_cancels = false;
  // Sessions that have logged in since the beginning.
  uint64_t logins_count = 0;
  // Those that login_error has refused.
  uint64_t refusals_count = 0;
  // Pieces of answers that others followed later.
  uint64_t pieces_count = 0;

 private:
  // What a session has to do next.
  enum class Work : uint8_t { none, startup, message, notify, end };
  bool pump_one(ServerSession& session);
  [[nodiscard]] bool is_held(const ServerSession& session) const;
  bool read(ServerSession& session);
  bool send_piece(ServerSession& session);
  bool work(ServerSession& session);
  [[nodiscard]] Work next_work(const ServerSession& session) const;
  [[nodiscard]] Nanoseconds duration_of(const ServerSession& session, Work work) const;
  void cancel(uint32_t process_id, std::string_view key);
  void answer_cancelled(ServerSession& session, const WireMessage& message);
  void on_startup(ServerSession& session, std::string_view packet);
  void on_password(ServerSession& session, const WireMessage& message);
  void welcome(ServerSession& session);
  void on_message(ServerSession& session, const WireMessage& message);
  void on_query(ServerSession& session, std::string_view text);
  void notify(ServerSession& sender);
  void become_ready(ServerSession& session);
  [[nodiscard]] std::string run(ServerSession& session, std::string_view text);
  void on_extended(ServerSession& session, const WireMessage& message);
  void fail(ServerSession& session, std::string_view code = "22012",
            std::string_view message = "division by zero");
  void fail_unknown(ServerSession& session, const std::string& name);
  void end_copy(ServerSession& session, bool failed);

  SimNetwork& network_;
  SocketAddress address_;
  int listen_fd_ = -1;
  SeededRandom nonces_{1};
  std::vector<std::unique_ptr<ServerSession>> sessions_;
};

// Who may come in: everybody but "stranger", to every database but "missing", less those that were
// removed.
class BenchDirectory final : public Directory {
 public:
  BenchDirectory(Node& bench_node, PoolLimits pool_limits)
      : limits(pool_limits), node(&bench_node), registry(std::make_shared<PoolRegistry>()) {}
  [[nodiscard]] uint64_t epoch() const override { return number; }
  [[nodiscard]] UserSecret secret_of(std::string_view user) const override;
  [[nodiscard]] bool has_database(std::string_view database) const override {
    return database != "missing" && !removed_databases.contains(std::string(database));
  }
  [[nodiscard]] PoolSpecRef pool_of(std::string_view database, std::string_view user,
                                    const ParameterList& settings) const override;

  PoolLimits limits;
  // Of every database, and of every user; null: none.
  std::shared_ptr<Limit> database_clients;
  std::shared_ptr<Limit> user_clients;
  uint64_t number = 0;
  Node* node;
  std::set<std::string> removed_databases;
  std::set<std::string> removed_users;
  std::string password;                     // Of the pools at their node.
  std::shared_ptr<SharedLimit> user_limit;  // Of every user; null: none.
  // One for all that follow each other.
  std::shared_ptr<PoolRegistry> registry;
  // Changes what every pool is made of: its node, its limits.
  std::function<void(PoolSpec&)> adapt;
};

// The scripted server.
[[nodiscard]] NodeOptions scripted_node();

[[nodiscard]] PoolLimits limits_without_questions();

struct BenchOptions {
  CoreId cores_count = 1;
  uint32_t clients_max = 10'000;
  NodeOptions node = scripted_node();
  ResolverOptions resolver;
  uint32_t buffers_count = 64;
  // Of each core.
  uint32_t sessions_max = 20'000;
  uint32_t backends_max = 1000;
  // A message between cores is under way for up to this.
  Nanoseconds mail_max = 0;
  // Messages take the way through real mailboxes (post_mail, deliver_mail), after the time above.
  // Without them step() delivers one wherever it likes.
  bool has_mailboxes = false;
  // Clients of small pools go to a home core. Otherwise they stay where they were accepted.
  bool places_sessions = false;
  Nanoseconds login_timeout = seconds(60);
  // Most statements of these tests are none of PostgreSQL's, and none is asked what it leaves.
  PoolLimits limits = limits_without_questions();
  // What the network does to the bytes. By default nothing.
  SimOptions network = {1, 0, 0, 0, 0, 0, 16384};
};

// Pools of up to so many backends.
[[nodiscard]] BenchOptions with_backends(uint32_t max_connections, CoreId cores_count = 1);
// The same, and time does nothing to them: no test, no idle_timeout, no max_lifetime.
[[nodiscard]] BenchOptions with_ageless_backends(uint32_t max_connections, CoreId cores_count = 1);

// A core: everything that server/core_server.h has, less the listeners.
class BenchCore final : public Postbox, public Waker, public MessageHandler {
 public:
  BenchCore(SessionBench& bench, CoreId id);
  ~BenchCore() override;

  // A client has connected, and this core gets it.
  void accept(int fd) noexcept;
  void end_turn();
  [[nodiscard]] bool has_work() const;
  void deliver(const Message& message);
  // The core goes to sleep, as in Core: false when there is mail.
  [[nodiscard]] bool fall_asleep() noexcept;
  void wake_up() noexcept;
  // Somebody has woken it.
  [[nodiscard]] bool is_woken() const noexcept { return is_woken_; }

  [[nodiscard]] CoreId core() const noexcept override { return id_; }
  [[nodiscard]] CoreId cores_count() const noexcept override;
  void send(CoreId to, const Message& message) noexcept override;
  void wake(CoreId peer) noexcept override;
  void on_message(const Message& message) noexcept override;

 private:
  friend class SessionBench;
  SessionBench& bench_;
  CoreId id_;
  Mailbox mailbox_;
  bool is_woken_ = false;

 public:
  FakeIo io;
  ChunkPool chunks;
  IntrusiveList<Stream, FlushTag> flush_list;
  NetContext net;
  TimerWheel timers;
  SeededRandom random;
  KeyDerivation keys;
  Pools pools;
  Sessions sessions;
  StatisticsCollector collector;
  // Timers that are not a session's or backend's: the sweep of the pools.
  [[nodiscard]] size_t timers_count() const { return timers.size(); }
};

// A message between cores, from when it is sent until it is delivered.
struct Letter {
  Message message;
  Nanoseconds due = 0;     // Not there before.
  bool is_posted = false;  // It is in a mailbox.
};

class SessionBench {
 public:
  explicit SessionBench(BenchOptions options = {});
  // Everything must be given back: finishes first, if the test has not.
  ~SessionBench();

  // Runs until nothing happens any more by itself.
  void settle();
  // One event somewhere, for tests that interleave by chance. False: nothing can happen.
  bool step();
  // Time passes; then settles.
  void advance(Nanoseconds difference);
  // Time passes in steps, as it does; each settles.
  void advance_in_steps(Nanoseconds difference, Nanoseconds step);
  // As advance(), without settling.
  void pass(Nanoseconds difference);
  // Cuts everything and checks that nothing is left: slots, chunks, buffers, operations, timers.
  void finish();
  // The next configuration: that of the core that knows most, changed.
  const BenchDirectory& reconfigure(const std::function<void(BenchDirectory&)>& change);
  // All cores take it over, one after the other, with what happens in between.
  void reload(const std::function<void(BenchDirectory&)>& change);
  void start_drain();  // Settles.
  void begin_drain();  // Does not.
  // No session and no backend is left.
  [[nodiscard]] bool is_empty();
  // Puts what is due into the mailboxes, which wake those who sleep.
  void post_mail();
  // When post_mail() has something to do; `never` when there is none.
  [[nodiscard]] Nanoseconds next_mail() const;
  // What is in the mailbox of this core, as much as a turn takes. Returns how many there were. The
  // caller ends the turn.
  size_t deliver_mail(CoreId to);
  // Calls visit(to, letter) for everything that is under way.
  template <typename Visit>
  void for_each_letter(Visit visit) const {
    for (size_t way = 0; way < mail_.size(); ++way)
      for (const Letter& letter : mail_[way])
        visit(static_cast<CoreId>(way % options.cores_count), letter);
  }

  [[nodiscard]] BenchCore& core(CoreId id = 0) { return *cores_[id]; }
  [[nodiscard]] Pools& pools() { return cores_[0]->pools; }
  [[nodiscard]] Sessions& sessions() { return cores_[0]->sessions; }
  // The pool of user and database of core 0.
  [[nodiscard]] Slice& slice(CoreId id = 0, std::string_view user = "me",
                             std::string_view database = "db");

  BenchOptions options;
  SimNetwork network;
  FakeClock clock;
  Resolver resolver;
  Node node;
  BenchDirectory directory;
  SessionsShared shared;
  std::atomic<uint32_t> transfers_count{0};
  std::vector<std::atomic<uint32_t>> loads;  // Clients of each core.
  ScriptedServer server;
  // Further ones that a test has made.
  std::vector<ScriptedServer*> others;
  // Is told of each message between cores when it is sent. May be empty.
  std::function<void(CoreId to, const Message& message)> on_sent;

 private:
  friend class BenchCore;
  friend class TestClient;
  [[nodiscard]] std::deque<Letter>& letters(CoreId from, CoreId to) {
    return mail_[size_t{from} * options.cores_count + to];
  }
  bool deliver_one();

  MailboxSystem mailboxes_;
  std::vector<std::unique_ptr<BenchCore>> cores_;
  std::vector<std::deque<Letter>> mail_;  // One for each ordered pair of cores.
  std::deque<BenchDirectory> reconfigured_;
  bool finished_ = false;
};

// One application. Every function that writes settles, unless it says otherwise.
class TestClient {
 public:
  // Connects to a core; says nothing yet.
  explicit TestClient(SessionBench& bench, CoreId core = 0);
  // Connects and logs in, and takes the welcome.
  TestClient(SessionBench& bench, CoreId core, std::string_view user,
             const std::vector<std::pair<std::string, std::string>>& parameters = {});
  TestClient(TestClient&& other) noexcept
      : bench_(other.bench_), fd_(std::exchange(other.fd_, -1)), inbox_(std::move(other.inbox_)) {}
  TestClient& operator=(TestClient&&) = delete;

  void write(std::string_view bytes);
  void write_later(std::string_view bytes);  // Does not settle.
  void query(std::string_view text) { write(query_message(text)); }

  // The messages that have come since the last call. Requires: no part of one.
  [[nodiscard]] std::vector<WireMessage> take();
  // Bytes, of messages or not.
  [[nodiscard]] std::string take_bytes();
  [[nodiscard]] std::string take_tags() { return tags_of(take()); }
  // The SQLSTATE of the one error among what has come; empty when there is none.
  [[nodiscard]] std::string take_error();

  // Nothing will come behind what has come.
  [[nodiscard]] bool is_closed();
  void close();
  void reset();
  [[nodiscard]] int fd() const { return fd_; }

 private:
  SessionBench& bench_;
  int fd_;
  std::string inbox_;
};

// Logs in, and returns the BackendKeyData.
WireMessage log_in(TestClient& client, std::string_view startup = {});
// The packet that cancels what the client of this BackendKeyData does. `key_data`: its body.
[[nodiscard]] std::string cancel_request(std::string_view key_data);

}  // namespace helios::test
