// What a session keeps for the prepared statements of its client. Made with the first message that
// needs it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "helios/pool/backend.h"
#include "helios/session/client_statements.h"

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
  // Of the newest Parse, whose outcome is not known yet. Empty: nothing of it is kept.
  std::vector<uint8_t> next;
  uint32_t next_change = 0;    // Its number among Ledger::unnamed_changes_sent.
  uint32_t settled_count = 0;  // So many of these changes count.
  uint64_t lease = 0;          // The last one of this client (Backend::lease).

  [[nodiscard]] bool may_be_kept() const noexcept { return !content.empty() || !next.empty(); }
  // The client has this backend from now on. Requires: no statement was sent yet.
  void start_lease(Backend& backend) noexcept;
  // What has become of the changes that were sent. Requires: all are answered, or skipped.
  void settle(const Ledger& ledger) noexcept;
  // The backend of this ledger is lost.
  void lose(const Ledger& ledger) noexcept;
};

struct SessionStatements {
  ClientStatements names;
  UnnamedStatement unnamed;
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
