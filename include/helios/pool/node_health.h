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
// A trial that is accepted and not answered may be at a node that is slow, or at one that hangs and
// will never answer this one. It goes on, and once it has lasted for probe_after the node is asked
// beside it, one probe at a time, whether it works (node_probe.h). A probe is given up after
// trial_time, from which nothing is learnt: a return of the node in the meantime is seen by the
// next.
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
  // How long a trial may take to be accepted, and a probe in whole. Less than retry_max's default:
  // within a second after one of them has begun the next one has.
  Nanoseconds trial_time = milliseconds(900);
  // How long a trial lasts until probes begin. More than trial_time: then it was accepted.
  Nanoseconds probe_after = milliseconds(950);
  // How long a bad address is passed over while a later one is good.
  Nanoseconds passed_over_for = seconds(30);
};

// One attempt to reach the node. `address` has no family where the node's name has no address: the
// attempt then fails with the resolver's error.
struct NodeAttempt {
  enum class Kind : uint8_t {
    plain,  // At a good address.
    trial,  // At a bad one.
    probe,  // At a bad one, beside a trial that is accepted and not answered: no session.
  };

  SocketAddress address;
  Kind kind = Kind::plain;
  Nanoseconds began_at = 0;
};

class NodeHealth {
 public:
  explicit NodeHealth(const NodeHealthOptions& options = {}) : options_(options) {}
  NodeHealth(const NodeHealth&) = delete;
  NodeHealth& operator=(const NodeHealth&) = delete;

  // The address for a new connection, of those that the resolver knows now. Nothing while the node
  // is down and it is not the time for a trial (see retry_at). Each attempt ends in exactly one of
  // on_answer, on_failure, on_given_up and on_abandoned.
  [[nodiscard]] std::optional<NodeAttempt> begin_attempt(
      const std::vector<SocketAddress>& addresses, Nanoseconds now);
  // The address for a probe. Nothing while none is due. It ends as an attempt does.
  [[nodiscard]] std::optional<NodeAttempt> begin_probe(const std::vector<SocketAddress>& addresses,
                                                       Nanoseconds now);
  // The node answered, if only by refusing the login. Returns for how long it was down; nothing
  // where it was not.
  std::optional<Nanoseconds> on_answer(const NodeAttempt& attempt, Nanoseconds now);
  // No connection, or none that serves. `random`: for the pause. True: the node is down from now on
  // and was not before. Nothing is learnt where the address has answered a later attempt.
  bool on_failure(const NodeAttempt& attempt, const PoolError& error, Nanoseconds now,
                  uint64_t random);
  // A probe has had its time, or its connection has ended without a word.
  void on_given_up(const NodeAttempt& attempt, Nanoseconds now, uint64_t random);
  // The attempt was ended for reasons of our own: nothing is learnt, the next may begin.
  void on_abandoned(const NodeAttempt& attempt);

  [[nodiscard]] bool is_down() const noexcept { return is_down_.load(std::memory_order_relaxed); }
  // The longest pause between trials, from the next failure on.
  void set_retry_max(Nanoseconds retry_max);
  // When the next trial may begin, or beside one the next probe; `never` while a probe is under way
  // or the node is up.
  [[nodiscard]] Nanoseconds retry_at() const;
  // A trial or a probe is under way: who waits may be served behind it.
  [[nodiscard]] bool is_tried() const;
  [[nodiscard]] Nanoseconds trial_time() const noexcept { return options_.trial_time; }
  // Of the last failure.
  [[nodiscard]] PoolError last_error() const;

 private:
  struct Known {
    SocketAddress address;
    uint32_t failures = 0;  // In a row. 0: good.
    Nanoseconds failed_at = 0;
    Nanoseconds retry_at = 0;
    Nanoseconds answered_from = 0;  // When the latest attempt began that it has answered.
  };

  void adopt(const std::vector<SocketAddress>& addresses);
  [[nodiscard]] Known* find(const SocketAddress& address);
  [[nodiscard]] Nanoseconds retry_after(const NodeAttempt& attempt, const Known& known,
                                        Nanoseconds now, uint64_t random) const noexcept;
  [[nodiscard]] const Known* first_good() const noexcept;
  [[nodiscard]] const Known* due_soonest() const noexcept;
  void end_trial(const NodeAttempt& attempt) noexcept;

  mutable std::mutex mutex_;  // Guards everything below; is_down_ may be read without it.
  NodeHealthOptions options_;
  std::vector<Known> known_;            // In the resolver's order.
  Nanoseconds trial_began_at_ = never;  // Never: none is under way.
  bool is_probed_ = false;
  Nanoseconds down_since_ = 0;
  PoolError last_error_;
  std::atomic<bool> is_down_{false};
};

}  // namespace helios
