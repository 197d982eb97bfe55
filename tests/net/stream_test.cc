#include "helios/net/stream.h"

#include <doctest/doctest.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>

#include <cerrno>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/fake_io.h"

using namespace helios;

namespace {

// Writes down what it is told, and does what the test wants in each callback.
struct Owner final : StreamOwner {
  void on_connected(Stream& stream) noexcept override { note("connected", stream); }
  void on_received(Stream& stream, ByteSpan bytes, BufferRef) noexcept override {
    received.append(as_text(bytes));
    note("received", stream);
  }
  void on_drained(Stream& stream) noexcept override { note("drained", stream); }
  void on_ended(Stream& stream, StreamEnd end, int error) noexcept override {
    const char* names[] = {"peer_closed", "error", "connect_failed"};
    last_error = error;
    note(names[static_cast<int>(end)], stream);
  }
  void on_closed(Stream& stream) noexcept override {
    CHECK(stream.state() == Stream::State::closed);
    note("closed", stream);
  }
  void on_detachable(Stream& stream) noexcept override { note("detachable", stream); }

  void note(const std::string& what, Stream& stream) {
    events.push_back(what);
    auto found = actions.find(what);
    if (found != actions.end()) found->second(stream);
  }
  [[nodiscard]] size_t count(const std::string& what) const {
    size_t n = 0;
    for (const std::string& event : events) n += event == what ? 1 : 0;
    return n;
  }

  std::vector<std::string> events;
  std::map<std::string, std::function<void(Stream&)>> actions;
  std::string received;
  int last_error = 0;
};

using Events = std::vector<std::string>;

struct Core {
  explicit Core(uint32_t buffers = 64, SimNetwork* network = nullptr) : io(buffers, network) {}
  void flush() { flush_streams(net); }
  FakeIo io;
  ChunkPool chunks;
  IntrusiveList<Stream, FlushTag> flush_list;
  NetContext net{io, chunks, flush_list};
};

// One stream on an accepted descriptor.
struct Opened {
  explicit Opened(BufferGroup group = BufferGroup::client)
      : stream(std::make_unique<Stream>(core.net, owner, group)), fd(core.io.make_fd()) {
    stream->open(fd, AF_INET);
  }
  ~Opened() {
    if (stream == nullptr) return;
    stream->terminate();
    settle();
  }
  // Ends every op as the kernel does after a cancel.
  void settle() {
    core.flush();
    if (core.io.is_in_flight(fd, OpKind::recv)) core.io.complete_cancel(fd, OpKind::recv);
    if (core.io.is_in_flight(fd, OpKind::send)) core.io.fail(fd, OpKind::send, EPIPE);
    if (core.io.is_in_flight(fd, OpKind::connect)) core.io.complete_cancel(fd, OpKind::connect);
    if (core.io.is_in_flight(fd, OpKind::poll)) core.io.complete_cancel(fd, OpKind::poll);
    core.flush();
  }
  Core core;
  Owner owner;
  std::unique_ptr<Stream> stream;
  int fd;
};

sockaddr_in tcp(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

void connect(Stream& stream, uint16_t port) {
  sockaddr_in address = tcp(port);
  stream.start_connect(reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

}  // namespace

// ---------------------------------------------------------------- opening

TEST_CASE("an accepted stream inherits its options and reads before it polls") {
  Opened t;
  CHECK(t.stream->is_open());
  CHECK(t.core.io.tuned_count() == 0);
  CHECK(t.core.io.is_in_flight(t.fd, OpKind::recv));
  CHECK(!t.core.io.is_recv_expected_idle(t.fd));
}

TEST_CASE("a connect with a socket of the caller's uses that socket") {
  Core core;
  Owner owner;
  Stream stream(core.net, owner, BufferGroup::backend);
  const sockaddr_in address = tcp(5432);
  const int fd = core.io.make_fd();
  stream.start_connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  CHECK(stream.fd() == fd);
  core.io.complete_connect(fd);
  CHECK(owner.events == Events{"connected"});
  stream.terminate();
  core.flush();
  core.io.complete_cancel(fd, OpKind::recv);
  CHECK(!core.io.is_open(fd));
}

TEST_CASE("an error in place of a socket is a failed connect, told from the loop") {
  Core core;
  Owner owner;
  Stream stream(core.net, owner, BufferGroup::backend);
  const sockaddr_in address = tcp(5432);
  stream.start_connect(-EMFILE, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  CHECK(owner.events.empty());
  core.flush();
  CHECK(owner.events.size() == 1);
  stream.terminate();
  core.flush();
  CHECK(stream.state() == Stream::State::closed);
}

TEST_CASE("a connect is told and then the receive is armed") {
  Core core;
  Owner owner;
  Stream stream(core.net, owner, BufferGroup::backend);
  connect(stream, 5432);
  CHECK(core.io.tuned_count() == 1);
  int fd = stream.fd();
  CHECK(stream.state() == Stream::State::connecting);
  stream.send(as_bytes("too early"));
  CHECK(stream.unsent_size() == 0);
  core.io.complete_connect(fd);
  CHECK(owner.events == Events{"connected"});
  CHECK(stream.is_open());
  CHECK(core.io.is_recv_expected_idle(fd));
  stream.terminate();
  core.flush();
  core.io.complete_cancel(fd, OpKind::recv);
  CHECK(owner.events == Events{"connected", "closed"});
  CHECK(!core.io.is_open(fd));
}

TEST_CASE("a refused connect is told once and the stream can try another address from on_closed") {
  Core core;
  Owner owner;
  Stream stream(core.net, owner, BufferGroup::backend);
  owner.actions["connect_failed"] = [](Stream& s) { s.terminate(); };
  owner.actions["closed"] = [&](Stream& s) {
    if (owner.count("closed") == 1) connect(s, 5433);
  };
  connect(stream, 5432);
  core.io.fail(stream.fd(), OpKind::connect, ECONNREFUSED);
  CHECK(owner.events == Events{"connect_failed"});
  CHECK(owner.last_error == ECONNREFUSED);
  core.flush();
  CHECK(owner.events == Events{"connect_failed", "closed"});
  core.io.complete_connect(stream.fd());
  CHECK(stream.is_open());
  stream.terminate();
  core.io.end_of_file(stream.fd());
  CHECK(owner.count("closed") == 2);
  CHECK(core.io.network().open_count() == 0);
}

TEST_CASE("a socket that cannot be made is told from the loop") {
  Core core;
  Owner owner;
  Stream stream(core.net, owner, BufferGroup::backend);
  owner.actions["connect_failed"] = [](Stream& s) { s.terminate(); };
  core.io.fail_next_open(EMFILE);
  connect(stream, 5432);
  CHECK(owner.events.empty());
  core.flush();
  CHECK(owner.events == Events{"connect_failed", "closed"});
  CHECK(owner.last_error == EMFILE);
}

TEST_CASE("terminate while connecting waits for the connect op") {
  Core core;
  Owner owner;
  Stream stream(core.net, owner, BufferGroup::backend);
  connect(stream, 5432);
  int fd = stream.fd();
  stream.terminate();
  core.flush();
  CHECK(owner.events.empty());
  SUBCASE("that is cancelled") {
    core.io.complete_cancel(fd, OpKind::connect);
  }
  SUBCASE("that succeeded in the meantime") {
    core.io.complete_connect(fd);
  }
  SUBCASE("that failed in the meantime") {
    core.io.fail(fd, OpKind::connect, ECONNREFUSED);
  }
  CHECK(owner.events == Events{"closed"});
  CHECK(!core.io.is_open(fd));
}

// ---------------------------------------------------------------- termination

TEST_CASE("terminate with nothing in flight closes at the end of the turn") {
  Opened t;
  t.core.io.end_of_file(t.fd);
  CHECK(t.owner.events == Events{"peer_closed"});
  t.stream->terminate();
  t.stream->terminate();
  CHECK(t.owner.count("closed") == 0);
  t.core.flush();
  CHECK(t.owner.count("closed") == 1);
  CHECK(!t.core.io.is_open(t.fd));
}

TEST_CASE("the end of a send is told promptly only where something follows it") {
  Opened t;
  const auto notice_of_send = [&](size_t size) {
    t.stream->send(as_bytes(std::string(size, 'x')));
    t.core.flush();
    const SendNotice notice = t.core.io.last_notice();
    while (t.core.io.is_in_flight(t.fd, OpKind::send)) {
      t.core.io.complete_send(t.fd);
      t.core.flush();
    }
    return notice;
  };
  CHECK(notice_of_send(10) == SendNotice::lazy);
  // More is queued than one send takes; and above the high mark somebody waits for the low one.
  CHECK(notice_of_send(Stream::send_size_max + 1) == SendNotice::prompt);
  CHECK(notice_of_send(10) == SendNotice::lazy);
  t.stream->want_drained(true);
  CHECK(notice_of_send(10) == SendNotice::prompt);
  t.stream->want_drained(false);
  CHECK(notice_of_send(10) == SendNotice::lazy);
  SUBCASE("the end of sending") {
    t.stream->send(as_bytes("bye"));
    t.stream->finish_sending();
  }
  SUBCASE("the end of the stream") {
    t.stream->send(as_bytes("bye"));
    t.stream->terminate_after_flush();
  }
  t.core.flush();
  CHECK(t.core.io.last_notice() == SendNotice::prompt);
}

TEST_CASE("terminate cancels what is in flight and closes after the last op, in either order") {
  Opened t;
  t.stream->send(as_bytes("bytes the kernel holds"));
  t.core.flush();
  REQUIRE(t.core.io.is_in_flight(t.fd, OpKind::send));
  t.stream->terminate();
  t.core.flush();
  CHECK(t.core.io.is_cancelling(t.fd, OpKind::send));
  CHECK(t.core.io.is_cancelling(t.fd, OpKind::recv));
  // What is in the kernel's hands stays readable.
  CHECK(t.core.io.offered(t.fd) == "bytes the kernel holds");
  t.core.flush();
  CHECK(t.owner.events.empty());
  SUBCASE("receive first, send fails") {
    t.core.io.end_of_file(t.fd);
    CHECK(t.owner.events.empty());
    t.core.io.fail(t.fd, OpKind::send, EPIPE);
  }
  SUBCASE("send first, short") {
    t.core.io.complete_send(t.fd, 3);
    CHECK(t.owner.events.empty());
    CHECK(!t.core.io.is_in_flight(t.fd, OpKind::send));
    t.core.io.complete_cancel(t.fd, OpKind::recv);
  }
  SUBCASE("receive ends with data") {
    t.core.io.complete_send(t.fd);
    t.core.io.complete_recv(t.fd, "more", More::yes);
    CHECK(t.owner.events.empty());
    t.core.io.complete_recv(t.fd, "last", More::no);
  }
  SUBCASE("receive fails, send is cancelled") {
    t.core.io.fail(t.fd, OpKind::recv, ECONNRESET);
    t.core.io.complete_cancel(t.fd, OpKind::send);
  }
  CHECK(t.owner.events == Events{"closed"});
  CHECK(!t.core.io.is_open(t.fd));
  CHECK(t.core.chunks.lent_count() == 0);
  CHECK(t.core.io.targets_count() == 0);
}

TEST_CASE("terminate drops bytes that are queued but not sent") {
  Opened t;
  t.stream->send(as_bytes("queued"));
  t.stream->terminate();
  CHECK(t.core.chunks.lent_count() == 0);
  t.core.flush();
  CHECK(!t.core.io.is_in_flight(t.fd, OpKind::send));
  t.core.io.complete_cancel(t.fd, OpKind::recv);
  CHECK(t.owner.events == Events{"closed"});
}

TEST_CASE("a stream may be destroyed in on_closed") {
  Opened t;
  t.owner.actions["closed"] = [&](Stream&) { t.stream.reset(); };
  SUBCASE("from an event") {
    t.stream->terminate();
    t.core.flush();
    t.core.io.complete_cancel(t.fd, OpKind::recv);
  }
  SUBCASE("from the end of the turn") {
    t.core.io.end_of_file(t.fd);
    t.stream->send(as_bytes("x"));
    t.stream->terminate();
    t.core.flush();
  }
  CHECK(t.stream == nullptr);
  CHECK(t.owner.count("closed") == 1);
}

TEST_CASE("a terminated stream ignores every call") {
  Opened t;
  t.stream->terminate();
  t.stream->send(as_bytes("x"));
  t.stream->pause_receive();
  t.stream->resume_receive();
  t.stream->finish_sending();
  t.stream->terminate_after_flush();
  t.stream->cancel_detach();
  CHECK(t.stream->unsent_size() == 0);
  t.core.io.complete_recv(t.fd, "ignored", More::no);
  CHECK(t.owner.events == Events{"closed"});
  t.stream->terminate();
  t.core.flush();
  CHECK(t.owner.events == Events{"closed"});
}

// ---------------------------------------------------------------- receive

TEST_CASE("bytes are delivered and the multishot stays armed") {
  Opened t;
  t.core.io.complete_recv(t.fd, "one");
  t.core.io.complete_recv(t.fd, "two");
  CHECK(t.owner.received == "onetwo");
  CHECK(t.core.io.recv_starts_count() == 1);
  CHECK(t.core.io.lent_count(BufferGroup::client) == 0);
}

TEST_CASE("a receive that ends with data is armed again without polling first") {
  Opened t;
  t.core.io.complete_recv(t.fd, "data", More::no);
  CHECK(t.owner.received == "data");
  CHECK(t.core.io.is_in_flight(t.fd, OpKind::recv));
  CHECK(!t.core.io.is_recv_expected_idle(t.fd));
}

TEST_CASE("a receive that ends with EAGAIN polls first") {
  Opened t;
  t.core.io.fail(t.fd, OpKind::recv, EAGAIN);
  CHECK(t.owner.events.empty());
  CHECK(t.core.io.is_recv_expected_idle(t.fd));
}

TEST_CASE("pause cancels the receive, what arrives meanwhile is delivered, resume arms again") {
  Opened t;
  t.stream->pause_receive();
  t.stream->pause_receive();
  CHECK(t.core.io.is_cancelling(t.fd, OpKind::recv));
  t.core.io.complete_recv(t.fd, "a", More::yes);
  SUBCASE("ends with data") {
    t.core.io.complete_recv(t.fd, "b", More::no);
  }
  SUBCASE("ends cancelled") {
    t.core.io.complete_recv(t.fd, "b", More::yes);
    t.core.io.complete_cancel(t.fd, OpKind::recv);
  }
  CHECK(t.owner.received == "ab");
  CHECK(!t.core.io.is_in_flight(t.fd, OpKind::recv));
  t.stream->resume_receive();
  CHECK(t.core.io.is_in_flight(t.fd, OpKind::recv));
  CHECK(!t.core.io.is_cancelling(t.fd, OpKind::recv));
  CHECK(!t.core.io.is_recv_expected_idle(t.fd));
}

TEST_CASE("resume before the cancel's terminal event arms after it") {
  Opened t;
  t.stream->pause_receive();
  t.stream->resume_receive();
  CHECK(t.core.io.recv_starts_count() == 1);
  t.core.io.complete_recv(t.fd, "x", More::yes);
  CHECK(t.core.io.recv_starts_count() == 1);
  t.core.io.complete_cancel(t.fd, OpKind::recv);
  CHECK(t.core.io.recv_starts_count() == 2);
  CHECK(!t.core.io.is_cancelling(t.fd, OpKind::recv));
  // And once more, to be paused again in between.
  t.stream->pause_receive();
  t.stream->resume_receive();
  t.stream->pause_receive();
  t.core.io.complete_cancel(t.fd, OpKind::recv);
  CHECK(!t.core.io.is_in_flight(t.fd, OpKind::recv));
}

TEST_CASE("pause and resume inside on_received work") {
  Opened t;
  SUBCASE("pause when the receive has just ended") {
    t.owner.actions["received"] = [](Stream& s) { s.pause_receive(); };
    t.core.io.complete_recv(t.fd, "x", More::no);
    CHECK(!t.core.io.is_in_flight(t.fd, OpKind::recv));
  }
  SUBCASE("both when the receive has just ended") {
    t.owner.actions["received"] = [](Stream& s) {
      s.pause_receive();
      s.resume_receive();
    };
    t.core.io.complete_recv(t.fd, "x", More::no);
    CHECK(t.core.io.recv_starts_count() == 2);
  }
  SUBCASE("terminate when the receive has just ended") {
    t.owner.actions["received"] = [](Stream& s) { s.terminate(); };
    t.core.io.complete_recv(t.fd, "x", More::no);
    CHECK(!t.core.io.is_in_flight(t.fd, OpKind::recv));
    CHECK(t.owner.count("closed") == 0);
    t.core.flush();
    CHECK(t.owner.events == Events{"received", "closed"});
  }
  SUBCASE("terminate while the receive stays armed") {
    t.owner.actions["received"] = [](Stream& s) { s.terminate(); };
    t.core.io.complete_recv(t.fd, "x", More::yes);
    t.core.io.complete_recv(t.fd, "y", More::yes);
    t.core.io.end_of_file(t.fd);
    CHECK(t.owner.events == Events{"received", "closed"});
  }
}

TEST_CASE("end of file while the receive is paused is told") {
  Opened t;
  t.stream->pause_receive();
  t.core.io.end_of_file(t.fd);
  CHECK(t.owner.events == Events{"peer_closed"});
  t.stream->resume_receive();
  CHECK(!t.core.io.is_in_flight(t.fd, OpKind::recv));
}

TEST_CASE("a receive error is told once with its errno") {
  Opened t;
  t.stream->send(as_bytes("x"));
  t.core.flush();
  t.core.io.fail(t.fd, OpKind::recv, ECONNRESET);
  CHECK(t.owner.events == Events{"error"});
  CHECK(t.owner.last_error == ECONNRESET);
  // The send fails too: the stream ends by itself.
  t.core.io.fail(t.fd, OpKind::send, EPIPE);
  t.core.flush();
  CHECK(t.owner.events == Events{"error", "closed"});
}

// ---------------------------------------------------------------- the peer's hang-up

namespace {

// A stream whose receive is paused and whose peer is watched.
struct Watched : Opened {
  Watched() {
    stream->watch_hangup(true);
    stream->pause_receive();
    core.io.complete_cancel(fd, OpKind::recv);
  }
  [[nodiscard]] bool is_polled() const { return core.io.is_in_flight(fd, OpKind::poll); }
};

}  // namespace

TEST_CASE("a hang-up is told while the receive is paused, where the owner wants it") {
  Opened t;
  const auto is_polled = [&] { return t.core.io.is_in_flight(t.fd, OpKind::poll); };
  t.stream->pause_receive();
  t.core.io.complete_cancel(t.fd, OpKind::recv);
  CHECK(!is_polled());
  t.stream->watch_hangup(true);
  CHECK(is_polled());
  t.core.io.complete_poll(t.fd, POLLRDHUP, More::no);
  CHECK(t.owner.events == Events{"peer_closed"});
  t.stream->resume_receive();
  CHECK(!t.core.io.is_in_flight(t.fd, OpKind::recv));
  CHECK(!is_polled());
}

TEST_CASE("while the receive is in flight it tells of the end itself") {
  Opened t;
  const auto is_polled = [&] { return t.core.io.is_in_flight(t.fd, OpKind::poll); };
  t.stream->watch_hangup(true);
  CHECK(!is_polled());
  t.stream->pause_receive();
  CHECK(!is_polled());
  SUBCASE("cancelled: the poll begins") {
    t.core.io.complete_recv(t.fd, "a", More::yes);
    CHECK(!is_polled());
    t.core.io.complete_cancel(t.fd, OpKind::recv);
    CHECK(is_polled());
  }
  SUBCASE("the end: nothing begins") {
    t.core.io.end_of_file(t.fd);
    CHECK(!is_polled());
    CHECK(t.owner.events == Events{"peer_closed"});
  }
}

TEST_CASE("a hang-up that is seen when the receive goes on already is told by the receive") {
  Watched t;
  SUBCASE("resumed") {
    t.stream->resume_receive();
    CHECK(t.core.io.is_in_flight(t.fd, OpKind::recv));
  }
  SUBCASE("not wanted any more") {
    t.stream->watch_hangup(false);
  }
  CHECK(t.core.io.is_cancelling(t.fd, OpKind::poll));
  t.core.io.complete_poll(t.fd, POLLRDHUP, More::no);
  CHECK(t.owner.events.empty());
  CHECK(!t.is_polled());
  t.stream->resume_receive();
  t.core.io.complete_recv(t.fd, "last", More::yes);
  t.core.io.end_of_file(t.fd);
  CHECK(t.owner.events == Events{"received", "peer_closed"});
}

TEST_CASE("a poll for the hang-up that is wanted again while it is cancelled begins again") {
  Watched t;
  t.stream->watch_hangup(false);
  t.stream->watch_hangup(true);
  CHECK(t.core.io.is_cancelling(t.fd, OpKind::poll));
  SUBCASE("it was cancelled") {
    t.core.io.complete_cancel(t.fd, OpKind::poll);
    CHECK(t.is_polled());
    CHECK(!t.core.io.is_cancelling(t.fd, OpKind::poll));
  }
  SUBCASE("it came first") {
    t.core.io.complete_poll(t.fd, POLLRDHUP | POLLHUP, More::no);
    CHECK(t.owner.events == Events{"peer_closed"});
  }
}

TEST_CASE("a poll for the hang-up that fails is not repeated for ever") {
  Watched t;
  t.core.io.fail(t.fd, OpKind::poll, ENOMEM);
  CHECK(!t.is_polled());
  CHECK(t.owner.events.empty());
}

TEST_CASE("a stream that ends in the turn of its peer's end cancels nothing") {
  Opened t;
  t.stream->terminate();
  CHECK(!t.core.io.is_cancelling(t.fd, OpKind::recv));
  t.core.io.end_of_file(t.fd);
  CHECK(t.owner.events == Events{"closed"});
  t.core.flush();
  CHECK(!t.core.io.is_open(t.fd));
}

TEST_CASE("a stream waits for the end of its poll before it closes") {
  Watched t;
  SUBCASE("terminated") {
    t.stream->terminate();
  }
  SUBCASE("terminated after a flush") {
    t.stream->send(as_bytes("bye"));
    t.core.flush();
    t.stream->terminate_after_flush();
    t.core.io.complete_send(t.fd);
    t.core.flush();
    t.core.io.complete_cancel(t.fd, OpKind::recv);
  }
  SUBCASE("ended by a send that failed") {
    t.stream->send(as_bytes("x"));
    t.core.flush();
    t.core.io.fail(t.fd, OpKind::send, EPIPE);
    t.stream->terminate();
  }
  t.core.flush();
  CHECK(t.core.io.is_cancelling(t.fd, OpKind::poll));
  t.core.flush();
  CHECK(t.owner.count("closed") == 0);
  t.core.io.complete_cancel(t.fd, OpKind::poll);
  t.core.flush();
  CHECK(t.owner.count("closed") == 1);
  CHECK(t.owner.count("peer_closed") == 0);
}

// ---------------------------------------------------------------- send

TEST_CASE("everything queued in a turn leaves with one send") {
  Opened t;
  t.stream->want_drained(true);
  t.stream->send(as_bytes("one "));
  t.stream->send(as_bytes("two"));
  CHECK(!t.core.io.is_in_flight(t.fd, OpKind::send));
  t.core.flush();
  CHECK(t.core.io.offered(t.fd) == "one two");
  t.stream->send(as_bytes(" three"));
  t.core.flush();
  CHECK(t.core.io.offered(t.fd) == "one two");
  t.core.io.complete_send(t.fd);
  t.core.flush();
  CHECK(t.core.io.offered(t.fd) == " three");
  CHECK(t.owner.count("drained") == 0);
  t.core.io.complete_send(t.fd);
  CHECK(t.owner.events == Events{"drained"});
  CHECK(t.core.chunks.lent_count() == 0);
}

TEST_CASE("that everything has been sent is told only to those who want to know") {
  Opened t;
  const auto send_all = [&] {
    t.stream->send(as_bytes("bytes"));
    t.core.flush();
    t.core.io.complete_send(t.fd);
  };
  send_all();
  CHECK(t.owner.count("drained") == 0);
  t.stream->want_drained(true);
  send_all();
  CHECK(t.owner.count("drained") == 1);
  SUBCASE("asked for while the send is in flight") {
    t.stream->want_drained(false);
    t.stream->send(as_bytes("bytes"));
    t.core.flush();
    t.stream->want_drained(true);
    t.core.io.complete_send(t.fd);
    CHECK(t.owner.count("drained") == 2);
  }
  SUBCASE("given up while the send is in flight") {
    t.stream->send(as_bytes("bytes"));
    t.core.flush();
    t.stream->want_drained(false);
    t.core.io.complete_send(t.fd);
    CHECK(t.owner.count("drained") == 1);
  }
}

TEST_CASE("a short send goes on behind the last byte taken") {
  Opened t;
  t.stream->want_drained(true);
  std::string bytes;
  for (int i = 0; i < 3000; ++i) bytes += std::to_string(i) + ",";
  t.stream->send(as_bytes(bytes));
  size_t taken = 0;
  for (size_t step = 1; taken < bytes.size(); step += 37) {
    t.core.flush();
    size_t offered = t.core.io.offered(t.fd).size();
    taken += std::min(step, offered);
    t.core.io.complete_send(t.fd, step);
  }
  CHECK(t.core.io.sent(t.fd) == bytes);
  CHECK(t.owner.events == Events{"drained"});
}

TEST_CASE("drained is told at the low mark when the outbox was above the high mark") {
  Opened t;
  std::string bytes(Stream::high_mark + 10'000, 'h');
  t.stream->send(as_bytes(bytes));
  CHECK(t.stream->is_above_high_mark());
  size_t drained_at = 0;
  t.owner.actions["drained"] = [&](Stream& s) {
    if (drained_at == 0) drained_at = s.unsent_size();
  };
  while (t.stream->unsent_size() > 0) {
    t.core.flush();
    t.core.io.complete_send(t.fd, 20'000);
  }
  CHECK(drained_at > 0);
  CHECK(drained_at <= Stream::low_mark);
  CHECK(t.owner.count("drained") == 1);
}

TEST_CASE("a send may follow from on_drained") {
  Opened t;
  t.stream->want_drained(true);
  t.owner.actions["drained"] = [&](Stream& s) {
    if (t.owner.count("drained") == 1) s.send(as_bytes("second"));
  };
  t.stream->send(as_bytes("first"));
  t.core.flush();
  t.core.io.complete_send(t.fd);
  t.core.flush();
  CHECK(t.core.io.offered(t.fd) == "second");
}

TEST_CASE("sending works after the peer's end of file") {
  Opened t;
  t.stream->want_drained(true);
  t.core.io.end_of_file(t.fd);
  t.stream->send(as_bytes("goodbye"));
  t.core.flush();
  t.core.io.complete_send(t.fd);
  CHECK(t.core.io.sent(t.fd) == "goodbye");
  CHECK(t.owner.events == Events{"peer_closed", "drained"});
  CHECK(!t.core.io.is_in_flight(t.fd, OpKind::recv));
}

TEST_CASE("a send that fails after the peer's end of file ends the stream by itself") {
  Opened t;
  t.core.io.end_of_file(t.fd);
  t.stream->send(as_bytes("goodbye"));
  t.core.flush();
  t.core.io.fail(t.fd, OpKind::send, EPIPE);
  t.core.flush();
  CHECK(t.owner.events == Events{"peer_closed", "closed"});
}

TEST_CASE("a send error while the receive is armed ends the stream once") {
  Opened t;
  t.stream->send(as_bytes("x"));
  t.core.flush();
  t.core.io.fail(t.fd, OpKind::send, ECONNRESET);
  CHECK(t.owner.events == Events{"error"});
  CHECK(t.owner.last_error == ECONNRESET);
  CHECK(t.core.chunks.lent_count() == 0);
  t.stream->send(as_bytes("ignored"));
  CHECK(t.stream->unsent_size() == 0);
  t.core.io.complete_recv(t.fd, "late", More::yes);
  t.core.io.fail(t.fd, OpKind::recv, ECONNRESET);
  CHECK(t.owner.events == Events{"error"});
  t.stream->terminate();
  t.core.flush();
  CHECK(t.owner.events == Events{"error", "closed"});
}

TEST_CASE("an interrupted send is repeated") {
  Opened t;
  t.stream->send(as_bytes("again"));
  t.core.flush();
  t.core.io.fail(t.fd, OpKind::send, EINTR);
  t.core.flush();
  CHECK(t.core.io.offered(t.fd) == "again");
  CHECK(t.owner.events.empty());
}

TEST_CASE("received bytes are forwarded from the buffer they came in") {
  Core core;
  Owner from_owner, to_owner;
  Stream from(core.net, from_owner, BufferGroup::client);
  Stream to(core.net, to_owner, BufferGroup::backend);
  int from_fd = core.io.make_fd();
  int to_fd = core.io.make_fd();
  from.open(from_fd, AF_INET);
  to.open(to_fd, AF_INET);

  struct Relay final : StreamOwner {
    explicit Relay(Stream& t) : target(t) {}
    void on_connected(Stream&) noexcept override {}
    void on_received(Stream&, ByteSpan bytes, BufferRef buffer) noexcept override {
      target.send_received(bytes, buffer);
    }
    void on_drained(Stream&) noexcept override {}
    void on_ended(Stream&, StreamEnd, int) noexcept override {}
    void on_closed(Stream&) noexcept override {}
    void on_detachable(Stream&) noexcept override {}
    Stream& target;
  } relay(to);
  Stream source(core.net, relay, BufferGroup::client);
  int source_fd = core.io.make_fd();
  source.open(source_fd, AF_INET);

  std::string bytes(3000, 'r');
  core.io.complete_recv(source_fd, bytes);
  CHECK(core.io.lent_count(BufferGroup::client) == 1);
  core.flush();
  CHECK(core.io.offered(to_fd) == bytes);
  // The kernel may still read from the buffer after the stream was told to end.
  to.terminate();
  core.flush();
  CHECK(core.io.lent_count(BufferGroup::client) == 1);
  CHECK(core.io.offered(to_fd) == bytes);
  core.io.complete_cancel(to_fd, OpKind::send);
  core.io.complete_cancel(to_fd, OpKind::recv);
  CHECK(core.io.lent_count(BufferGroup::client) == 0);

  from.terminate();
  source.terminate();
  core.flush();
  core.io.complete_cancel(from_fd, OpKind::recv);
  core.io.complete_cancel(source_fd, OpKind::recv);
}

TEST_CASE("send_all empties a byte queue, also when the stream is closed") {
  Opened t;
  Outbox queue(t.core.chunks, t.core.io);
  queue.append(as_bytes("queued before the lease"));
  t.stream->send_all(queue);
  CHECK(queue.empty());
  t.core.flush();
  CHECK(t.core.io.offered(t.fd) == "queued before the lease");
  t.stream->terminate();
  queue.append(as_bytes("late"));
  t.stream->send_all(queue);
  CHECK(queue.empty());
}

// ---------------------------------------------------------------- gentle ends

TEST_CASE("finish_sending shuts down the writing side after the last byte") {
  Opened t;
  SUBCASE("at once when nothing is queued") {
    t.stream->finish_sending();
  }
  SUBCASE("after the queue") {
    t.stream->send(as_bytes("terminate"));
    t.stream->finish_sending();
    t.stream->send(as_bytes("ignored"));
    t.core.flush();
    CHECK(!t.core.io.is_write_shut(t.fd));
    t.core.io.complete_send(t.fd);
    CHECK(t.core.io.sent(t.fd) == "terminate");
  }
  CHECK(t.core.io.is_write_shut(t.fd));
  CHECK(t.stream->is_open());
  t.core.io.complete_recv(t.fd, "last words");
  t.core.io.end_of_file(t.fd);
  CHECK(t.owner.received == "last words");
  CHECK(t.owner.count("peer_closed") == 1);
}

TEST_CASE("terminate_after_flush sends the rest, drops what arrives, and closes") {
  Opened t;
  t.stream->pause_receive();
  t.core.io.complete_cancel(t.fd, OpKind::recv);
  t.stream->send(as_bytes("error message"));
  t.stream->terminate_after_flush();
  // A peer that waits for us to read would never read what we flush.
  CHECK(t.core.io.is_in_flight(t.fd, OpKind::recv));
  t.core.flush();
  t.core.io.complete_recv(t.fd, "dropped", More::no);
  CHECK(t.owner.events.empty());
  SUBCASE("to the end") {
    t.core.io.complete_send(t.fd, 5);
    t.core.flush();
    t.core.io.complete_send(t.fd);
    CHECK(t.core.io.sent(t.fd) == "error message");
    t.core.flush();
    CHECK(t.core.io.is_cancelling(t.fd, OpKind::recv));
  }
  SUBCASE("although the peer has ended its side") {
    t.core.io.end_of_file(t.fd);
    CHECK(t.stream->is_open());
    t.core.io.complete_send(t.fd);
    CHECK(t.core.io.sent(t.fd) == "error message");
  }
  SUBCASE("until the send fails") {
    t.core.io.fail(t.fd, OpKind::send, EPIPE);
  }
  SUBCASE("until the receive fails") {
    t.core.io.fail(t.fd, OpKind::recv, ECONNRESET);
  }
  SUBCASE("until the owner's deadline") {
    t.stream->terminate();
  }
  t.settle();
  CHECK(t.owner.events == Events{"closed"});
  CHECK(t.core.chunks.lent_count() == 0);
}

TEST_CASE("terminate_after_flush with nothing queued terminates at once") {
  Opened t;
  t.stream->terminate_after_flush();
  CHECK(t.stream->state() == Stream::State::terminating);
}

// ---------------------------------------------------------------- detach

TEST_CASE("a detach cancels the receive and hands out the descriptor") {
  Opened t(BufferGroup::backend);
  int moved = -1;
  t.owner.actions["detachable"] = [&](Stream& s) {
    moved = s.release_fd();
    t.stream.reset();
  };
  t.stream->start_detach();
  SUBCASE("when it was armed") {
    CHECK(t.owner.events.empty());
    t.core.io.complete_cancel(t.fd, OpKind::recv);
    CHECK(t.owner.events == Events{"detachable"});
  }
  SUBCASE("with data before the end") {
    t.core.io.complete_recv(t.fd, "notice", More::yes);
    t.core.io.complete_cancel(t.fd, OpKind::recv);
    CHECK(t.owner.received == "notice");
    CHECK(t.owner.events == Events{"received", "detachable"});
  }
  SUBCASE("with data as the end") {
    t.core.io.complete_recv(t.fd, "notice", More::no);
    CHECK(t.owner.events == Events{"received", "detachable"});
  }
  CHECK(moved == t.fd);
  CHECK(t.core.io.is_open(moved));
  CHECK(t.core.io.targets_count() == 0);
  CHECK(t.core.io.in_flight_count() == 0);
  t.core.flush();
  t.core.io.close_fd(moved);
}

TEST_CASE("a detach of a paused stream is told from the loop") {
  Opened t(BufferGroup::backend);
  t.stream->pause_receive();
  t.core.io.complete_cancel(t.fd, OpKind::recv);
  t.stream->start_detach();
  CHECK(t.owner.events.empty());
  t.core.flush();
  CHECK(t.owner.events == Events{"detachable"});
  CHECK(t.stream->release_fd() == t.fd);
  CHECK(t.stream->state() == Stream::State::closed);
  // The borrower's stream takes it over; here the same one.
  t.stream->open(t.fd, AF_INET);
  CHECK(t.core.io.is_in_flight(t.fd, OpKind::recv));
}

TEST_CASE("a stream that ends while it is detached is ended, not detachable") {
  Opened t(BufferGroup::backend);
  t.stream->start_detach();
  SUBCASE("end of file") {
    t.core.io.end_of_file(t.fd);
    CHECK(t.owner.events == Events{"peer_closed"});
  }
  SUBCASE("error") {
    t.core.io.fail(t.fd, OpKind::recv, ECONNRESET);
    CHECK(t.owner.events == Events{"error"});
  }
  t.core.flush();
  CHECK(t.owner.count("detachable") == 0);
  // Asking again does nothing: there is nothing to give away.
  t.stream->start_detach();
  t.core.flush();
  CHECK(t.owner.count("detachable") == 0);
}

TEST_CASE("terminate while detaching closes") {
  Opened t(BufferGroup::backend);
  t.stream->start_detach();
  t.stream->terminate();
  t.core.flush();
  t.core.io.complete_cancel(t.fd, OpKind::recv);
  CHECK(t.owner.events == Events{"closed"});
}

TEST_CASE("a detach that is taken back goes on receiving") {
  Opened t(BufferGroup::backend);
  t.stream->start_detach();
  SUBCASE("before the receive has ended, by sending") {
    t.stream->send(as_bytes("query"));
    CHECK(!t.stream->is_detaching());
    t.core.io.complete_cancel(t.fd, OpKind::recv);
  }
  SUBCASE("before the receive has ended") {
    t.stream->cancel_detach();
    t.core.io.complete_recv(t.fd, "x", More::no);
  }
  SUBCASE("inside on_received") {
    t.owner.actions["received"] = [](Stream& s) { s.cancel_detach(); };
    t.core.io.complete_recv(t.fd, "x", More::no);
  }
  SUBCASE("inside on_detachable") {
    t.owner.actions["detachable"] = [](Stream& s) { s.cancel_detach(); };
    t.core.io.complete_cancel(t.fd, OpKind::recv);
    CHECK(t.owner.count("detachable") == 1);
    t.owner.events.clear();
  }
  CHECK(t.owner.count("detachable") == 0);
  CHECK(t.core.io.is_in_flight(t.fd, OpKind::recv));
  CHECK(!t.core.io.is_cancelling(t.fd, OpKind::recv));
  // A second detach works as the first.
  t.stream->send(as_bytes("sync"));
  t.core.flush();
  t.core.io.complete_send(t.fd);
  t.owner.actions.clear();
  t.stream->start_detach();
  t.core.io.complete_cancel(t.fd, OpKind::recv);
  CHECK(t.owner.count("detachable") == 1);
}

// ---------------------------------------------------------------- re-entrancy

TEST_CASE("a callback may terminate another stream") {
  Core core;
  Owner first_owner, second_owner;
  Stream first(core.net, first_owner, BufferGroup::client);
  Stream second(core.net, second_owner, BufferGroup::backend);
  int first_fd = core.io.make_fd();
  int second_fd = core.io.make_fd();
  first.open(first_fd, AF_INET);
  second.open(second_fd, AF_INET);
  first_owner.actions["peer_closed"] = [&](Stream& s) {
    s.terminate();
    second.terminate();
  };
  // From the end of the turn: closing one sends a last word to the other.
  core.io.end_of_file(first_fd);
  core.flush();
  CHECK(first_owner.events == Events{"peer_closed", "closed"});
  core.io.complete_cancel(second_fd, OpKind::recv);
  CHECK(second_owner.events == Events{"closed"});
}

TEST_CASE("bytes that are queued from on_closed leave in the same turn") {
  Core core;
  Owner first_owner, second_owner;
  Stream first(core.net, first_owner, BufferGroup::backend);
  Stream second(core.net, second_owner, BufferGroup::client);
  int first_fd = core.io.make_fd();
  int second_fd = core.io.make_fd();
  first.open(first_fd, AF_INET);
  second.open(second_fd, AF_INET);
  core.io.end_of_file(first_fd);
  first_owner.actions["closed"] = [&](Stream&) { second.send(as_bytes("lost the server")); };
  first.terminate();
  core.flush();
  CHECK(core.io.offered(second_fd) == "lost the server");
  second.terminate();
  core.flush();
  core.io.complete_cancel(second_fd, OpKind::recv);
  core.io.complete_send(second_fd);
}

// ---------------------------------------------------------------- simulated

namespace {

// Relays between two streams with back-pressure, as a session does.
struct Pump final : StreamOwner {
  Pump(Core& core, BufferGroup a, BufferGroup b)
      : left(core.net, *this, a), right(core.net, *this, b) {}
  Stream& other(Stream& stream) { return &stream == &left ? right : left; }
  void on_connected(Stream&) noexcept override { connected = true; }
  void on_received(Stream& stream, ByteSpan bytes, BufferRef buffer) noexcept override {
    CHECK(!closed[&stream == &left ? 0 : 1]);
    other(stream).send_received(bytes, buffer);
    if (other(stream).is_above_high_mark()) stream.pause_receive();
  }
  void on_drained(Stream& stream) noexcept override { other(stream).resume_receive(); }
  void on_ended(Stream& stream, StreamEnd end, int) noexcept override {
    ++ended[&stream == &left ? 0 : 1];
    if (end == StreamEnd::peer_closed) return other(stream).finish_sending(), maybe_end();
    left.terminate();
    right.terminate();
  }
  void maybe_end() {
    if (ended[0] + ended[1] < 2) return;
    left.terminate_after_flush();
    right.terminate_after_flush();
  }
  void on_closed(Stream& stream) noexcept override {
    bool& done = closed[&stream == &left ? 0 : 1];
    CHECK(!done);
    done = true;
    // After two ends of file each side flushes at its own pace.
    if (ended[0] + ended[1] < 2) other(stream).terminate();
  }
  void on_detachable(Stream&) noexcept override {}

  Stream left, right;
  bool connected = false;
  bool closed[2] = {false, false};
  int ended[2] = {0, 0};
};

std::string pattern(SimRandom& random, size_t size) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random.next());
  return bytes;
}

}  // namespace

namespace {

struct Relayed {
  std::unique_ptr<Pump> pump;
  int client, server;  // Descriptors of the scripted peers.
  std::string up, down;
};

// Six relays on two cores with four buffers for each group; everybody sends at once.
std::vector<Relayed> run_relays(SimNetwork& network, Core (&cores)[2]) {
  SimRandom random(network.options().seed * 7);
  std::vector<Relayed> relays;
  for (size_t i = 0; i < 6; ++i) {
    Core& core = cores[i % 2];
    Relayed& relay = relays.emplace_back();
    relay.pump = std::make_unique<Pump>(core, BufferGroup::client, BufferGroup::backend);
    uint16_t port = static_cast<uint16_t>(5000 + i);
    int listener = network.listen_tcp(port);
    connect(relay.pump->right, port);
    network.run([](FakeIo&) {});
    relay.server = network.accept(listener);
    network.close(listener);
    int accepted = -1;
    std::tie(relay.client, accepted) = network.make_pair();
    relay.pump->left.open(accepted, AF_INET);
    relay.up = pattern(random, random.below(100'000));
    relay.down = pattern(random, random.below(100'000));
  }
  for (Relayed& relay : relays) {
    network.write(relay.client, relay.up);
    network.shutdown_write(relay.client);
    network.write(relay.server, relay.down);
    network.shutdown_write(relay.server);
  }
  return relays;
}

}  // namespace

TEST_CASE("every byte passes between streams on two simulated cores, in order") {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    CAPTURE(seed);
    SimOptions options;
    options.seed = seed;
    SimNetwork network(options);
    Core cores[2] = {Core(4, &network), Core(4, &network)};
    {
      std::vector<Relayed> relays = run_relays(network, cores);
      std::vector<std::string> got_up(relays.size()), got_down(relays.size());
      auto end_of_turn = [&](FakeIo& io) {
        cores[&io == &cores[0].io ? 0 : 1].flush();
        for (size_t i = 0; i < relays.size(); ++i) {
          // A peer that reads now and then: the sockets fill up.
          if (network.random().percent(95)) continue;
          got_up[i] += network.read(relays[i].server);
          got_down[i] += network.read(relays[i].client);
        }
      };
      for (int quiet = 0; quiet < 100; ++quiet) {
        network.run(end_of_turn);
        for (Core& core : cores) end_of_turn(core.io);
      }
      for (size_t i = 0; i < relays.size(); ++i) {
        CHECK((got_up[i] + network.read(relays[i].server) == relays[i].up));
        CHECK((got_down[i] + network.read(relays[i].client) == relays[i].down));
        CHECK(relays[i].pump->closed[0]);
        CHECK(relays[i].pump->closed[1]);
        network.close(relays[i].client);
        network.close(relays[i].server);
      }
    }
    CHECK(network.open_count() == 0);
    for (Core& core : cores) CHECK(core.chunks.lent_count() == 0);
  }
}

TEST_CASE("resets at any time leave nothing behind and never mix up bytes") {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    SimOptions options;
    options.seed = seed;
    options.reset_per_mille = 5;
    SimNetwork network(options);
    Core cores[2] = {Core(4, &network), Core(4, &network)};
    {
      std::vector<Relayed> relays = run_relays(network, cores);
      std::vector<std::string> got_up(relays.size());
      auto end_of_turn = [&](FakeIo& io) {
        cores[&io == &cores[0].io ? 0 : 1].flush();
        for (size_t i = 0; i < relays.size(); ++i) {
          got_up[i] += network.read(relays[i].server);
          static_cast<void>(network.read(relays[i].client));
        }
      };
      for (int quiet = 0; quiet < 100; ++quiet) {
        network.run(end_of_turn);
        for (Core& core : cores) end_of_turn(core.io);
      }
      for (size_t i = 0; i < relays.size(); ++i) {
        CHECK((relays[i].up.compare(0, got_up[i].size(), got_up[i]) == 0));
        CHECK(relays[i].pump->closed[0]);
        CHECK(relays[i].pump->closed[1]);
        network.close(relays[i].client);
        network.close(relays[i].server);
      }
    }
    CHECK(network.open_count() == 0);
    for (Core& core : cores) {
      CHECK(core.chunks.lent_count() == 0);
      CHECK(core.io.targets_count() == 0);
    }
  }
}
