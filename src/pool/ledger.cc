#include "helios/pool/ledger.h"

#include "helios/base/assert.h"

namespace helios {
namespace {

bool is_ready_request(uint8_t tag) {
  return tag == 'Q' || tag == 'S' || tag == 'F';
}

bool is_copy_end(uint8_t tag) {
  return tag == 'c' || tag == 'f';
}

// A Close that the pooler has put in front of a client's messages: it does not fail.
bool is_own_close(const LedgerEntry& entry) {
  return entry.tag == 'C' && entry.action == LedgerAction::inject;
}

// A Close of the unnamed statement: the pooler's own, or the client's.
bool drops_unnamed(const LedgerEntry& entry) {
  return entry.tag == 'C' &&
         (entry.action == LedgerAction::skip || (entry.marks & ledger_mark::unnamed) != 0);
}

// A Parse of the unnamed statement. (The client's with marks has a name; so has one of the pooler's
// own without.)
bool parses_unnamed(const LedgerEntry& entry) {
  if (entry.tag != 'P') return false;
  return entry.action == LedgerAction::forward ? entry.marks == 0
                                               : entry.marks == ledger_mark::unnamed;
}

// The server's unnamed statement is another one, or none, when this has been executed. A query of
// the client drops it, whatever becomes of it then, but not one that the server cannot read.
bool replaces_unnamed(const LedgerEntry& entry) {
  const bool is_query = entry.tag == 'Q' && entry.action != LedgerAction::skip;
  return is_query || parses_unnamed(entry) || drops_unnamed(entry);
}

bool is_clients_change(const LedgerEntry& entry) {
  return entry.action == LedgerAction::forward && replaces_unnamed(entry);
}

bool has_entry(uint8_t tag) {
  switch (tag) {
    case 'Q':
    case 'F':
    case 'S':
    case 'P':
    case 'B':
    case 'D':
    case 'E':
    case 'C':
    case 'c':
    case 'f':
      return true;
    default:
      return false;
  }
}

constexpr Reply violation{0, 0, ReplyVerdict::violation, false};

}  // namespace

Ledger::Ledger() : ring_(16) {}

[[gnu::hot]] void Ledger::on_sent(uint8_t tag, LedgerAction action) noexcept {
  if (!has_entry(tag)) return;
  if (skipping_) {
    // Sync ends the skipping; everything before it is ignored by the server, a simple Query
    // included.
    if (tag != 'S') return;
    skipping_ = false;
    is_head_failed_ = true;
  }
  // Without a COPY that it could end, the message is ignored by the server.
  if (is_copy_end(tag) && size_ == 0) return;
  push({{}, tag, action, 0});
}

[[gnu::hot]] void Ledger::on_sent(const LedgerEntry& entry) noexcept {
  ASSERT(has_entry(entry.tag));
  ASSERT(!is_copy_end(entry.tag));
  ASSERT(!skipping_);
  push(entry);
}

void Ledger::name_newest(uint8_t tag, uint64_t name) noexcept {
  if (name != 0) mark_newest(tag, ledger_mark::pins, name);
}

void Ledger::note_drop() noexcept {
  mark_newest('C', ledger_mark::unnamed, 0);
}

void Ledger::mark_newest(uint8_t tag, uint16_t mark, uint64_t key_low) noexcept {
  if (size_ == 0) return;
  LedgerEntry& newest = at(size_ - 1);
  if (newest.tag != tag || newest.marks != 0) return;
  changes_sent_ -= is_clients_change(newest) ? 1 : 0;
  count(newest, -1);
  newest.key.low = key_low;
  newest.marks = mark;
  count(newest, 1);
  changes_sent_ += is_clients_change(newest) ? 1 : 0;
}

Reply Ledger::on_reply(uint8_t tag) noexcept {
  if (copy_ends_count_ > 0) drop_copy_ends();
  switch (tag) {
    case 'Z':
      return on_ready();
    case 'E':
      return on_error();
    case '1':
      return complete('P');
    case '2':
      return complete('B');
    case '3':
      return complete('C');
    case 'n':
      return complete('D');
    case 'T': {
      if (size_ > 0 && at(0).tag == 'Q') return verdict_of_head();
      return complete('D');
    }
    case 'C':
    case 'I':
    case 's': {
      Reply reply = verdict_of_head();
      if (reply.verdict == ReplyVerdict::violation) return reply;
      if (copying_in_) end_copy(false);
      if (at(0).tag != 'Q') return complete('E');
      on_unnamed_replaced(false);
      return reply;
    }
    case 'G':
    case 'W': {
      Reply reply = verdict_of_head();
      if (reply.verdict == ReplyVerdict::violation) return reply;
      if (at(0).tag != 'E' && at(0).tag != 'Q') return violation;
      if (at(0).tag == 'Q') on_unnamed_replaced(false);
      copying_in_ = true;
      is_streaming_ = tag == 'W';
      return reply;
    }
    case 't':
    case 'D':
    case 'd':
    case 'c':
    case 'H':
    case 'V':
      return verdict_of_head();
    default:
      return violation;
  }
}

LedgerEntry Ledger::take_due_fake() noexcept {
  ASSERT(has_due_fake());
  const LedgerEntry entry = at(0);
  pop();
  if (copy_ends_count_ > 0) drop_copy_ends();
  return entry;
}

bool Ledger::ends_with_ready_request() const noexcept {
  for (size_t i = size_; i > 0; --i) {
    const LedgerEntry& entry = at(i - 1);
    if (!is_copy_end(entry.tag) && entry.action != LedgerAction::fake)
      return is_ready_request(entry.tag);
  }
  return false;
}

bool Ledger::may_skip_next() const noexcept {
  if (skipping_ || copying_in_ || ambiguous_) return true;
  for (size_t i = size_; i > 0; --i) {
    const LedgerEntry& entry = at(i - 1);
    if (entry.tag == 'S') return false;
    if (!is_ready_request(entry.tag) && entry.action != LedgerAction::fake && !is_own_close(entry))
      return true;
  }
  return false;
}

bool Ledger::has_only_own() const noexcept {
  if (skipping_ || copying_in_ || ambiguous_) return false;
  for (size_t i = 0; i < size_; ++i) {
    const LedgerAction action = at(i).action;
    if (action != LedgerAction::skip && action != LedgerAction::fake && !is_own_close(at(i)))
      return false;
  }
  return true;
}

bool Ledger::has_marked(uint16_t mark) const noexcept {
  for (size_t i = 0; i < size_; ++i)
    if ((at(i).marks & mark) != 0) return true;
  return false;
}

[[gnu::hot]] Reply Ledger::verdict_of_head() noexcept {
  if (size_ == 0) return violation;
  const LedgerEntry& head = at(0);
  if (head.action == LedgerAction::fake) return violation;
  if (head.marks != 0) marked_ = head;
  const bool forward = head.action == LedgerAction::forward;
  return {head.tag, head.marks, forward ? ReplyVerdict::forward : ReplyVerdict::skip, false};
}

// The reply that ends an extended message.
[[gnu::hot]] Reply Ledger::complete(uint8_t tag) noexcept {
  Reply reply = verdict_of_head();
  if (reply.verdict == ReplyVerdict::violation) return reply;
  if (reply.tag != tag) return violation;
  reply.completed = true;
  if (parses_unnamed(at(0)) || drops_unnamed(at(0))) {
    on_unnamed_replaced(tag == 'P');
    note_change(at(0), tag == 'P');
  }
  if (tag == 'B' && reply.marks == 0) has_unbound_ = false;
  pop();
  if (copy_ends_count_ > 0) drop_copy_ends();  // A FAKE behind them is due now.
  return reply;
}

Reply Ledger::on_error() noexcept {
  has_unbound_ = false;
  if (size_ == 0) return {};  // Unasked: the server is about to end, or has ended a batch.
  Reply reply = verdict_of_head();
  if (reply.verdict == ReplyVerdict::violation) return reply;
  if (at(0).action == LedgerAction::inject) reply.verdict = ReplyVerdict::forward;
  if (at(0).tag != 'Q') note_change(at(0), false);
  if (copying_in_) end_copy(true);
  // Query, FunctionCall and Sync are followed by ReadyForQuery; an extended message by silence
  // until Sync.
  if (!is_ready_request(at(0).tag)) skip_to_sync();
  // That of a statement of the pooler's own is not said to the client.
  is_head_failed_ = size_ > 0 && at(0).action == LedgerAction::forward;
  return reply;
}

Reply Ledger::on_ready() noexcept {
  // A Sync that the failed COPY did not swallow after all.
  if (size_ == 0 && ambiguous_) return {};
  Reply reply = verdict_of_head();
  if (reply.verdict == ReplyVerdict::violation) return reply;
  if (!is_ready_request(reply.tag)) return violation;
  reply.completed = true;
  copying_in_ = false;
  is_streaming_ = false;
  is_head_failed_ = false;
  note_change(at(0), false);
  pop();
  if (copy_ends_count_ > 0) drop_copy_ends();
  return reply;
}

// CopyDone and CopyFail outside of a COPY are ignored by the server.
void Ledger::drop_copy_ends() noexcept {
  while (!copying_in_ && size_ > 0 && is_copy_end(at(0).tag)) pop();
}

// The head has failed; what stands behind it is not executed.
void Ledger::skip_to_sync() noexcept {
  pop();
  for (; size_ > 0 && at(0).tag != 'S'; pop()) drop(at(0));
  skipping_ = size_ == 0;
}

// The COPY of the head is over. What was sent between it and CopyDone or CopyFail was read, and
// ignored, as part of the COPY. A server that failed the COPY may have stopped reading earlier:
// when Syncs lie in between, nobody can tell how many of them it still answers.
void Ledger::end_copy(bool failed) noexcept {
  ASSERT(copying_in_);
  ASSERT(size_ > 0);
  copying_in_ = false;
  is_streaming_ = false;
  size_t end = 1;
  while (end < size_ && !is_copy_end(at(end).tag)) ++end;
  if (failed && end > 1) ambiguous_ = true;
  if (end < size_) {
    erase(1, end);  // The end of the COPY itself too.
  } else if (failed) {
    erase(1, end - 1);  // CopyDone is still to be sent; it will find no COPY.
  }
}

void Ledger::disown_unnamed() noexcept {
  disowned_ = std::exchange(unnamed_, Unnamed::foreign);
  has_unbound_ = false;
  changes_sent_ = changes_ended_ = change_done_ = 0;
  has_made_ = false;
}

void Ledger::on_unnamed_replaced(bool is_there) noexcept {
  unnamed_ = is_there ? Unnamed::own : Unnamed::none;
  has_unbound_ = is_there;
}

// Of a query at its end only, which has many replies.
void Ledger::note_change(const LedgerEntry& change, bool has_made) noexcept {
  if (!is_clients_change(change)) return;
  change_done_ = changes_ended_ + 1;
  has_made_ = has_made;
}

// Keeps the counts: `change` is 1 for an entry that comes and -1 for one that goes.
void Ledger::count(const LedgerEntry& entry, int change) noexcept {
  if (is_ready_request(entry.tag)) {
    if (entry.action == LedgerAction::forward) ready_due_count_ += change;
  } else if (is_copy_end(entry.tag)) {
    copy_ends_count_ += change;
  }
  if (!replaces_unnamed(entry)) return;
  unnamed_replaced_count_ += change;
  // A query that fails does not end the batch.
  if (change > 0 && entry.tag != 'Q') replaced_batch_ = batch_;
}

[[gnu::hot]] void Ledger::push(LedgerEntry entry) noexcept {
  if (size_ == ring_.size()) grow();
  at(size_) = entry;
  // A query of the pooler's own is one that the server can read.
  if (entry.tag == 'Q' && entry.action == LedgerAction::skip) unnamed_ = Unnamed::none;
  ++size_;
  if (entry.tag == 'S') ++batch_;
  count(entry, 1);
  changes_sent_ += is_clients_change(entry) ? 1 : 0;
}

[[gnu::hot]] void Ledger::pop() noexcept {
  ASSERT(size_ > 0);
  count(at(0), -1);
  changes_ended_ += is_clients_change(at(0)) ? 1 : 0;
  head_ = (head_ + 1) & (ring_.size() - 1);
  --size_;
}

void Ledger::drop(const LedgerEntry& entry) noexcept {
  if (entry.marks != 0) dropped_.push_back(entry);
}

void Ledger::erase(size_t first, size_t entries_count) noexcept {
  ASSERT(first + entries_count <= size_);
  for (size_t i = first; i < first + entries_count; ++i) {
    drop(at(i));
    count(at(i), -1);
    changes_ended_ += is_clients_change(at(i)) ? 1 : 0;
  }
  for (size_t i = first; i + entries_count < size_; ++i) at(i) = at(i + entries_count);
  size_ -= entries_count;
}

void Ledger::grow() noexcept {
  std::vector<LedgerEntry> larger(ring_.size() * 2);
  for (size_t i = 0; i < size_; ++i) larger[i] = at(i);
  ring_ = std::move(larger);
  head_ = 0;
}

}  // namespace helios
