#include "helios/pool/sent_batch.h"

#include "helios/wire/message.h"

namespace helios {
namespace {

bool can_be_repeated(const LedgerEntry& entry) {
  if (entry.action != LedgerAction::forward) return false;
  switch (entry.tag) {
    case frontend_tag::bind:
    case frontend_tag::describe:
      return entry.marks == 0 || entry.marks == ledger_mark::uses;
    case frontend_tag::execute:
    case frontend_tag::close:
    case frontend_tag::sync:
    case frontend_tag::flush:
      return entry.marks == 0;
    default:
      return false;
  }
}

}  // namespace

[[gnu::hot]] void SentBatch::forget() noexcept {
  state_ = State::none;
  statement_ = {};
  entries_.clear();
  bytes_.clear();
}

[[gnu::hot]] void SentBatch::add(const LedgerEntry& entry) noexcept {
  if (state_ != State::open || !can_be_repeated(entry)) return forget();
  if (entry.tag != frontend_tag::flush) entries_.push_back(entry);
  if (entry.tag == frontend_tag::sync) state_ = State::whole;
}

[[gnu::hot]] void SentBatch::add(ByteSpan bytes) noexcept {
  if (bytes_.size() + bytes.size() > size_max) return forget();
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

}  // namespace helios
