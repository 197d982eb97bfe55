// Which of our prepared statements a backend has, and which of them was used last.
//
// A statement counts as there from the moment that its Parse is sent. Until the server has answered
// it is pending: when the Parse fails, or is skipped behind an error, it is taken out again. What
// happens in the batch in which the Parse was sent may rely on it, since it fails together with it;
// later batches have to wait for the answer.
//
// A doubtful statement may be there or not, or be of no use any more: it needs a Close before its
// next Parse. (Closing what is not there is no error.)
//
// Part of a Backend; goes with it from core to core.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "helios/base/intrusive_list.h"
#include "helios/pool/statement.h"

namespace helios {

struct UsedStatementTag;

class BackendStatements {
 public:
  enum class State : uint8_t {
    absent,
    pending,   // Its Parse is not answered yet.
    present,   //
    doubtful,  // Needs a Close before its Parse.
  };

  BackendStatements() = default;
  BackendStatements(const BackendStatements&) = delete;
  BackendStatements& operator=(const BackendStatements&) = delete;
  ~BackendStatements() { clear(); }

  [[nodiscard]] State state_of(const StatementKey& key) const noexcept;
  // It is pending since a batch before this one (Ledger::batch).
  [[nodiscard]] bool is_pending_before(const StatementKey& key, uint64_t batch) const noexcept;
  [[nodiscard]] size_t size() const noexcept { return entries_.size(); }

  // Its Parse is being sent in this batch. Requires: it is not pending.
  void add(const StatementKey& key, uint64_t batch);
  // The Parse has succeeded. Does nothing when it is not pending (any more).
  void settle(const StatementKey& key) noexcept;
  void remove(const StatementKey& key) noexcept;
  // What the server said, or did not say, leaves it open whether it is there and good. Does nothing
  // when it is not known here.
  void doubt(const StatementKey& key) noexcept;
  // It is being used: it is evicted after all that were used before.
  void touch(const StatementKey& key) noexcept;
  // Takes out the one that was not used for longest, and is not pending; with `keeps_newest` not
  // the one that was used last. False: there is none.
  [[nodiscard]] bool evict(StatementKey& key, bool keeps_newest) noexcept;

  // The server has dropped all that it had. What is pending comes after that.
  void drop_settled() noexcept;
  // Nothing is there, nor on its way.
  void clear() noexcept;

  // Names of no use that are left on the server, to be closed when there is an opportunity.
  [[nodiscard]] std::vector<std::string>& strays() noexcept { return strays_; }
  [[nodiscard]] bool has_stray(std::string_view name) const noexcept;
  // A Close of this one is sent, with ledger_mark::leaves: it is none any more, unless the server
  // skips that. False: it is none.
  bool start_leaving(std::string_view name);
  // The oldest of these has gone, or has not.
  void on_left() noexcept;
  void on_stayed();

  // Those that are not pending, the longest unused first; doubtful or not.
  using List = std::vector<std::pair<StatementKey, bool>>;
  [[nodiscard]] List list();
  // Requires: nothing is here.
  void restore(const List& list);

 private:
  struct Entry : ListNode<UsedStatementTag> {
    StatementKey key;
    uint64_t batch = 0;
    State state = State::present;
  };
  struct Hash {
    size_t operator()(const StatementKey& key) const noexcept { return key.low; }
  };
  [[nodiscard]] Entry* find(const StatementKey& key) noexcept;
  void erase(Entry& entry) noexcept;

  std::unordered_map<StatementKey, Entry, Hash> entries_;
  IntrusiveList<Entry, UsedStatementTag> used_;  // Front: unused for longest.
  std::vector<std::string> strays_;
  std::vector<std::string> leaving_;  // The oldest first. Few.
};

}  // namespace helios
