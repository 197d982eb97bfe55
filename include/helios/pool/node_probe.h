// Asks a node that hangs whether it is back: connect, SSLRequest, the first byte of an answer.
//
// A server answers that at once, whatever the answer, and before it makes a session. So a probe is
// none, needs no permit, and whatever it leaves at a node that hangs is none when that wakes up.
// All of it has NodeHealth's trial_time.
//
// Owned by Pools of one core; at most one for each node, over all cores (NodeHealth).
#pragma once

#include <cstdint>

#include "helios/net/stream.h"
#include "helios/pool/node_health.h"
#include "helios/runtime/timer_wheel.h"

namespace helios {

struct Node;
class Pools;

class NodeProbe final : private StreamOwner {
 public:
  // How it ended. Each probe says so once (Pools::on_probe_over).
  enum class Outcome : uint8_t {
    answered,
    refused,    // No connection.
    no_answer,  // In time, or before the end of the connection.
    stopped,    // For reasons of our own.
  };

  // Connects. Requires: the address of `attempt` has a family.
  NodeProbe(Pools& pools, Node& node, const NodeAttempt& attempt) noexcept;
  ~NodeProbe();  // Requires: it has said that it is closed (Pools::on_probe_closed).

  [[nodiscard]] Node& node() const noexcept { return node_; }
  [[nodiscard]] const NodeAttempt& attempt() const noexcept { return attempt_; }
  // Does nothing when it is over.
  void stop() noexcept { finish(Outcome::stopped); }

 private:
  void on_connected(Stream& stream) noexcept override;
  void on_received(Stream&, ByteSpan, BufferRef) noexcept override { finish(Outcome::answered); }
  void on_drained(Stream&) noexcept override {}
  void on_ended(Stream& stream, StreamEnd end, int error) noexcept override;
  void on_closed(Stream& stream) noexcept override;
  void on_detachable(Stream&) noexcept override {}
  static void on_timeout(void* self) noexcept;

  void finish(Outcome outcome, int error = 0) noexcept;

  Pools& pools_;
  Node& node_;
  const NodeAttempt attempt_;
  Stream stream_;
  Timer timer_;
  bool is_over_ = false;
};

}  // namespace helios
