// The prepared statements that a client has, by its own names.
//
// A change of a name takes effect when its message is sent, so that the messages behind it in the
// same batch find it. Until the server's answer tells that the message was executed the change is
// not settled: when it was not, it is undone. In between, messages of later batches with the same
// name have to wait (is_unsettled_before), since nobody knows yet what it will mean: so all
// unsettled changes of one name are of one batch. One session's data.
// Invariant: changes are settled, or undone, in the order in which they were made.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "helios/pool/statement.h"

namespace helios {

class ClientStatements {
 public:
  // PostgreSQL does not look at what is behind this.
  static constexpr size_t name_size_max = 63;

  ClientStatements() = default;
  ClientStatements(const ClientStatements&) = delete;
  ClientStatements& operator=(const ClientStatements&) = delete;

  // The statement of this name; nullptr: there is none.
  [[nodiscard]] const Statement* find(std::string_view name) const noexcept;
  // The same among the names that this batch has changed.
  [[nodiscard]] const Statement* find_unsettled(std::string_view name) const noexcept;
  // A batch before this one has changed the name, and it is not known yet whether it did.
  [[nodiscard]] bool is_unsettled_before(std::string_view name, uint64_t batch) const noexcept;

  void set(std::string_view name, StatementRef statement, uint64_t batch);
  void remove(std::string_view name, uint64_t batch) { set(name, {}, batch); }
  // The same while nothing is on its way to a server: it has happened. Requires: no change is
  // unsettled.
  void set_settled(std::string_view name, StatementRef statement);
  // The oldest change has happened. Requires: there is one that is not settled.
  void settle() noexcept;
  // The `count` oldest changes have not. Requires: there are as many.
  void undo(size_t count) noexcept;
  // None of the changes has happened.
  void undo_all() noexcept { undo(changes_.size()); }
  [[nodiscard]] bool has_unsettled() const noexcept { return !changes_.empty(); }

  // The server has dropped all statements, or this one; what is not settled comes after that.
  void forget_settled() noexcept;
  void forget_settled(std::string_view name) noexcept;

  [[nodiscard]] bool empty() const noexcept { return names_.empty(); }
  // Memory that the names hold, as if nobody shared a statement.
  [[nodiscard]] size_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] static size_t size_of(std::string_view name, size_t content_size) noexcept {
    return name.size() + Statement::size_of(content_size);
  }

 private:
  struct Name {
    StatementRef statement;  // Null: none, which is not settled.
    uint64_t batch = 0;      // Of the last change.
    uint32_t unsettled_count = 0;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view name) const noexcept {
      return std::hash<std::string_view>()(name);
    }
  };
  using Names = std::unordered_map<std::string, Name, Hash, std::equal_to<>>;
  struct Change {
    Names::value_type* name;
    StatementRef before;
  };

  void assign(Names::value_type& name, StatementRef statement) noexcept;
  void forget_if_none(Names::value_type& name) noexcept;

  Names names_;
  std::deque<Change> changes_;  // Not settled, the oldest first.
  size_t bytes_ = 0;
};

}  // namespace helios
