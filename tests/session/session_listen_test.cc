// LISTEN and NOTIFY: clients that listen have no backend, and hear what they would hear with one.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>

#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

using Texts = std::vector<std::string>;

BenchOptions listening(uint32_t max_connections = 1, CoreId cores_count = 1) {
  BenchOptions options = with_ageless_backends(max_connections, cores_count);
  options.limits.session_state = StatePolicy::follow;
  return options;
}

uint32_t process_id_of(const WireMessage& notification) {
  return load_be32(as_bytes(notification.body).data());
}

// Channel and payload.
std::string said(const WireMessage& notification) {
  std::string text = notification.body.substr(4);
  text.pop_back();
  std::replace(text.begin(), text.end(), '\0', ' ');
  return text;
}

Texts heard(const std::vector<WireMessage>& messages) {
  Texts texts;
  for (const WireMessage& message : messages)
    if (message.tag == 'A') texts.push_back(said(message));
  return texts;
}

bool is_hub(const ServerSession& server) {
  for (const std::string& channel : server.state.channels)
    if (channel.starts_with("heliosproxy_")) return true;
  return false;
}

std::vector<ServerSession*> hubs_of(SessionBench& bench) {
  std::vector<ServerSession*> hubs = bench.server.open_sessions();
  std::erase_if(hubs, [](const ServerSession* one) { return !is_hub(*one); });
  return hubs;
}

// The only backend of a client, beside a hub.
ServerSession& backend_of(SessionBench& bench) {
  std::vector<ServerSession*> backends = bench.server.open_sessions();
  std::erase_if(backends, [](const ServerSession* one) { return is_hub(*one); });
  REQUIRE(backends.size() == 1);
  return *backends.front();
}

std::string notification(uint32_t process_id, std::string_view channel, std::string_view payload) {
  std::vector<uint8_t> bytes;
  MessageWriter writer(bytes);
  write_notification(writer, process_id, channel, payload);
  return std::string(as_text(bytes));
}

// The marker channel and the id of the marker that this text sends.
std::pair<std::string, std::string> marker_in(const std::string& text) {
  const size_t begin = text.rfind("NOTIFY \"") + 8;
  const size_t end = text.find('"', begin);
  const size_t id = end + 3;
  return {text.substr(begin, end - begin), text.substr(id, text.find('\'', id) - id)};
}

TEST_CASE("a client that listens leaves the only backend to others") {
  SessionBench bench(listening());
  TestClient one(bench, 0, "me");
  TestClient other(bench, 0, "me");
  one.query("LISTEN news");
  CHECK(one.take_tags() == "CZ");
  CHECK(bench.slice().idle_count() == 1);
  REQUIRE(hubs_of(bench).size() == 1);
  CHECK(backend_of(bench).state.channels.empty());
  CHECK(hubs_of(bench)[0]->startup().at("application_name") == "heliosproxy hub");
  other.query("NOTIFY news,'hello'");
  CHECK(other.take_tags() == "CZ");
  CHECK(heard(one.take()) == Texts{"news hello"});
  CHECK(bench.slice().counters.pins.total() == 0);
  CHECK(bench.slice().counters.resets == 0);
  one.query("UNLISTEN news");
  CHECK(one.take_tags() == "CZ");
  CHECK(hubs_of(bench).empty());
  other.query("NOTIFY news,'hello'");
  CHECK(one.take().empty());
}

TEST_CASE("a client's own notification comes before the end of its statement, as it was told") {
  SessionBench bench(listening());
  TestClient one(bench);
  one.write(startup_packet("me", "db"));
  uint32_t told_process_id = 0;
  for (const WireMessage& message : one.take())
    if (message.tag == 'K') told_process_id = load_be32(as_bytes(message.body).data());
  TestClient other(bench, 0, "me");
  one.query("LISTEN news");
  other.query("SELECT 1");
  static_cast<void>(one.take());
  one.query("NOTIFY news,'mine'");
  const std::vector<WireMessage> answer = one.take();
  CHECK(tags_of(answer) == "CAZ");
  CHECK(heard(answer) == Texts{"news mine"});
  bench.sessions().for_each([&](Session& session) {
    if (session.state() != Session::State::ready) return;
    CHECK(process_id_of(answer[1]) != backend_of(bench).process_id());
  });
  CHECK(process_id_of(answer[1]) == told_process_id);
}

TEST_CASE("what is rolled back listens to nothing") {
  SessionBench bench(listening());
  TestClient one(bench, 0, "me");
  for (const std::string_view text : {"BEGIN", "LISTEN news", "ROLLBACK"}) one.query(text);
  CHECK(hubs_of(bench).empty());
  CHECK(bench.slice().idle_count() == 1);
  one.query("LISTEN news");
  for (const std::string_view text : {"BEGIN", "UNLISTEN news", "ROLLBACK"}) one.query(text);
  CHECK(hubs_of(bench).size() == 1);
  CHECK(bench.slice().idle_count() == 1);
}

TEST_CASE("clients of a core have one hub, which listens as long as one of them does") {
  SessionBench bench(listening(2));
  std::vector<TestClient> clients;
  for (int i = 0; i < 4; ++i) clients.emplace_back(bench, 0, "me");
  for (TestClient& client : clients) client.query("LISTEN news");
  clients[0].query("LISTEN more");
  REQUIRE(hubs_of(bench).size() == 1);
  CHECK(hubs_of(bench)[0]->state.channels.size() == 3);
  clients[0].query("UNLISTEN more");
  CHECK(hubs_of(bench)[0]->state.channels.size() == 2);
  for (TestClient& client : clients) static_cast<void>(client.take());
  clients[0].query("NOTIFY news,'x'");
  for (TestClient& client : clients) CHECK(heard(client.take()) == Texts{"news x"});
  for (TestClient& client : clients) client.close();
  CHECK(hubs_of(bench).empty());
  CHECK(bench.slice().idle_count() == bench.slice().backends_count());
}

TEST_CASE("listeners that come and go leave no pools behind") {
  SessionBench bench(listening());
  for (int i = 0; i < 20; ++i) {
    TestClient one(bench, 0, "me");
    one.query("LISTEN news");
    CHECK(one.take_tags() == "CZ");
    CHECK(hubs_of(bench).size() == 1);
  }
  int pools_count = 0;
  bench.pools().for_each_pool([&](const PoolEntry&) { ++pools_count; });
  CHECK(pools_count == 2);
}

// --- The change from one connection to the other

// The hub is made and everything of it is under the test's hand: what it brings, and when.
struct HandedOver {
  HandedOver() : bench(listening()), one(bench, 0, "me") {
    one.query("LISTEN news");
    static_cast<void>(one.take());
    hub = hubs_of(bench).at(0);
    hub->is_silent = true;
    hub->state.channels.clear();  // The test says what it hears.
    own = &backend();
    own->log.clear();
  }
  [[nodiscard]] ServerSession& backend() {
    for (ServerSession* one_of_them : bench.server.open_sessions())
      if (one_of_them != hub) return *one_of_them;
    UNREACHABLE("no backend");
  }
  // What the backend was asked last.
  [[nodiscard]] std::pair<std::string, std::string> last_marker() const {
    std::pair<std::string, std::string> marker;
    for (const WireMessage& message : own->log)
      if (message.body.starts_with("SET LOCAL synchronous_commit"))
        marker = marker_in(message.body);
    return marker;
  }
  void show_marker() {
    const auto [channel, id] = last_marker();
    hub->write(notification(own->process_id(), channel, id));
    bench.settle();
  }
  void say(std::string_view payload) {
    hub->write(notification(77, "news", payload));
    bench.settle();
  }

  SessionBench bench;
  TestClient one;
  ServerSession* hub = nullptr;
  ServerSession* own = nullptr;
};

TEST_CASE(
    "a client's messages wait until its backend has taken over, and what comes goes in order") {
  HandedOver test;
  test.say("a");
  CHECK(heard(test.one.take()) == Texts{"news a"});
  test.one.query("NOTIFY news,'own'");
  CHECK(test.one.take().empty());
  // Behind the marker in the backend's, before it in the hub's.
  test.own->write(notification(78, "news", "c"));
  test.say("b");
  CHECK(heard(test.one.take()) == Texts{"news b"});
  test.show_marker();
  CHECK(heard(test.one.take()) == Texts{"news c", "news own"});
  // The hub's are of no account now.
  test.say("c");
  CHECK(test.one.take().empty());
}

TEST_CASE("what a backend brings before its marker is the hub's to bring") {
  HandedOver test;
  test.own->is_silent = true;
  test.one.query("SELECT 1");
  const auto [channel, id] = test.last_marker();
  // Between its LISTEN and its marker somebody else has committed.
  test.own->write(notification(77, "news", "a"));
  test.own->write(complete("LISTEN") + notification(test.own->process_id(), channel, id) + ready() +
                  complete("UNLISTEN") + ready());
  test.say("a");
  test.show_marker();
  REQUIRE(test.own->log.back().body == std::string("SELECT 1\0", 9));
  test.own->write(notification(77, "news", "b") + echo("SELECT 1") + ready());
  test.bench.settle();
  CHECK(heard(test.one.take()) == Texts{"news a", "news b"});
}

TEST_CASE("a backend that is given back is not waited for by its client's next transaction alone") {
  HandedOver test;
  test.one.query("SELECT 1");
  test.show_marker();  // It has taken over, and handed over.
  CHECK(test.one.take_tags() == "TDCZ");
  CHECK(test.bench.slice().idle_count() == 1);
  // The hub is late: it has not come to the marker.
  test.say("too early, and delivered by the backend");
  CHECK(test.one.take().empty());
  test.one.query("SELECT 2");
  const auto [channel, second] = test.last_marker();
  const std::string first = std::to_string(std::stoul(second) - 1);
  test.hub->write(notification(test.own->process_id(), channel, first));
  test.say("between");
  CHECK(heard(test.one.take()) == Texts{"news between"});
  test.hub->write(notification(test.own->process_id(), channel, second));
  test.bench.settle();
  CHECK(test.one.take_tags() == "TDCZ");
}

TEST_CASE("a marker of somebody else is none") {
  HandedOver test;
  test.one.query("SELECT 1");
  const auto [channel, id] = test.last_marker();
  test.hub->write(notification(test.own->process_id() + 1, channel, id));
  test.hub->write(notification(test.own->process_id(), channel, "x" + id));
  test.bench.settle();
  CHECK(test.one.take().empty());
  test.show_marker();
  CHECK(test.one.take_tags() == "TDCZ");
}

TEST_CASE("a hub that does not show a marker is replaced") {
  HandedOver test;
  test.one.query("SELECT 1");
  test.bench.pass(seconds(31));
  test.bench.settle();
  CHECK(test.one.take_error() == "08006");
  CHECK(test.one.is_closed());
  CHECK(hubs_of(test.bench).empty());
}

// Listeners and senders do what they like, and the network delivers when it likes.
class RandomListening {
 public:
  static constexpr int listeners_count = 3;
  static constexpr int clients_count = 5;

  RandomListening(uint64_t seed, bool breaks)
      : random_(seed), breaks_(breaks), bench_(options_of(seed)) {
    bench_.server.on_read = [this](const ServerSession&, const WireMessage& message) {
      if (message.tag == 'Q' && message.body.starts_with("NOTIFY news"))
        committed_.push_back("news " + message.body.substr(13, message.body.size() - 15));
    };
    for (int i = 0; i < clients_count; ++i)
      clients_.emplace_back(bench_, static_cast<CoreId>(i % bench_.options.cores_count), "me");
    for (int i = 0; i < listeners_count; ++i) clients_[i].query("LISTEN news");
    for (int i = 0; i < listeners_count; ++i) CHECK(clients_[i].take_tags() == "CZ");
  }

  void run() {
    for (int turn = 0; turn < 80; ++turn) {
      act(static_cast<int>(random_.below(clients_count)), turn);
      if (breaks_ && random_.percent(3)) break_something();
      for (uint64_t steps = random_.below(40); steps > 0; --steps) bench_.step();
    }
    bench_.settle();
    // Where connects have failed, the next come later.
    if (breaks_) bench_.advance_in_steps(seconds(5), milliseconds(500));
    for (int i = 0; i < clients_count; ++i) read(i);
  }

  // Each has heard everything once, in the order of commits: up to its end, if it was ended.
  void check() {
    for (int i = 0; i < clients_count; ++i) {
      if (ended_[i]) continue;
      CHECK(due_[i] == 0);
      if (i < listeners_count) REQUIRE(heard_[i] == committed_);
    }
    for (int i = 0; i < listeners_count; ++i) {
      REQUIRE(heard_[i].size() <= committed_.size());
      REQUIRE(std::equal(heard_[i].begin(), heard_[i].end(), committed_.begin()));
    }
  }
  [[nodiscard]] int ended_count() const {
    return static_cast<int>(std::count(ended_.begin(), ended_.end(), true));
  }

 private:
  BenchOptions options_of(uint64_t seed) {
    BenchOptions options = listening(1 + static_cast<uint32_t>(random_.below(3)),
                                     1 + static_cast<CoreId>(random_.below(2)));
    options.network = {seed, 20, 20, 5, 0, 0, 16384};
    return options;
  }

  void read(int i) {
    inboxes_[i] += clients_[i].take_bytes();
    for (const WireMessage& message : take_messages(inboxes_[i])) {
      if (message.tag == 'E') ended_[i] = true;
      if (message.tag == 'Z') --due_[i];
      if (message.tag == 'A') heard_[i].push_back(said(message));
    }
    if (clients_[i].is_closed()) ended_[i] = true;
  }

  void act(int i, int turn) {
    read(i);
    if (ended_[i] || (due_[i] > 0 && !random_.percent(10))) return;
    const std::string text = "NOTIFY news,'" + std::to_string(turn) + "'";
    const std::string of_listeners[] = {"SELECT 1", "LISTEN other", "UNLISTEN other", text};
    clients_[i].write_later(
        query_message(i < listeners_count ? of_listeners[random_.below(4)] : text));
    ++due_[i];
    if (i >= listeners_count || random_.percent(70)) return;
    clients_[i].write_later(query_message("BEGIN") + query_message("SELECT 2") +
                            query_message("COMMIT"));
    due_[i] += 3;
  }

  // A server process, be it a hub or not, or a client goes.
  void break_something() {
    const std::vector<ServerSession*> servers = bench_.server.open_sessions();
    const int i = static_cast<int>(random_.below(clients_count));
    if (random_.percent(60) && !servers.empty()) {
      servers[random_.below(servers.size())]->end();
    } else if (!ended_[i] && random_.percent(30)) {
      read(i);
      ended_[i] = true;
      bench_.network.reset(clients_[i].fd());
    }
  }

  SimRandom random_;
  bool breaks_;
  SessionBench bench_;
  Texts committed_;
  std::vector<TestClient> clients_;
  std::array<Texts, clients_count> heard_;
  std::array<std::string, clients_count> inboxes_;
  std::array<int, clients_count> due_{};
  std::array<bool, clients_count> ended_{};
};

TEST_CASE("nothing is lost, doubled or disordered, whatever comes when") {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    CAPTURE(seed);
    RandomListening test(seed, false);
    test.run();
    test.check();
    REQUIRE(test.ended_count() == 0);
  }
}

TEST_CASE("whatever breaks, who is not told has missed nothing") {
  int ended_count = 0;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    CAPTURE(seed);
    RandomListening test(seed, true);
    test.run();
    test.check();
    ended_count += test.ended_count();
  }
  CHECK(ended_count > 300);
  CHECK(ended_count < 300 * RandomListening::clients_count);
}

TEST_CASE("a limit that becomes too small for hubs ends them") {
  BenchOptions options = listening(2);
  options.node.max_connections = 4;
  SessionBench bench(options);
  TestClient one(bench, 0, "me");
  TestClient other(bench, 0, "me");
  one.query("LISTEN news");
  static_cast<void>(one.take());
  bench.node.limit.set_max(1);
  bench.reload([](BenchDirectory&) {});
  CHECK(one.take_error() == "08006");
  other.query("SELECT 1");
  bench.advance(seconds(2));
  CHECK(other.take_tags() == "TDCZ");
  CHECK(hubs_of(bench).empty());
}

// --- What ends

TEST_CASE("a lost hub ends those who have nothing else, and no others") {
  SessionBench bench(listening(2));
  TestClient idle(bench, 0, "me");
  TestClient busy(bench, 0, "me");
  TestClient other(bench, 0, "me");
  idle.query("LISTEN news");
  busy.query("LISTEN news");
  busy.query("BEGIN");
  static_cast<void>(busy.take());
  hubs_of(bench).at(0)->end();
  bench.settle();
  CHECK(idle.take_error() == "08006");
  CHECK(idle.is_closed());
  other.query("NOTIFY news,'x'");
  busy.query("COMMIT");
  CHECK(heard(busy.take()) == Texts{"news x"});
  bench.advance(seconds(2));
  REQUIRE(hubs_of(bench).size() == 1);
  CHECK(bench.slice().idle_count() == bench.slice().backends_count());
  other.query("NOTIFY news,'y'");
  CHECK(heard(busy.take()) == Texts{"news y"});
}

TEST_CASE("a client that does not read is ended beyond a limit, others go on") {
  BenchOptions options = listening();
  options.limits.max_client_notifications_size = 100'000;
  SessionBench bench(options);
  TestClient slow(bench, 0, "me");
  TestClient fast(bench, 0, "me");
  TestClient other(bench, 0, "me");
  slow.query("LISTEN news");
  fast.query("LISTEN news");
  static_cast<void>(slow.take());
  static_cast<void>(fast.take());
  const std::string text = "NOTIFY news,'" + std::string(5000, 'x') + "'";
  for (int i = 0; i < 40; ++i) {
    other.query(text);
    CHECK(heard(fast.take()).size() == 1);
  }
  const std::vector<WireMessage> found = [&] {
    std::string bytes;
    for (std::string piece; !(piece = slow.take_bytes()).empty(); bench.settle()) bytes += piece;
    return take_messages(bytes);
  }();
  REQUIRE(!found.empty());
  CHECK(field_of(found.back(), 'C') == "53200");
  CHECK(found.size() < 40);
  CHECK(slow.is_closed());
}

TEST_CASE("a client's backend that is lost ends it") {
  SessionBench bench(listening());
  TestClient one(bench, 0, "me");
  one.query("LISTEN news");
  one.query("BEGIN");
  static_cast<void>(one.take());
  backend_of(bench).end();
  bench.settle();
  CHECK(one.take_error() == "08006");
  CHECK(hubs_of(bench).empty());
}

TEST_CASE("clients that leave wherever they are leave nothing behind") {
  for (const std::string_view last : {"LISTEN news", "BEGIN", "SELECT 1", "LISTEN more"}) {
    for (int steps = 0; steps < 40; ++steps) {
      CAPTURE(last);
      CAPTURE(steps);
      SessionBench bench(listening());
      TestClient one(bench, 0, "me");
      if (last != "LISTEN news") one.query("LISTEN news");
      one.write_later(query_message(last));
      for (int i = 0; i < steps; ++i) bench.step();
      one.close();
      bench.settle();
      CHECK(hubs_of(bench).empty());
      TestClient other(bench, 0, "me");
      other.query("NOTIFY news,'x'");
      CHECK(other.take_tags() == "CZ");
      for (ServerSession* server : bench.server.open_sessions())
        CHECK(server->state.channels.empty());
    }
  }
}

// --- Where there is no hub

TEST_CASE("without room for a hub the client keeps its backend") {
  BenchOptions options = listening(2);
  options.node.max_connections = 1;
  SessionBench bench(options);
  TestClient one(bench, 0, "me");
  TestClient other(bench, 0, "me");
  one.query("LISTEN news");
  CHECK(one.take_tags() == "CZ");
  bench.advance(seconds(2));
  CHECK(bench.slice().counters.pins[PinReason::listening] == 1);
  one.query("NOTIFY news,'x'");
  CHECK(heard(one.take()) == Texts{"news x"});
  other.query("SELECT 1");
  CHECK(other.take().empty());
  one.query("UNLISTEN *");
  CHECK(other.take_tags() == "TDCZ");
}

TEST_CASE("a policy that pins, pins") {
  BenchOptions options = listening();
  options.limits.session_state = StatePolicy::pin;
  SessionBench bench(options);
  TestClient one(bench, 0, "me");
  one.query("LISTEN news");
  CHECK(bench.slice().idle_count() == 0);
  CHECK(bench.slice().counters.pins[PinReason::listening] == 1);
  one.query("UNLISTEN news");
  CHECK(bench.slice().idle_count() == 1);
}

TEST_CASE("with another reason to keep its backend a client listens there") {
  SessionBench bench(listening());
  TestClient one(bench, 0, "me");
  one.query("SELECT pg_advisory_lock(1)");
  one.query("LISTEN news");
  CHECK(hubs_of(bench).empty());
  CHECK(bench.slice().idle_count() == 0);
  one.query("SELECT pg_advisory_unlock(1)");
  CHECK(hubs_of(bench).size() == 1);
  CHECK(bench.slice().idle_count() == 1);
}

TEST_CASE("a hub goes with its listeners to the next generation of the pool") {
  SessionBench bench(listening());
  TestClient one(bench, 0, "me");
  TestClient other(bench, 0, "me");
  one.query("LISTEN news");
  static_cast<void>(one.take());
  const uint32_t hub = hubs_of(bench).at(0)->process_id();
  bench.reload([](BenchDirectory& next) { next.limits.max_connections = 2; });
  other.query("NOTIFY news,'x'");
  CHECK(heard(one.take()) == Texts{"news x"});
  one.query("SELECT 1");
  other.query("NOTIFY news,'y'");
  CHECK(heard(one.take()) == Texts{"news y"});
  REQUIRE(hubs_of(bench).size() == 1);
  CHECK(hubs_of(bench)[0]->process_id() == hub);
}

TEST_CASE("in session mode, which a reload may bring, a listener has a backend of its own") {
  SessionBench bench(listening(2));
  TestClient one(bench, 0, "me");
  TestClient other(bench, 0, "me");
  one.query("LISTEN news");
  static_cast<void>(one.take());
  bench.reload([](BenchDirectory& next) { next.limits.mode = LeaseMode::session; });
  for (int i = 0; i < 3; ++i) {
    one.query("SELECT 1");
    CHECK(one.take_tags() == "TDCZ");
    other.query("NOTIFY news,'" + std::to_string(i) + "'");
    CHECK(heard(one.take()) == Texts{"news " + std::to_string(i)});
  }
}

TEST_CASE("where the pool goes to another server its listeners are told") {
  SessionBench bench(listening());
  Node elsewhere(bench.options.node, bench.resolver);
  TestClient one(bench, 0, "me");
  one.query("LISTEN news");
  static_cast<void>(one.take());
  bench.reload([&](BenchDirectory& next) { next.node = &elsewhere; });
  CHECK(one.take_error() == "57P01");
  CHECK(one.is_closed());
  bench.finish();
}

TEST_CASE("a process that stops tells its listeners") {
  SessionBench bench(listening());
  TestClient one(bench, 0, "me");
  one.query("LISTEN news");
  static_cast<void>(one.take());
  bench.start_drain();
  CHECK(one.take_error() == "57P01");
  CHECK(bench.is_empty());
}

}  // namespace
}  // namespace helios
