// What its client has on a backend that keeps it there: counted and told when it begins and ends.
#include "helios/base/log.h"
#include "helios/pool/backend.h"
#include "helios/pool/pools.h"

namespace helios {

void Backend::change_pins(PinReasons reasons) noexcept {
  const Nanoseconds now = pools_.now();
  const PoolSpec& spec = slice_->spec();
  for_each_reason(static_cast<PinReasons>(pins_.reasons() & ~reasons), [&](PinReason reason) {
    LOG_LIMITED(info, "client %u of %s@%s kept its server connection for %s: %s", pinning_client_,
                spec.user.c_str(), spec.database.c_str(),
                duration_text(pins_.age(reason, now)).c_str(), to_text(reason));
  });
  for_each_reason(static_cast<PinReasons>(reasons & ~pins_.reasons()), [&](PinReason reason) {
    ++slice_->counters.pins[reason];
    LOG_LIMITED(info, "client %u of %s@%s keeps its server connection: %s", pinning_client_,
                spec.user.c_str(), spec.database.c_str(), to_text(reason));
  });
  pins_.set(reasons, now);
}

}  // namespace helios
