// A batch that was sent to a server, kept so that it can be sent once more: the first that a client
// sends outside of a transaction, as long as the server has not answered anything of it.
//
// A prepared statement whose result has changed since its Parse (a column was added) is refused
// with 0A000 when it is bound. On a server of one's own a Parse behind the change would have made
// it good; here the statement may be another client's, and older. So it is prepared anew and the
// batch is sent again, before the client has seen anything of it (backend_again.cc).
//
// Only batches that a second time does the same are kept: Bind, Describe, Execute and Close of a
// portal, then Sync, with nothing behind it. Part of a Backend; its memory stays with it.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "helios/base/bytes.h"
#include "helios/pool/ledger.h"
#include "helios/pool/statement.h"

namespace helios {

class SentBatch {
 public:
  // One that is longer is not kept.
  static constexpr size_t size_max = 8 * 1024;

  // A batch begins whose first message uses this statement.
  void start(StatementRef statement) noexcept {
    forget();
    statement_ = std::move(statement);
    state_ = State::open;
  }
  void forget() noexcept;
  [[nodiscard]] bool is_kept() const noexcept { return state_ != State::none; }

  // What is sent, announced first. Requires: is_kept().
  void add(const LedgerEntry& entry) noexcept;
  void add(ByteSpan bytes) noexcept;

  // All of it was sent, and nothing behind it. Its first message uses this statement.
  [[nodiscard]] bool is_whole(const StatementKey& key) const noexcept {
    return state_ == State::whole && statement_->key() == key;
  }
  // It has failed; it is sent again when the server is at its end. Requires: it is whole.
  void wait() noexcept { state_ = State::due; }
  [[nodiscard]] bool is_due() const noexcept { return state_ == State::due; }

  [[nodiscard]] const StatementRef& statement() const noexcept { return statement_; }
  [[nodiscard]] const std::vector<LedgerEntry>& entries() const noexcept { return entries_; }
  [[nodiscard]] ByteSpan bytes() const noexcept { return bytes_; }

 private:
  enum class State : uint8_t { none, open, whole, due };

  State state_ = State::none;
  StatementRef statement_;
  std::vector<LedgerEntry> entries_;
  std::vector<uint8_t> bytes_;
};

}  // namespace helios
