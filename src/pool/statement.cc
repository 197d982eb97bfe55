#include "helios/pool/statement.h"

#include <algorithm>
#include <cstring>

#include "helios/base/assert.h"
#include "helios/base/hex.h"

namespace helios {
namespace {

// Nothing that anybody sees depends on it.
HashKey random_key() {
  uint8_t bytes[sizeof(HashKey)];
  random_bytes(bytes);
  HashKey key;
  std::memcpy(&key, bytes, sizeof(key));
  return key;
}

StatementKey key_of(ByteSpan content, const ParseContext& context) {
  std::string both(as_text(context));
  both += as_text(content);
  const Sha256Digest digest = sha256(as_bytes(both));
  StatementKey key;
  std::memcpy(&key.high, digest.data(), sizeof(key.high));
  std::memcpy(&key.low, digest.data() + sizeof(key.high), sizeof(key.low));
  return key;
}

}  // namespace

StatementName name_of(const StatementKey& key) noexcept {
  StatementName name;
  auto* to = std::copy(statement_name_prefix.begin(), statement_name_prefix.end(), name.begin());
  for (const uint64_t part : {key.high, key.low})
    for (int shift = 60; shift >= 0; shift -= 4) *to++ = hex_digits[(part >> shift) & 15];
  ASSERT(to == name.end());
  return name;
}

bool looks_like_ours(std::string_view name) noexcept {
  return name.size() == statement_name_size && name.starts_with(statement_name_prefix);
}

void StatementRef::take() noexcept {
  if (statement_ != nullptr) ++statement_->references_;
}

[[gnu::hot]] void StatementRef::drop() noexcept {
  if (statement_ == nullptr) return;
  ASSERT(statement_->references_ > 0);
  if (--statement_->references_ == 0) statement_->table_->forget(*statement_);
}

StatementTable::StatementTable() noexcept : statements_(0, Hash{random_key()}) {}

StatementTable::~StatementTable() {
  ASSERT(statements_.empty());
  ASSERT(bytes_ == 0);
}

StatementRef StatementTable::intern(ByteSpan content, const ParseContext& context,
                                    size_t bytes_max) {
  const auto found = statements_.find({as_text(content), &context});
  if (found != statements_.end()) return StatementRef(found->second.get());
  const size_t size = Statement::size_of(content.size());
  if (bytes_ + size > bytes_max) return {};
  auto statement = std::make_unique<Statement>();
  statement->content_ = as_text(content);
  statement->context_ = context;
  statement->key_ = key_of(content, context);
  statement->name_ = name_of(statement->key_);
  statement->table_ = this;
  bytes_ += size;
  Statement* const made = statement.get();
  statements_.emplace(Content{made->content_, &made->context_}, std::move(statement));
  return StatementRef(made);
}

void StatementTable::forget(const Statement& statement) noexcept {
  bytes_ -= statement.size();
  const auto found = statements_.find({statement.content_, &statement.context_});
  ASSERT(found != statements_.end());
  statements_.erase(found);
}

}  // namespace helios
