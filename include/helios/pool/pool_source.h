// Where pools learn what the configuration says now.
//
// Immutable: another configuration is another object, with a higher epoch. Any thread.
#pragma once

#include <cstdint>
#include <string_view>

#include "helios/pool/parameters.h"
#include "helios/pool/pool_spec.h"

namespace helios {

class PoolSource {
 public:
  virtual ~PoolSource() = default;
  // Which configuration this is; 0 for the one of the start.
  [[nodiscard]] virtual uint64_t epoch() const { return 0; }
  [[nodiscard]] virtual bool has_database(std::string_view database) const = 0;
  // The pool of a user and database whose server sessions start with these settings. Null where the
  // configuration has no such database or no such user.
  [[nodiscard]] virtual PoolSpecRef pool_of(std::string_view database, std::string_view user,
                                            const ParameterList& settings) const = 0;
};

}  // namespace helios
