// Whether a node answers, as all cores know it: which of its addresses are good, and when one that
// is not may be tried again.
//
// An address is good until a connect to it fails; then it is bad until one succeeds. New
// connections go to the first good address, in the resolver's order. When none is good the node is
// down, until one answers: then one attempt at a time, over all cores and pools, shows whether it
// is back (a trial). From the beginning of one to that of the next at an address it takes a time
// that doubles from retry_first to retry_max, less a random quarter: an address that drops packets
// is tried as often as one that refuses, as long as a trial of it ends before the next is due. So a
// dead node costs one connect at a time, however many clients there are. A bad address that stands
// before a good one is tried again after passed_over_for.
//
// Any thread: a mutex, taken where a server connection begins or fails, never on the path of a
// query.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <vector>

#include "helios/base/address.h"
#include "helios/base/clock.h"
#include "helios/pool/pool_error.h"

namespace helios {

struct NodeHealthOptions {
  Nanoseconds retry_first = milliseconds(50);
  Nanoseconds retry_max = seconds(1);
  // How long a bad address is passed over while a later one is good.
  Nanoseconds passed_over_for = seconds(30);
};

// One attempt to connect. `address` has no family where the node's name has no address: the attempt
// then fails with the resolver's error.
struct NodeAttempt {
  SocketAddress address;
  bool is_trial = false;  // Of an address that is bad.
  Nanoseconds began_at = 0;
};

class NodeHealth {
 public:
  explicit NodeHealth(const NodeHealthOptions& options = {}) : options_(options) {}
  NodeHealth(const NodeHealth&) = delete;
  NodeHealth& operator=(const NodeHealth&) = delete;

  // The address for a new connection, of those that the resolver knows now. Nothing while the node
  // is down and it is not the time for a trial (see retry_at). Each attempt ends in exactly one of
  // on_answer, on_failure and on_abandoned.
  [[nodiscard]] std::optional<NodeAttempt> begin_attempt(
      const std::vector<SocketAddress>& addresses, Nanoseconds now);
  // The node answered, if only by refusing the login. Returns for how long it was down; nothing
  // where it was not.
  std::optional<Nanoseconds> on_answer(const NodeAttempt& attempt, Nanoseconds now);
  // No connection, or none that serves. `random`: for the pause. True: the node is down from now on
  // and was not before.
  bool on_failure(const NodeAttempt& attempt, const PoolError& error, Nanoseconds now,
                  uint64_t random);
  // The attempt was given up for reasons of our own: nothing is learnt.
  void on_abandoned(const NodeAttempt& attempt);

  [[nodiscard]] bool is_down() const noexcept { return is_down_.load(std::memory_order_relaxed); }
  // The longest pause between trials, from the next failure on.
  void set_retry_max(Nanoseconds retry_max);
  // When the next trial may begin; `never` while one is under way or the node is up.
  [[nodiscard]] Nanoseconds retry_at() const;
  // Of the last failure.
  [[nodiscard]] PoolError last_error() const;

 private:
  struct Known {
    SocketAddress address;
    uint32_t failures = 0;  // In a row. 0: good.
    Nanoseconds failed_at = 0;
    Nanoseconds retry_at = 0;
  };

  void adopt(const std::vector<SocketAddress>& addresses);
  [[nodiscard]] Known* find(const SocketAddress& address);
  [[nodiscard]] Nanoseconds retry_after(const NodeAttempt& attempt, const Known& known,
                                        Nanoseconds now, uint64_t random) const noexcept;
  [[nodiscard]] const Known* choose(Nanoseconds now, bool& is_trial) const;

  mutable std::mutex mutex_;  // Guards everything below; is_down_ may be read without it.
  NodeHealthOptions options_;
  std::vector<Known> known_;  // In the resolver's order.
  bool is_trial_under_way_ = false;
  Nanoseconds down_since_ = 0;
  PoolError last_error_;
  std::atomic<bool> is_down_{false};
};

}  // namespace helios
