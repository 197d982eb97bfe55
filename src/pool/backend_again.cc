// A batch whose statement is out of date is sent once more (sent_batch.h).
#include "helios/base/assert.h"
#include "helios/pool/backend.h"
#include "helios/pool/pools.h"
#include "helios/wire/message.h"
#include "helios/wire/statement_messages.h"
#include "helios/wire/writer.h"

namespace helios {

void Backend::keep_batch(const Statement& statement) noexcept {
  ASSERT(state_ == State::leased);
  // What an open batch has done already would be lost with it.
  if (last_status_ != 'I' || is_batch_waiting() || !ledger_.has_only_own()) return;
  batch_.start(StatementRef(&statement));
}

// The error that is being read is of a kept batch. True: it goes nowhere, and send_again follows.
bool Backend::is_worth_another_try(std::string_view code) noexcept {
  if (code != sqlstate::feature_not_supported) return false;
  if ((failed_.marks & ledger_mark::uses) == 0 || !batch_.is_whole(failed_.key)) return false;
  // What is owed is the end of the batch.
  return ledger_.size() == 1 && ledger_.ready_due_count() == 1;
}

// The server is at the end of the batch that has failed.
void Backend::send_again() noexcept {
  ASSERT(ledger_.empty());
  const StatementRef statement = batch_.statement();
  ++slice_->counters.server_parses;
  statements_.add(statement->key(), ledger_.batch());
  MessageWriter& writer = pools_.writer();
  write_close_statement(writer, statement->name());
  write_parse_head(writer, statement->name(), statement->content().size());
  ledger_.on_sent('C', LedgerAction::inject);
  ledger_.on_sent({statement->key(), frontend_tag::parse, LedgerAction::inject,
                   ledger_mark::parses | ledger_mark::replaces});
  stream_.send(writer.bytes());
  stream_.send(statement->content());
  for (const LedgerEntry& entry : batch_.entries()) ledger_.on_sent(entry);
  transaction_status_ = 0;
  choose_drained();
  stream_.send(batch_.bytes());
  batch_.forget();
}

}  // namespace helios
