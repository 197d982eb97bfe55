// Why there is no backend, in the words that the client gets.
#pragma once

#include <string>

namespace helios {

struct PoolError {
  std::string sqlstate;
  std::string message;
};

}  // namespace helios
