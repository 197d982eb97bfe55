#include "helios/pool/canceller.h"

#include "helios/base/log.h"
#include "helios/pool/backend.h"
#include "helios/pool/pools.h"
#include "helios/wire/writer.h"

namespace helios {
namespace {

// A server that takes longer to take a cancel request does not get it.
constexpr Nanoseconds cancel_timeout = seconds(10);

}  // namespace

Canceller::Canceller(Pools& pools, Backend& backend, Done done, void* context) noexcept
    : pools_(pools),
      backend_(backend),
      stream_(pools.context().net, *this, BufferGroup::backend),
      timer_(&Canceller::on_timeout, this),
      done_(done),
      context_(context) {}

void Canceller::start() noexcept {
  backend_.on_cancel_started();
  MessageWriter writer(request_);
  write_cancel_request(writer, backend_.process_id(), as_bytes(backend_.cancel_key()));
  pools_.context().timers.schedule(timer_, pools_.now() + cancel_timeout);
  // The very address of the backend: with several addresses of one node any other would be another
  // server.
  stream_.start_connect(backend_.address().get(), backend_.address().size());
}

void Canceller::on_connected(Stream& stream) noexcept {
  sent_ = true;
  stream.send(request_);
}

void Canceller::on_ended(Stream& stream, StreamEnd end, int error) noexcept {
  confirmed_ = end == StreamEnd::peer_closed;
  if (!confirmed_)
    LOG_LIMITED(warning, "cancel request to %s for process %u failed: errno %d",
                backend_.address().text().c_str(), backend_.process_id(), error);
  stream.terminate();
}

void Canceller::stop() noexcept {
  stream_.terminate();
}

void Canceller::on_timeout(void* self) noexcept {
  static_cast<Canceller*>(self)->stream_.terminate();
}

void Canceller::on_closed(Stream&) noexcept {
  pools_.context().timers.cancel(timer_);
  if (done_ != nullptr) done_(context_);
  backend_.on_cancel_ended(sent_ && !confirmed_);
  pools_.on_canceller_closed(this);
}

}  // namespace helios
