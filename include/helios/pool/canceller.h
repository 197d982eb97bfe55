// Sends one CancelRequest to a server: connect to the exact address of the backend, send, wait for
// the server to close.
//
// The server has delivered the signal when it closes (PostgreSQL documentation 55.2.8), so only
// then may the backend change hands. Owned by Pools of one core.
#pragma once

#include <vector>

#include "helios/net/address.h"
#include "helios/net/stream.h"
#include "helios/runtime/timer_wheel.h"

namespace helios {

class Backend;
class Pools;

class Canceller final : private StreamOwner {
 public:
  // Called once: the request was delivered, or could not be.
  using Done = void (*)(void* context) noexcept;

  Canceller(Pools& pools, Backend& backend, Done done, void* context) noexcept;
  ~Canceller() { ASSERT(stream_.state() == Stream::State::closed); }
  void start() noexcept;
  // Gives up.
  void stop() noexcept;

 private:
  void on_connected(Stream& stream) noexcept override;
  void on_received(Stream&, ByteSpan, BufferRef) noexcept override {}
  void on_drained(Stream&) noexcept override {}
  void on_ended(Stream& stream, StreamEnd end, int error) noexcept override;
  void on_closed(Stream& stream) noexcept override;
  void on_detachable(Stream&) noexcept override {}
  static void on_timeout(void* self) noexcept;

  Pools& pools_;
  Backend& backend_;  // Lives on until on_cancel_ended.
  Stream stream_;
  Timer timer_;
  std::vector<uint8_t> request_;
  Done done_;
  void* context_;
  bool sent_ = false;
  bool confirmed_ = false;  // The server closed: the request has been delivered.
};

}  // namespace helios
