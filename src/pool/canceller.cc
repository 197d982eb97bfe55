#include "helios/pool/canceller.h"

#include <algorithm>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/pool/backend.h"
#include "helios/pool/cancels.h"
#include "helios/pool/pools.h"
#include "helios/wire/writer.h"

namespace helios {
namespace {

// A server that takes longer to take a cancel request does not get it.
constexpr Nanoseconds cancel_timeout = seconds(10);
// While the server works on a statement of the pooler's own it is looked at again after this.
constexpr Nanoseconds look_interval = milliseconds(5);

}  // namespace

Canceller::Canceller(Pools& pools, Cancels& cancels, Backend& backend, CancelAim aim) noexcept
    : pools_(pools),
      cancels_(cancels),
      backend_(&backend),
      node_(backend.slice().spec().node),
      aim_(aim),
      stream_(pools.context().net, *this, BufferGroup::backend),
      timer_(&Canceller::on_timeout, this),
      deadline_(pools.now() + cancel_timeout) {
  backend.on_cancel_started();
  pools_.context().timers.schedule(timer_, deadline_);
}

Canceller::~Canceller() {
  ASSERT(backend_ == nullptr);
  ASSERT(stream_.state() == Stream::State::closed);
  pools_.context().timers.cancel(timer_);
}

void Canceller::start() noexcept {
  ASSERT(!is_started_);
  is_started_ = true;
  // The very address of the backend: with several addresses of one node any other would be another
  // server.
  stream_.start_connect(backend_->address().get(), backend_->address().size());
}

void Canceller::add(CancelAsker asker) noexcept {
  if (askers_.size() == askers_max) return asker.tell();
  askers_.push_back(asker);
}

void Canceller::on_connected(Stream&) noexcept {
  send_when_due();
}

void Canceller::send_when_due() noexcept {
  if (backend_ == nullptr) return;
  switch (backend_->cancel_due()) {
    case CancelDue::now:
      break;
    case CancelDue::later:
      return pools_.context().timers.schedule(timer_,
                                              std::min(deadline_, pools_.now() + look_interval));
    case CancelDue::nothing:
      return give_up();
  }
  sent_ = true;
  ++backend_->slice().counters.cancels;
  MessageWriter writer(request_);
  write_cancel_request(writer, backend_->process_id(), as_bytes(backend_->cancel_key()));
  stream_.send(request_);
  pools_.context().timers.schedule(timer_, deadline_);
}

void Canceller::on_request_ended(Backend& backend) noexcept {
  if (backend_ != &backend) return;
  if (sent_) {
    is_over_ = true;
  } else if (aim_ == CancelAim::request || backend.cancel_due() == CancelDue::nothing) {
    withdraw(backend);
  }
}

// The backend is in the middle of something: it hears of nothing, and looks for itself afterwards.
void Canceller::withdraw(Backend& backend) noexcept {
  if (backend_ != &backend || sent_) return;
  backend_ = nullptr;
  backend.on_cancel_withdrawn();
  stop();
}

// Nothing was sent, and is not.
void Canceller::give_up() noexcept {
  ASSERT(!sent_);
  std::exchange(backend_, nullptr)->on_cancel_ended(false);
  stop();
}

void Canceller::on_ended(Stream& stream, StreamEnd end, int error) noexcept {
  confirmed_ = sent_ && end == StreamEnd::peer_closed;
  if (backend_ != nullptr && !confirmed_)
    LOG_LIMITED(warning, "cancel request to %s for process %u failed: errno %d",
                backend_->address().text().c_str(), backend_->process_id(), error);
  stream.terminate();
}

void Canceller::stop() noexcept {
  if (is_started_) return stream_.terminate();
  end();
}

void Canceller::on_timeout(void* self) noexcept {
  Canceller& canceller = *static_cast<Canceller*>(self);
  if (canceller.pools_.now() < canceller.deadline_) return canceller.send_when_due();
  canceller.stop();
}

void Canceller::on_closed(Stream&) noexcept {
  end();
}

void Canceller::end() noexcept {
  pools_.context().timers.cancel(timer_);
  for (const CancelAsker& asker : std::exchange(askers_, {})) asker.tell();
  if (Backend* backend = std::exchange(backend_, nullptr); backend != nullptr)
    backend->on_cancel_ended(sent_ && !confirmed_);
  cancels_.on_ended(*this);
}

}  // namespace helios
