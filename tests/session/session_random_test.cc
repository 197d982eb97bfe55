// Many clients doing what they like on a network that cuts, delays and breaks: nobody ever sees
// another's bytes, everybody is answered or told, and in the end everything is back.
#include <doctest/doctest.h>

#include <deque>

#include "helios/wire/writer.h"
#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

constexpr uint64_t seeds_count = 200;
constexpr int clients_count = 8;
constexpr int backends_max = 3;

// One application that sends units of work, pipelined, in pieces of any size.
class RandomClient {
 public:
  RandomClient(SessionBench& bench, SimRandom& random, int number)
      : bench_(bench),
        random_(random),
        client_(bench, static_cast<CoreId>(number % bench.options.cores_count)),
        mark_("c" + std::to_string(number) + "-"),
        units_left_(1 + static_cast<int>(random.below(6))) {
    std::vector<std::pair<std::string, std::string>> parameters;
    if (random.percent(50)) {
      name_ = mark_ + "name";
      parameters.emplace_back("application_name", name_);
    }
    outbox_ = startup_packet("me", "db", parameters);
  }

  // Does one thing of its choice. True while it has something to do or to wait for.
  bool act() {
    if (is_gone_) return false;
    read();
    if (is_gone_) return false;
    if (random_.below(1000) < 2) {
      leave();
      return false;
    }
    if (outbox_.empty() && units_left_ > 0 && random_.percent(60)) {
      --units_left_;
      outbox_ = unit();
      if (units_left_ == 0 && random_.percent(25)) {
        outbox_ += frame('X', {});
        has_said_goodbye_ = true;
      }
    }
    if (!outbox_.empty()) {
      const size_t size = random_.percent(50) ? outbox_.size() : 1 + random_.below(outbox_.size());
      client_.write_later(outbox_.substr(0, size));
      outbox_.erase(0, size);
      return true;
    }
    if (units_left_ > 0) return true;
    if (has_said_goodbye_ && random_.percent(50)) leave();
    if (ready_due_ > 0) return true;
    REQUIRE(expected_.size() <= lost_texts_max_);
    leave();
    return !is_gone_;
  }

  void leave() {
    if (is_gone_) return;
    is_gone_ = true;
    if (random_.percent(30)) bench_.network.reset(client_.fd());
    // Without settling: others go on meanwhile.
    bench_.network.close(client_.fd());
  }

  [[nodiscard]] bool is_gone() const { return is_gone_; }
  [[nodiscard]] bool was_served() const { return was_served_; }
  // The pooler ended the connection.
  [[nodiscard]] bool was_cut() const { return was_cut_; }
  [[nodiscard]] const std::string& key() const { return key_; }
  [[nodiscard]] size_t notices_count() const { return notices_count_; }

 private:
  std::string next_text() {
    std::string text = mark_ + std::to_string(++texts_count_) + "-";
    const uint64_t kind = random_.below(10);
    text.append(kind == 0 ? random_.below(60'000) : kind < 3 ? random_.below(5000) : 5, 'x');
    expected_.push_back(text);
    return text;
  }

  std::string unit() {
    const auto extended = [](const std::string& name, const std::string& text) {
      return parse_message(name, text) + bind_message("", name) + execute_message();
    };
    ready_due_ += 1;
    switch (random_.below(10)) {
      case 0:
      case 1:
        return query_message(next_text());
      case 2:
        return extended("", next_text()) + sync_message();
      case 3: {
        ready_due_ += 2;
        return query_message("BEGIN") + query_message(next_text()) + query_message("COMMIT");
      }
      case 4:
        ready_due_ += 3;
        return query_message("BEGIN") + query_message("FAIL") + query_message("lost") +
               query_message("ROLLBACK");
      case 5:
        return parse_message("", "BADPARSE") + extended("", "lost") + sync_message();
      case 6:
        return query_message("COPYIN") + frame('d', std::string(random_.below(3000), 'd')) +
               (random_.percent(50) ? frame('c', {}) : frame('f', std::string(1, '\0')));
      case 7:
        name_ = mark_ + "set" + std::to_string(texts_count_);
        return query_message("SET application_name='" + name_ + "'");
      case 8:
        ready_due_ += 1;
        return extended("s", next_text()) + sync_message() + close_message("s") + sync_message();
      default: {
        const std::string first = next_text();
        return extended("", first) + flush_message() + extended("", next_text()) + sync_message();
      }
    }
  }

  void read() {
    inbox_ += client_.take_bytes();
    for (const WireMessage& message : take_messages(inbox_)) on_message(message);
    if (client_.is_closed() && bench_.network.peek(client_.fd()).empty()) {
      is_gone_ = true;
      was_cut_ = !has_said_goodbye_;
      bench_.network.close(client_.fd());
    }
  }

  void on_message(const WireMessage& message) {
    switch (message.tag) {
      case 'D': {
        // Its BEGIN was lost, and what it had sent behind that without a look at the answer was
        // not.
        if (has_lost_backend_ && message.body.substr(6) == "lost") return;
        REQUIRE(!expected_.empty());
        for (; lost_texts_max_ > 0 && message.body.substr(6) != expected_.front();
             --lost_texts_max_) {
          expected_.pop_front();
          REQUIRE(!expected_.empty());
        }
        REQUIRE(message.body.substr(6) == expected_.front());
        expected_.pop_front();
        was_served_ = true;
        return;
      }
      case 'S':
        if (message.body.compare(0, 17, std::string("application_name\0", 17)) == 0) {
          const std::string value = message.body.substr(17, message.body.size() - 18);
          if (!value.empty()) REQUIRE(value.compare(0, mark_.size(), mark_) == 0);
        }
        return;
      case 'K':
        key_ = message.body;
        return;
      case 'N':
        // The server has nothing to say: it is told that it waits.
        REQUIRE(is_welcome_);
        REQUIRE(ready_due_ > 0);
        ++notices_count_;
        return;
      case 'Z':
        if (!is_welcome_) {
          is_welcome_ = true;
          return;
        }
        REQUIRE(ready_due_ > 0);
        --ready_due_;
        return;
      case 'E':
        // Its own mistakes, or the end.
        if (field_of(message, 'V') == "ERROR") {
          const std::string code = field_of(message, 'C');
          REQUIRE((code == "22012" || code == "25P02" || code == "57014" || code == "08006"));
          has_lost_backend_ |= code == "08006";
          // A wait was cancelled, or the backend was lost: what was asked has no answer, and a unit
          // has two at the most. A transaction that was lost goes on as a failed one.
          if (code == "57014" || has_lost_backend_) lost_texts_max_ += 2;
        }
        return;
      default:
        return;
    }
  }

  SessionBench& bench_;
  SimRandom& random_;
  TestClient client_;
  std::string mark_;
  std::string name_;
  std::string outbox_;
  std::string inbox_;
  std::string key_;
  std::deque<std::string> expected_;
  int units_left_;
  size_t lost_texts_max_ = 0;
  int texts_count_ = 0;
  int ready_due_ = 0;
  size_t notices_count_ = 0;
  bool is_welcome_ = false;
  bool has_said_goodbye_ = false;
  bool has_lost_backend_ = false;
  bool is_gone_ = false;
  bool was_served_ = false;
  bool was_cut_ = false;
};

struct Outcome {
  size_t served_count = 0;
  size_t cancels_count = 0;
  uint64_t moves_count = 0;
  size_t notices_count = 0;
  size_t refused_count = 0;
  uint64_t recoveries_count = 0;
};

void ask_to_cancel(SessionBench& bench, SimRandom& random, const std::string& key,
                   std::vector<TestClient>& askers) {
  if (key.empty()) return;
  askers.emplace_back(bench, static_cast<CoreId>(random.below(bench.options.cores_count)));
  askers.back().write_later(cancel_request(key));
}

BenchOptions options_for(uint64_t seed) {
  BenchOptions options;
  options.cores_count = static_cast<CoreId>(1 + seed % 3);
  options.limits.max_connections = backends_max;
  options.limits.mode = seed % 5 == 4 ? LeaseMode::session : LeaseMode::transaction;
  options.limits.reserve_connections = seed % 4 < 2 ? 2 : 0;
  options.limits.reserve_after = milliseconds(10);
  options.limits.wait_notice = milliseconds(seed % 8 < 4 ? 15 : 0);
  options.buffers_count = seed % 2 == 0 ? 64 : 6;
  options.network = SimOptions();
  options.network.seed = seed;
  options.network.socket_buffer_size = seed % 4 == 0 ? 700 : 16384;
  options.node.connecting_max = static_cast<uint32_t>(1 + seed % 4);
  options.limits.min_connections = static_cast<uint32_t>(seed / 2 % 4);
  if (seed % 5 == 2) options.limits.connect_query = "SET TimeZone='cet'";
  if (seed % 6 == 1) options.limits.max_lifetime = seconds(3);
  if (seed % 3 == 0) {
    options.network.connect_refused_percent = 10;
    options.network.reset_per_mille = 1;
    options.limits.max_waiters = seed % 2 == 0 ? 3 : 0;
  }
  return options;
}

Outcome run(uint64_t seed) {
  SessionBench bench(options_for(seed));
  SimRandom random(seed * 1000);
  std::vector<std::unique_ptr<RandomClient>> clients;
  for (int i = 0; i < clients_count; ++i)
    clients.push_back(std::make_unique<RandomClient>(bench, random, i));
  std::vector<TestClient> askers;
  bool is_draining = false;
  size_t turns = 0;
  for (bool is_busy = true; is_busy;) {
    REQUIRE(++turns < 300'000);
    is_busy = false;
    for (const auto& client : clients) is_busy |= !client->is_gone();
    static_cast<void>(clients[random.below(clients_count)]->act());
    for (uint64_t i = random.below(8); i > 0; --i) {
      // Nothing moves: time has to.
      if (!bench.step()) bench.pass(milliseconds(20));
    }
    const uint64_t chance = random.below(3000);
    if (chance == 0 && seed % 3 == 0) {
      const auto open = bench.server.open_sessions();
      if (!open.empty()) open[random.below(open.size())]->end();
    } else if (chance == 1) {
      bench.pass(milliseconds(1500));
    } else if (chance < 6) {
      ask_to_cancel(bench, random, clients[random.below(clients_count)]->key(), askers);
    } else if (chance == 7 && seed % 7 == 0 && !is_draining) {
      is_draining = true;
      bench.begin_drain();
    }
  }
  bench.network.options().reset_per_mille = 0;
  for (TestClient& asker : askers) asker.close();
  bench.settle();
  bench.advance(seconds(61));

  Outcome outcome;
  uint32_t permits = 0;
  uint32_t backends = 0;
  for (CoreId id = 0; id < bench.options.cores_count; ++id) {
    BenchCore& core = bench.core(id);
    CHECK(core.sessions.is_empty());
    const Slice& slice = bench.slice(id);
    CHECK(slice.waiters_count() == 0);
    CHECK(slice.idle_count() == slice.backends_count());
    permits += slice.permits_free() + slice.connecting_count();
    backends += slice.backends_count();
    const PoolCounters counters = core.pools.statistics().total.counters;
    outcome.cancels_count += counters.cancels;
    outcome.moves_count += counters.moves_in;
    outcome.refused_count += counters.waits_refused;
    outcome.recoveries_count += counters.recoveries;
    CHECK(counters.violations == 0);
    CHECK(core.io.lent_count(BufferGroup::client) == 0);
    CHECK(core.io.lent_count(BufferGroup::backend) == 0);
    CHECK(core.chunks.lent_count() == 0);
  }
  CHECK(permits + backends == backends_max);
  const PoolShared& shared = *bench.slice().spec().shared;
  CHECK(shared.waiters.taken() == 0);
  CHECK(shared.reserve.taken() == 0);
  CHECK(shared.connections->limit->taken() == backends);
  CHECK(bench.node.limit.taken() == backends);
  CHECK(bench.node.gate.taken() == 0);
  if (is_draining) CHECK(bench.is_empty());
  // Where nothing breaks, nobody is disturbed by those who leave without a word.
  const bool is_calm = seed % 3 != 0 && !is_draining;
  for (const auto& client : clients)
    if (is_calm) CHECK_FALSE(client->was_cut());
  for (const auto& client : clients) {
    outcome.served_count += client->was_served() ? 1 : 0;
    outcome.notices_count += client->notices_count();
  }
  return outcome;
}

TEST_CASE("no client ever sees another's bytes, and everything comes back") {
  Outcome total;
  for (uint64_t seed = 1; seed <= seeds_count; ++seed) {
    CAPTURE(seed);
    const Outcome outcome = run(seed);
    total.served_count += outcome.served_count;
    total.cancels_count += outcome.cancels_count;
    total.moves_count += outcome.moves_count;
    total.notices_count += outcome.notices_count;
    total.refused_count += outcome.refused_count;
    total.recoveries_count += outcome.recoveries_count;
  }
  // The test did what it is for.
  CHECK(total.served_count > seeds_count * clients_count / 2);
  CHECK(total.cancels_count > seeds_count / 10);
  CHECK(total.moves_count > seeds_count / 10);
  CHECK(total.notices_count > seeds_count / 10);
  CHECK(total.refused_count > 0);
  CHECK(total.recoveries_count > seeds_count / 10);
}

}  // namespace
}  // namespace helios
