#include "helios/session/client_statements.h"

#include <utility>

#include "helios/base/assert.h"

namespace helios {
namespace {

const Statement* pointer_to(const StatementRef& statement) {
  return statement.is_null() ? nullptr : &*statement;
}

}  // namespace

const Statement* ClientStatements::find(std::string_view name) const noexcept {
  const auto found = names_.find(name);
  return found == names_.end() ? nullptr : pointer_to(found->second.statement);
}

const Statement* ClientStatements::find_unsettled(std::string_view name) const noexcept {
  const auto found = names_.find(name);
  if (found == names_.end() || found->second.unsettled_count == 0) return nullptr;
  return pointer_to(found->second.statement);
}

bool ClientStatements::is_unsettled_before(std::string_view name, uint64_t batch) const noexcept {
  const auto found = names_.find(name);
  return found != names_.end() && found->second.unsettled_count > 0 && found->second.batch < batch;
}

void ClientStatements::set(std::string_view name, StatementRef statement, uint64_t batch) {
  ASSERT(name.size() <= name_size_max);
  auto found = names_.find(name);
  if (found == names_.end()) found = names_.try_emplace(std::string(name)).first;
  Name& entry = found->second;
  ASSERT(entry.unsettled_count == 0 || entry.batch == batch);
  changes_.push_back({&*found, entry.statement});
  ++entry.unsettled_count;
  entry.batch = batch;
  assign(*found, std::move(statement));
}

void ClientStatements::set_settled(std::string_view name, StatementRef statement) {
  ASSERT(!has_unsettled());
  set(name, std::move(statement), 0);
  settle();
}

void ClientStatements::settle() noexcept {
  ASSERT(has_unsettled());
  Names::value_type& name = *changes_.front().name;
  changes_.pop_front();
  --name.second.unsettled_count;
  forget_if_none(name);
}

void ClientStatements::undo(size_t count) noexcept {
  ASSERT(count <= changes_.size());
  for (size_t i = count; i > 0; --i)
    assign(*changes_[i - 1].name, std::move(changes_[i - 1].before));
  for (; count > 0; --count) settle();
}

void ClientStatements::forget_settled() noexcept {
  for (Change& change : changes_) change.before = {};
  for (auto name = names_.begin(); name != names_.end();) {
    if (name->second.unsettled_count > 0) {
      ++name;
      continue;
    }
    assign(*name, {});
    name = names_.erase(name);
  }
}

void ClientStatements::forget_settled(std::string_view name) noexcept {
  const auto found = names_.find(name);
  if (found == names_.end()) return;
  for (Change& change : changes_)
    if (change.name == &*found) change.before = {};
  if (found->second.unsettled_count > 0) return;
  assign(*found, {});
  forget_if_none(*found);
}

void ClientStatements::assign(Names::value_type& name, StatementRef statement) noexcept {
  const auto size = [&](const StatementRef& one) {
    return one.is_null() ? 0 : size_of(name.first, one->content().size());
  };
  bytes_ -= size(name.second.statement);
  bytes_ += size(statement);
  name.second.statement = std::move(statement);
}

void ClientStatements::forget_if_none(Names::value_type& name) noexcept {
  if (name.second.unsettled_count > 0 || !name.second.statement.is_null()) return;
  names_.erase(names_.find(name.first));
}

}  // namespace helios
