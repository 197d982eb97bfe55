// What sessions ask about the configuration: who may come in, and which pool serves them.
//
// Implemented by `server` over the configuration. One immutable object for all cores; any thread
// may ask.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "helios/pool/parameters.h"
#include "helios/pool/pool_spec.h"
#include "helios/session/client_login.h"

namespace helios {

class Directory {
 public:
  virtual ~Directory() = default;
  // How this user proves who it is; unknown_user for one that may not come in.
  [[nodiscard]] virtual UserSecret secret_of(std::string_view user) const = 0;
  [[nodiscard]] virtual bool has_database(std::string_view database) const = 0;
  // The pool of a user and database whose server sessions start with these settings.
  // Requires: secret_of(user) is not unknown_user; has_database(database).
  [[nodiscard]] virtual PoolSpecRef pool_of(std::string_view database, std::string_view user,
                                            const ParameterList& settings) const = 0;
};

}  // namespace helios
