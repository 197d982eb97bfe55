// What a session keeps for the prepared statements of its client. Made with the first message that
// needs it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "helios/pool/backend.h"
#include "helios/session/client_statements.h"
#include "helios/session/statement_names.h"

namespace helios {

// A command that makes the server drop statements is on its way (DISCARD ALL, DEALLOCATE). What is
// sent behind it must not rely on what was there before.
enum class Forgetting : uint8_t {
  no,
  by_query,  // A simple query.
  in_batch,  // An extended message of the batch `forgetting_batch`.
};

// The unnamed statement of a client that has not bound it at once (session_unnamed.cc).
struct UnnamedStatement {
  // As in Parse, behind the name. Empty: there is none, or it is not kept.
  std::vector<uint8_t> content;
  // Of each Parse whose outcome is not known yet, if it is kept: its number among
  // Ledger::unnamed_changes_sent, and the same. The oldest first.
  std::vector<std::pair<uint32_t, std::vector<uint8_t>>> next;
  size_t next_size = 0;        // Bytes in these.
  uint32_t settled_count = 0;  // So many of these changes count.
  uint64_t lease = 0;          // The last one of this client (Backend::lease).

  // Of so many sent at once and not answered all are given up.
  static constexpr size_t next_max = 64;

  [[nodiscard]] bool may_be_kept() const noexcept { return !content.empty() || !next.empty(); }
  // A Parse with this content was sent. Of several that are not answered the oldest are given up
  // beyond `size_max` bytes in all.
  void keep(ByteSpan content, const Ledger& ledger, size_t size_max);
  void forget_content() noexcept;
  void forget_next() noexcept;
  // The client has this backend from now on. Requires: no statement was sent yet.
  void start_lease(Backend& backend) noexcept;
  // What has become of the changes that were sent. Requires: all are answered, or skipped.
  void settle(const Ledger& ledger) noexcept;
  // The backend of this ledger is lost.
  void lose(const Ledger& ledger) noexcept;
};

struct SessionStatements {
  static constexpr uint64_t no_batch = UINT64_MAX;
  static constexpr size_t named_commands_max = 256;

  ClientStatements names;
  UnnamedStatement unnamed;
  // Body of the message whose header is pending, as far as it came in pieces.
  std::vector<uint8_t> collected;
  Forgetting forgetting = Forgetting::no;
  uint64_t forgetting_batch = 0;
  // What the query that is being executed deallocates, in its order, as far as it has not yet.
  std::vector<std::string> deallocated;
  // The same for extended messages: this portal of the batch `deallocating_batch` does it. Empty:
  // none does.
  std::string deallocating;
  std::string deallocating_portal;
  uint64_t deallocating_batch = no_batch;
  // Of the unnamed statement, and the batch for which the server has what they name.
  NamedCommands unnamed_commands;
  uint64_t commands_batch = no_batch;
  // Of statements of the protocol, by their names; also of some that are not there any more, or
  // were not taken. At most named_commands_max.
  std::map<std::string, NamedCommands, std::less<>> named_commands;
  // A Parse of a statement that pins was passed on: the names in Session::names_ are not all that
  // the server may have.
  bool has_pinned = false;
};

}  // namespace helios
