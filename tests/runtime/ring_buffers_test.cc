// Many sockets on few buffers: the shared buffer ring and its starved receives.
#include <cerrno>
#include <deque>

#include "ring_support.h"

namespace helios {
namespace {

using testing::make_pair_of_sockets;
using testing::make_ring;
using testing::on_each_kernel;
using testing::Pair;
using testing::pattern;
using testing::Recorder;
using testing::Seen;
using testing::turn_until;
using testing::write_all;

// A socket whose peer writes patterned bytes, and the reader that checks them as they come.
struct Line {
  explicit Line(Ring& ring) : reader(ring), pair(make_pair_of_sockets()) {}

  void write(uint32_t stream, size_t size) {
    write_all(pair.theirs.get(), pattern(stream, written, size));
    written += size;
  }

  Recorder reader;
  Pair pair;
  size_t written = 0;
};

std::vector<std::unique_ptr<Line>> make_lines(Ring& ring, size_t count) {
  std::vector<std::unique_ptr<Line>> lines;
  for (size_t i = 0; i < count; ++i) {
    lines.push_back(std::make_unique<Line>(ring));
    Line& line = *lines.back();
    ring.start_recv(line.reader.id(), line.pair.ours.get(), BufferGroup::client, true);
  }
  (void)ring.turn(0);
  return lines;
}

void end_lines(Ring& ring, std::vector<std::unique_ptr<Line>>& lines) {
  for (auto& line : lines) line->pair.theirs.reset();
  for (auto& line : lines) REQUIRE(turn_until(ring, [&] { return line->reader.has_ended(); }));
  for (auto& line : lines) CHECK(line->reader.events.back().res == 0);
}

TEST_CASE("with two buffers and twelve sockets everything arrives and no handler sees ENOBUFS") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers = {2, 512};
    auto ring = make_ring(options);
    auto lines = make_lines(*ring, 12);
    for (uint32_t i = 0; i < 12; ++i) lines[i]->write(i, 20'000 + i);
    for (uint32_t i = 0; i < 12; ++i) {
      Line& line = *lines[i];
      REQUIRE(turn_until(*ring, [&] { return line.reader.received.size() == line.written; }));
      CHECK(line.reader.received == pattern(i, 0, line.written));
      for (const Seen& seen : line.reader.events) CHECK(seen.res > 0);
    }
    CHECK(ring->counters().enobufs > 0);
    CHECK(ring->counters().starved == ring->counters().enobufs);
    CHECK(ring->counters().rearms > 0);
    end_lines(*ring, lines);
    CHECK(ring->counters().rearms == ring->counters().starved);
    CHECK(ring->lent_count(BufferGroup::client) == 0);
  });
}

// Holds the buffers of the events that it gets for a while.
class Keeper {
 public:
  explicit Keeper(Ring& ring) : ring_(ring) {}
  void keep(const IoEvent& event) {
    ring_.keep_buffer(event.buffer);
    kept_.push_back({event.buffer, event.data});
  }
  void release_oldest() {
    ring_.release_buffer(kept_.front().buffer);
    kept_.pop_front();
  }
  void release_all() {
    while (!kept_.empty()) release_oldest();
  }
  [[nodiscard]] size_t size() const { return kept_.size(); }
  [[nodiscard]] ByteSpan data_at(size_t index) const { return kept_[index].data; }

 private:
  struct Kept {
    BufferRef buffer;
    ByteSpan data;
  };
  Ring& ring_;
  std::deque<Kept> kept_;
};

TEST_CASE(
    "a kept buffer keeps its bytes while others are filled, and is lent until its last release") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers = {2, 64};
    auto ring = make_ring(options);
    auto lines = make_lines(*ring, 1);
    Line& line = *lines[0];
    Keeper keeper(*ring);
    line.reader.then = [&](const IoEvent& event) {
      if (event.res > 0 && keeper.size() == 0) {
        CHECK(ring->lent_count(BufferGroup::client) == 1);
        keeper.keep(event);
        ring->keep_buffer(event.buffer);
        ring->release_buffer(event.buffer);
      }
    };
    for (int i = 0; i < 20; ++i) {
      line.write(1, 64);
      REQUIRE(turn_until(*ring, [&] { return line.reader.received.size() == line.written; }));
      CHECK(ring->lent_count(BufferGroup::client) == 1);
      CHECK(as_text(keeper.data_at(0)) == pattern(1, 0, 64));
    }
    keeper.release_all();
    CHECK(ring->lent_count(BufferGroup::client) == 0);
    CHECK(ring->buffers_count(BufferGroup::client) == 2);
    end_lines(*ring, lines);
  });
}

TEST_CASE("a starved receive goes on when a single buffer is left and the ring would sleep") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers = {8, 64};
    auto ring = make_ring(options);
    auto lines = make_lines(*ring, 2);
    Keeper keeper(*ring);
    lines[0]->reader.then = [&](const IoEvent& event) {
      if (event.res > 0) keeper.keep(event);
    };
    lines[0]->write(0, 8 * 64);
    REQUIRE(turn_until(*ring, [&] { return keeper.size() == 8; }));
    lines[1]->write(1, 100);
    for (int i = 0; i < 5; ++i) (void)ring->turn(0);
    CHECK(ring->counters().starved >= 1);
    CHECK(lines[1]->reader.received.empty());
    keeper.release_oldest();
    CHECK(ring->lent_count(BufferGroup::client) == 7);
    REQUIRE(turn_until(*ring, [&] { return lines[1]->reader.received.size() == 100; }));
    keeper.release_all();
    end_lines(*ring, lines);
  });
}

TEST_CASE("a starved receive goes on with few buffers also on a core that never sleeps") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers = {16, 64};
    auto ring = make_ring(options);
    auto lines = make_lines(*ring, 2);
    Keeper keeper(*ring);
    lines[0]->reader.then = [&](const IoEvent& event) {
      if (event.res > 0) keeper.keep(event);
    };
    lines[0]->write(0, 16 * 64);
    REQUIRE(turn_until(*ring, [&] { return keeper.size() == 16; }));
    lines[1]->write(1, 10);
    for (int i = 0; i < 5; ++i) (void)ring->turn(0);
    REQUIRE(ring->counters().starved >= 1);
    keeper.release_oldest();
    for (int i = 0; i < 50; ++i) (void)ring->turn(0);
    CHECK(lines[1]->reader.received == pattern(1, 0, 10));
    keeper.release_all();
    end_lines(*ring, lines);
  });
}

// One reader that keeps every buffer, and one that starves behind it.
struct Starvation {
  explicit Starvation(Ring& ring_) : ring(ring_), keeper(ring_), lines(make_lines(ring_, 2)) {
    lines[0]->reader.then = [this](const IoEvent& event) {
      if (event.res > 0) keeper.keep(event);
    };
    const size_t count = ring.buffers_count(BufferGroup::client);
    lines[0]->write(0, count * 64);
    REQUIRE(turn_until(ring, [&] { return keeper.size() == count; }));
    lines[1]->write(1, 10);
    for (int i = 0; i < 5; ++i) (void)ring.turn(0);
    REQUIRE(ring.counters().starved >= 1);
    REQUIRE(starved().events.empty());
  }
  Recorder& starved() { return lines[1]->reader; }

  Ring& ring;
  Keeper keeper;
  std::vector<std::unique_ptr<Line>> lines;
};

TEST_CASE("a starved receive that is cancelled ends in the next turn, once, without a buffer") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers = {2, 64};
    auto ring = make_ring(options);
    Starvation scene(*ring);
    ring->start_cancel(scene.starved().id(), OpKind::recv);
    ring->start_cancel(scene.starved().id(), OpKind::recv);
    CHECK(scene.starved().events.empty());
    CHECK(ring->turn(never) == 1);
    REQUIRE(scene.starved().events.size() == 1);
    CHECK(scene.starved().events[0].res == -ECANCELED);
    CHECK_FALSE(scene.starved().events[0].more);
    scene.keeper.release_all();
    (void)ring->turn(0);
    CHECK(scene.starved().events.size() == 1);
    // The bytes are still there for the next receive.
    ring->start_recv(scene.starved().id(), scene.lines[1]->pair.ours.get(), BufferGroup::client,
                     true);
    REQUIRE(turn_until(*ring, [&] { return scene.starved().received == pattern(1, 0, 10); }));
    end_lines(*ring, scene.lines);
  });
}

TEST_CASE("a receive that starves while its cancel is on its way ends as cancelled") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers = {2, 64};
    auto ring = make_ring(options);
    Starvation scene(*ring);
    Line third(*ring);
    third.write(2, 10);
    const uint64_t starved_before = ring->counters().starved;
    // Armed and cancelled in one submission: the kernel meets the empty group first, or the cancel.
    ring->start_recv(third.reader.id(), third.pair.ours.get(), BufferGroup::client, false);
    ring->start_cancel(third.reader.id(), OpKind::recv);
    REQUIRE(turn_until(*ring, [&] { return third.reader.has_ended(); }));
    CHECK(third.reader.events[0].res == -ECANCELED);
    CHECK(ring->counters().starved == starved_before);
    scene.keeper.release_all();
    end_lines(*ring, scene.lines);
  });
}

TEST_CASE("a starved receive whose socket was shut down delivers what had come and then the end") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers = {2, 64};
    auto ring = make_ring(options);
    Starvation scene(*ring);
    shutdown(scene.lines[1]->pair.ours.get(), SHUT_RDWR);
    scene.keeper.release_all();
    REQUIRE(turn_until(*ring, [&] { return scene.starved().has_ended(); }));
    CHECK(scene.starved().events.back().res == 0);
    CHECK(scene.starved().received == pattern(1, 0, 10));
    scene.starved().events.clear();
    scene.starved().events.push_back({OpKind::recv, 0, false});
    end_lines(*ring, scene.lines);
  });
}

TEST_CASE("clients that hold every buffer of their group do not touch the backends' group") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers = {2, 64};
    options.backend_buffers = {2, 64};
    auto ring = make_ring(options);
    Starvation scene(*ring);
    Line backend(*ring);
    backend.write(7, 1000);
    ring->start_recv(backend.reader.id(), backend.pair.ours.get(), BufferGroup::backend, false);
    REQUIRE(turn_until(*ring, [&] { return backend.reader.received.size() == 1000; }));
    CHECK(backend.reader.received == pattern(7, 0, 1000));
    CHECK(scene.starved().events.empty());
    backend.pair.theirs.reset();
    REQUIRE(turn_until(*ring, [&] { return backend.reader.has_ended(); }));
    scene.keeper.release_all();
    end_lines(*ring, scene.lines);
  });
}

// The claim to disprove: with one group shared by many sockets, two sockets get the same buffer, or
// bytes appear in the wrong stream (liburing issues 1447 and 1538). Buffers are kept over turns and
// their bytes compared at the end of that time as well.
TEST_CASE("two hundred sockets on eight buffers get exactly their own bytes") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers = {8, 256};
    auto ring = make_ring(options);
    constexpr uint32_t count = 200;
    auto lines = make_lines(*ring, count);
    struct Held {
      BufferRef buffer;
      ByteSpan data;
      std::string expected;
    };
    std::deque<Held> held;
    std::vector<size_t> checked(count, 0);
    bool is_correct = true;
    uint32_t random = 1;
    for (uint32_t i = 0; i < count; ++i) {
      Recorder& reader = lines[i]->reader;
      reader.then = [&, i](const IoEvent& event) {
        if (event.res <= 0) return;
        std::string expected = pattern(i, checked[i], event.data.size());
        if (as_text(event.data) != expected) is_correct = false;
        checked[i] += event.data.size();
        lines[i]->reader.received.clear();
        if (held.size() >= 6) return;
        ring->keep_buffer(event.buffer);
        held.push_back({event.buffer, event.data, std::move(expected)});
      };
    }
    const auto release_oldest = [&] {
      if (as_text(held.front().data) != held.front().expected) is_correct = false;
      ring->release_buffer(held.front().buffer);
      held.pop_front();
    };
    for (int round = 0; round < 40; ++round) {
      for (uint32_t i = 0; i < count; ++i) {
        random = random * 1'664'525 + 1'013'904'223;
        if ((random >> 30) != 0) lines[i]->write(i, 1 + (random >> 16) % 700);
      }
      for (uint32_t i = 0; i < count; ++i) {
        while (checked[i] < lines[i]->written) {
          REQUIRE(is_correct);
          (void)ring->turn(0);
          random = random * 1'664'525 + 1'013'904'223;
          if ((random >> 31) != 0 && !held.empty()) release_oldest();
          REQUIRE(ring->lent_count(BufferGroup::client) == held.size());
        }
      }
    }
    while (!held.empty()) release_oldest();
    end_lines(*ring, lines);
    CHECK(is_correct);
    for (uint32_t i = 0; i < count; ++i) CHECK(checked[i] == lines[i]->written);
    CHECK(ring->counters().starved > 100);
    CHECK(ring->lent_count(BufferGroup::client) == 0);
  });
}

TEST_CASE("a starved receive is served before one that starved later") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers = {2, 64};
    auto ring = make_ring(options);
    auto lines = make_lines(*ring, 6);
    Keeper keeper(*ring);
    std::vector<size_t> order;
    for (size_t i = 0; i < 6; ++i) {
      lines[i]->reader.then = [&, i](const IoEvent& event) {
        if (event.res <= 0) return;
        order.push_back(i);
        keeper.keep(event);
      };
    }
    lines[0]->write(0, 128);
    REQUIRE(turn_until(*ring, [&] { return keeper.size() == 2; }));
    for (uint32_t i = 1; i < 6; ++i) {
      lines[i]->write(i, 10);
      (void)ring->turn(0);
    }
    while (order.size() < 7) {
      keeper.release_oldest();
      REQUIRE(turn_until(*ring, [&] { return keeper.size() == 2 || order.size() == 7; }));
    }
    CHECK(order == std::vector<size_t>{0, 0, 1, 2, 3, 4, 5});
    keeper.release_all();
    end_lines(*ring, lines);
  });
}

}  // namespace
}  // namespace helios
