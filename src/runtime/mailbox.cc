#include "helios/runtime/mailbox.h"

#include <algorithm>

#include "helios/base/assert.h"

namespace helios {

MailboxSystem::MailboxSystem(CoreId cores_count)
    : cores_count_(cores_count),
      rings_(new MessageRing[(size_t{cores_count} + 1) * cores_count]),
      sleep_words_(new SleepWord[cores_count]) {
  ASSERT(cores_count > 0);
  ASSERT(cores_count < UINT16_MAX);
}

Mailbox::Mailbox(MailboxSystem& system, CoreId core, Waker& waker)
    : system_(system), waker_(waker), core_(core), outbound_(system.cores_count()) {
  ASSERT(core <= system.main_id());
  touched_.reserve(system.cores_count());
}

void Mailbox::send(CoreId to, const Message& message) noexcept {
  ASSERT(to != core_);
  ASSERT(to < system_.cores_count());
  Message stamped = message;
  stamped.from = core_;
  ++counters_.sent;
  Outbound& outbound = outbound_[to];
  if (!outbound.is_touched) {
    outbound.is_touched = true;
    touched_.push_back(to);
  }
  // Behind those that wait already: the order is kept.
  if (outbound.overflow.empty() && system_.ring(core_, to).stage(stamped)) return;
  outbound.overflow.push_back(stamped);
  ++counters_.overflowed;
  counters_.overflow_max = std::max<uint64_t>(counters_.overflow_max, outbound.overflow.size());
}

[[gnu::hot]] void Mailbox::flush() noexcept {
  size_t kept_count = 0;
  for (const CoreId to : touched_) {
    move_overflow(to);
    if (system_.ring(core_, to).publish()) wake_if_asleep(to);
    outbound_[to].is_touched = !outbound_[to].overflow.empty();
    if (outbound_[to].is_touched) touched_[kept_count++] = to;
  }
  touched_.resize(kept_count);
}

void Mailbox::move_overflow(CoreId to) noexcept {
  std::deque<Message>& overflow = outbound_[to].overflow;
  while (!overflow.empty() && system_.ring(core_, to).stage(overflow.front())) overflow.pop_front();
}

// After the tail was stored. Of several senders the one whose exchange finds the word set does the
// waking.
void Mailbox::wake_if_asleep(CoreId to) noexcept {
  std::atomic<bool>& sleeping = system_.sleep_words_[to].sleeping;
  if (!sleeping.load(std::memory_order_seq_cst)) return;
  if (!sleeping.exchange(false, std::memory_order_seq_cst)) return;
  ++counters_.wakes;
  waker_.wake(to);
}

uint32_t Mailbox::drain(MessageHandler& handler, uint32_t max) noexcept {
  ASSERT(core_ != system_.main_id());
  const auto senders_count = static_cast<CoreId>(system_.cores_count() + 1);
  CoreId from = next_sender_;
  next_sender_ = static_cast<CoreId>((next_sender_ + 1) % senders_count);
  uint32_t drained_count = 0;
  for (CoreId i = 0; i < senders_count && drained_count < max; ++i) {
    auto& ring = system_.ring(from, core_);
    Message message;
    while (drained_count < max && ring.take(message)) {
      ++drained_count;
      handler.on_message(message);
    }
    ring.release_taken();
    from = static_cast<CoreId>((from + 1) % senders_count);
  }
  counters_.received += drained_count;
  return drained_count;
}

bool Mailbox::prepare_sleep() noexcept {
  ASSERT(core_ != system_.main_id());
  // First the announcement, then the look; a sender first publishes, then looks at the
  // announcement.
  system_.sleep_words_[core_].sleeping.exchange(true, std::memory_order_seq_cst);
  for (CoreId from = 0; from <= system_.main_id(); ++from) {
    if (!system_.ring(from, core_).has_values()) continue;
    awake();
    ++counters_.refused_sleeps;
    return false;
  }
  return true;
}

void Mailbox::awake() noexcept {
  system_.sleep_words_[core_].sleeping.store(false, std::memory_order_seq_cst);
}

}  // namespace helios
