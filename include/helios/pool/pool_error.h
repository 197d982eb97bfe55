// Why there is no backend, in the words that the client gets.
#pragma once

#include <string>

namespace helios {

struct PoolError {
  std::string sqlstate;
  std::string message;
  // In the server's words; empty where it has none, and where the error is the pooler's own.
  std::string detail = {};
  std::string hint = {};
  // The server refused what the client asked for at its start: it is told as by the server, and it
  // is nobody's fault but its own.
  bool is_of_parameters = false;
};

}  // namespace helios
