#include "helios/pool/shared_limit.h"

#include <algorithm>

#include "helios/base/assert.h"

namespace helios {

bool SharedLimit::try_take(const LimitClaim& claim, Nanoseconds now) {
  ASSERT(claim.pool != 0);
  ASSERT(claim.weight > 0);
  std::lock_guard lock(mutex_);
  forget_gone(now);
  Member& member = members_[claim.pool];
  member.claim = claim;
  if (has_room() && !is_kept_for_others(member, now)) {
    ++member.held;
    member.taken_at = now;
    clear_wants(member);
    forget_vain_ask(now);
    taken_.store(taken() + 1, std::memory_order_relaxed);
    return true;
  }
  if (member.wants_until < now) member.wants_since = now;
  add_want(member, claim.core, now + want_time);
  const uint64_t starved = starved_.load(std::memory_order_relaxed);
  const bool is_alone = starved == 0 || starved == claim.pool;
  starved_.store(is_alone ? claim.pool : several, std::memory_order_relaxed);
  if (!has_room()) ask_one(member, now);
  return false;
}

bool SharedLimit::withdraw(uint64_t pool, CoreId core) {
  std::lock_guard lock(mutex_);
  const auto found = members_.find(pool);
  if (found == members_.end()) return false;
  Member& member = found->second;
  if (std::erase_if(member.wants, [&](const Want& want) { return want.core == core; }) == 0)
    return false;
  member.wants_until = 0;
  for (const Want& want : member.wants)
    member.wants_until = std::max(member.wants_until, want.until);
  if (member.wants.empty()) clear_wants(member);
  if (member.wants.empty() && member.held == 0) members_.erase(found);
  forget_vain_ask(0);
  return has_room() && starved_.exchange(0, std::memory_order_relaxed) != 0;
}

bool SharedLimit::give_back(uint64_t pool) {
  std::lock_guard lock(mutex_);
  const auto found = members_.find(pool);
  ASSERT(found != members_.end());
  ASSERT(found->second.held > 0);
  --found->second.held;
  found->second.asked_at = 0;
  // It was asked for one: that is this one, however it has ended.
  uint64_t asked = pool;
  (void)asked_.compare_exchange_strong(asked, 0);
  taken_.store(taken() - 1, std::memory_order_relaxed);
  making_room_until_.store(0, std::memory_order_relaxed);
  // What ends by itself need not be asked for. (Those that were asked count in the excess too.)
  uint32_t surplus = surplus_.load(std::memory_order_relaxed);
  while (surplus > excess() && !surplus_.compare_exchange_weak(surplus, excess())) {
  }
  if (found->second.held == 0 && found->second.wants_until == 0) members_.erase(found);
  return starved_.exchange(0, std::memory_order_relaxed) != 0;
}

void SharedLimit::set_max(uint32_t max) {
  std::lock_guard lock(mutex_);
  max_.store(max, std::memory_order_relaxed);
  surplus_.store(excess(), std::memory_order_relaxed);
}

uint32_t SharedLimit::excess() const noexcept {
  return max() == 0 || taken() <= max() ? 0 : taken() - max();
}

bool SharedLimit::give_up_surplus() noexcept {
  uint32_t left = surplus_.load(std::memory_order_relaxed);
  while (left > 0 && !surplus_.compare_exchange_weak(left, left - 1)) {
  }
  return left > 0;
}

bool SharedLimit::has_room_to_spare(uint64_t pool, Nanoseconds now) const {
  if (!has_room()) return false;
  std::lock_guard lock(mutex_);
  return std::none_of(members_.begin(), members_.end(), [&](const auto& entry) {
    return entry.first != pool && entry.second.wants_until >= now;
  });
}

bool SharedLimit::is_guaranteed(uint64_t pool, uint32_t minimum, Nanoseconds now) const {
  if (minimum == 0) return false;
  std::lock_guard lock(mutex_);
  const auto found = members_.find(pool);
  if (found == members_.end() || found->second.held > minimum) return false;
  return std::none_of(members_.begin(), members_.end(),
                      [&](const auto& entry) { return is_starving(entry.second, now); });
}

uint32_t SharedLimit::taken_by(uint64_t pool) const {
  std::lock_guard lock(mutex_);
  const auto found = members_.find(pool);
  return found == members_.end() ? 0 : found->second.held;
}

void SharedLimit::add_want(Member& member, CoreId core, Nanoseconds until) {
  const auto found = std::find_if(member.wants.begin(), member.wants.end(),
                                  [&](const Want& want) { return want.core == core; });
  if (found == member.wants.end()) {
    member.wants.push_back({core, until});
  } else {
    found->until = until;
  }
  member.wants_until = std::max(member.wants_until, until);
}

// Nobody wants any more what a pool was asked for.
void SharedLimit::forget_vain_ask(Nanoseconds now) noexcept {
  if (!is_wanted_back()) return;
  const bool is_wanted = std::any_of(members_.begin(), members_.end(), [&](const auto& entry) {
    return !entry.second.wants.empty() && entry.second.wants_until >= now;
  });
  if (!is_wanted) asked_.store(0, std::memory_order_relaxed);
}

void SharedLimit::clear_wants(Member& member) noexcept {
  member.wants.clear();
  member.wants_until = 0;
  member.wants_since = never;
}

// Has nothing, and has wanted something for so long that it is its turn.
bool SharedLimit::is_starving(const Member& member, Nanoseconds now) noexcept {
  return member.held == 0 && member.wants_until >= now && now - member.wants_since >= patience;
}

// Whether `one` should get a connection rather than `other` keep (or get) its last one.
bool SharedLimit::is_due_before(const Member& one, const Member& other) noexcept {
  const bool is_short = one.held < one.claim.minimum;
  const bool is_spare = other.held > other.claim.minimum;
  if (is_short && is_spare) return true;
  if (!is_short && !is_spare) return false;
  const uint64_t after = (uint64_t{one.held} + 1) * other.claim.weight;
  const uint64_t held = uint64_t{other.held} * one.claim.weight;
  return after < held || (after == held && one.wants_since < other.wants_since);
}

// Pools come and go (databases and users by "*"): those without anything are dropped now and then.
void SharedLimit::forget_gone(Nanoseconds now) {
  if (members_.size() < forget_at_) return;
  std::erase_if(members_, [&](const auto& entry) {
    return entry.second.held == 0 && entry.second.wants_until < now;
  });
  forget_at_ = std::max<size_t>(64, 2 * members_.size());
}

// As many others want what is free, and are due before this one, as there is free.
bool SharedLimit::is_kept_for_others(const Member& member, Nanoseconds now) const {
  if (max() == 0) return false;
  const bool is_its_turn = is_starving(member, now);
  Member after = member;
  ++after.held;
  const auto comes_before_it = [&](const Member& other) {
    if (other.wants_until < now) return false;
    if (is_starving(other, now)) return !is_its_turn || other.wants_since < member.wants_since;
    return !is_its_turn && is_due_before(other, after);
  };
  uint32_t free_count = max() - taken();
  for (const auto& [pool, other] : members_)
    if (pool != member.claim.pool && comes_before_it(other) && --free_count == 0) return true;
  return false;
}

// Asks the pool that has most for its weight, of those that should give way, to give one up. One
// that was asked already and did not (its clients may be in transactions) comes last.
void SharedLimit::ask_one(const Member& wanting, Nanoseconds now) {
  const auto comes_before = [](const Member& a, const Member& b) {
    if (a.asked_at != b.asked_at) return a.asked_at < b.asked_at;
    const uint64_t part_of_a = uint64_t{a.held} * b.claim.weight;
    const uint64_t part_of_b = uint64_t{b.held} * a.claim.weight;
    return part_of_a != part_of_b ? part_of_a > part_of_b : a.taken_at < b.taken_at;
  };
  const bool is_its_turn = is_starving(wanting, now);
  Member* best = nullptr;
  for (auto& [pool, member] : members_) {
    if (pool == wanting.claim.pool || member.held == 0) continue;
    Member asked = member;
    asked.wants_since = 0;  // Of two with equal parts the one that has it keeps it.
    if (!is_its_turn && !is_due_before(wanting, asked)) continue;
    if (best == nullptr || comes_before(member, *best)) best = &member;
  }
  if (best == nullptr) return;
  best->asked_at = now;
  asked_.store(best->claim.pool, std::memory_order_relaxed);
}

}  // namespace helios
