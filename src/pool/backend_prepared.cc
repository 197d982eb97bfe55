// What replies mean for the prepared statements that a backend has, and the replies that the pooler
// gives itself.
#include "helios/base/assert.h"
#include "helios/pool/backend.h"
#include "helios/pool/pools.h"
#include "helios/wire/error_response.h"
#include "helios/wire/message.h"
#include "helios/wire/writer.h"

namespace helios {

void Backend::answer_fakes() noexcept {
  if (!reader_.at_boundary()) return;  // Behind the message that is being received.
  while (ledger_.has_due_fake()) {
    const LedgerEntry entry = ledger_.take_due_fake();
    ASSERT(entry.tag == frontend_tag::parse || entry.tag == frontend_tag::close);
    if (lessee_ == nullptr) continue;
    const bool is_parse = entry.tag == frontend_tag::parse;
    MessageWriter& writer = pools_.writer();
    write_empty_message(writer,
                        is_parse ? backend_tag::parse_complete : backend_tag::close_complete);
    lessee_->on_reply_copy(writer.bytes(), true);
    if ((entry.marks & ledger_mark::renames) != 0) lessee_->on_name_settled();
  }
}

// A reply belongs to an entry with marks, or has made entries with marks void.
void Backend::note_statements(uint8_t tag, const Reply& reply) noexcept {
  const LedgerEntry& entry = ledger_.marked();
  size_t undone_count = 0;
  if (reply.marks != 0 && reply.completed) {
    if ((reply.marks & ledger_mark::parses) != 0) {
      statements_.settle(entry.key);
      slice_->accepted_statements.add(entry.key);
    }
    if ((reply.marks & ledger_mark::leaves) != 0) statements_.on_left();
    if ((reply.marks & ledger_mark::renames) != 0 && lessee_ != nullptr) lessee_->on_name_settled();
    if ((reply.marks & ledger_mark::pins) != 0 && forwarding_)
      lessee_->on_statement(reply.tag, entry.key.low);
  } else if (reply.marks != 0 && tag == backend_tag::error_response) {
    failed_ = entry;
    if ((reply.marks & ledger_mark::parses) != 0) statements_.remove(entry.key);
    if ((reply.marks & ledger_mark::renames) != 0) ++undone_count;
  }
  if (!ledger_.has_dropped() && undone_count == 0) return;
  for (const LedgerEntry& dropped : ledger_.take_dropped()) {
    // The Close before it may have been executed or not.
    if ((dropped.marks & ledger_mark::replaces) != 0) {
      statements_.doubt(dropped.key);
    } else if ((dropped.marks & ledger_mark::parses) != 0) {
      statements_.remove(dropped.key);
    }
    if ((dropped.marks & ledger_mark::leaves) != 0) statements_.on_stayed();
    if ((dropped.marks & ledger_mark::renames) != 0) ++undone_count;
  }
  if (undone_count > 0 && lessee_ != nullptr) lessee_->on_names_undone(undone_count);
}

// Why an entry has failed tells whether the server has what we believe.
void Backend::judge_statement(std::string_view code) noexcept {
  const LedgerEntry entry = std::exchange(failed_, {});
  if ((entry.marks & ledger_mark::prepares) != 0) {
    on_not_prepared(entry.key);
  } else if ((entry.marks & ledger_mark::uses) != 0) {
    // It is not there, or its plan is out of date (a table was changed): the next one who needs it
    // gets it anew.
    if (code != sqlstate::invalid_sql_statement_name && code != sqlstate::feature_not_supported)
      return;
    statements_.doubt(entry.key);
    slice_->accepted_statements.remove(entry.key);
  } else if ((entry.marks & ledger_mark::parses) != 0) {
    slice_->accepted_statements.remove(entry.key);
    // Somebody has made one of this name behind our back.
    if (code != sqlstate::duplicate_prepared_statement) return;
    if (statements_.state_of(entry.key) != BackendStatements::State::absent) return;
    statements_.add(entry.key, ledger_.batch());
    statements_.doubt(entry.key);
  }
}

}  // namespace helios
