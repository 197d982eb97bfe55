#include "helios/pool/node_health.h"

#include <doctest/doctest.h>

#include <algorithm>

namespace helios {
namespace {

constexpr uint64_t no_jitter = 0;
const PoolError refused{"08006", "refused"};

SocketAddress address(const char* host) {
  return literal_address(host, 5432).value();
}

// One node with these addresses; time moves by hand.
struct Bench {
  explicit Bench(std::vector<SocketAddress> all) : addresses(std::move(all)) {}
  std::optional<NodeAttempt> begin() { return health.begin_attempt(addresses, now); }
  std::optional<NodeAttempt> probe() { return health.begin_probe(addresses, now); }
  // Where the next connection goes; empty when none is allowed.
  std::string next() {
    const auto attempt = begin();
    if (!attempt) return {};
    health.on_abandoned(*attempt);
    return attempt->address.text();
  }
  bool fail(uint64_t random = no_jitter) {
    const auto attempt = begin();
    REQUIRE(attempt.has_value());
    return health.on_failure(*attempt, refused, now, random);
  }

  std::vector<SocketAddress> addresses;
  NodeHealth health;
  Nanoseconds now = seconds(1000);
};

}  // namespace

TEST_CASE("a node is up until a connect to its only address fails") {
  Bench bench({address("10.0.0.1")});
  CHECK(!bench.health.is_down());
  CHECK(bench.health.retry_at() == never);
  CHECK(bench.next() == "10.0.0.1:5432");
  CHECK(bench.fail());
  CHECK(bench.health.is_down());
  CHECK(bench.health.last_error().message == "refused");
  CHECK(bench.next().empty());
  CHECK(bench.health.retry_at() == bench.now + milliseconds(50));
}

TEST_CASE(
    "a node that is down is tried by one attempt at a time, with pauses that grow to a second") {
  Bench bench({address("10.0.0.1")});
  CHECK(bench.fail());
  for (const int pause_ms : {50, 100, 200, 400, 800, 1000, 1000}) {
    CAPTURE(pause_ms);
    CHECK(bench.health.retry_at() == bench.now + milliseconds(pause_ms));
    bench.now += milliseconds(pause_ms) - 1;
    CHECK(!bench.begin().has_value());
    bench.now += 1;
    const auto trial = bench.begin();
    REQUIRE(trial.has_value());
    CHECK(trial->kind == NodeAttempt::Kind::trial);
    CHECK(!bench.begin().has_value());
    CHECK(bench.health.retry_at() == bench.now + milliseconds(950));         // A probe.
    CHECK(!bench.health.on_failure(*trial, refused, bench.now, no_jitter));  // No news.
  }
  bench.now += seconds(1);
  const auto trial = bench.begin();
  REQUIRE(trial.has_value());
  CHECK(bench.health.on_answer(*trial, bench.now) == bench.now - seconds(1000));
  CHECK(!bench.health.is_down());
  CHECK(bench.next() == "10.0.0.1:5432");
}

TEST_CASE("the pause counts from the beginning of an attempt") {
  Bench bench({address("10.0.0.1")});
  CHECK(bench.fail());
  // Each lasts for 900 ms. The next is not due at once: 50 ms at least are left.
  for (const int pause_ms : {950, 950, 950, 950, 1000, 1000}) {
    bench.now = bench.health.retry_at();
    const auto trial = bench.begin();
    REQUIRE(trial.has_value());
    CHECK(trial->began_at == bench.now);
    bench.now += milliseconds(900);
    CHECK(!bench.health.on_failure(*trial, refused, bench.now, no_jitter));
    CHECK(bench.health.retry_at() == trial->began_at + milliseconds(pause_ms));
  }
}

TEST_CASE("the pause is up to a quarter shorter") {
  for (uint64_t random = 0; random < 5'000'000; random += 99'991) {
    Bench bench({address("10.0.0.1")});
    CHECK(bench.fail(random));
    const Nanoseconds pause = bench.health.retry_at() - bench.now;
    CHECK(pause <= milliseconds(50));
    CHECK(pause >= milliseconds(50) * 3 / 4);
  }
}

TEST_CASE("attempts that were under way when the first failed do not lengthen the pause") {
  Bench bench({address("10.0.0.1")});
  std::vector<NodeAttempt> attempts;
  for (int i = 0; i < 8; ++i) attempts.push_back(bench.begin().value());
  CHECK(bench.health.on_failure(attempts[0], refused, bench.now, no_jitter));
  for (size_t i = 1; i < attempts.size(); ++i)
    CHECK(!bench.health.on_failure(attempts[i], refused, bench.now, no_jitter));
  CHECK(bench.health.retry_at() == bench.now + milliseconds(50));
  // One that succeeds after all ends it.
  Bench other({address("10.0.0.1")});
  const NodeAttempt slow = other.begin().value();
  CHECK(other.fail());
  CHECK(other.health.on_answer(slow, other.now).has_value());
  CHECK(!other.health.is_down());
}

TEST_CASE("a bad address is passed over for the next, and tried again after a while") {
  Bench bench({address("10.0.0.1"), address("10.0.0.2")});
  CHECK(!bench.fail());
  CHECK(!bench.health.is_down());
  CHECK(bench.next() == "10.0.0.2:5432");
  bench.now += seconds(30) - 1;
  CHECK(bench.next() == "10.0.0.2:5432");
  bench.now += 1;
  const auto trial = bench.begin();
  REQUIRE(trial.has_value());
  CHECK(trial->kind == NodeAttempt::Kind::trial);
  CHECK(trial->address == address("10.0.0.1"));
  CHECK(bench.next() == "10.0.0.2:5432");  // Others do not wait for it.
  CHECK(!bench.health.on_answer(*trial, bench.now).has_value());
  CHECK(bench.next() == "10.0.0.1:5432");
}

TEST_CASE("with all addresses bad the one whose pause ends first is tried") {
  Bench bench({address("10.0.0.1"), address("10.0.0.2")});
  CHECK(!bench.fail());
  bench.now += milliseconds(10);
  CHECK(bench.fail());
  bench.now += milliseconds(40);
  CHECK(bench.next() == "10.0.0.1:5432");
  CHECK(!bench.fail());
  bench.now += milliseconds(10);
  CHECK(bench.next() == "10.0.0.2:5432");
}

TEST_CASE("a new address of a node that is down is tried at once, by one attempt") {
  Bench bench({address("10.0.0.1")});
  CHECK(bench.fail());
  bench.addresses = {address("10.0.0.1"), address("10.0.0.9")};
  const auto trial = bench.begin();
  REQUIRE(trial.has_value());
  CHECK(trial->address == address("10.0.0.9"));
  CHECK(bench.health.is_down());
  CHECK(!bench.begin().has_value());
  CHECK(bench.health.on_answer(*trial, bench.now).has_value());
  CHECK(bench.next() == "10.0.0.9:5432");
}

TEST_CASE("the end of an attempt at an address that the name has left does no harm") {
  Bench bench({address("10.0.0.1")});
  const NodeAttempt old = bench.begin().value();
  bench.addresses = {address("10.0.0.2")};
  CHECK(bench.next() == "10.0.0.2:5432");
  CHECK(!bench.health.on_failure(old, refused, bench.now, no_jitter));
  CHECK(!bench.health.is_down());
  CHECK(bench.next() == "10.0.0.2:5432");
}

TEST_CASE("a trial that is given up leaves the place to another") {
  Bench bench({address("10.0.0.1")});
  CHECK(bench.fail());
  bench.now += milliseconds(50);
  CHECK(bench.next() == "10.0.0.1:5432");
  CHECK(bench.next() == "10.0.0.1:5432");
  CHECK(bench.health.is_down());
}

TEST_CASE("beside a trial that is not answered probes begin, one at a time") {
  Bench bench({address("10.0.0.1")});
  CHECK(!bench.probe().has_value());
  CHECK(bench.fail());
  bench.now = bench.health.retry_at();
  CHECK(!bench.probe().has_value());
  const auto trial = bench.begin();
  REQUIRE(trial.has_value());
  CHECK(bench.health.is_tried());
  CHECK(bench.health.retry_at() == bench.now + milliseconds(950));
  bench.now += milliseconds(950) - 1;
  CHECK(!bench.probe().has_value());
  for (int i = 0; i < 3; ++i) {
    bench.now = bench.health.retry_at();
    CHECK(!bench.begin().has_value());
    const auto probe = bench.probe();
    REQUIRE(probe.has_value());
    CHECK(probe->kind == NodeAttempt::Kind::probe);
    CHECK(!bench.probe().has_value());
    CHECK(bench.health.is_tried());
    CHECK(bench.health.retry_at() == never);
    bench.now += milliseconds(900);
    bench.health.on_given_up(*probe, bench.now, no_jitter);
    CHECK(bench.health.retry_at() == bench.now + milliseconds(50));
  }
  // It failed once and has not answered: its next pause is the second.
  CHECK(!bench.health.on_failure(*trial, refused, bench.now, no_jitter));
  CHECK(bench.health.retry_at() == bench.now + milliseconds(50));
  bench.now += milliseconds(50);
  CHECK(bench.begin().value().kind == NodeAttempt::Kind::trial);
}

TEST_CASE("the address that hangs keeps none of the others from their turn") {
  Bench bench({address("10.0.0.1"), address("10.0.0.2")});
  CHECK(!bench.fail());
  CHECK(bench.fail());
  bench.now += milliseconds(50);
  const NodeAttempt trial = bench.begin().value();
  CHECK(trial.address == address("10.0.0.1"));
  std::vector<std::string> tried;
  for (int i = 0; i < 4; ++i) {
    bench.now = bench.health.retry_at();
    const NodeAttempt probe = bench.probe().value();
    tried.push_back(probe.address.text());
    bench.now += milliseconds(900);
    bench.health.on_given_up(probe, bench.now, no_jitter);
  }
  CHECK(std::count(tried.begin(), tried.end(), "10.0.0.1:5432") == 2);
  CHECK(std::count(tried.begin(), tried.end(), "10.0.0.2:5432") == 2);
}

TEST_CASE("a probe that is answered ends the node's time, and the trial says nothing any more") {
  Bench bench({address("10.0.0.1")});
  CHECK(bench.fail());
  bench.now = bench.health.retry_at();
  const NodeAttempt trial = bench.begin().value();
  bench.now += milliseconds(950);
  const NodeAttempt probe = bench.probe().value();
  bench.now += 1;
  CHECK(bench.health.on_answer(probe, bench.now) == bench.now - seconds(1000));
  CHECK(bench.health.retry_at() == never);
  CHECK(bench.begin().value().kind == NodeAttempt::Kind::plain);
  CHECK(!bench.health.on_failure(trial, refused, bench.now, no_jitter));
  CHECK(!bench.health.is_down());
}

TEST_CASE("a probe that is refused has failed as a trial does") {
  Bench bench({address("10.0.0.1")});
  CHECK(bench.fail());
  bench.now = bench.health.retry_at();
  CHECK(bench.begin().has_value());
  bench.now += milliseconds(950);
  const NodeAttempt probe = bench.probe().value();
  const PoolError other{"08006", "unreachable"};
  CHECK(!bench.health.on_failure(probe, other, bench.now, no_jitter));  // No news.
  CHECK(bench.health.last_error().message == "unreachable");
  CHECK(bench.health.retry_at() == bench.now + milliseconds(100));
}

TEST_CASE("a new address that does not answer a probe is not asked again at once") {
  Bench bench({address("10.0.0.1")});
  CHECK(bench.fail());
  bench.now = bench.health.retry_at();
  CHECK(bench.begin().has_value());
  bench.now += milliseconds(950);
  bench.addresses = {address("10.0.0.1"), address("10.0.0.9")};
  const NodeAttempt probe = bench.probe().value();
  CHECK(probe.address == address("10.0.0.9"));
  bench.health.on_given_up(probe, bench.now, no_jitter);  // The server has closed it.
  CHECK(bench.probe().value().address == address("10.0.0.1"));
}

TEST_CASE("while a later address is good a bad one has one trial at a time") {
  Bench bench({address("10.0.0.1"), address("10.0.0.2")});
  CHECK(!bench.fail());
  bench.now += seconds(30);
  const NodeAttempt trial = bench.begin().value();
  CHECK(trial.kind == NodeAttempt::Kind::trial);
  bench.now += seconds(10);
  CHECK(bench.next() == "10.0.0.2:5432");
  CHECK(!bench.probe().has_value());
}

TEST_CASE("an attempt that fails behind an answer to a later one says nothing") {
  Bench bench({address("10.0.0.1")});
  const NodeAttempt old = bench.begin().value();
  bench.now += 1;
  const NodeAttempt later = bench.begin().value();
  CHECK(!bench.health.on_answer(later, bench.now).has_value());
  CHECK(!bench.health.on_failure(old, refused, bench.now, no_jitter));
  CHECK(!bench.health.is_down());
  CHECK(bench.fail());
}

TEST_CASE("a name without an address is an address of no family that fails and recovers") {
  Bench bench({SocketAddress()});
  CHECK(bench.fail());
  CHECK(bench.health.is_down());
  bench.addresses = {address("10.0.0.1")};
  CHECK(bench.next() == "10.0.0.1:5432");
}

}  // namespace helios
