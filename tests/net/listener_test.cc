#include "helios/net/listener.h"

#include <doctest/doctest.h>
#include <netinet/in.h>

#include <cerrno>
#include <functional>
#include <vector>

#include "tests/support/fake_clock.h"
#include "tests/support/fake_io.h"

using namespace helios;

namespace {

std::vector<int>* queue = nullptr;  // What accept_from_queue gives.

int accept_from_queue(int) noexcept {
  if (queue == nullptr || queue->empty()) return -EAGAIN;
  int fd = queue->back();
  queue->pop_back();
  return fd;
}

struct Fixture final : ListenerOwner {
  void on_accepted(Listener&, int client, int family) noexcept override {
    CHECK(family == AF_INET);
    CHECK(!stopped);
    accepted.push_back(client);
    if (after_accept) after_accept();
  }
  void on_stopped(Listener&) noexcept override { stopped = true; }
  ~Fixture() {
    listener.stop(accept_from_queue);
    if (io.is_in_flight(fd, OpKind::accept)) io.complete_cancel(fd, OpKind::accept);
  }
  void advance(Nanoseconds time) {
    clock.advance(time);
    timers.advance(clock.now());
  }

  FakeIo io;
  FakeClock clock;
  TimerWheel timers{clock.now()};
  Listener listener{io, timers, clock, *this};
  int fd = io.make_fd();
  std::vector<int> accepted;
  std::function<void()> after_accept;
  bool stopped = false;
};

}  // namespace

TEST_CASE("a listener hands out every client and stays armed") {
  Fixture f;
  f.listener.start(f.fd, AF_INET);
  int first = f.io.accept(f.fd);
  int second = f.io.accept(f.fd, More::no);
  CHECK(f.accepted == std::vector<int>{first, second});
  CHECK(f.io.is_in_flight(f.fd, OpKind::accept));
  CHECK(f.listener.accepted_count() == 2);
}

TEST_CASE("a listener without descriptors waits and tries again by timer") {
  for (int error : {EMFILE, ENFILE, ENOBUFS, ENOMEM, EINVAL}) {
    CAPTURE(error);
    Fixture f;
    f.listener.start(f.fd, AF_INET);
    for (int round = 1; round <= 3; ++round) {
      f.io.fail(f.fd, OpKind::accept, error);
      CHECK(f.listener.state() == Listener::State::waiting);
      CHECK(!f.io.is_in_flight(f.fd, OpKind::accept));
      f.advance(Listener::shortage_delay - milliseconds(2));
      CHECK(!f.io.is_in_flight(f.fd, OpKind::accept));
      f.advance(milliseconds(4));
      CHECK(f.io.is_in_flight(f.fd, OpKind::accept));
    }
    CHECK(f.listener.shortages_count() == 3);
    int client = f.io.accept(f.fd);
    CHECK(f.accepted == std::vector<int>{client});
  }
}

TEST_CASE("an error of one client does not hold up the next") {
  Fixture f;
  f.listener.start(f.fd, AF_INET);
  for (int error : {ECONNABORTED, EPROTO, EINTR}) {
    f.io.fail(f.fd, OpKind::accept, error);
    CHECK(f.io.is_in_flight(f.fd, OpKind::accept));
  }
  CHECK(f.listener.shortages_count() == 0);
}

TEST_CASE("stop accepts what is queued and then closes") {
  Fixture f;
  f.listener.start(f.fd, AF_INET);
  f.listener.stop(accept_from_queue);
  f.listener.stop(accept_from_queue);
  int racing = f.io.accept(f.fd);  // Before the cancel took effect.
  CHECK(!f.stopped);
  std::vector<int> queued = {f.io.make_fd(), f.io.make_fd()};
  std::vector<int> left = queued;
  queue = &left;
  SUBCASE("ended by the cancel") {
    f.io.complete_cancel(f.fd, OpKind::accept);
  }
  SUBCASE("ended by a shortage") {
    f.io.fail(f.fd, OpKind::accept, EMFILE);
  }
  queue = nullptr;
  CHECK(f.accepted == std::vector<int>{racing, queued[1], queued[0]});
  CHECK(f.stopped);
  CHECK(!f.io.is_open(f.fd));
  CHECK(f.io.targets_count() == 0);
}

TEST_CASE("stop while waiting for descriptors closes at once and leaves no timer") {
  Fixture f;
  f.listener.start(f.fd, AF_INET);
  f.io.fail(f.fd, OpKind::accept, EMFILE);
  f.listener.stop(accept_from_queue);
  CHECK(f.stopped);
  CHECK(f.timers.size() == 0);
  CHECK(!f.io.is_open(f.fd));
}

TEST_CASE("the owner may stop the listener when a client comes") {
  Fixture f;
  f.listener.start(f.fd, AF_INET);
  f.after_accept = [&] { f.listener.stop(accept_from_queue); };
  SUBCASE("while the op goes on") {
    static_cast<void>(f.io.accept(f.fd, More::yes));
    CHECK(!f.stopped);
    f.io.complete_cancel(f.fd, OpKind::accept);
  }
  SUBCASE("with the op's last event") {
    static_cast<void>(f.io.accept(f.fd, More::no));
  }
  CHECK(f.stopped);
  CHECK(f.accepted.size() == 1);
}

TEST_CASE("a listener can be started again") {
  Fixture f;
  f.listener.start(f.fd, AF_INET);
  f.listener.stop(accept_from_queue);
  f.io.complete_cancel(f.fd, OpKind::accept);
  CHECK(f.stopped);
  f.stopped = false;
  f.fd = f.io.make_fd();
  f.listener.start(f.fd, AF_INET);
  static_cast<void>(f.io.accept(f.fd));
  CHECK(f.accepted.size() == 1);
}
