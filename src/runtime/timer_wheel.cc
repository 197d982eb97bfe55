#include "helios/runtime/timer_wheel.h"

#include <algorithm>
#include <array>
#include <bit>

#include "helios/base/assert.h"

namespace helios {
namespace {

// A timer lies at the level of the highest 6-bit digit in which its tick differs from the current
// one, in the slot which that digit names. So everything at a level comes before everything at the
// levels above, and the next timer is in the first slot in use of the first level in use. Eight
// digits hold every deadline there is.
constexpr uint32_t digit_bits = 6;
constexpr uint32_t slots_per_level = 1U << digit_bits;
constexpr uint32_t levels_count = 8;
constexpr Nanoseconds resolution = milliseconds(1);
static_assert(static_cast<uint64_t>(never / resolution) < (1ULL << (digit_bits * levels_count)));

constexpr uint32_t due_index = slots_per_level * levels_count;

uint64_t tick_of(Nanoseconds time) noexcept {
  return static_cast<uint64_t>(std::max<Nanoseconds>(time, 0) / resolution);
}

struct Slot {
  IntrusiveList<Timer, TimerTag> timers;
  // Not later than the earliest deadline in the slot (earlier when that one was cancelled); `never`
  // when it is empty.
  Nanoseconds earliest = never;
};

}  // namespace

struct TimerWheel::Impl {
  uint64_t current = 0;                             // The tick up to which `advance` has come.
  uint32_t levels_used = 0;                         // One bit for each level that holds a timer.
  std::array<uint64_t, levels_count> slots_used{};  // One bit for each slot that holds a timer.
  std::array<Slot, slots_per_level * levels_count> slots;
  IntrusiveList<Timer, TimerTag> due;  // What this advance has still to fire.
  bool is_advancing = false;

  // The first slot in use. Requires: there is one.
  [[nodiscard]] uint32_t first_index() const noexcept {
    const auto level = static_cast<uint32_t>(std::countr_zero(levels_used));
    return level * slots_per_level + static_cast<uint32_t>(std::countr_zero(slots_used[level]));
  }

  // The first tick of a slot.
  [[nodiscard]] uint64_t tick_of_slot(uint32_t index) const noexcept {
    const uint32_t shift = index / slots_per_level * digit_bits;
    const uint64_t digits_above = current >> shift >> digit_bits << digit_bits;
    return (digits_above | index % slots_per_level) << shift;
  }

  void place(Timer& timer) noexcept {
    const uint64_t tick = std::max(tick_of(timer.deadline()), current);
    const uint64_t difference = tick ^ current;
    const uint32_t level =
        difference == 0 ? 0 : (static_cast<uint32_t>(std::bit_width(difference)) - 1) / digit_bits;
    const auto digit = static_cast<uint32_t>(tick >> (level * digit_bits)) % slots_per_level;
    const uint32_t index = level * slots_per_level + digit;
    timer.slot_ = index;
    slots[index].timers.push_back(timer);
    slots[index].earliest = std::min(slots[index].earliest, timer.deadline());
    slots_used[level] |= 1ULL << digit;
    levels_used |= 1U << level;
  }

  void remove(Timer& timer) noexcept {
    const uint32_t index = timer.slot_;
    if (index == due_index) {
      due.remove(timer);
      return;
    }
    slots[index].timers.remove(timer);
    if (slots[index].timers.empty()) mark_empty(index);
  }

  void mark_empty(uint32_t index) noexcept {
    const uint32_t level = index / slots_per_level;
    slots[index].earliest = never;
    slots_used[level] &= ~(1ULL << index % slots_per_level);
    if (slots_used[level] == 0) levels_used &= ~(1U << level);
  }

  // Moves on to the tick of `now`. Each slot that begins by then is emptied on the way, due or not:
  // a timer left in the slot of a digit that is the current one would break the order of the
  // levels.
  void collect_due(Nanoseconds now) noexcept {
    const uint64_t target = std::max(tick_of(now), current);
    while (levels_used != 0) {
      const uint32_t index = first_index();
      const uint64_t tick = tick_of_slot(index);
      if (tick > target) break;
      if (tick == target && index < slots_per_level && slots[index].earliest > now) break;
      current = tick;
      empty_slot(index, now);
    }
    current = target;
  }

  // Takes everything out of a slot. What is not due goes to a lower level or, within the current
  // tick, back in.
  void empty_slot(uint32_t index, Nanoseconds now) noexcept {
    Slot& slot = slots[index];
    slot.earliest = never;
    for (size_t left = slot.timers.size(); left > 0; --left) {
      Timer* timer = slot.timers.pop_front();
      if (timer->deadline() > now) {
        place(*timer);
      } else {
        timer->slot_ = due_index;
        due.push_back(*timer);
      }
    }
    if (slot.timers.empty()) mark_empty(index);
  }
};

TimerWheel::TimerWheel(Nanoseconds now) noexcept : impl_(std::make_unique<Impl>()) {
  impl_->current = tick_of(now);
}

TimerWheel::~TimerWheel() {
  ASSERT(count_ == 0);
}

void TimerWheel::schedule(Timer& timer, Nanoseconds deadline) noexcept {
  cancel(timer);
  if (deadline == never) return;
  timer.deadline_ = deadline;
  impl_->place(timer);
  ++count_;
}

[[gnu::hot]] void TimerWheel::cancel(Timer& timer) noexcept {
  if (!timer.is_scheduled()) return;
  ASSERT(count_ > 0);
  impl_->remove(timer);
  --count_;
}

void TimerWheel::advance(Nanoseconds now) noexcept {
  ASSERT(!impl_->is_advancing);
  impl_->collect_due(now);
  // Fired only when all are collected: what a callback schedules, be it in the past, waits for the
  // next advance.
  impl_->is_advancing = true;
  while (Timer* timer = impl_->due.pop_front()) {
    --count_;
    timer->callback_(timer->context_);
  }
  impl_->is_advancing = false;
}

Nanoseconds TimerWheel::next_wakeup() const noexcept {
  if (impl_->levels_used == 0) return never;
  return impl_->slots[impl_->first_index()].earliest;
}

}  // namespace helios
