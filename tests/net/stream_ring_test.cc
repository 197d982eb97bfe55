// Streams and a listener on the running kernel.
#include <doctest/doctest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "helios/net/listen_sockets.h"
#include "helios/net/listener.h"
#include "helios/net/stream.h"
#include "helios/runtime/ring.h"

using namespace helios;

namespace {

// An echo server and its client in one core.
struct Echo final : StreamOwner, ListenerOwner {
  explicit Echo(Ring& ring) : net{ring, chunks, flush_list} {}

  void on_accepted(Listener&, int fd, int family) noexcept override {
    server = std::make_unique<Stream>(net, *this, BufferGroup::client);
    server->open(fd, family);
  }
  void on_stopped(Listener&) noexcept override { listener_stopped = true; }
  void on_connected(Stream& stream) noexcept override { stream.send(as_bytes(request)); }
  void on_received(Stream& stream, ByteSpan bytes, BufferRef buffer) noexcept override {
    if (&stream == server.get()) return stream.send_received(bytes, buffer);
    reply.append(as_text(bytes));
  }
  void on_drained(Stream&) noexcept override {}
  void on_ended(Stream& stream, StreamEnd, int) noexcept override {
    ++ended;
    stream.terminate();
  }
  void on_closed(Stream&) noexcept override { ++closed; }
  void on_detachable(Stream& stream) noexcept override { moved_fd = stream.release_fd(); }

  ChunkPool chunks;
  IntrusiveList<Stream, FlushTag> flush_list;
  NetContext net;
  std::unique_ptr<Stream> server;
  std::string request, reply;
  bool listener_stopped = false;
  int ended = 0, closed = 0, moved_fd = -1;
};

template <typename Done>
void turn_until(Ring& ring, Echo& echo, Done done) {
  constexpr int turns_max = 20'000;
  for (int i = 0; i < turns_max && !done(); ++i) {
    flush_streams(echo.net);
    ring.turn(milliseconds(5));
  }
  REQUIRE(done());
}

}  // namespace

TEST_CASE("a stream connects, echoes, moves and closes on the running kernel") {
  auto created = Ring::create(RingOptions{});
  REQUIRE_MESSAGE(created.ok(), created.error());
  std::unique_ptr<Ring> ring = std::move(created).value();
  MonotonicClock clock;
  TimerWheel timers(clock.now());
  auto parsed = parse_listen_addresses(std::vector<std::string>{"127.0.0.1:0"});
  auto bound = ListenSockets::listen(parsed.value(), 1);
  REQUIRE(bound.ok());
  SocketAddress address = bound.value().addresses()[0];

  Echo echo(*ring);
  Listener listener(*ring, timers, clock, echo);
  listener.start(bound.value().take(0)[0].fd, AF_INET);
  for (size_t i = 0; i < 3'000'000; ++i) echo.request += static_cast<char>(i * 31 + i / 251);
  Stream client(echo.net, echo, BufferGroup::backend);
  client.start_connect(address.get(), address.size());
  turn_until(*ring, echo, [&] { return echo.reply.size() == echo.request.size(); });
  CHECK((echo.reply == echo.request));

  // To another stream, as a backend moves between cores.
  turn_until(*ring, echo, [&] { return client.unsent_size() == 0; });
  client.start_detach();
  turn_until(*ring, echo, [&] { return echo.moved_fd >= 0; });
  Stream moved(echo.net, echo, BufferGroup::backend);
  moved.open(echo.moved_fd, AF_INET);
  echo.reply.clear();
  moved.send(as_bytes("once more"));
  turn_until(*ring, echo, [&] { return echo.reply == "once more"; });

  // The other side sees the end of file and closes, too.
  moved.terminate();
  turn_until(*ring, echo, [&] { return echo.closed == 2; });
  CHECK(echo.ended == 1);
  listener.stop();
  turn_until(*ring, echo, [&] { return echo.listener_stopped; });
  CHECK(ring->targets_count() == 0);
  CHECK(ring->lent_count(BufferGroup::client) == 0);
  CHECK(ring->lent_count(BufferGroup::backend) == 0);
  CHECK(echo.chunks.lent_count() == 0);
}

TEST_CASE("terminate while the kernel holds unsent bytes closes and gives everything back") {
  auto created = Ring::create(RingOptions{});
  REQUIRE_MESSAGE(created.ok(), created.error());
  std::unique_ptr<Ring> ring = std::move(created).value();
  Echo echo(*ring);
  int fds[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
  Stream stream(echo.net, echo, BufferGroup::client);
  Stream reader(echo.net, echo, BufferGroup::client);
  reader.open(fds[1], AF_UNIX);
  reader.pause_receive();
  stream.open(fds[0], AF_UNIX);
  stream.send(as_bytes(std::string(4'000'000, 'u')));  // Far more than the sockets take.
  for (int i = 0; i < 10; ++i) {
    flush_streams(echo.net);
    ring->turn(0);
  }
  CHECK(stream.unsent_size() > 0);
  stream.terminate();
  turn_until(*ring, echo, [&] { return echo.closed == 1; });
  reader.terminate();
  turn_until(*ring, echo, [&] { return echo.closed == 2; });
  CHECK(echo.chunks.lent_count() == 0);
  CHECK(ring->targets_count() == 0);
}
