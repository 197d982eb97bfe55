// Messages between cores: one single-producer single-consumer ring for each ordered pair of cores.
//
// Producers stage messages during a turn and publish them once at its end (flush); consumers drain
// at most `drain_max` per turn, starting at a rotating peer. A full ring never blocks: messages
// wait, in order, in a local overflow queue of the sender and go out at a later flush. A core that
// sleeps is woken by the first sender that publishes to it.
//
// Threads: each core uses its own Mailbox object; the rings and `sleeping` words between them are
// the shared part. Invariant: messages of one pair of cores arrive in the order in which they were
// sent, each exactly once.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "helios/runtime/spsc_ring.h"

namespace helios {

using CoreId = uint16_t;

// 32 bytes, plain. The meaning of the words belongs to the kind; pointers in them move their
// object's ownership.
struct Message {
  uint16_t kind = 0;
  CoreId from = 0;
  uint32_t count = 0;
  uint64_t words[3] = {0, 0, 0};
};
static_assert(sizeof(Message) == 32);

class MessageHandler {
 public:
  virtual void on_message(const Message& message) noexcept = 0;

 protected:
  ~MessageHandler() = default;
};

// What a pool, session or listener needs to talk to other cores. `Mailbox` implements it; the
// simulator has its own.
class Postbox {
 public:
  virtual ~Postbox() = default;
  [[nodiscard]] virtual CoreId core() const noexcept = 0;
  [[nodiscard]] virtual CoreId cores_count() const noexcept = 0;
  // Stages a message to another core; `from` is filled in. Never fails. Requires: to != core().
  virtual void send(CoreId to, const Message& message) noexcept = 0;
  // The same message to every other core. Requires: core() is a core, and no word of the message
  // hands anything over.
  void send_to_others(const Message& message) noexcept {
    for (CoreId to = 0; to < cores_count(); ++to)
      if (to != core()) send(to, message);
  }
};

// Ends a core's sleep. The ring implements it for cores; WakeTable::wake_by_event serves the main
// thread.
class Waker {
 public:
  virtual void wake(CoreId peer) noexcept = 0;

 protected:
  ~Waker() = default;
};

constexpr uint32_t mailbox_ring_capacity = 256;

// What the cores share: the rings between them and the words that say who sleeps. The main thread
// makes it before the cores start and destroys it after they ended; it sends like a core, under an
// id of its own, and receives nothing.
class MailboxSystem {
 public:
  // Requires: 1 <= cores_count < 65535.
  explicit MailboxSystem(CoreId cores_count);
  MailboxSystem(const MailboxSystem&) = delete;
  MailboxSystem& operator=(const MailboxSystem&) = delete;

  [[nodiscard]] CoreId cores_count() const noexcept { return cores_count_; }
  // The id under which the main thread sends.
  [[nodiscard]] CoreId main_id() const noexcept { return cores_count_; }

 private:
  friend class Mailbox;
  using MessageRing = SpscRing<Message, mailbox_ring_capacity>;
  struct alignas(cache_padding) SleepWord {
    // Set by the core itself before it sleeps, cleared by it or by the one sender who then wakes
    // it. Always sequentially consistent, with the tails of the rings (SpscRing::publish and
    // has_values).
    std::atomic<bool> sleeping{false};
  };
  [[nodiscard]] MessageRing& ring(CoreId from, CoreId to) noexcept {
    return rings_[size_t{from} * cores_count_ + to];
  }

  CoreId cores_count_;
  std::unique_ptr<MessageRing[]> rings_;  // (cores + main thread) senders x cores.
  std::unique_ptr<SleepWord[]> sleep_words_;
};

// Of one mailbox, since its creation.
struct MailboxCounters {
  uint64_t sent = 0;
  uint64_t received = 0;
  uint64_t wakes = 0;         // Peers that slept when we published to them.
  uint64_t overflowed = 0;    // Of the sent: found the ring full and waited in the overflow queue.
  uint64_t overflow_max = 0;  // The most that waited for one peer.
  uint64_t refused_sleeps = 0;  // There was mail when the core wanted to sleep.
};

// One core's end of all its rings, or the main thread's. One thread.
class Mailbox final : public Postbox {
 public:
  // `core` is a core's number, or main_id(). Requires: one mailbox for each id; `system` and
  // `waker` outlive it.
  Mailbox(MailboxSystem& system, CoreId core, Waker& waker);

  [[nodiscard]] CoreId core() const noexcept override { return core_; }
  [[nodiscard]] CoreId cores_count() const noexcept override { return system_.cores_count(); }
  void send(CoreId to, const Message& message) noexcept override;

  // Publishes what was sent since the last flush, once for each peer, and wakes the peers that
  // sleep. What finds no room stays for a later flush (has_unsent).
  void flush() noexcept;
  // Messages wait for room in a peer's ring: flush again soon, nobody tells us when there is some.
  [[nodiscard]] bool has_unsent() const noexcept { return !touched_.empty(); }

  // Hands at most `max` messages to the handler, from all peers, and returns how many. Which peer
  // comes first changes from call to call. The handler may send. Requires: not the main thread's
  // mailbox (neither do the next two).
  uint32_t drain(MessageHandler& handler, uint32_t max = drain_max) noexcept;
  // Announces that this core goes to sleep. False: there is mail, do not sleep. When it returns
  // true, whoever publishes a message afterwards wakes us.
  [[nodiscard]] bool prepare_sleep() noexcept;
  // The sleep is over; messages no longer wake.
  void awake() noexcept;

  [[nodiscard]] const MailboxCounters& counters() const noexcept { return counters_; }

  static constexpr uint32_t drain_max = 64;

 private:
  struct Outbound {
    std::deque<Message> overflow;  // Behind everything in the ring.
    bool is_touched = false;       // In `touched_`.
  };

  void move_overflow(CoreId to) noexcept;
  void wake_if_asleep(CoreId to) noexcept;

  MailboxSystem& system_;
  Waker& waker_;
  CoreId core_;
  CoreId next_sender_ = 0;  // Where the next drain begins.
  std::vector<Outbound> outbound_;
  std::vector<CoreId> touched_;  // Peers with staged or overflowed messages.
  MailboxCounters counters_;
};

}  // namespace helios
