#include "helios/pool/backend_statements.h"

#include <algorithm>

#include "helios/base/assert.h"

namespace helios {

BackendStatements::Entry* BackendStatements::find(const StatementKey& key) noexcept {
  const auto found = entries_.find(key);
  return found == entries_.end() ? nullptr : &found->second;
}

[[gnu::hot]] BackendStatements::State BackendStatements::state_of(
    const StatementKey& key) const noexcept {
  const auto found = entries_.find(key);
  return found == entries_.end() ? State::absent : found->second.state;
}

bool BackendStatements::is_pending_before(const StatementKey& key, uint64_t batch) const noexcept {
  const auto found = entries_.find(key);
  return found != entries_.end() && found->second.state == State::pending &&
         found->second.batch < batch;
}

void BackendStatements::add(const StatementKey& key, uint64_t batch) {
  const auto [found, is_new] = entries_.try_emplace(key);
  Entry& entry = found->second;
  ASSERT(is_new || entry.state != State::pending);
  entry.key = key;
  entry.batch = batch;
  entry.state = State::pending;
  if (!is_new) used_.remove(entry);
  used_.push_back(entry);
}

void BackendStatements::settle(const StatementKey& key) noexcept {
  Entry* entry = find(key);
  if (entry != nullptr && entry->state == State::pending) entry->state = State::present;
}

void BackendStatements::remove(const StatementKey& key) noexcept {
  if (Entry* entry = find(key)) erase(*entry);
}

void BackendStatements::doubt(const StatementKey& key) noexcept {
  if (Entry* entry = find(key)) entry->state = State::doubtful;
}

[[gnu::hot]] void BackendStatements::touch(const StatementKey& key) noexcept {
  Entry* entry = find(key);
  ASSERT(entry != nullptr);
  if (entry == used_.back()) return;
  used_.remove(*entry);
  used_.push_back(*entry);
}

bool BackendStatements::evict(StatementKey& key, bool keeps_newest) noexcept {
  for (Entry* entry = used_.front(); entry != nullptr; entry = used_.next(*entry)) {
    if (entry->state == State::pending) continue;
    if (keeps_newest && entry == used_.back()) continue;
    key = entry->key;
    erase(*entry);
    return true;
  }
  return false;
}

void BackendStatements::drop_settled() noexcept {
  for (Entry* entry = used_.front(); entry != nullptr;) {
    Entry* next = used_.next(*entry);
    if (entry->state != State::pending) erase(*entry);
    entry = next;
  }
}

void BackendStatements::clear() noexcept {
  while (used_.pop_front() != nullptr) continue;
  entries_.clear();
  strays_.clear();
  leaving_.clear();
}

bool BackendStatements::start_leaving(std::string_view name) {
  const auto found = std::find(strays_.begin(), strays_.end(), name);
  if (found == strays_.end()) return false;
  leaving_.push_back(std::move(*found));
  strays_.erase(found);
  return true;
}

void BackendStatements::on_left() noexcept {
  if (!leaving_.empty()) leaving_.erase(leaving_.begin());
}

void BackendStatements::on_stayed() {
  if (leaving_.empty()) return;
  strays_.push_back(std::move(leaving_.front()));
  leaving_.erase(leaving_.begin());
}

bool BackendStatements::has_stray(std::string_view name) const noexcept {
  return std::find(strays_.begin(), strays_.end(), name) != strays_.end();
}

BackendStatements::List BackendStatements::list() {
  List list;
  for (Entry* entry = used_.front(); entry != nullptr; entry = used_.next(*entry))
    if (entry->state != State::pending)
      list.emplace_back(entry->key, entry->state == State::doubtful);
  return list;
}

void BackendStatements::restore(const List& list) {
  ASSERT(entries_.empty());
  for (const auto& [key, is_doubtful] : list) {
    add(key, 0);
    is_doubtful ? doubt(key) : settle(key);
  }
}

void BackendStatements::erase(Entry& entry) noexcept {
  used_.remove(entry);
  entries_.erase(entries_.find(entry.key));
}

}  // namespace helios
