#include "helios/pool/node_probe.h"

#include <utility>

#include "helios/base/assert.h"
#include "helios/pool/node.h"
#include "helios/pool/pools.h"
#include "helios/wire/writer.h"

namespace helios {

NodeProbe::NodeProbe(Pools& pools, Node& node, const NodeAttempt& attempt) noexcept
    : pools_(pools),
      node_(node),
      attempt_(attempt),
      stream_(pools.context().net, *this, BufferGroup::backend),
      timer_(&NodeProbe::on_timeout, this) {
  pools_.context().timers.schedule(timer_, attempt_.began_at + node_.health.trial_time());
  stream_.start_connect(attempt_.address.get(), attempt_.address.size());
}

NodeProbe::~NodeProbe() {
  ASSERT(is_over_);
  ASSERT(stream_.state() == Stream::State::closed);
}

void NodeProbe::on_connected(Stream&) noexcept {
  MessageWriter& writer = pools_.writer();
  write_ssl_request(writer);
  stream_.send(writer.bytes());
}

void NodeProbe::on_ended(Stream&, StreamEnd end, int error) noexcept {
  const bool is_refused = end == StreamEnd::connect_failed;
  finish(is_refused ? Outcome::refused : Outcome::no_answer, error);
}

void NodeProbe::on_timeout(void* self) noexcept {
  static_cast<NodeProbe*>(self)->finish(Outcome::no_answer);
}

void NodeProbe::finish(Outcome outcome, int error) noexcept {
  if (std::exchange(is_over_, true)) return;
  pools_.context().timers.cancel(timer_);
  stream_.terminate();
  pools_.on_probe_over(*this, outcome, error);
}

void NodeProbe::on_closed(Stream&) noexcept {
  pools_.on_probe_closed(*this);
}

}  // namespace helios
