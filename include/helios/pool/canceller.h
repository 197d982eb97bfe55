// Sends one CancelRequest to a server: connect to the exact address of the backend, send, wait for
// the server to close.
//
// The server has delivered the signal when it closes (PostgreSQL documentation 55.2.8), so only
// then may the backend change hands. While it works on a statement of the pooler's own the request
// waits for the end of that; when there is nothing left that it could be for, it is not sent.
//
// Owned by Cancels (cancels.h) of one core.
#pragma once

#include <vector>

#include "helios/base/clock.h"
#include "helios/net/stream.h"
#include "helios/runtime/timer_wheel.h"

namespace helios {

class Backend;
class Cancels;
struct Node;
class Pools;

// Who asked for a cancel, and is told once when it is over: the request was delivered, or could not
// be.
struct CancelAsker {
  using Done = void (*)(void* context) noexcept;
  Done done = nullptr;  // May be null.
  void* context = nullptr;
  void tell() const noexcept {
    if (done != nullptr) done(context);
  }
};

// What a cancel request is for.
enum class CancelAim : uint8_t {
  request,  // What runs now, up to its ReadyForQuery.
  all,      // Whatever the backend still has to do.
};

class Canceller final : private StreamOwner {
 public:
  // Of one request; more are told at once.
  static constexpr size_t askers_max = 16;

  Canceller(Pools& pools, Cancels& cancels, Backend& backend, CancelAim aim) noexcept;
  ~Canceller();
  // Connects.
  void start() noexcept;
  [[nodiscard]] bool is_started() const noexcept { return is_started_; }
  [[nodiscard]] const Node* node() const noexcept { return node_; }
  // A request for what this backend works on now is the one that this is for.
  [[nodiscard]] bool is_for(const Backend& backend) const noexcept {
    return backend_ == &backend && !is_over_;
  }
  void add(CancelAsker asker) noexcept;
  // The server said ReadyForQuery to somebody else's than the pooler's own statement.
  void on_request_ended(Backend& backend) noexcept;
  // The backend has ended, or the process stops: what was not sent is not sent any more.
  void withdraw(Backend& backend) noexcept;
  void stop() noexcept;

 private:
  void on_connected(Stream& stream) noexcept override;
  void on_received(Stream&, ByteSpan, BufferRef) noexcept override {}
  void on_drained(Stream&) noexcept override {}
  void on_ended(Stream& stream, StreamEnd end, int error) noexcept override;
  void on_closed(Stream& stream) noexcept override;
  void on_detachable(Stream&) noexcept override {}
  static void on_timeout(void* self) noexcept;

  void send_when_due() noexcept;
  void give_up() noexcept;
  void end() noexcept;

  Pools& pools_;
  Cancels& cancels_;
  Backend* backend_;  // Lives on until it hears of the end; then null.
  const Node* node_;
  const CancelAim aim_;
  Stream stream_;
  Timer timer_;
  Nanoseconds deadline_;
  std::vector<uint8_t> request_;
  std::vector<CancelAsker> askers_;
  bool is_started_ = false;
  bool is_over_ = false;  // What it was for has ended.
  bool sent_ = false;
  bool confirmed_ = false;  // The server closed: the request has been delivered.
};

}  // namespace helios
