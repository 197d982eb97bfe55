// What a server still owes: one entry for each message that it will answer, in the order in which
// it was sent.
//
// A backend may change hands only when its ledger is empty. Each entry says what happens to the
// reply: FORWARD (the client asked), SKIP (the pooler asked; the reply is swallowed), INJECT (the
// pooler sent it ahead of a message of the client, which needs it: swallowed, but an error is the
// client's), FAKE (never sent to the server; the pooler writes the reply when the entry gets to the
// head).
//
// The ledger follows the server's own rules (PostgreSQL documentation 55.2, "Message Flow"): after
// an error in an extended batch everything up to the next Sync is ignored; in COPY FROM STDIN, Sync
// and Flush are ignored up to CopyDone or CopyFail. A stream of replication (CopyBothResponse) is
// such a COPY whose server sends CopyData and CopyDone too. Pure bookkeeping: no IO. Belongs to one
// backend, on one core.
//
// Invariant: the entries are exactly the sent messages whose completion has not been seen, as far
// as the order of events allows to know; where it does not (is_ambiguous), the backend must be
// closed instead of handed on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "helios/pool/statement.h"

namespace helios {

enum class LedgerAction : uint8_t { forward, skip, inject, fake };

// What an entry has to do with prepared statements.
namespace ledger_mark {
inline constexpr uint16_t pins = 1;       // Parse or Close of a statement that does not follow its
                                          // client: key.low is the hash of its name.
inline constexpr uint16_t parses = 2;     // Parse of the statement `key`.
inline constexpr uint16_t replaces = 4;   // The same behind a Close of it.
inline constexpr uint16_t uses = 8;       // Bind or Describe of the statement `key`.
inline constexpr uint16_t renames = 16;   // The client's names change with it.
inline constexpr uint16_t taken = 32;     // Parse of a name that is taken: it fails.
inline constexpr uint16_t prepares = 64;  // Of the pooler's own, and may fail: PREPARE in SQL (the
                                          // key stands for its name), or Parse in its place.
inline constexpr uint16_t unnamed = 128;  // Close of the unnamed statement by the client, or Parse
                                          // of it once more by the pooler.
inline constexpr uint16_t leaves = 256;   // Close of the oldest of BackendStatements' leaving ones.
}  // namespace ledger_mark

struct LedgerEntry {
  StatementKey key;
  uint8_t tag = 0;  // The frontend message: Q F S P B D E C, or c f (the end of a COPY, which has
                    // no reply of its own).
  LedgerAction action = LedgerAction::forward;
  uint16_t marks = 0;  // ledger_mark.
};

// What a reply means.
enum class ReplyVerdict : uint8_t {
  forward,    // Belongs to the client.
  skip,       // Belongs to the pooler: swallow it.
  violation,  // The server sent what nobody asked for: close it.
};

struct Reply {
  uint8_t tag = 0;     // Of the entry it belongs to, as are `marks`.
  uint16_t marks = 0;  // With any, the entry is Ledger::marked().
  ReplyVerdict verdict = ReplyVerdict::forward;
  bool completed = false;  // The entry was completed with success by this reply.
};

class Ledger {
 public:
  // More entries than this and the sender has to wait for replies.
  static constexpr size_t entries_max = 16384;

  Ledger();

  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] size_t size() const noexcept { return size_; }
  [[nodiscard]] bool full() const noexcept { return size_ >= entries_max; }

  // A message is being sent (FORWARD, SKIP, INJECT) or will be answered without the server (FAKE).
  // Call for every message that goes to the server; those without a reply (Flush, CopyData) are
  // ignored here.
  void on_sent(uint8_t tag, LedgerAction action) noexcept;
  // The same for one with marks. Requires: not is_skipping_to_sync(): its effects would be lost.
  void on_sent(const LedgerEntry& entry) noexcept;
  // The newest entry pins: the hash of its name, known once its body was seen. Does nothing when
  // the entry is gone already (ignored by the server).
  void name_newest(uint8_t tag, uint64_t name) noexcept;
  // The newest entry is a Close of the unnamed statement. Does nothing when it is gone already.
  void note_drop() noexcept;

  // A message of the server begins. Not for NoticeResponse, ParameterStatus and
  // NotificationResponse, which belong to no entry.
  [[nodiscard]] Reply on_reply(uint8_t tag) noexcept;

  // The head is a FAKE entry: its turn has come. Ask after each on_sent and on_reply.
  [[nodiscard]] bool has_due_fake() const noexcept {
    return size_ > 0 && ring_[head_].action == LedgerAction::fake;
  }
  [[nodiscard]] LedgerEntry take_due_fake() noexcept;

  // The entry with marks that the last reply belongs to. Valid until the next call.
  [[nodiscard]] const LedgerEntry& marked() const noexcept { return marked_; }
  // Entries with marks that the server does not execute any more, in the order of their sending:
  // they stood behind an error. To be taken after each on_reply.
  [[nodiscard]] bool has_dropped() const noexcept { return !dropped_.empty(); }
  [[nodiscard]] std::vector<LedgerEntry> take_dropped() noexcept {
    return std::exchange(dropped_, {});
  }

  // The server owes nothing that a client has asked it for. Walks over what is owed.
  [[nodiscard]] bool has_only_own() const noexcept;
  // An entry with this mark is among those that are owed. Walks over them.
  [[nodiscard]] bool has_marked(uint16_t mark) const noexcept;
  // Number of the batch that the next message will be in: they end with Sync.
  [[nodiscard]] uint64_t batch() const noexcept { return batch_; }

  // The newest message is one after which the server answers everything and says ReadyForQuery.
  // Without it the server may keep its replies for ever.
  [[nodiscard]] bool ends_with_ready_request() const noexcept;
  // What is sent next may be skipped by the server, for an error in what was sent before: there is
  // an extended message behind the last Sync (a simple query does not end a batch) that is not
  // answered yet, or a COPY. Walks back to that Sync.
  [[nodiscard]] bool may_skip_next() const noexcept;
  // This reply, a row or the description of rows, belongs to a client and completes nothing: what
  // on_reply would say too.
  [[nodiscard]] bool is_part_of_answer(uint8_t tag) const noexcept {
    if (size_ == 0) return false;
    const LedgerEntry& head = ring_[head_];
    return head.action == LedgerAction::forward && head.marks == 0 &&
           (head.tag == 'Q' || (head.tag == 'E' && tag == 'D'));
  }
  // The server works on a statement of the pooler's own.
  [[nodiscard]] bool is_head_skipped() const noexcept {
    return size_ > 0 && ring_[head_].action == LedgerAction::skip;
  }
  // COPY FROM STDIN or a stream of replication is going on (the server reads CopyData).
  [[nodiscard]] bool is_copying_in() const noexcept { return copying_in_; }
  // It is a stream of replication: both sides send CopyData, whenever they like.
  [[nodiscard]] bool is_streaming() const noexcept { return is_streaming_; }
  // The server ignores everything until a Sync that has not been sent yet.
  [[nodiscard]] bool is_skipping_to_sync() const noexcept { return skipping_; }
  // A failed COPY left it open whether a Sync was ignored: the number of replies to come is not
  // known.
  [[nodiscard]] bool is_ambiguous() const noexcept { return ambiguous_; }
  // Another client comes: the unnamed statement that the server has is not its own.
  void disown_unnamed() noexcept;
  // It was not another: what was disowned is its own, if the server still has it.
  void reclaim_unnamed() noexcept { unnamed_ = disowned_; }
  // The server has no unnamed statement.
  void lack_unnamed() noexcept { unnamed_ = Unnamed::none; }
  // This message may mean the unnamed statement, and the one that the server will have then may be
  // another client's: nothing has replaced it, nor stands in front in the same batch, so that the
  // server skips this message too if it skips that.
  [[nodiscard]] bool may_mean_foreign(uint8_t tag) const noexcept {
    return unnamed_ == Unnamed::foreign && may_find_unnamed(tag);
  }
  // The same, or the server will have none.
  [[nodiscard]] bool may_lack_unnamed(uint8_t tag) const noexcept {
    return unnamed_ != Unnamed::own && may_find_unnamed(tag);
  }
  // How often this client has replaced or dropped it by what was sent since disown_unnamed; the
  // number of the newest of these that the server has come to, rather than skipped; and whether
  // that has made one.
  [[nodiscard]] uint32_t unnamed_changes_sent() const noexcept { return changes_sent_; }
  [[nodiscard]] uint32_t unnamed_change_done() const noexcept { return change_done_; }
  [[nodiscard]] bool has_made_unnamed() const noexcept { return has_made_; }
  // What was sent before may replace it, which its answer will tell.
  [[nodiscard]] bool awaits_unnamed() const noexcept { return unnamed_replaced_count_ > 0; }
  // The client has parsed the unnamed statement and not bound it yet: many do so in a batch of its
  // own, and this backend only has it.
  [[nodiscard]] bool has_unbound() const noexcept { return has_unbound_; }
  // Sync, Query or FunctionCall entries of the client (FORWARD): ReadyForQuery messages to come.
  [[nodiscard]] size_t ready_due_count() const noexcept { return ready_due_count_; }
  // The error that the head stands for was said; of its answer ReadyForQuery alone is still to
  // come.
  [[nodiscard]] bool is_head_failed() const noexcept { return is_head_failed_; }
  // It goes nowhere instead.
  void hide_failure() noexcept { is_head_failed_ = false; }
  // An error has come while nothing was owed in a batch that is open: the server ignores the rest
  // of it.
  void on_batch_failed() noexcept {
    if (size_ == 0) skipping_ = true;
  }
  // Calls visit(entry) for everything that is owed, the oldest first.
  template <typename Visit>
  void walk(Visit visit) const {
    for (size_t i = 0; i < size_; ++i) visit(at(i));
  }

 private:
  void count(const LedgerEntry& entry, int change) noexcept;
  void mark_newest(uint8_t tag, uint16_t mark, uint64_t key_low) noexcept;
  // The unnamed statement that the server has.
  enum class Unnamed : uint8_t {
    foreign,  // May be another client's.
    none,     // There is none.
    own,      // If it has one, it is this client's.
  };
  [[nodiscard]] bool is_replaced_in_batch() const noexcept {
    return unnamed_replaced_count_ > 0 && replaced_batch_ == batch_;
  }
  [[nodiscard]] bool may_find_unnamed(uint8_t tag) const noexcept {
    return !skipping_ && (tag == 'B' || tag == 'D') && !is_replaced_in_batch();
  }
  void on_unnamed_replaced(bool is_there) noexcept;
  void note_change(const LedgerEntry& change, bool has_made) noexcept;
  [[nodiscard]] LedgerEntry& at(size_t index) noexcept {
    return ring_[(head_ + index) & (ring_.size() - 1)];
  }
  [[nodiscard]] const LedgerEntry& at(size_t index) const noexcept {
    return ring_[(head_ + index) & (ring_.size() - 1)];
  }
  void push(LedgerEntry entry) noexcept;
  void pop() noexcept;
  void drop(const LedgerEntry& entry) noexcept;
  void erase(size_t first, size_t entries_count) noexcept;
  void grow() noexcept;
  void drop_copy_ends() noexcept;
  void skip_to_sync() noexcept;
  void end_copy(bool failed) noexcept;
  [[nodiscard]] Reply complete(uint8_t tag) noexcept;
  [[nodiscard]] Reply on_error() noexcept;
  [[nodiscard]] Reply on_ready() noexcept;
  [[nodiscard]] Reply verdict_of_head() noexcept;

  std::vector<LedgerEntry> ring_;  // Size is a power of two.
  std::vector<LedgerEntry> dropped_;
  LedgerEntry marked_;
  uint64_t batch_ = 1;
  size_t head_ = 0;
  size_t size_ = 0;
  size_t ready_due_count_ = 0;
  size_t copy_ends_count_ = 0;         // Entries c and f.
  size_t unnamed_replaced_count_ = 0;  // Entries that replace or drop the unnamed statement.
  uint64_t replaced_batch_ = 0;        // Of the newest of them but queries.
  uint32_t changes_sent_ = 0;
  uint32_t changes_ended_ = 0;  // Done, or skipped by the server.
  uint32_t change_done_ = 0;
  bool has_made_ = false;
  Unnamed unnamed_ = Unnamed::foreign;
  Unnamed disowned_ = Unnamed::foreign;
  bool copying_in_ = false;
  bool is_streaming_ = false;  // Then copying_in_ is set, too.
  bool skipping_ = false;
  bool ambiguous_ = false;
  bool has_unbound_ = false;
  bool is_head_failed_ = false;
};

}  // namespace helios
