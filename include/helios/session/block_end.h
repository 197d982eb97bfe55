// Which commands PostgreSQL accepts in a failed transaction block: those that end it.
//
// Told from the text alone. Pure; any thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace helios {

enum class BlockEnd : uint8_t {
  none,      // Any other command, several of them, or what cannot be read.
  nothing,   // No command at all.
  rollback,  // ROLLBACK, ABORT.
  commit,    // COMMIT, END, PREPARE TRANSACTION: what the client wanted to keep is not kept.
};

// What a failed block that has lost its server session is ended by. Not by ROLLBACK TO, as no
// savepoint is left, nor by AND CHAIN, which begins another transaction.
[[nodiscard]] BlockEnd read_block_end(std::string_view text) noexcept;

}  // namespace helios
