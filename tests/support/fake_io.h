// Io without a kernel: for tests of everything above the ring.
//
// FakeIo records the ops that are in flight and ends them when the test says so (scripted), or when
// a SimNetwork decides so (simulated). It asserts every rule of runtime/io.h, so a test that merely
// runs has checked them. Descriptors are numbers that no real descriptor has.
//
// Scripted: one FakeIo of its own. The test calls complete_recv(), complete_send(), end_of_file(),
// fail(), ... by descriptor. A cancelled op stays in flight until the test ends it: with
// complete_cancel(), with data, or with an error.
//
// Simulated: one SimNetwork and one FakeIo for each simulated core, all in one thread. Each
// SimNetwork::step() delivers one event to one core, chosen by the seed; the driver then ends that
// core's turn (flush_streams, mailboxes). What one socket sends, the socket at the other end
// receives, in order, cut at random places. Scripted peers (a client, a fake server) use the
// network's own functions (connect, accept, write, read) and need no FakeIo.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "helios/runtime/io.h"

namespace helios {

class FakeIo;

// Whether the op is still in flight after an event.
enum class More : uint8_t { no, yes };

// Random numbers that depend on the seed only (splitmix64).
class SimRandom {
 public:
  explicit SimRandom(uint64_t seed) noexcept : state_(seed) {}
  [[nodiscard]] uint64_t next() noexcept;
  // 0 <= result < bound. Requires: bound > 0.
  [[nodiscard]] uint64_t below(uint64_t bound) noexcept { return next() % bound; }
  [[nodiscard]] bool percent(uint32_t chance) noexcept { return below(100) < chance; }
  // 0 <= result <= bound, for durations.
  [[nodiscard]] int64_t up_to(int64_t bound) noexcept {
    return static_cast<int64_t>(below(static_cast<uint64_t>(bound) + 1));
  }

 private:
  uint64_t state_;
};

struct SimOptions {
  uint64_t seed = 1;
  uint32_t short_send_percent = 20;    // A send takes fewer bytes than offered.
  uint32_t short_recv_percent = 20;    // A receive gets fewer bytes than there are.
  uint32_t multishot_end_percent = 5;  // A multishot op ends with an event that is none of an end.
  uint32_t connect_refused_percent = 0;  // A connect is refused although somebody listens.
  uint32_t reset_per_mille = 0;          // A send or receive finds the connection reset.
  size_t socket_buffer_size = 16384;     // Bytes under way in one direction; a send beyond waits.
  uint32_t interrupt_per_mille = 0;      // A send or receive that could go on ends with EINTR.
};

// What a SimNetwork did to ops of the cores: where it took effect, not where it was drawn.
struct SimEffects {
  uint64_t short_sends = 0;       // Fewer bytes were taken than offered.
  uint64_t blocked_sends = 0;     // None were, for a time: the socket was full.
  uint64_t short_receives = 0;    // Fewer bytes came than there were and a buffer holds.
  uint64_t starved_receives = 0;  // There were bytes and no buffer: where a ring meets ENOBUFS.
  uint64_t delayed_receives = 0;  // What had come was held back for a time.
  uint64_t ended_multishots = 0;  // By an event that is none of an end.
  uint64_t interrupts = 0;
  uint64_t accepted_resets = 0;   // Ops that found their connection reset: one that was accepted,
  uint64_t connected_resets = 0;  // or one that a connect op made.
  uint64_t refused_connects = 0;
  uint64_t late_connects = 0;  // Answered when they had met silence.
  uint64_t lost_connects = 0;  // Cancelled, unanswered.
};

// The sockets of all cores and of the scripted peers.
class SimNetwork {
 public:
  explicit SimNetwork(SimOptions options = {}) noexcept
      : options_(options), random_(options.seed) {}
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;

  // Delivers one event that can happen now, chosen at random. Returns whose it was; nullptr when
  // nothing can happen.
  FakeIo* step();
  // The same for one core: false when nothing can happen there.
  bool step(FakeIo& io);
  // Something can happen on this core now.
  [[nodiscard]] bool is_ready(const FakeIo& io) const;
  // Steps until nothing can happen; `end_of_turn(FakeIo&)` runs after each step. Returns the number
  // of steps, at most `steps_max`.
  template <typename EndOfTurn>
  size_t run(EndOfTurn end_of_turn, size_t steps_max = 1'000'000) {
    size_t steps = 0;
    for (FakeIo* io = nullptr; steps < steps_max && (io = step()) != nullptr; ++steps)
      end_of_turn(*io);
    return steps;
  }
  [[nodiscard]] SimRandom& random() noexcept { return random_; }
  [[nodiscard]] SimOptions& options() noexcept { return options_; }
  [[nodiscard]] const SimEffects& effects() const noexcept { return effects_; }

  // A listening descriptor. Several on one address share its connections at random, as with
  // SO_REUSEPORT.
  [[nodiscard]] int listen(const sockaddr* address, socklen_t size);
  [[nodiscard]] int listen_tcp(uint16_t port);  // On 127.0.0.1.
  // Whether connect ops to this port of 127.0.0.1 are answered at all, be it by a refusal. They are
  // unless told otherwise.
  void set_answering(uint16_t port, bool is_answering);
  // Connect ops to it that are under way now are never answered: their packets were dropped.
  void lose_connects(uint16_t port);

  // Scripted peers. All return at once.
  // A connected descriptor; -ECONNREFUSED when nobody listens.
  [[nodiscard]] int connect(const sockaddr* address, socklen_t size);
  [[nodiscard]] int connect_tcp(uint16_t port);
  // The next connection of a listening descriptor that no accept op serves; -EAGAIN when there is
  // none.
  [[nodiscard]] int accept(int listen_fd);
  // accept() would return a connection.
  [[nodiscard]] bool has_pending(int listen_fd) const {
    return !at(listen_fd).accept_queue.empty();
  }
  // Two connected descriptors.
  [[nodiscard]] std::pair<int, int> make_pair(int family = AF_INET);
  // Takes all bytes, whatever the socket buffer's size; -EPIPE or -ECONNRESET when nobody can get
  // them.
  int write(int fd, std::string_view bytes);
  // Everything that has arrived (takes it).
  [[nodiscard]] std::string read(int fd);
  [[nodiscard]] const std::string& peek(int fd) const { return at(fd).inbox; }
  // End of file or a reset was reached: nothing will arrive any more.
  [[nodiscard]] bool is_at_end(int fd) const;
  void shutdown_write(int fd);
  void close(int fd);
  // What this end has sent does not reach a core for now, nor what it sends, until it is released
  // or closed.
  void hold_back(int fd) { at(fd).is_held_back = true; }
  void release(int fd);
  // The other end sends nothing any more, whatever there is left to read.
  [[nodiscard]] bool is_ended(int fd) const { return at(fd).inbox_ended; }
  // Both ends fail with ECONNRESET, after what has arrived was read.
  void reset(int fd);
  // reset() ended this connection: neither end needs to let go of it any more.
  [[nodiscard]] bool was_reset(int fd) const { return at(fd).was_reset; }
  // Makes a poll op on this descriptor fire once.
  void signal(int fd) { at(fd).poll_ready = true; }

  // The descriptor is open (and not closed since).
  [[nodiscard]] bool is_open(int fd) const noexcept;
  [[nodiscard]] size_t open_count() const noexcept { return open_count_; }
  // A descriptor that is not connected to anything: for scripts.
  [[nodiscard]] int make_fd(int family);

 private:
  friend class FakeIo;
  struct Socket {
    bool is_open = false;
    int family = AF_INET;
    int peer = -1;           // The other end; -1 when there is none (any more).
    bool connected = false;  // Was connected once.
    bool listening = false;
    bool inbox_ended = false;  // The other end sends nothing any more.
    bool shut_write = false;
    bool poll_ready = false;
    bool was_reset = false;
    bool is_held_back = false;
    int error = 0;        // The connection was reset.
    std::string address;  // Of a listening socket, or the one that was connected to.
    std::string inbox;    // Arrived, not yet received.
    std::string sent;     // Everything this socket ever sent (scripted only).
    std::vector<int> accept_queue;
  };

  [[nodiscard]] Socket& at(int fd);
  [[nodiscard]] const Socket& at(int fd) const;
  [[nodiscard]] int connect_to(int fd, const std::string& address);
  [[nodiscard]] bool is_silent(const std::string& address) const;
  // What comes in there is held back by the other end.
  [[nodiscard]] bool is_delayed(const Socket& socket) const {
    return socket.peer >= 0 && at(socket.peer).is_held_back;
  }
  [[nodiscard]] bool can_op(const FakeIo& io, size_t op_index) const;
  [[nodiscard]] bool try_op(FakeIo& io, size_t op_index);
  [[nodiscard]] bool try_accept(FakeIo& io, size_t op_index, Socket& socket);
  [[nodiscard]] bool try_recv(FakeIo& io, size_t op_index, Socket& socket);
  [[nodiscard]] bool try_send(FakeIo& io, size_t op_index, Socket& socket);
  [[nodiscard]] bool try_poll(FakeIo& io, size_t op_index, Socket& socket);
  [[nodiscard]] bool try_connect(FakeIo& io, size_t op_index);
  void end_cancelled(FakeIo& io, size_t op_index);
  void end_reset(FakeIo& io, size_t op_index, const Socket& socket);
  [[nodiscard]] bool try_interrupt(FakeIo& io, size_t op_index);
  [[nodiscard]] More random_more();
  void end_inbox_of(int fd);
  void forget(int fd);

  SimOptions options_;
  SimRandom random_;
  SimEffects effects_;
  std::deque<Socket> sockets_;  // By descriptor, from FakeIo::first_fd on.
  size_t open_count_ = 0;
  std::vector<std::string> silent_addresses_;
  std::vector<FakeIo*> cores_;
};

class FakeIo final : public Io {
 public:
  static constexpr uint32_t buffer_size = 4096;
  static constexpr int first_fd = 1 << 20;

  // `buffers_count` in each group. Without a network it has one of its own, for scripts.
  explicit FakeIo(uint32_t buffers_count = 64, SimNetwork* network = nullptr);
  ~FakeIo() override;  // Requires: no target attached, nothing lent.

  // --- Io
  [[nodiscard]] TargetId attach(IoTarget* target) noexcept override;
  void detach(TargetId id) noexcept override;
  void start_accept(TargetId id, int fd) noexcept override;
  void start_recv(TargetId id, int fd, BufferGroup group, bool expect_idle) noexcept override;
  void start_send(TargetId id, int fd, std::span<const iovec> parts,
                  SendNotice notice) noexcept override;
  void start_connect(TargetId id, int fd, const sockaddr* address,
                     socklen_t size) noexcept override;
  void start_poll(TargetId id, int fd) noexcept override;
  void start_hangup_poll(TargetId id, int fd) noexcept override;
  void start_cancel(TargetId id, OpKind kind) noexcept override;
  void keep_buffer(BufferRef buffer) noexcept override;
  void release_buffer(BufferRef buffer) noexcept override;
  [[nodiscard]] uint32_t lent_count(BufferGroup group) const noexcept override;
  [[nodiscard]] uint32_t buffers_count(BufferGroup) const noexcept override {
    return buffers_count_;
  }
  void trim_buffers() noexcept override {}
  [[nodiscard]] int open_socket(int family) noexcept override;
  void tune_socket(int fd, int family) noexcept override;
  void shutdown_write(int fd) noexcept override;
  void close_fd(int fd) noexcept override;

  // --- What a test may ask.
  [[nodiscard]] SimNetwork& network() noexcept { return network_; }
  [[nodiscard]] bool is_in_flight(int fd, OpKind kind) const {
    return find_by_fd(fd, kind) != none;
  }
  [[nodiscard]] bool is_cancelling(int fd, OpKind kind) const;
  [[nodiscard]] size_t in_flight_count() const noexcept { return ops_.size(); }
  [[nodiscard]] size_t targets_count() const noexcept { return targets_count_; }
  // How the receive in flight was armed. Requires: it is in flight.
  [[nodiscard]] bool is_recv_expected_idle(int fd) const;
  // The bytes of the send in flight; empty when there is none.
  [[nodiscard]] std::string offered(int fd) const;
  // Every byte that complete_send took from this descriptor.
  [[nodiscard]] const std::string& sent(int fd) const { return network_.at(fd).sent; }
  [[nodiscard]] bool is_open(int fd) const { return network_.is_open(fd); }
  [[nodiscard]] bool is_write_shut(int fd) const { return network_.at(fd).shut_write; }
  [[nodiscard]] uint32_t recv_starts_count() const noexcept { return recv_starts_count_; }
  [[nodiscard]] uint32_t tuned_count() const noexcept { return tuned_count_; }
  // Of the send started last.
  [[nodiscard]] SendNotice last_notice() const noexcept { return last_notice_; }

  // --- Scripts. Each delivers one event (complete_recv: one for each buffer_size bytes). Requires:
  // such an op is in flight on fd. A descriptor as if accepted or connected elsewhere.
  [[nodiscard]] int make_fd(int family = AF_INET) { return network_.make_fd(family); }
  void complete_recv(int fd, std::string_view bytes, More more = More::yes);
  void end_of_file(int fd);
  // Takes `count` of the offered bytes (at most what is offered; 0 is not possible).
  void complete_send(int fd, size_t count = SIZE_MAX);
  void complete_connect(int fd);
  // Returns the new descriptor.
  int accept(int listen_fd, More more = More::yes);
  void complete_poll(int fd, int mask, More more = More::yes);
  // Ends the op with -error.
  void fail(int fd, OpKind kind, int error);
  // Ends a cancelled op with -ECANCELED. Requires: start_cancel was called for it.
  void complete_cancel(int fd, OpKind kind);
  // From its first turn on, a core meets what the kernel has done before the turn: with the buffers
  // that were free then. A receive that got none is starved, and armed again with the next turn.
  void begin_turn();
  // The core wakes up: tells of the lazy sends that have ended.
  void tell_ended_sends();
  // The next open_socket() fails.
  void fail_next_open(int error) noexcept { next_open_error_ = error; }

 private:
  friend class SimNetwork;
  static constexpr size_t none = SIZE_MAX;
  struct Op {
    TargetId target;
    OpKind kind = OpKind::none;
    int fd = -1;
    bool cancelling = false;
    BufferGroup group = BufferGroup::client;
    bool expect_idle = false;
    bool is_hangup_poll = false;
    std::vector<iovec> parts;
    SendNotice notice = SendNotice::prompt;
    size_t ended_size = 0;  // Of a send that has ended untold.
    std::string address;
    bool is_lost = false;      // A connect that nobody answers.
    bool met_silence = false;  // A connect that nobody answered at some time.
    bool is_blocked = false;   // A send without room.
    uint64_t starved_at = 0;   // The number of a receive without a buffer; 0: it is armed.
  };
  struct TargetSlot {
    IoTarget* target = nullptr;
    uint32_t generation = 0;
  };
  struct Buffer {
    std::vector<uint8_t> bytes;
    uint32_t lent_times = 0;
  };

  [[nodiscard]] Op& add_op(TargetId id, OpKind kind, int fd);
  [[nodiscard]] size_t find_op(TargetId id, OpKind kind) const;
  [[nodiscard]] size_t find_by_fd(int fd, OpKind kind) const;
  [[nodiscard]] size_t required(int fd, OpKind kind) const;
  [[nodiscard]] bool is_attached(TargetId id) const;
  [[nodiscard]] bool has_free_buffer(BufferGroup group) const {
    return lent_count(group) < buffers_count_;
  }
  [[nodiscard]] bool can_receive(const Op& op) const {
    return op.starved_at == 0 && has_free_buffer(op.group) &&
           turn_buffers_[static_cast<size_t>(op.group)] > 0;
  }
  [[nodiscard]] Op* first_starved(BufferGroup group);
  [[nodiscard]] Buffer& buffer_at(BufferRef ref);
  // Takes `count` bytes of a send's parts.
  [[nodiscard]] static std::string take_parts(const Op& op, size_t count);
  [[nodiscard]] bool has_untold_sends() const;
  // A whole send whose notice is lazy: the kernel has taken it, and its owner hears of it before
  // the next event of this core, whatever that is.
  void end_untold(size_t op_index, size_t size) { ops_[op_index].ended_size = size; }
  void deliver(size_t op_index, int res, More more);
  void deliver_bytes(size_t op_index, std::string_view bytes, More more);

  std::unique_ptr<SimNetwork> own_network_;
  SimNetwork& network_;
  uint32_t buffers_count_;
  std::vector<Op> ops_;
  std::vector<TargetSlot> targets_;
  size_t targets_count_ = 0;
  std::vector<Buffer> buffers_[buffer_group_count];
  uint32_t lent_[buffer_group_count] = {0, 0};
  // What is left in this turn of those that were free when it began.
  uint32_t turn_buffers_[buffer_group_count] = {UINT32_MAX, UINT32_MAX};
  uint64_t starved_count_ = 0;
  uint32_t next_buffer_ = 0;
  uint32_t recv_starts_count_ = 0;
  uint32_t tuned_count_ = 0;
  SendNotice last_notice_ = SendNotice::prompt;
  int next_open_error_ = 0;
};

}  // namespace helios
