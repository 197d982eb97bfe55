// What a session keeps for the prepared statements of its client. Made with the first message that
// needs it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "helios/session/client_statements.h"

namespace helios {

// A command that makes the server drop statements is on its way (DISCARD ALL, DEALLOCATE). What is
// sent behind it must not rely on what was there before.
enum class Forgetting : uint8_t {
  no,
  by_query,  // A simple query.
  in_batch,  // An extended message of the batch `forgetting_batch`.
};

struct SessionStatements {
  ClientStatements names;
  // Body of the message whose header is pending, as far as it came in pieces.
  std::vector<uint8_t> collected;
  Forgetting forgetting = Forgetting::no;
  uint64_t forgetting_batch = 0;
  // What the DEALLOCATE names that is being executed; empty: there is none.
  std::string deallocated;
  // A Parse of a statement that pins was passed on: the names in Session::names_ are not all that
  // the server may have.
  bool has_pinned = false;
};

}  // namespace helios
