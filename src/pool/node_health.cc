#include "helios/pool/node_health.h"

#include <algorithm>

#include "helios/base/assert.h"
#include "pool/backoff.h"

namespace helios {

std::optional<NodeAttempt> NodeHealth::begin_attempt(const std::vector<SocketAddress>& addresses,
                                                     Nanoseconds now) {
  std::lock_guard lock(mutex_);
  adopt(addresses);
  const Known* good = first_good();
  if (const Known* bad = due_soonest(); bad != good && trial_began_at_ == never) {
    const Nanoseconds due_at =
        good == nullptr ? bad->retry_at : bad->failed_at + options_.passed_over_for;
    if (now >= due_at) {
      trial_began_at_ = now;
      return NodeAttempt{bad->address, NodeAttempt::Kind::trial, now};
    }
  }
  if (good == nullptr) return std::nullopt;
  return NodeAttempt{good->address, NodeAttempt::Kind::plain, now};
}

std::optional<NodeAttempt> NodeHealth::begin_probe(const std::vector<SocketAddress>& addresses,
                                                   Nanoseconds now) {
  std::lock_guard lock(mutex_);
  adopt(addresses);
  const bool is_possible = is_down() && trial_began_at_ != never && !is_probed_;
  if (!is_possible || now - trial_began_at_ < options_.probe_after) return std::nullopt;
  const Known* bad = due_soonest();
  if (bad == nullptr || now < bad->retry_at) return std::nullopt;
  is_probed_ = true;
  return NodeAttempt{bad->address, NodeAttempt::Kind::probe, now};
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
  ASSERT(attempt.kind == NodeAttempt::Kind::probe);
  end_trial(attempt);
  if (Known* known = find(attempt.address))
    known->retry_at = retry_after(attempt, *known, now, random);
}

void NodeHealth::on_abandoned(const NodeAttempt& attempt) {
  std::lock_guard lock(mutex_);
  end_trial(attempt);
}

void NodeHealth::end_trial(const NodeAttempt& attempt) noexcept {
  if (attempt.kind == NodeAttempt::Kind::trial) trial_began_at_ = never;
  if (attempt.kind == NodeAttempt::Kind::probe) is_probed_ = false;
}

void NodeHealth::set_retry_max(Nanoseconds retry_max) {
  std::lock_guard lock(mutex_);
  options_.retry_max = retry_max;
}

Nanoseconds NodeHealth::retry_at() const {
  std::lock_guard lock(mutex_);
  if (!is_down() || is_probed_) return never;
  Nanoseconds soonest = never;
  for (const Known& known : known_) soonest = std::min(soonest, known.retry_at);
  if (trial_began_at_ == never) return soonest;
  return std::max(soonest, trial_began_at_ + options_.probe_after);
}

bool NodeHealth::is_tried() const {
  std::lock_guard lock(mutex_);
  return trial_began_at_ != never || is_probed_;
}

PoolError NodeHealth::last_error() const {
  std::lock_guard lock(mutex_);
  return last_error_;
}

// Counted from the beginning of the attempt: how long it took to fail says nothing about when the
// node is back. What it held has to be given back all the same before the next one begins. (An
// address that is new while the node is down may have failed to answer a probe only.)
Nanoseconds NodeHealth::retry_after(const NodeAttempt& attempt, const Known& known, Nanoseconds now,
                                    uint64_t random) const noexcept {
  const auto pause = [&](uint32_t doublings) {
    return backoff(options_.retry_first, options_.retry_max, doublings, random);
  };
  return std::max(attempt.began_at + pause(std::max(known.failures, 1U) - 1), now + pause(0));
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

// While the node is down there is none: an address that is new then has not answered yet.
const NodeHealth::Known* NodeHealth::first_good() const noexcept {
  if (is_down()) return nullptr;
  const auto good = std::find_if(known_.begin(), known_.end(),
                                 [](const Known& known) { return known.failures == 0; });
  return good == known_.end() ? nullptr : &*good;
}

// Of the bad addresses before the first good one; that one where there is none. (One that is new
// while the node is down is due at once.)
const NodeHealth::Known* NodeHealth::due_soonest() const noexcept {
  const Known* good = first_good();
  const Known* soonest = good;
  for (const Known& known : known_) {
    if (&known == good) break;
    if (soonest == good || known.retry_at < soonest->retry_at) soonest = &known;
  }
  return soonest;
}

}  // namespace helios
