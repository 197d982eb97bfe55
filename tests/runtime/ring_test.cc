#include "helios/runtime/ring.h"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <thread>

#include "ring_support.h"

namespace helios {
namespace {

using testing::close_with_reset;
using testing::Fd;
using testing::listen_at;
using testing::make_pair_of_sockets;
using testing::make_ring;
using testing::make_tcp_pair;
using testing::on_each_kernel;
using testing::Pair;
using testing::pattern;
using testing::read_exactly;
using testing::Recorder;
using testing::start_send;
using testing::turn_until;
using testing::write_all;

int option_of(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  REQUIRE(getsockopt(fd, level, name, &value, &size) == 0);
  return value;
}

TEST_CASE("a client connects over TCP, is accepted, and its bytes are echoed") {
  on_each_kernel([](RingOptions options) {
    auto ring = make_ring(options);
    auto listener = listen_at(AF_INET);
    Recorder acceptor(*ring), client(*ring), server(*ring);
    ring->start_accept(acceptor.id(), listener.fd.get());
    Fd client_fd(ring->open_socket(AF_INET));
    REQUIRE(client_fd.get() >= 0);
    CHECK((fcntl(client_fd.get(), F_GETFL) & O_NONBLOCK) != 0);
    CHECK((fcntl(client_fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
    ring->start_connect(client.id(), client_fd.get(), listener.at(), listener.size);
    REQUIRE(turn_until(*ring, [&] { return !acceptor.events.empty() && client.has_ended(); }));
    CHECK(client.events[0].res == 0);
    CHECK(acceptor.events[0].more);
    Fd server_fd(acceptor.events[0].res);
    REQUIRE(server_fd.get() >= 0);
    CHECK((fcntl(server_fd.get(), F_GETFL) & O_NONBLOCK) != 0);
    CHECK((fcntl(server_fd.get(), F_GETFD) & FD_CLOEXEC) != 0);

    server.then = [&](const IoEvent& event) {
      if (event.kind == OpKind::recv && event.res > 0)
        start_send(*ring, server.id(), server_fd.get(), server.received);
    };
    ring->start_recv(server.id(), server_fd.get(), BufferGroup::backend, true);
    ring->start_recv(client.id(), client_fd.get(), BufferGroup::client, true);
    start_send(*ring, client.id(), client_fd.get(), "hello");
    REQUIRE(turn_until(*ring, [&] { return client.received == "hello"; }));

    ring->shutdown_write(client_fd.get());
    REQUIRE(turn_until(*ring, [&] { return server.has_ended(OpKind::recv); }));
    CHECK(server.events.back().res == 0);
    shutdown(server_fd.get(), SHUT_RDWR);
    ring->start_cancel(acceptor.id(), OpKind::accept);
    REQUIRE(
        turn_until(*ring, [&] { return client.has_ended(OpKind::recv) && acceptor.has_ended(); }));
    CHECK(client.events.back().res == 0);
    CHECK(acceptor.events.back().res == -ECANCELED);
    CHECK(ring->counters().receives == 2);
    CHECK(ring->counters().sends == 2);
    CHECK(ring->lent_count(BufferGroup::client) == 0);
    CHECK(ring->lent_count(BufferGroup::backend) == 0);
  });
}

TEST_CASE("tuning sets no-delay and keepalive on TCP and leaves unix sockets alone") {
  auto ring = make_ring({});
  Fd tcp(ring->open_socket(AF_INET));
  ring->tune_socket(tcp.get(), AF_INET);
  CHECK(option_of(tcp.get(), IPPROTO_TCP, TCP_NODELAY) != 0);
  CHECK(option_of(tcp.get(), SOL_SOCKET, SO_KEEPALIVE) != 0);
  CHECK(option_of(tcp.get(), IPPROTO_TCP, TCP_KEEPIDLE) == 60);
  CHECK(option_of(tcp.get(), IPPROTO_TCP, TCP_KEEPINTVL) == 10);
  CHECK(option_of(tcp.get(), IPPROTO_TCP, TCP_KEEPCNT) == 6);
  CHECK(option_of(tcp.get(), IPPROTO_TCP, TCP_USER_TIMEOUT) == 0);
  Fd local(ring->open_socket(AF_UNIX));
  ring->tune_socket(local.get(), AF_UNIX);
  CHECK(option_of(local.get(), SOL_SOCKET, SO_KEEPALIVE) == 0);
}

TEST_CASE("direct calls answer with a negative errno") {
  auto ring = make_ring({});
  CHECK(ring->open_socket(9999) == -EAFNOSUPPORT);
}

TEST_CASE("a refused connection ends with the errno") {
  auto ring = make_ring({});
  auto listener = listen_at(AF_INET);
  listener.fd.reset();
  Recorder client(*ring);
  Fd fd(ring->open_socket(AF_INET));
  ring->start_connect(client.id(), fd.get(), listener.at(), listener.size);
  REQUIRE(turn_until(*ring, [&] { return client.has_ended(); }));
  CHECK(client.events.back().res == -ECONNREFUSED);
}

TEST_CASE("a reset by the peer ends the receive with the errno") {
  auto ring = make_ring({});
  auto listener = listen_at(AF_INET);
  Fd peer(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(connect(peer.get(), listener.at(), listener.size) == 0);
  Fd fd(accept4(listener.fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  Recorder target(*ring);
  ring->start_recv(target.id(), fd.get(), BufferGroup::client, true);
  CHECK(ring->turn(0) == 0);
  const linger reset{1, 0};
  REQUIRE(setsockopt(peer.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) == 0);
  peer.reset();
  REQUIRE(turn_until(*ring, [&] { return target.has_ended(); }));
  CHECK(target.events.back().res == -ECONNRESET);
}

TEST_CASE("a send of sixteen parts arrives whole and in order, whatever becomes of the iovecs") {
  on_each_kernel([](RingOptions options) {
    auto ring = make_ring(options);
    Pair pair = make_pair_of_sockets();
    Recorder sender(*ring);
    const std::string bytes = pattern(1, 0, 16 * 100);
    std::vector<iovec> parts;
    for (size_t i = 0; i < send_parts_max; ++i)
      parts.push_back({const_cast<char*>(bytes.data()) + i * 100, 100});
    ring->start_send(sender.id(), pair.ours.get(), parts, SendNotice::prompt);
    for (iovec& part : parts) part = {};
    REQUIRE(turn_until(*ring, [&] { return sender.has_ended(); }));
    CHECK(sender.events[0].res == 1600);
    CHECK(read_exactly(pair.theirs.get(), 1600) == bytes);
    CHECK(ring->counters().short_sends == 0);
  });
}

TEST_CASE("a send to a closed peer is an error value and no signal") {
  auto ring = make_ring({});
  Pair pair = make_pair_of_sockets();
  pair.theirs.reset();
  Recorder sender(*ring);
  start_send(*ring, sender.id(), pair.ours.get(), "x");
  REQUIRE(turn_until(*ring, [&] { return sender.has_ended(); }));
  CHECK(sender.events[0].res == -EPIPE);
}

TEST_CASE("a send larger than the socket's buffer goes on by itself and is completed once") {
  on_each_kernel([](RingOptions options) {
    // A silent send does not wait: see "a silent send without room".
    options.features_off.add(Feature::silent_send);
    auto ring = make_ring(options);
    Pair pair = make_pair_of_sockets();
    const int tiny = 4096;
    setsockopt(pair.ours.get(), SOL_SOCKET, SO_SNDBUF, &tiny, sizeof(tiny));
    Recorder sender(*ring), reader(*ring);
    const std::string bytes = pattern(2, 0, 1'000'000);
    REQUIRE(fcntl(pair.theirs.get(), F_SETFL, O_NONBLOCK) == 0);
    ring->start_recv(reader.id(), pair.theirs.get(), BufferGroup::client, true);
    start_send(*ring, sender.id(), pair.ours.get(), bytes);
    REQUIRE(turn_until(
        *ring, [&] { return reader.received.size() == bytes.size() && sender.has_ended(); }));
    CHECK(reader.received == bytes);
    CHECK(sender.events.size() == 1);
    ring->start_cancel(reader.id(), OpKind::recv);
    REQUIRE(turn_until(*ring, [&] { return reader.has_ended(); }));
  });
}

// MSG_WAITALL makes short sends rare; a cancel in the middle is the way to get one each time.
TEST_CASE("a send that is cut short tells what was taken, and the rest can be sent") {
  on_each_kernel([](RingOptions options) {
    auto ring = make_ring(options);
    Pair pair = make_pair_of_sockets();
    const int tiny = 4096;
    setsockopt(pair.ours.get(), SOL_SOCKET, SO_SNDBUF, &tiny, sizeof(tiny));
    Recorder sender(*ring);
    const std::string bytes = pattern(3, 0, 300'000);
    size_t sent = 0, rounds = 0;
    std::string got;
    while (sent < bytes.size()) {
      // In turn whole and as two parts, so that both kinds of send are cut.
      const size_t rest = bytes.size() - sent;
      const size_t half = rest / 2;
      char* from = const_cast<char*>(bytes.data()) + sent;
      const iovec parts[2] = {{from, half}, {from + half, rest - half}};
      const bool is_gathered = ++rounds % 2 == 0 && half > 0;
      const iovec whole[1] = {{from, rest}};
      ring->start_send(sender.id(), pair.ours.get(),
                       is_gathered ? std::span<const iovec>(parts) : std::span<const iovec>(whole),
                       SendNotice::prompt);
      (void)ring->turn(0);
      if (!sender.has_ended()) ring->start_cancel(sender.id(), OpKind::send);
      REQUIRE(turn_until(*ring, [&] { return sender.has_ended(); }));
      const int res = sender.events.back().res;
      sender.events.clear();
      if (res == -ECANCELED || res == 0) continue;
      REQUIRE(res > 0);
      got += read_exactly(pair.theirs.get(), static_cast<size_t>(res));
      sent += static_cast<size_t>(res);
    }
    CHECK(got == bytes);
    CHECK(ring->counters().short_sends > 10);
  });
}

TEST_CASE("a send that fits ends with its turn and makes no completion") {
  auto ring = make_ring({});
  REQUIRE(ring->features().has(Feature::silent_send));
  Pair pair = make_pair_of_sockets();
  Recorder sender(*ring);
  for (const SendNotice notice : {SendNotice::prompt, SendNotice::lazy}) {
    const iovec part{const_cast<char*>("four"), 4};
    ring->start_send(sender.id(), pair.ours.get(), {&part, 1}, notice);
    CHECK(ring->turn(0) == 1);
    REQUIRE(sender.has_ended());
    CHECK(sender.events.back().res == 4);
    CHECK(read_exactly(pair.theirs.get(), 4) == "four");
  }
  CHECK(ring->counters().silent_sends == 2);
  CHECK(ring->counters().cqes == 0);
  CHECK(ring->counters().enters == 2);
}

// Else each of the two would need an enter of its own.
TEST_CASE("a lazy send leaves its turn waiting for the answer, and its end is told before it") {
  auto ring = make_ring({});
  Pair pair = make_pair_of_sockets();
  Recorder sender(*ring);
  ring->start_recv(sender.id(), pair.ours.get(), BufferGroup::client, true);
  std::thread peer([&] { write_all(pair.theirs.get(), read_exactly(pair.theirs.get(), 5)); });
  const iovec part{const_cast<char*>("hello"), 5};
  ring->start_send(sender.id(), pair.ours.get(), {&part, 1}, SendNotice::lazy);
  CHECK(ring->turn(seconds(60)) == 2);
  peer.join();
  CHECK(ring->counters().enters == 1);
  REQUIRE(sender.events.size() == 2);
  CHECK(sender.events[0].kind == OpKind::send);
  CHECK(sender.events[1].kind == OpKind::recv);
  CHECK(sender.received == "hello");
  ring->start_cancel(sender.id(), OpKind::recv);
  REQUIRE(turn_until(*ring, [&] { return sender.has_ended(OpKind::recv); }));
}

TEST_CASE("a silent send without room tells what it took, and the next one waits for room") {
  auto ring = make_ring({});
  Pair pair = make_pair_of_sockets();
  const int tiny = 4096;
  setsockopt(pair.ours.get(), SOL_SOCKET, SO_SNDBUF, &tiny, sizeof(tiny));
  Recorder sender(*ring), reader(*ring);
  const std::string bytes = pattern(5, 0, 1'000'000);
  size_t sent = 0;
  const auto send_rest = [&] {
    start_send(*ring, sender.id(), pair.ours.get(), std::string_view(bytes).substr(sent));
  };
  sender.then = [&](const IoEvent& event) {
    REQUIRE(event.res >= 0);
    sent += static_cast<size_t>(event.res);
    if (sent < bytes.size()) send_rest();
  };
  send_rest();
  CHECK(ring->turn(0) == 1);
  CHECK(sent > 0);
  REQUIRE(sent < bytes.size());
  // Nobody reads: the second send is with the kernel, and nothing spins.
  CHECK(ring->turn(milliseconds(10)) == 0);
  REQUIRE(fcntl(pair.theirs.get(), F_SETFL, O_NONBLOCK) == 0);
  ring->start_recv(reader.id(), pair.theirs.get(), BufferGroup::client, true);
  REQUIRE(turn_until(*ring, [&] { return reader.received.size() == bytes.size(); }));
  CHECK(reader.received == bytes);
  CHECK(sender.events.size() == 2);
  CHECK(ring->counters().short_sends == 1);
  ring->start_cancel(reader.id(), OpKind::recv);
  REQUIRE(turn_until(*ring, [&] { return reader.has_ended(); }));
}

TEST_CASE("a turn without completions ends at its timeout") {
  on_each_kernel([](RingOptions options) {
    auto ring = make_ring(options);
    MonotonicClock clock;
    CHECK(ring->turn(0) == 0);
    const Nanoseconds before = clock.now();
    CHECK(ring->turn(milliseconds(20)) == 0);
    CHECK(clock.now() - before >= milliseconds(20));
    CHECK(ring->counters().enters == 2);
  });
}

TEST_CASE("long waits share one alarm, which ends them in time and is nobody's event") {
  on_each_kernel([](RingOptions options) {
    auto ring = make_ring(options);
    MonotonicClock clock;
    Pair pair = make_pair_of_sockets();
    Recorder reader(*ring);
    ring->start_recv(reader.id(), pair.ours.get(), BufferGroup::client, true);
    // Waits that something ends before their time leave the alarm in flight.
    const Nanoseconds before = clock.now();
    for (int i = 0; i < 10; ++i) {
      write_all(pair.theirs.get(), "x");
      CHECK(ring->turn(seconds(1)) == 1);
    }
    CHECK(ring->counters().alarms == 0);
    // The receive and the alarm: no further request was made.
    CHECK(ring->counters().sqes == 2);
    // A shorter wait does not wait for the alarm, and a longer one is not kept beyond its time by
    // it.
    CHECK(ring->turn(milliseconds(1)) == 0);
    CHECK(ring->counters().alarms == 0);
    CHECK(ring->turn(seconds(2)) == 0);
    CHECK(clock.now() - before >= seconds(1));
    CHECK(ring->counters().alarms == 1);
    const Nanoseconds again = clock.now();
    CHECK(ring->turn(milliseconds(150)) == 0);
    CHECK(clock.now() - again >= milliseconds(150));
    CHECK(ring->counters().alarms == 2);
    ring->start_cancel(reader.id(), OpKind::recv);
    REQUIRE(turn_until(*ring, [&] { return reader.has_ended(OpKind::recv); }));
  });
}

TEST_CASE("on a kernel without long waits a turn without a deadline still returns") {
  RingOptions options;
  options.features_off.add(Feature::long_wait);
  CHECK(make_ring(options)->turn(never) == 0);
}

TEST_CASE("a signal ends a wait and is no error") {
  auto ring = make_ring({});
  struct sigaction quiet {};
  quiet.sa_handler = [](int) {};
  struct sigaction before {};
  REQUIRE(sigaction(SIGALRM, &quiet, &before) == 0);
  itimerval every{{0, 5000}, {0, 5000}};
  REQUIRE(setitimer(ITIMER_REAL, &every, nullptr) == 0);
  CHECK(ring->turn(never) == 0);
  every = {};
  REQUIRE(setitimer(ITIMER_REAL, &every, nullptr) == 0);
  REQUIRE(sigaction(SIGALRM, &before, nullptr) == 0);
}

TEST_CASE("a submission queue that is full within a turn is handed over and goes on") {
  on_each_kernel([](RingOptions options) {
    options.sq_entries = 4;
    auto ring = make_ring(options);
    std::vector<Pair> pairs;
    std::vector<std::unique_ptr<Recorder>> senders;
    for (int i = 0; i < 50; ++i) {
      pairs.push_back(make_pair_of_sockets());
      senders.push_back(std::make_unique<Recorder>(*ring));
    }
    const std::string bytes = pattern(4, 0, 64);
    for (size_t i = 0; i < 50; ++i) {
      // Two parts: what the entry points to must not be overwritten by the entries behind it.
      char* from = const_cast<char*>(bytes.data());
      const iovec parts[2] = {{from, i}, {from + i, 64 - i}};
      ring->start_send(senders[i]->id(), pairs[i].ours.get(), parts, SendNotice::prompt);
      CHECK(senders[i]->events.empty());
    }
    CHECK(ring->counters().sq_flushes >= 12);
    for (size_t i = 0; i < 50; ++i) {
      REQUIRE(turn_until(*ring, [&] { return senders[i]->has_ended(); }));
      CHECK(senders[i]->events[0].res == 64);
      CHECK(read_exactly(pairs[i].theirs.get(), 64) == bytes);
    }
  });
}

TEST_CASE("a completion queue of four entries that overflows loses nothing") {
  on_each_kernel([](RingOptions options) {
    options.sq_entries = 4;
    options.cq_entries = 4;
    auto ring = make_ring(options);
    constexpr size_t count = 40;
    std::vector<Pair> pairs;
    std::vector<std::unique_ptr<Recorder>> readers;
    for (size_t i = 0; i < count; ++i) {
      pairs.push_back(make_pair_of_sockets());
      readers.push_back(std::make_unique<Recorder>(*ring));
      Recorder& reader = *readers[i];
      const int fd = pairs[i].ours.get();
      // An overflow may end a multishot receive; its owner starts it again, as it always does.
      reader.then = [&reader, &ring, fd](const IoEvent& event) {
        CHECK(event.res >= 0);
        if (event.res > 0 && !event.more)
          ring->start_recv(reader.id(), fd, BufferGroup::client, false);
      };
      ring->start_recv(reader.id(), fd, BufferGroup::client, true);
    }
    (void)ring->turn(0);
    std::vector<std::string> expected(count);
    for (int round = 0; round < 20; ++round) {
      for (size_t i = 0; i < count; ++i) {
        const std::string bytes = pattern(static_cast<uint32_t>(i), expected[i].size(), 100 + i);
        expected[i] += bytes;
        write_all(pairs[i].theirs.get(), bytes);
      }
      for (size_t i = 0; i < count; ++i)
        REQUIRE(
            turn_until(*ring, [&] { return readers[i]->received.size() == expected[i].size(); }));
    }
    CHECK(ring->counters().cq_overflows > 0);
    for (size_t i = 0; i < count; ++i) {
      CHECK(readers[i]->received == expected[i]);
      pairs[i].theirs.reset();
    }
    for (size_t i = 0; i < count; ++i)
      REQUIRE(turn_until(*ring, [&] { return readers[i]->has_ended(); }));
  });
}

TEST_CASE(
    "one turn delivers everything that is ready, also beyond the kernel's limit for one enter") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers.count = 512;
    auto ring = make_ring(options);
    constexpr size_t count = 200;
    std::vector<Pair> pairs;
    std::vector<std::unique_ptr<Recorder>> readers;
    for (size_t i = 0; i < count; ++i) {
      pairs.push_back(make_pair_of_sockets());
      readers.push_back(std::make_unique<Recorder>(*ring));
      ring->start_recv(readers[i]->id(), pairs[i].ours.get(), BufferGroup::client, true);
    }
    CHECK(ring->turn(0) == 0);
    const auto write_to_all = [&](const char* text) {
      for (const Pair& pair : pairs) write_all(pair.theirs.get(), text);
    };
    // The kernel gets few buffers until more are needed.
    for (size_t round = 1; round <= 4; ++round) {
      write_to_all("x");
      for (const auto& reader : readers)
        REQUIRE(turn_until(*ring, [&] { return reader->received.size() == round; }));
      CHECK(ring->turn(0) == 0);
    }
    write_to_all("y");
    CHECK(ring->turn(never) == count);
    CHECK(ring->turn(0) == 0);
    for (Pair& pair : pairs) pair.theirs.reset();
    CHECK(ring->turn(never) == count);
    for (const auto& reader : readers) CHECK(reader->has_ended());
  });
}

TEST_CASE("a cancelled receive ends once, with the cancel's errno, however often it is cancelled") {
  on_each_kernel([](RingOptions options) {
    auto ring = make_ring(options);
    Pair pair = make_pair_of_sockets();
    Recorder target(*ring);
    ring->start_recv(target.id(), pair.ours.get(), BufferGroup::client, true);
    (void)ring->turn(0);
    ring->start_cancel(target.id(), OpKind::recv);
    ring->start_cancel(target.id(), OpKind::recv);
    CHECK(target.events.empty());
    REQUIRE(turn_until(*ring, [&] { return target.has_ended(); }));
    CHECK(target.events[0].res == -ECANCELED);
    (void)ring->turn(0);
    CHECK(target.events.size() == 1);
    // The next receive is not touched by the cancel of the one before.
    ring->start_recv(target.id(), pair.ours.get(), BufferGroup::client, true);
    write_all(pair.theirs.get(), "y");
    REQUIRE(turn_until(*ring, [&] { return target.received == "y"; }));
    ring->start_cancel(target.id(), OpKind::recv);
    REQUIRE(turn_until(*ring, [&] { return target.has_ended(); }));
  });
}

TEST_CASE("cancels that race data 100,000 times lose and double nothing, and each op ends once") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers = {8, 64};
    auto ring = make_ring(options);
    Pair pair = make_pair_of_sockets();
    Recorder target(*ring);
    size_t written = 0, checked = 0;
    bool is_correct = true;
    target.then = [&](const IoEvent& event) {
      if (event.res < 0) return;
      if (target.received != pattern(5, checked, target.received.size())) is_correct = false;
      checked += target.received.size();
      target.received.clear();
    };
    uint32_t random = 12'345;
    const auto write_some = [&](size_t size) {
      if (size == 0) return;
      write_all(pair.theirs.get(), pattern(5, written, size));
      written += size;
    };
    for (int i = 0; i < 100'000; ++i) {
      random = random * 1'664'525 + 1'013'904'223;
      const uint32_t choice = random >> 16;
      const size_t size = choice & 63;
      target.ends_count = 0;
      target.events.clear();
      ring->start_recv(target.id(), pair.ours.get(), BufferGroup::client, (choice & 64) != 0);
      if ((choice & 128) != 0) (void)ring->turn(0);
      if ((choice & 256) != 0) write_some(size);
      if ((choice & 512) != 0) (void)ring->turn(0);
      if (target.ends_count != 0) FAIL("ended before the cancel");
      ring->start_cancel(target.id(), OpKind::recv);
      if ((choice & 1024) != 0) write_some(size);
      if (!turn_until(*ring, [&] { return target.ends_count > 0; })) FAIL("never ended");
      if (target.ends_count != 1) FAIL("ended twice");
      if (!is_correct) FAIL("a byte was lost or doubled");
    }
    target.events.clear();
    ring->start_recv(target.id(), pair.ours.get(), BufferGroup::client, false);
    pair.theirs.reset();
    REQUIRE(turn_until(*ring, [&] { return target.has_ended(); }));
    CHECK(is_correct);
    CHECK(checked == written);
    CHECK(ring->lent_count(BufferGroup::client) == 0);
  });
}

TEST_CASE("cancels that race a writer on another thread lose and double nothing") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers = {4, 256};
    auto ring = make_ring(options);
    Pair pair = make_pair_of_sockets();
    constexpr size_t total = 2'000'000;
    std::thread writer([&] {
      uint32_t random = 99;
      for (size_t written = 0; written < total;) {
        random = random * 1'664'525 + 1'013'904'223;
        const std::string bytes =
            pattern(6, written, std::min<size_t>(1 + (random >> 23), total - written));
        if (write(pair.theirs.get(), bytes.data(), bytes.size()) !=
            static_cast<ssize_t>(bytes.size()))
          break;
        written += bytes.size();
      }
      pair.theirs.reset();
    });
    Recorder target(*ring);
    bool is_correct = true, is_over = false;
    size_t checked = 0;
    int last_res = 1;
    target.then = [&](const IoEvent& event) {
      if (as_text(event.data) != pattern(6, checked, event.data.size())) is_correct = false;
      checked += event.data.size();
      target.received.clear();
      target.events.clear();
      last_res = event.res;
      if (event.res == 0) is_over = true;
    };
    while (!is_over) {
      target.ends_count = 0;
      ring->start_recv(target.id(), pair.ours.get(), BufferGroup::client, false);
      (void)ring->turn(0);
      if (target.ends_count == 0) ring->start_cancel(target.id(), OpKind::recv);
      if (!turn_until(*ring, [&] { return target.ends_count > 0; })) break;
      if (target.ends_count != 1) FAIL_CHECK("ended twice");
    }
    writer.join();
    CHECK(is_over);
    CHECK(is_correct);
    CHECK(last_res == 0);
    CHECK(checked == total);
    CHECK(ring->lent_count(BufferGroup::client) == 0);
  });
}

TEST_CASE("a descriptor that is closed and given out again in one turn serves only its new owner") {
  on_each_kernel([](RingOptions options) {
    auto ring = make_ring(options);
    auto listener = listen_at(AF_UNIX);
    Recorder acceptor(*ring);
    std::unique_ptr<Recorder> current;
    int current_fd = -1, reused_count = 0, last_fd = -1;
    const auto adopt = [&](int fd) {
      if (fd == last_fd) ++reused_count;
      current_fd = fd;
      current = std::make_unique<Recorder>(*ring);
      ring->start_recv(current->id(), fd, BufferGroup::client, true);
    };
    acceptor.then = [&](const IoEvent& event) {
      if (event.res >= 0) adopt(event.res);
    };
    ring->start_accept(acceptor.id(), listener.fd.get());
    for (int i = 0; i < 300; ++i) {
      Fd peer(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
      REQUIRE(connect(peer.get(), listener.at(), listener.size) == 0);
      REQUIRE(turn_until(*ring, [&] { return current != nullptr; }));
      const std::string bytes = pattern(static_cast<uint32_t>(i), 0, 50);
      write_all(peer.get(), bytes);
      REQUIRE(turn_until(*ring, [&] { return current->received.size() >= 50; }));
      REQUIRE(current->received == bytes);
      shutdown(current_fd, SHUT_RDWR);
      REQUIRE(turn_until(*ring, [&] { return current->has_ended(); }));
      last_fd = current_fd;
      current.reset();
      close(last_fd);
    }
    CHECK(reused_count > 200);
    ring->start_cancel(acceptor.id(), OpKind::accept);
    REQUIRE(turn_until(*ring, [&] { return acceptor.has_ended(); }));
    CHECK(ring->targets_count() == 1);
  });
}

// One connection of the churn: connects, says one thing, reads the echo, closes.
struct Visitor {
  std::unique_ptr<Recorder> target;
  int fd = -1;
};

TEST_CASE("ten thousand connections come and go and leave nothing behind") {
  on_each_kernel([](RingOptions options) {
    options.client_buffers.count = 8;
    options.backend_buffers.count = 8;
    auto ring = make_ring(options);
    auto listener = listen_at(AF_UNIX);
    Recorder acceptor(*ring);
    std::vector<Visitor> servers, visitors;
    acceptor.then = [&](const IoEvent& event) {
      if (event.res < 0) return;
      servers.push_back({std::make_unique<Recorder>(*ring), event.res});
      ring->start_recv(servers.back().target->id(), event.res, BufferGroup::backend, true);
    };
    ring->start_accept(acceptor.id(), listener.fd.get());
    int done_count = 0;
    while (done_count < 10'000) {
      for (int i = 0; i < 20; ++i) {
        visitors.push_back({std::make_unique<Recorder>(*ring), ring->open_socket(AF_UNIX)});
        ring->start_connect(visitors.back().target->id(), visitors.back().fd, listener.at(),
                            listener.size);
      }
      for (Visitor& visitor : visitors) {
        REQUIRE(turn_until(*ring, [&] { return visitor.target->has_ended(); }));
        REQUIRE(visitor.target->events[0].res == 0);
        start_send(*ring, visitor.target->id(), visitor.fd, "ping");
      }
      REQUIRE(turn_until(*ring, [&] { return servers.size() == visitors.size(); }));
      for (Visitor& server : servers) {
        REQUIRE(turn_until(*ring, [&] { return server.target->received == "ping"; }));
        ring->start_cancel(server.target->id(), OpKind::recv);
      }
      for (std::vector<Visitor>* side : {&servers, &visitors}) {
        for (Visitor& one : *side) {
          REQUIRE(turn_until(*ring, [&] { return one.target->has_ended(); }));
          ring->close_fd(one.fd);
          ++done_count;
        }
        side->clear();
      }
    }
    ring->start_cancel(acceptor.id(), OpKind::accept);
    REQUIRE(turn_until(*ring, [&] { return acceptor.has_ended(); }));
    CHECK(ring->targets_count() == 1);
    CHECK(ring->lent_count(BufferGroup::client) == 0);
    CHECK(ring->lent_count(BufferGroup::backend) == 0);
  });
}

TEST_CASE("an accept without descriptors ends with the errno and can be started again") {
  auto ring = make_ring({});
  auto listener = listen_at(AF_UNIX);
  Fd peer(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(connect(peer.get(), listener.at(), listener.size) == 0);
  Recorder acceptor(*ring);
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  rlimit none = before;
  none.rlim_cur = 0;
  // The kernel reads the limit when the accept is submitted.
  REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
  ring->start_accept(acceptor.id(), listener.fd.get());
  const bool has_ended = turn_until(*ring, [&] { return acceptor.has_ended(); });
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
  REQUIRE(has_ended);
  CHECK(acceptor.events.back().res == -EMFILE);
  ring->start_accept(acceptor.id(), listener.fd.get());
  REQUIRE(turn_until(*ring, [&] { return acceptor.events.size() == 2; }));
  Fd accepted(acceptor.events.back().res);
  CHECK(accepted.get() >= 0);
  ring->start_cancel(acceptor.id(), OpKind::accept);
  REQUIRE(turn_until(*ring, [&] { return acceptor.has_ended(); }));
}

TEST_CASE("a poll reports each time that the descriptor becomes readable, until it is cancelled") {
  auto ring = make_ring({});
  Fd event(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  Recorder target(*ring);
  ring->start_poll(target.id(), event.get());
  (void)ring->turn(0);
  for (size_t i = 1; i <= 3; ++i) {
    const uint64_t one = 1;
    write_all(event.get(), {reinterpret_cast<const char*>(&one), sizeof(one)});
    REQUIRE(turn_until(*ring, [&] { return target.events.size() == i; }));
    CHECK((target.events.back().res & POLLIN) != 0);
    CHECK(target.events.back().more);
    (void)read_exactly(event.get(), sizeof(one));
  }
  ring->start_cancel(target.id(), OpKind::poll);
  REQUIRE(turn_until(*ring, [&] { return target.has_ended(); }));
  CHECK(target.events.back().res == -ECANCELED);
}

TEST_CASE("a poll for the hang-up sees it behind bytes that nobody reads, and nothing else") {
  on_each_kernel([](RingOptions options) {
    auto ring = make_ring(options);
    auto listener = listen_at(AF_INET);
    for (const bool is_reset : {false, true}) {
      for (const bool is_early : {false, true}) {
        Pair pair = make_tcp_pair(listener);
        Recorder target(*ring);
        const auto hang_up = [&] {
          if (is_reset) {
            close_with_reset(pair.theirs);
          } else {
            REQUIRE(shutdown(pair.theirs.get(), SHUT_WR) == 0);
          }
        };
        write_all(pair.theirs.get(), "unread");
        if (is_early) hang_up();
        ring->start_hangup_poll(target.id(), pair.ours.get());
        if (!is_early) {
          write_all(pair.theirs.get(), "more");
          CHECK(ring->turn(0) == 0);
          hang_up();
        }
        REQUIRE(turn_until(*ring, [&] { return target.has_ended(OpKind::poll); }));
        REQUIRE(target.events.size() == 1);
        CHECK((target.events[0].res & POLLRDHUP) != 0);
      }
    }
  });
}

TEST_CASE("a poll for the hang-up ends when it is cancelled") {
  auto ring = make_ring({});
  Pair pair = make_pair_of_sockets();
  Recorder target(*ring);
  ring->start_hangup_poll(target.id(), pair.ours.get());
  (void)ring->turn(0);
  ring->start_cancel(target.id(), OpKind::poll);
  REQUIRE(turn_until(*ring, [&] { return target.has_ended(OpKind::poll); }));
  CHECK(target.events.back().res == -ECANCELED);
}

TEST_CASE("the masked features are off and everything else of the kernel is on") {
  RingOptions options;
  auto full = make_ring(options);
  options.features_off =
      mask_of_kernel_6_1().add(Feature::registered_ring).add(Feature::silent_send);
  auto masked = make_ring(options);
  CHECK(masked->features() == FeatureSet{});
  CHECK(full->features().has(Feature::registered_ring));
  CHECK(masked->turn(0) == 0);
  CHECK(masked->describe().find("no_iowait hidden") != std::string::npos);
  CHECK(full->describe().find("registered_ring on") != std::string::npos);
}

}  // namespace
}  // namespace helios
