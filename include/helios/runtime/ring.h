// One io_uring: the only place where the kernel is entered to do IO.
//
// A core makes its ring in its own thread and calls `turn` in its loop. Between turns and in
// handlers the start_ functions only queue; the next turn submits all of it with one
// io_uring_enter, collects what completed and delivers it. Ops in flight are known by ticket
// (op.h), never by pointer.
//
// Set up with SINGLE_ISSUER | DEFER_TASKRUN (kernel 6.1): completions arrive only when we enter, so
// they form batches. The completion queue is sized so that it cannot overflow: each receive
// completion needs a provided buffer, every target has at most two other ops that end at the same
// time (a third, a hang-up poll, is rare: a waiter's), and wake-ups are few.
//
// Owned by one core; its thread only, creation and destruction included (the kernel insists:
// -EEXIST). Invariant: an op is in flight from its start_ function to its event with more == false,
// and in between its target is attached.
#pragma once

#include <liburing.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "helios/base/clock.h"
#include "helios/base/intrusive_list.h"
#include "helios/base/result.h"
#include "helios/base/slab.h"
#include "helios/runtime/buffer_ring.h"
#include "helios/runtime/features.h"
#include "helios/runtime/io.h"
#include "helios/runtime/mailbox.h"

namespace helios {

class WakeTable;

struct BufferGroupOptions {
  uint32_t count;        // A power of two.
  uint32_t buffer_size;  // Bytes.
};

struct RingOptions {
  uint32_t sq_entries = 512;
  uint32_t cq_entries = 0;  // 0: large enough that it cannot overflow. At least sq_entries.
  uint32_t targets_max = 16'384;
  BufferGroupOptions client_buffers{256, 65'536};
  BufferGroupOptions backend_buffers{256, 65'536};
  FeatureMask features_off;  // Test-only: the features to hide.
};

// Since creation. Plain numbers of one core: another thread must not read them while the core runs.
struct RingCounters {
  uint64_t enters = 0;
  uint64_t extra_enters =
      0;  // Of these: more completions than one enter delivers (kernel 6.13 and newer: 20).
  uint64_t sq_flushes = 0;  // Of these: the submission queue was full within a turn.
  uint64_t sqes = 0;
  uint64_t cqes = 0;
  uint64_t cq_overflows =
      0;  // Turns that found the completion queue overflowed. Growth is a defect of sizing.
  uint64_t busy_enters = 0;  // Enters that ended in -EBUSY or -EAGAIN.
  uint64_t enobufs = 0;      // Receives that met an empty buffer group.
  uint64_t starved = 0;      // Put on the starved list (not those that had been cancelled).
  uint64_t rearms = 0;       // Starved receives armed again.
  uint64_t sends = 0;
  uint64_t silent_sends = 0;        // Of these: made no completion.
  uint64_t short_sends = 0;         // Fewer bytes taken than offered.
  uint64_t receives = 0;            // With data.
  uint64_t receives_verified = 0;   // Sockets asked whether their end was missed.
  uint64_t receives_restarted = 0;  // Of these: it may have been.
  uint64_t alarms = 0;              // Ends of a long wait (is_alarm_enough in ring.cc).
  uint64_t wakes_sent = 0;
  uint64_t wakes_received = 0;
};

class Ring final : public Io, public Waker {
 public:
  // Call it in the thread that will use the ring, pinned already. The error is a text for a person
  // that names the refused call, the likely causes and their remedies.
  [[nodiscard]] static Result<std::unique_ptr<Ring>> create(const RingOptions& options);
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  // Requires: every target is detached and every buffer released.
  ~Ring() override;

  // One turn: submits what was queued, waits at most `timeout` nanoseconds for a completion (0:
  // does not wait; never: without a limit) and delivers every completion that is there. May return
  // early without any. Returns how many completions it handled, its own alarm aside. Requires: not
  // called from a handler.
  int turn(Nanoseconds timeout) noexcept;

  // The end of a connection that comes together with data can be missed by the kernel (see
  // verify_receives in ring.cc). `verify_receives` finds out for the receives that had data since
  // the last call, with one poll(2) for up to 64 of them, and makes those that may have missed it
  // look again; the target sees only the end itself. Call it now and then while `has_unverified`
  // (Core does). Requires: not called from a handler.
  [[nodiscard]] bool has_unverified() const noexcept { return !unverified_.empty(); }
  void verify_receives() noexcept;

  // From now on other cores of the table can end this ring's sleep, and `wake` works. `self` is
  // this core. Once, before the first turn. Requires: the table outlives the ring.
  void accept_wakes(WakeTable& table, CoreId self) noexcept;
  // Wakes another core of the table: with the next turn's enter by MSG_RING, else at once by
  // eventfd. Requires: accept_wakes was called; to is another core.
  void wake(CoreId to) noexcept override;

  [[nodiscard]] const RingCounters& counters() const noexcept { return counters_; }
  [[nodiscard]] FeatureSet features() const noexcept { return features_; }
  [[nodiscard]] std::string describe() const;
  [[nodiscard]] uint32_t targets_count() const noexcept { return targets_.used_count(); }

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
  [[nodiscard]] uint32_t buffers_count(BufferGroup group) const noexcept override;
  void trim_buffers() noexcept override;
  [[nodiscard]] int open_socket(int family) noexcept override;
  void tune_socket(int fd, int family) noexcept override;
  void shutdown_write(int fd) noexcept override;
  void close_fd(int fd) noexcept override;

 private:
  struct WaitingTag;
  struct UnverifiedTag;
  // A receive is in exactly one place: idle, with the kernel (armed; or restarting: we have asked
  // for its end, to arm it again), on its group's starved list, or on the list of starved receives
  // that were cancelled.
  enum class RecvState : uint8_t { idle, armed, restarting, starved, cancelled };
  struct Target : ListNode<WaitingTag>, ListNode<UnverifiedTag> {
    explicit Target(IoTarget* handler_) noexcept : handler(handler_) {}
    IoTarget* handler;
    int recv_fd = -1;
    uint32_t send_size = 0;      // Bytes offered by the send in flight.
    uint32_t send_position = 0;  // Its place in the submission queue, counted without wrapping.
    uint8_t ops_in_flight = 0;   // One bit for each OpKind.
    uint8_t ops_cancelled = 0;   // Of these: a cancel was asked for.
    BufferGroup recv_group = BufferGroup::client;
    RecvState recv_state = RecvState::idle;
    bool is_send_silent = false;  // The send in flight ends without a completion if it succeeds.
    bool is_send_blocked =
        false;  // The last send found too little room: the next one waits for it.
  };
  // A send that ends without a completion (ring_sends.cc), in the order of submission.
  struct SilentSend {
    TargetId target;
    uint32_t position;
  };
  struct Group {
    std::unique_ptr<BufferRing> buffers;
    IntrusiveList<Target, WaitingTag> starved;  // First come, first served.
    uint32_t turns_waited = 0;  // Turns with starved receives and too few buffers to serve them.
  };
  // What an SQE points to, kept until it is submitted (FEAT_SUBMIT_STABLE). One for each SQE.
  struct Scratch;

  explicit Ring(const RingOptions& options) noexcept;
  [[nodiscard]] Result<bool> set_up(const RingOptions& options);
  [[nodiscard]] Result<bool> set_up_group(BufferGroup group, const BufferGroupOptions& options);

  [[nodiscard]] io_uring_sqe* next_sqe() noexcept;
  [[nodiscard]] Scratch& scratch_of(const io_uring_sqe* sqe) noexcept;
  void begin_op(Target& target, OpKind kind) noexcept;
  void finish_op(Target& target, OpKind kind) noexcept;
  void arm_recv(Target& target, bool expect_idle) noexcept;
  void cancel_in_kernel(const Target& target, OpKind kind) noexcept;
  [[nodiscard]] static bool is_cancelled(const Target& target, OpKind kind) noexcept;
  [[nodiscard]] uint32_t unsubmitted_count() const noexcept;
  [[nodiscard]] uint32_t sq_flags() const noexcept;
  [[nodiscard]] uint32_t cqes_count() const noexcept;
  [[nodiscard]] bool has_work_ready() const noexcept;
  void flush_sq() noexcept;
  int enter(uint32_t wait_count, Nanoseconds timeout) noexcept;
  int enter_kernel(uint32_t wait_count, uint32_t flags, io_uring_getevents_arg* argument) noexcept;
  void enter_for_rest() noexcept;

  [[nodiscard]] bool serve_starved(bool would_sleep) noexcept;
  void rearm_starved(Group& group, bool would_sleep) noexcept;
  void on_recv_starved(Target& target, int res) noexcept;

  [[nodiscard]] bool try_silent_send() noexcept;
  void note_failed_sends() noexcept;
  uint32_t deliver_silent_sends() noexcept;
  void deliver_send(Target& target, int res, bool is_silent) noexcept;

  void mark_unverified(Target& target) noexcept;
  void unmark_unverified(Target& target) noexcept;
  void verify_batch(size_t count) noexcept;
  void start_restart(Target& target) noexcept;
  void on_restart_ready(Target& target, const io_uring_cqe& cqe) noexcept;

  uint32_t deliver_cancelled(size_t count) noexcept;
  uint32_t deliver_cqes() noexcept;
  void deliver(const io_uring_cqe& cqe) noexcept;
  void deliver_recv(Target& target, const io_uring_cqe& cqe) noexcept;
  void deliver_own(const io_uring_cqe& cqe) noexcept;
  void end_recv(Target& target, int res) noexcept;
  void call(Target& target, const IoEvent& event) noexcept;
  [[nodiscard]] bool is_alarm_enough(Nanoseconds timeout) noexcept;
  void start_wake_poll() noexcept;
  void on_wake_poll(const io_uring_cqe& cqe) noexcept;
  [[nodiscard]] Target& target_at(TargetId id) noexcept;
  [[nodiscard]] Group& group_at(BufferGroup group) noexcept;
  [[nodiscard]] const Group& group_at(BufferGroup group) const noexcept;

  io_uring ring_{};
  bool is_open_ = false;
  bool is_in_handler_ = false;
  FeatureSet features_;
  FeatureMask features_off_;
  RingCounters counters_;
  Slab<Target> targets_;
  std::array<Group, buffer_group_count> groups_;
  IntrusiveList<Target, WaitingTag>
      cancelled_;  // Starved receives whose end the next turn delivers.
  // Receives that had data since they were verified. Invariant: each is armed and not cancelled.
  IntrusiveList<Target, UnverifiedTag> unverified_;
  std::unique_ptr<Scratch[]> scratch_;
  std::vector<SilentSend> silent_sends_;  // Those whose end has not been delivered.
  MonotonicClock clock_;
  Nanoseconds alarm_at_ = never;  // When the alarm in flight ends a wait; never: none is in flight.
  bool is_notice_due_ = false;    // A silent send of this turn wants a prompt notice: do not sleep.
  WakeTable* wake_table_ = nullptr;
  CoreId self_ = 0;
};

}  // namespace helios
