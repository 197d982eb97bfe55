// The end of a connection that comes together with data, which the kernel may miss
// (Ring::verify_receives).
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <deque>

#include "ring_support.h"

namespace helios {
namespace {

using testing::close_with_reset;
using testing::Fd;
using testing::listen_at;
using testing::Listener;
using testing::make_pair_of_sockets;
using testing::make_ring;
using testing::make_tcp_pair;
using testing::on_each_kernel;
using testing::Pair;
using testing::pattern;
using testing::Recorder;
using testing::turn_and_verify_until;
using testing::turn_until;
using testing::write_all;

// How a peer ends its connection behind its last bytes.
enum class End { reset, shutdown, close };

void end_with(End end, Pair& pair) {
  switch (end) {
    case End::reset:
      return close_with_reset(pair.theirs);
    case End::shutdown:
      REQUIRE(shutdown(pair.theirs.get(), SHUT_WR) == 0);
      return;
    case End::close:
      return pair.theirs.reset();
  }
}

// When data and end come: the receive polls already, or is armed behind them and polls first. Each
// is missed by other kernels.
enum class Order { armed_before, armed_behind };

void check_end_with_data(Ring& ring, Pair pair, End end, Order order) {
  CAPTURE(static_cast<int>(end));
  CAPTURE(static_cast<int>(order));
  Recorder target(ring);
  const auto start = [&] {
    ring.start_recv(target.id(), pair.ours.get(), BufferGroup::client, true);
  };
  if (order == Order::armed_before) {
    start();
    CHECK(ring.turn(0) == 0);
  }
  write_all(pair.theirs.get(), "half");
  end_with(end, pair);
  if (order == Order::armed_behind) start();
  REQUIRE(turn_and_verify_until(ring, [&] { return target.has_ended(); }));
  CHECK(target.received == "half");
  CHECK(target.events.back().res == (end == End::reset ? -ECONNRESET : 0));
  CHECK(ring.turn(0) == 0);
  CHECK(target.ends_count == 1);
  CHECK(!ring.has_unverified());
}

TEST_CASE("a reset that comes together with data ends the receive with the errno") {
  on_each_kernel([](RingOptions options) {
    auto ring = make_ring(options);
    auto listener = listen_at(AF_INET);
    for (const Order order : {Order::armed_before, Order::armed_behind})
      check_end_with_data(*ring, make_tcp_pair(listener), End::reset, order);
  });
}

TEST_CASE("an end of file that comes together with data ends the receive") {
  on_each_kernel([](RingOptions options) {
    auto ring = make_ring(options);
    auto listener = listen_at(AF_INET);
    for (const Order order : {Order::armed_before, Order::armed_behind}) {
      for (const End end : {End::shutdown, End::close}) {
        check_end_with_data(*ring, make_pair_of_sockets(), end, order);
        check_end_with_data(*ring, make_tcp_pair(listener), end, order);
      }
    }
  });
}

TEST_CASE("a receive that had data is verified once, and left alone while its peer is there") {
  on_each_kernel([](RingOptions options) {
    auto ring = make_ring(options);
    Pair pair = make_pair_of_sockets();
    Recorder target(*ring);
    ring->start_recv(target.id(), pair.ours.get(), BufferGroup::client, true);
    CHECK(ring->turn(0) == 0);
    CHECK(!ring->has_unverified());
    for (uint64_t round = 1; round <= 3; ++round) {
      for (int i = 0; i < 3; ++i) {
        write_all(pair.theirs.get(), "data");
        CHECK(ring->turn(0) == 1);
      }
      CHECK(ring->has_unverified());
      const uint64_t sqes = ring->counters().sqes;
      ring->verify_receives();
      CHECK(!ring->has_unverified());
      CHECK(ring->turn(0) == 0);
      CHECK(ring->counters().sqes == sqes);
      CHECK(ring->counters().receives_verified == round);
    }
    CHECK(ring->counters().receives_restarted == 0);
    pair.theirs.reset();
    REQUIRE(turn_until(*ring, [&] { return target.has_ended(); }));
    CHECK(target.events.back().res == 0);
  });
}

TEST_CASE("a receive that is cancelled or has ended is not verified") {
  on_each_kernel([](RingOptions options) {
    auto ring = make_ring(options);
    Pair pair = make_pair_of_sockets();
    Recorder target(*ring);
    ring->start_recv(target.id(), pair.ours.get(), BufferGroup::client, true);
    write_all(pair.theirs.get(), "data");
    REQUIRE(turn_until(*ring, [&] { return target.received == "data"; }));
    CHECK(ring->has_unverified());
    ring->start_cancel(target.id(), OpKind::recv);
    CHECK(!ring->has_unverified());
    write_all(pair.theirs.get(), "more");
    REQUIRE(turn_until(*ring, [&] { return target.has_ended(); }));
    CHECK(!ring->has_unverified());

    ring->start_recv(target.id(), pair.ours.get(), BufferGroup::client, false);
    (void)ring->turn(0);
    write_all(pair.theirs.get(), "last");
    REQUIRE(turn_until(*ring, [&] { return target.received == "datamorelast"; }));
    CHECK(ring->has_unverified());
    pair.theirs.reset();
    REQUIRE(turn_until(*ring, [&] { return target.has_ended(); }));
    CHECK(!ring->has_unverified());
    CHECK(ring->counters().receives_verified == 0);
  });
}

TEST_CASE("one call verifies more receives than one poll takes") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers.count = 512;
    auto ring = make_ring(options);
    constexpr size_t count = 200;
    std::vector<Pair> pairs;
    std::vector<std::unique_ptr<Recorder>> readers;
    for (size_t i = 0; i < count; ++i) {
      pairs.push_back(make_pair_of_sockets());
      readers.push_back(std::make_unique<Recorder>(*ring));
      write_all(pairs[i].theirs.get(), "x");
      pairs[i].theirs.reset();
      ring->start_recv(readers[i]->id(), pairs[i].ours.get(), BufferGroup::client, true);
    }
    REQUIRE(turn_and_verify_until(*ring, [&] {
      return std::all_of(readers.begin(), readers.end(),
                         [](auto& one) { return one->has_ended(); });
    }));
    for (const auto& reader : readers) {
      CHECK(reader->received == "x");
      CHECK(reader->ends_count == 1);
      CHECK(reader->events.back().res == 0);
    }
    CHECK(ring->lent_count(BufferGroup::client) == 0);
  });
}

// Bits of a generator, so that each round differs and each run is the same.
class Choices {
 public:
  bool next() {
    random_ = random_ * 1'664'525 + 1'013'904'223;
    return (random_ & 0x8000'0000U) != 0;
  }

 private:
  uint32_t random_ = 4711;
};

// How many bytes a TCP peer has written that it does not know to have arrived. It may not even have
// sent them (Nagle's algorithm, where acknowledgements are slow), and then they die with its reset.
size_t unacknowledged_size(const Fd& peer) {
  int size = -1;
  REQUIRE(ioctl(peer.get(), SIOCOUTQ, &size) == 0);
  return static_cast<size_t>(size);
}

TEST_CASE(
    "verification that races data and resets 10,000 times loses nothing, and each ends once") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers = {8, 16};
    auto ring = make_ring(options);
    auto listener = listen_at(AF_INET);
    Choices choices;
    const auto maybe_turn = [&] {
      if (choices.next()) (void)ring->turn(0);
      if (choices.next()) ring->verify_receives();
      if (choices.next()) (void)ring->turn(0);
    };
    for (uint32_t i = 0; i < 10'000; ++i) {
      Pair pair = make_tcp_pair(listener);
      Recorder target(*ring);
      ring->start_recv(target.id(), pair.ours.get(), BufferGroup::client, choices.next());
      size_t written = 0;
      for (uint32_t part = 0; part <= i % 3; ++part) {
        maybe_turn();
        // More than one buffer now and then.
        const size_t size = 1 + i % 40;
        write_all(pair.theirs.get(), pattern(i, written, size));
        written += size;
      }
      maybe_turn();
      // In turn half closed, then reset; reset at once.
      if (choices.next()) REQUIRE(shutdown(pair.theirs.get(), SHUT_WR) == 0);
      maybe_turn();
      const size_t arrived = written - std::min(written, unacknowledged_size(pair.theirs));
      close_with_reset(pair.theirs);
      maybe_turn();
      if (!turn_and_verify_until(*ring, [&] { return target.has_ended(); })) FAIL("never ended");
      (void)ring->turn(0);
      const size_t received = target.received.size();
      if (received < arrived) FAIL("a byte was lost");
      if (received > written || target.received != pattern(i, 0, received))
        FAIL("a byte was doubled or is wrong");
      if (target.ends_count != 1) FAIL("ended twice");
      if (target.events.back().res > 0) FAIL("ended without the end of the connection");
      if (target.events.back().res == -ECANCELED) FAIL("the restart was seen");
    }
    CHECK(ring->counters().receives_restarted > 0);
    CHECK(ring->lent_count(BufferGroup::client) == 0);
  });
}

TEST_CASE("a receive whose peer half closes and writes nothing more is restarted at most once") {
  on_each_kernel([](RingOptions options) {
    auto ring = make_ring(options);
    Pair pair = make_pair_of_sockets();
    Recorder target(*ring);
    ring->start_recv(target.id(), pair.ours.get(), BufferGroup::client, true);
    CHECK(ring->turn(0) == 0);
    write_all(pair.theirs.get(), "data");
    REQUIRE(shutdown(pair.theirs.get(), SHUT_WR) == 0);
    REQUIRE(turn_and_verify_until(*ring, [&] { return target.has_ended(); }));
    CHECK(ring->counters().receives_restarted <= 1);
    CHECK(!ring->has_unverified());
  });
}

// The receive is being restarted; nothing of it has been submitted.
void start_restart(Ring& ring, Recorder& target, Pair& pair, std::string_view text) {
  ring.start_recv(target.id(), pair.ours.get(), BufferGroup::client, true);
  REQUIRE(ring.turn(0) == 0);
  write_all(pair.theirs.get(), text);
  REQUIRE(turn_until(ring, [&] { return target.received == text; }));
  REQUIRE(shutdown(pair.theirs.get(), SHUT_WR) == 0);
  REQUIRE(ring.has_unverified());
  ring.verify_receives();
  REQUIRE(ring.counters().receives_restarted == 1);
}

TEST_CASE("data that is still in the socket when its receive restarts arrives before the end") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers = {8, 64};
    auto ring = make_ring(options);
    Pair pair = make_pair_of_sockets();
    Recorder target(*ring);
    ring->start_recv(target.id(), pair.ours.get(), BufferGroup::client, true);
    CHECK(ring->turn(0) == 0);
    write_all(pair.theirs.get(), pattern(7, 0, 10));
    REQUIRE(turn_until(*ring, [&] { return target.received.size() == 10; }));
    write_all(pair.theirs.get(), pattern(7, 10, 1000));
    pair.theirs.reset();
    ring->verify_receives();
    CHECK(ring->counters().receives_restarted == 1);
    REQUIRE(turn_and_verify_until(*ring, [&] { return target.has_ended(); }));
    CHECK(target.received == pattern(7, 0, 1010));
    CHECK(target.events.back().res == 0);
    CHECK(target.ends_count == 1);
    CHECK(ring->lent_count(BufferGroup::client) == 0);
  });
}

TEST_CASE("a target that cancels while its receive restarts gets one end") {
  on_each_kernel([](RingOptions options) {
    // Before the restart is submitted, and after one and two more turns.
    for (int turns = 0; turns < 3; ++turns) {
      CAPTURE(turns);
      auto ring = make_ring(options);
      Pair pair = make_pair_of_sockets();
      Recorder target(*ring);
      start_restart(*ring, target, pair, "data");
      for (int i = 0; i < turns; ++i) (void)ring->turn(0);
      const bool is_in_flight = !target.has_ended();
      if (is_in_flight) {
        ring->start_cancel(target.id(), OpKind::recv);
        ring->start_cancel(target.id(), OpKind::recv);
      }
      REQUIRE(turn_until(*ring, [&] { return target.has_ended(); }));
      const int res = target.events.back().res;
      CHECK((res == 0 || (is_in_flight && res == -ECANCELED)));
      CHECK(target.ends_count == 1);
      // The next receive is not touched by what was left of the cancels.
      ring->start_recv(target.id(), pair.ours.get(), BufferGroup::client, false);
      REQUIRE(turn_until(*ring, [&] { return target.ends_count == 2; }));
      CHECK(target.events.back().res == 0);
      CHECK(target.received == "data");
      CHECK(ring->lent_count(BufferGroup::client) == 0);
    }
  });
}

TEST_CASE("a target that detaches in the end of its restarted receive leaves nothing behind") {
  on_each_kernel([](RingOptions options) {
    for (const bool cancels : {false, true}) {
      auto ring = make_ring(options);
      Pair pair = make_pair_of_sockets();
      Recorder target(*ring);
      bool is_over = false;
      target.then = [&](const IoEvent& event) {
        if (event.more) return;
        target.detach();
        is_over = true;
      };
      start_restart(*ring, target, pair, "data");
      if (cancels && !is_over) ring->start_cancel(target.id(), OpKind::recv);
      REQUIRE(turn_until(*ring, [&] { return is_over; }));
      CHECK(target.ends_count == 1);
      CHECK(ring->turn(0) == 0);
      CHECK(!ring->has_unverified());
      CHECK(ring->targets_count() == 0);
    }
  });
}

TEST_CASE("restarts among twelve sockets that share two buffers lose nothing, and each ends once") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers = {2, 64};
    auto ring = make_ring(options);
    constexpr uint32_t count = 12;
    for (uint32_t round = 0; round < 50; ++round) {
      std::vector<Pair> pairs;
      std::vector<std::unique_ptr<Recorder>> readers;
      // What a reader keeps for a while starves the others.
      std::deque<BufferRef> kept;
      for (uint32_t i = 0; i < count; ++i) {
        pairs.push_back(make_pair_of_sockets());
        readers.push_back(std::make_unique<Recorder>(*ring));
        readers[i]->then = [&](const IoEvent& event) {
          if (event.res <= 0) return;
          ring->keep_buffer(event.buffer);
          kept.push_back(event.buffer);
        };
        write_all(pairs[i].theirs.get(), pattern(i, 0, 1 + 20 * i + round));
        pairs[i].theirs.reset();
        ring->start_recv(readers[i]->id(), pairs[i].ours.get(), BufferGroup::client, true);
      }
      int idle_turns = 0;
      const auto is_over = [&] {
        return std::all_of(readers.begin(), readers.end(),
                           [](auto& one) { return one->has_ended(); });
      };
      while (!is_over() && idle_turns < 100) {
        idle_turns = ring->turn(0) > 0 ? 0 : idle_turns + 1;
        ring->verify_receives();
        if (kept.empty()) continue;
        ring->release_buffer(kept.front());
        kept.pop_front();
      }
      for (const BufferRef& buffer : kept) ring->release_buffer(buffer);
      REQUIRE(is_over());
      for (uint32_t i = 0; i < count; ++i) {
        CHECK(readers[i]->received == pattern(i, 0, 1 + 20 * i + round));
        CHECK(readers[i]->events.back().res == 0);
        CHECK(readers[i]->ends_count == 1);
      }
      CHECK(ring->lent_count(BufferGroup::client) == 0);
    }
    CHECK(ring->counters().starved > 0);
  });
}

}  // namespace
}  // namespace helios
