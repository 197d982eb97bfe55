// The unnamed statement, for clients that parse it in one batch and bind it in others: how it
// follows them from backend to backend.
//
// Nearly all bind it behind the Parse, in the same bytes: of those nothing is kept. Of the others
// the text is, and where the server has none, or another client's, the proxy parses it there once
// more, ahead of the Bind or Describe. As in PostgreSQL a simple query drops it.
#include <algorithm>
#include <utility>

#include "helios/session/session.h"
#include "helios/session/sessions.h"
#include "helios/wire/message.h"
#include "helios/wire/statement_messages.h"
#include "helios/wire/writer.h"
#include "session/session_statements.h"

namespace helios {

void UnnamedStatement::keep(ByteSpan text, const Ledger& ledger, size_t size_max) {
  // Those before the last one that the server has come to are replaced.
  const uint32_t done = ledger.unnamed_change_done();
  size_t gone_count = 0;
  for (const auto& [change, kept] : next) {
    if (change >= done && next_size + text.size() <= size_max) break;
    next_size -= kept.size();
    ++gone_count;
  }
  next.erase(next.begin(), next.begin() + static_cast<ptrdiff_t>(gone_count));
  if (next.size() == next_max) return forget_next();
  next.emplace_back(ledger.unnamed_changes_sent(), std::vector<uint8_t>(text.begin(), text.end()));
  next_size += text.size();
}

// Its memory, too: it may be large.
void UnnamedStatement::forget_content() noexcept {
  std::vector<uint8_t>().swap(content);
}

void UnnamedStatement::forget_next() noexcept {
  next.clear();
  next_size = 0;
}

void UnnamedStatement::start_lease(Backend& backend) noexcept {
  if (lease != 0 && lease == backend.last_lease()) backend.ledger().reclaim_unnamed();
  lease = backend.lease();
  settled_count = 0;
  forget_next();
}

void UnnamedStatement::settle(const Ledger& ledger) noexcept {
  const uint32_t sent = ledger.unnamed_changes_sent();
  if (sent == settled_count) return;
  const uint32_t done = ledger.unnamed_change_done();
  // What the server has skipped behind an error changes nothing.
  if (done > settled_count) forget_content();
  for (auto& [change, text] : next)
    if (change == done && ledger.has_made_unnamed()) content = std::move(text);
  forget_next();
  settled_count = sent;
}

// What is not answered may have been executed.
void UnnamedStatement::lose(const Ledger& ledger) noexcept {
  settle(ledger);
  if (ledger.unnamed_change_done() < ledger.unnamed_changes_sent()) forget_content();
}

// A Parse with this body has been announced, `rest` has come behind it.
void Session::keep_unnamed(ByteSpan body, ByteSpan rest) noexcept {
  if (!follows_statements_ || body.size() < 2 || body.front() != 0) return;
  if (!rest.empty() && rest.front() == frontend_tag::bind) return;
  if (body.size() > unnamed_size_max() || backend_->ledger().is_skipping_to_sync()) return;
  UnnamedStatement& unnamed = own_statements().unnamed;
  unnamed.keep(body.subspan(1), backend_->ledger(), unnamed_size_max());
  unnamed.lease = backend_->lease();
}

// A message with this tag fails without a server, which would have dropped it all the same. (Of a
// Parse the name may not be here: then it is taken for this one.)
void Session::drop_unnamed(uint8_t tag, ByteSpan seen) noexcept {
  if (statements_ == nullptr) return;
  const bool is_parse = tag == frontend_tag::parse && (seen.empty() || seen.front() == 0);
  if (!is_parse && tag != frontend_tag::query) return;
  statements_->unnamed.forget_content();
  // Nor is what its last backend has its own any more.
  statements_->unnamed.lease = 0;
}

size_t Session::unnamed_size_max() const noexcept {
  const PoolLimits& limits = pool_->slice.spec().limits;
  return std::min(limits.max_prepared_statement_size, limits.max_client_statements_size);
}

// It is kept, and lost neither with the backend of this ledger nor by giving that back.
bool Session::has_kept_unnamed(const Ledger& ledger) const noexcept {
  if (statements_ == nullptr) return false;
  statements_->unnamed.settle(ledger);
  return !statements_->unnamed.content.empty();
}

// The message that is about to be begun finds no unnamed statement of another client, and its own
// where there is one. Requires: the answers to all that replace it have come.
void Session::provide_unnamed() noexcept {
  if (!has_kept_unnamed(backend_->ledger())) return backend_->drop_foreign_statement();
  const ByteSpan content = statements_->unnamed.content;
  MessageWriter& writer = sessions_.pools().writer();
  write_parse_head(writer, {}, content.size());
  backend_->on_request({{}, frontend_tag::parse, LedgerAction::inject, ledger_mark::unnamed});
  backend_->send(writer.bytes());
  backend_->send(content);
}

}  // namespace helios
