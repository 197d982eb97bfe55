// What sessions ask about the configuration: who may come in, and which pool serves them.
//
// Implemented by `server` over the configuration. One immutable object for all cores, and another
// one for the next configuration; any thread may ask.
#pragma once

#include <string_view>

#include "helios/pool/pool_source.h"
#include "helios/session/client_login.h"

namespace helios {

class Directory : public PoolSource {
 public:
  // How this user proves who it is; unknown_user for one that may not come in.
  [[nodiscard]] virtual UserSecret secret_of(std::string_view user) const = 0;
};

}  // namespace helios
