// What a failed connect means, and how it is told.
#pragma once

#include "helios/pool/pool_spec.h"
#include "helios/wire/error_response.h"

namespace helios {

// As it is logged.
[[nodiscard]] inline std::string connect_error_text(const PoolSpec& spec, const PoolError& cause) {
  return "cannot connect to node \"" + spec.node->name + "\" (" + spec.node->label +
         ") as user \"" + spec.login.user + "\": " + cause.message;
}

// As clients get it.
[[nodiscard]] inline PoolError connect_error(const PoolSpec& spec, const PoolError& cause) {
  if (cause.is_of_parameters) return cause;
  return {cause.sqlstate, connect_error_text(spec, cause)};
}

// A server that is starting up or stopping: it will be there soon.
[[nodiscard]] inline bool may_pass(const PoolError& error) noexcept {
  return error.sqlstate == sqlstate::cannot_connect_now;
}

// Nobody could have connected. Everything else (a wrong password, too many connections, a server
// process that ended in the login) is the pool's own trouble: the node answered.
[[nodiscard]] inline bool is_nodes_fault(const PoolError& error, bool is_answered) noexcept {
  return may_pass(error) || (error.sqlstate == sqlstate::connection_failure && !is_answered);
}

}  // namespace helios
