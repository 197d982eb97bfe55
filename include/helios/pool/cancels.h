// The cancel requests of one core: few connections at once to each node, one for each request that
// is to be cancelled, and a queue with an end, so that a storm of them costs neither the node nor
// this core more than a little.
//
// Owned by Pools; used by its core only.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "helios/pool/canceller.h"

namespace helios {

class Cancels {
 public:
  // Connections to one node at a time. A server makes a process for each.
  static constexpr size_t connections_max = 8;
  // Requests that wait for one of these; one more is dropped.
  static constexpr size_t waiting_max = 256;

  explicit Cancels(Pools& pools) noexcept : pools_(pools) {}
  ~Cancels();  // Requires: is_empty().

  // Cancels what `backend` works on. Where a request for that is on its way already, the asker is
  // told of the end of that one.
  void start(Backend& backend, CancelAim aim, CancelAsker asker) noexcept;
  // The server has said ReadyForQuery to this backend's lessee.
  void on_request_ended(Backend& backend) noexcept;
  // What was not sent for this backend is not sent any more.
  void withdraw(Backend& backend) noexcept;
  // Gives all of them up.
  void stop() noexcept;
  // Once per turn.
  void on_turn_end() noexcept;

  [[nodiscard]] bool is_empty() const noexcept { return all_.empty() && ended_.empty(); }
  [[nodiscard]] bool has_work() const noexcept { return !ended_.empty(); }
  // Those that wait for a connection.
  [[nodiscard]] size_t waiting_count() const noexcept { return waiting_.size(); }

  // --- For Canceller ---

  void on_ended(Canceller& canceller) noexcept;

 private:
  [[nodiscard]] bool has_room(const Node* node) const noexcept;
  void start_waiting() noexcept;

  Pools& pools_;
  std::vector<std::unique_ptr<Canceller>> all_;
  std::deque<Canceller*> waiting_;  // Of these: not started, the oldest first.
  // Ended in this turn; the caller may be one of them.
  std::vector<std::unique_ptr<Canceller>> ended_;
};

}  // namespace helios
