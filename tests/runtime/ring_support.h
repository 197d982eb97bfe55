// What the tests of the ring share: rings over the running kernel, targets that record, sockets
// that are already connected.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "helios/runtime/ring.h"

namespace helios::testing {

// Runs a test with everything that the kernel offers, with what Linux 6.1 has, and with sends that
// all have completions.
inline void on_each_kernel(const std::function<void(RingOptions)>& test) {
  for (const FeatureMask mask :
       {FeatureMask{}, mask_of_kernel_6_1(), FeatureMask{}.add(Feature::silent_send)}) {
    CAPTURE(mask.bits);
    RingOptions options;
    options.sq_entries = 64;
    options.targets_max = 4096;
    options.features_off = mask;
    test(options);
  }
}

inline std::unique_ptr<Ring> make_ring(const RingOptions& options) {
  auto ring = Ring::create(options);
  if (!ring.ok()) FAIL(ring.error());
  return std::move(ring).value();
}

// Turns until `is_done`; false when the ring has had nothing to do for long before that.
inline bool turn_until(Ring& ring, const std::function<bool()>& is_done) {
  int idle_turns = 0;
  while (!is_done()) {
    if (ring.turn(seconds(2)) > 0) {
      idle_turns = 0;
    } else if (++idle_turns > 10) {
      return false;
    }
  }
  return true;
}

// The same with what Core does besides: receives are verified when nothing else is to be done.
inline bool turn_and_verify_until(Ring& ring, const std::function<bool()>& is_done) {
  int idle_turns = 0;
  while (!is_done()) {
    if (ring.turn(ring.has_unverified() ? 0 : seconds(1)) > 0) {
      idle_turns = 0;
    } else if (ring.has_unverified()) {
      ring.verify_receives();
    } else if (++idle_turns > 10) {
      return false;
    }
  }
  return true;
}

struct Seen {
  OpKind kind;
  int res;
  bool more;
};

// A target that records its events and the bytes it receives, then calls `then`. Attached for as
// long as it lives.
class Recorder final : public IoTarget {
 public:
  explicit Recorder(Ring& ring) : ring_(ring), id_(ring.attach(this)) {}
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;
  ~Recorder() {
    if (is_attached_) ring_.detach(id_);
  }

  void on_io(const IoEvent& event) noexcept override {
    events.push_back({event.kind, event.res, event.more});
    if (event.kind == OpKind::recv) received.append(as_text(event.data));
    if (!event.more) ++ends_count;
    if (then) then(event);
  }
  void detach() {
    ring_.detach(id_);
    is_attached_ = false;
  }
  [[nodiscard]] TargetId id() const { return id_; }
  // The last event of this kind was its end.
  [[nodiscard]] bool has_ended(OpKind kind) const {
    for (auto event = events.rbegin(); event != events.rend(); ++event)
      if (event->kind == kind) return !event->more;
    return false;
  }
  // Of a target with ops of one kind.
  [[nodiscard]] bool has_ended() const { return !events.empty() && !events.back().more; }

  std::vector<Seen> events;
  int ends_count = 0;
  std::string received;
  std::function<void(const IoEvent&)> then;

 private:
  Ring& ring_;
  TargetId id_;
  bool is_attached_ = true;
};

// A descriptor that closes itself.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() { reset(); }
  void reset() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

struct Pair {
  Fd ours;
  Fd theirs;  // The peer; it blocks.
};

inline Pair make_pair_of_sockets() {
  int fds[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  REQUIRE(fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0);
  return {Fd(fds[0]), Fd(fds[1])};
}

inline void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    REQUIRE(written > 0);
    text.remove_prefix(static_cast<size_t>(written));
  }
}

inline std::string read_exactly(int fd, size_t size) {
  std::string text(size, '\0');
  size_t have = 0;
  while (have < size) {
    const ssize_t got = read(fd, text.data() + have, size - have);
    REQUIRE(got > 0);
    have += static_cast<size_t>(got);
  }
  return text;
}

// Bytes that tell their stream and place, so that a byte in the wrong stream or order is seen.
inline std::string pattern(uint32_t stream, size_t from, size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) {
    const uint64_t place = (uint64_t{stream} << 40 | (from + i)) * 0x9E3779B97F4A7C15ULL;
    text[i] = static_cast<char>(place >> 56);
  }
  return text;
}

struct Listener {
  Fd fd;
  sockaddr_storage address{};
  socklen_t size = 0;
  [[nodiscard]] const sockaddr* at() const { return reinterpret_cast<const sockaddr*>(&address); }
};

inline Listener listen_at(int family) {
  Listener listener;
  listener.fd = Fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  listener.size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sa_family_t);
  if (family == AF_INET) {
    auto* internet = reinterpret_cast<sockaddr_in*>(&listener.address);
    internet->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }
  listener.address.ss_family = static_cast<sa_family_t>(family);
  // Port 0, or an abstract unix address of the kernel's choice.
  REQUIRE(bind(listener.fd.get(), listener.at(), listener.size) == 0);
  REQUIRE(listen(listener.fd.get(), 1024) == 0);
  listener.size = sizeof(listener.address);
  auto* address = reinterpret_cast<sockaddr*>(&listener.address);
  REQUIRE(getsockname(listener.fd.get(), address, &listener.size) == 0);
  return listener;
}

inline Pair make_tcp_pair(const Listener& listener) {
  Pair pair;
  pair.theirs = Fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(connect(pair.theirs.get(), listener.at(), listener.size) == 0);
  pair.ours = Fd(accept4(listener.fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  REQUIRE(pair.ours.get() >= 0);
  return pair;
}

// Closes the socket so that its peer gets a reset (TCP).
inline void close_with_reset(Fd& fd) {
  const linger reset{1, 0};
  REQUIRE(setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) == 0);
  fd.reset();
}

inline void start_send(Ring& ring, TargetId id, int fd, std::string_view text) {
  const iovec part{const_cast<char*>(text.data()), text.size()};
  ring.start_send(id, fd, {&part, 1}, SendNotice::prompt);
}

}  // namespace helios::testing
