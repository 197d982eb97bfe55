#include "helios/pool/node_health.h"

#include <algorithm>

#include "helios/base/assert.h"
#include "pool/backoff.h"

namespace helios {

std::optional<NodeAttempt> NodeHealth::begin_attempt(const std::vector<SocketAddress>& addresses,
                                                     Nanoseconds now) {
  std::lock_guard lock(mutex_);
  adopt(addresses);
  auto kind = NodeAttempt::Kind::plain;
  const Known* chosen = choose(now, kind);
  if (chosen == nullptr) return std::nullopt;
  if (kind == NodeAttempt::Kind::trial) trial_began_at_ = now;
  if (kind == NodeAttempt::Kind::quick_trial) is_quick_under_way_ = true;
  return NodeAttempt{chosen->address, kind, now};
}

std::optional<Nanoseconds> NodeHealth::on_answer(const NodeAttempt& attempt, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  end_trial(attempt);
  if (Known* known = find(attempt.address)) {
    known->failures = 0;
    known->answered_from = std::max(known->answered_from, attempt.began_at);
  }
  if (!is_down_.exchange(false)) return std::nullopt;
  return now - down_since_;
}

bool NodeHealth::on_failure(const NodeAttempt& attempt, const PoolError& error, Nanoseconds now,
                            uint64_t random) {
  std::lock_guard lock(mutex_);
  end_trial(attempt);
  Known* known = find(attempt.address);
  if (known != nullptr && attempt.began_at < known->answered_from) return false;
  last_error_ = error;
  if (known == nullptr) return false;  // The name does not stand for it any more.
  // Of many attempts that were under way when the first failed only that one counts.
  if (known->failures == 0 || attempt.kind != NodeAttempt::Kind::plain) {
    ++known->failures;
    known->failed_at = now;
    known->retry_at = retry_after(attempt, *known, now, random);
  }
  const bool is_any_good = std::any_of(known_.begin(), known_.end(),
                                       [](const Known& each) { return each.failures == 0; });
  if (is_any_good || is_down_.exchange(true)) return false;
  down_since_ = now;
  return true;
}

void NodeHealth::on_given_up(const NodeAttempt& attempt, Nanoseconds now, uint64_t random) {
  std::lock_guard lock(mutex_);
  ASSERT(attempt.kind == NodeAttempt::Kind::quick_trial);
  end_trial(attempt);
  Known* known = find(attempt.address);
  if (known != nullptr && known->failures > 0)
    known->retry_at = retry_after(attempt, *known, now, random);
}

void NodeHealth::on_abandoned(const NodeAttempt& attempt) {
  std::lock_guard lock(mutex_);
  end_trial(attempt);
}

void NodeHealth::end_trial(const NodeAttempt& attempt) noexcept {
  if (attempt.kind == NodeAttempt::Kind::trial) trial_began_at_ = never;
  if (attempt.kind == NodeAttempt::Kind::quick_trial) is_quick_under_way_ = false;
}

void NodeHealth::set_retry_max(Nanoseconds retry_max) {
  std::lock_guard lock(mutex_);
  options_.retry_max = retry_max;
}

Nanoseconds NodeHealth::retry_at() const {
  std::lock_guard lock(mutex_);
  if (!is_down() || is_quick_under_way_) return never;
  Nanoseconds soonest = never;
  for (const Known& known : known_) soonest = std::min(soonest, known.retry_at);
  if (trial_began_at_ == never) return soonest;
  return std::max(soonest, trial_began_at_ + options_.trial_time);
}

bool NodeHealth::is_tried() const {
  std::lock_guard lock(mutex_);
  return trial_began_at_ != never || is_quick_under_way_;
}

PoolError NodeHealth::last_error() const {
  std::lock_guard lock(mutex_);
  return last_error_;
}

// Counted from the beginning of the attempt: how long it took to fail says nothing about when the
// node is back. What it held has to be given back all the same before the next one begins.
Nanoseconds NodeHealth::retry_after(const NodeAttempt& attempt, const Known& known, Nanoseconds now,
                                    uint64_t random) const noexcept {
  const auto pause = [&](uint32_t doublings) {
    return backoff(options_.retry_first, options_.retry_max, doublings, random);
  };
  return std::max(attempt.began_at + pause(known.failures - 1), now + pause(0));
}

// What the name stands for now. What is known of an address stays with it.
void NodeHealth::adopt(const std::vector<SocketAddress>& addresses) {
  const auto is_same = [](const Known& known, const SocketAddress& address) {
    return known.address == address;
  };
  if (std::equal(known_.begin(), known_.end(), addresses.begin(), addresses.end(), is_same)) return;
  std::vector<Known> adopted;
  for (const SocketAddress& address : addresses) {
    const Known* known = find(address);
    adopted.push_back(known != nullptr ? *known : Known{address});
  }
  known_ = std::move(adopted);
}

NodeHealth::Known* NodeHealth::find(const SocketAddress& address) {
  for (Known& known : known_)
    if (known.address == address) return &known;
  return nullptr;
}

// The first good address, or the bad one whose trial is due: before the first good one, or while
// the node is down of all of them. (An address that is new while the node is down is due at once.)
const NodeHealth::Known* NodeHealth::choose(Nanoseconds now, NodeAttempt::Kind& kind) const {
  const Known* good = nullptr;
  const Known* bad = nullptr;
  for (const Known& known : known_) {
    if (known.failures == 0 && !is_down()) {
      good = &known;
      break;
    }
    if (bad == nullptr || known.retry_at < bad->retry_at) bad = &known;
  }
  if (bad == nullptr) return good;
  const Nanoseconds due_at =
      good == nullptr ? bad->retry_at : bad->failed_at + options_.passed_over_for;
  const auto trial = next_trial(now);
  if (now < due_at || !trial) return good;
  kind = *trial;
  return bad;
}

// Which kind of trial may begin beside what is under way.
std::optional<NodeAttempt::Kind> NodeHealth::next_trial(Nanoseconds now) const noexcept {
  if (trial_began_at_ == never) return NodeAttempt::Kind::trial;
  const bool is_overdue = now - trial_began_at_ >= options_.trial_time;
  if (!is_down() || !is_overdue || is_quick_under_way_) return std::nullopt;
  return NodeAttempt::Kind::quick_trial;
}

}  // namespace helios
