// What a session keeps for the loss of its backend, and what is left of a transaction that was lost
// with one. Made when it is needed first.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "helios/pool/parameters.h"
#include "helios/pool/pool_error.h"

namespace helios {

// A transaction whose backend is gone, and whose end the client has not asked for yet. What it asks
// is answered without a backend, as PostgreSQL does in a transaction that has failed.
struct LostTransaction {
  PoolError error;        // Why it has failed.
  bool is_block = false;  // Of BEGIN. Otherwise that of a batch, which ends with its Sync.
  bool is_told = false;   // The client knows the error.
  bool is_known = false;  // It knows, if only by another error, that the block has failed.

  // The body of the message that is being received, as far as it is kept.
  std::vector<uint8_t> body;
  // Texts of the unnamed statement and of the portal bound last, both made since the loss.
  std::optional<std::string> unnamed;
  std::optional<std::string> bound;
  std::string portal;

  // A command that ends a block is not longer than this, with its names.
  static constexpr size_t body_size_max = 4096;
};

struct SessionLost {
  // What the client's parameters were before what is not committed yet changed them first; null: it
  // has not.
  ParameterSetRef parameters_before;
  std::unique_ptr<LostTransaction> transaction;
};

}  // namespace helios
