// Session parameters that follow a client from backend to backend, and with them what it has
// prepared by PREPARE in SQL.
//
// A server reports some parameters by ParameterStatus (PostgreSQL documentation 55.2.7); of the
// others that a session has changed it tells when it is asked (state_probe.h). For those that a
// client can set, each client and each backend has a ParameterSet; when a client gets a backend
// whose set differs, the difference goes out as one statement ahead of the client's own first
// message, and one more for each statement that it lacks, or has of somebody else.
//
// Sets are immutable and shared: equal sets of one core are one object, so comparing two is
// comparing two pointers. Those that nobody uses any more are kept for a while: the replay of
// several parameters passes through the same sets again and again. One core's data.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "helios/base/intrusive_list.h"
#include "helios/wire/crypto.h"

namespace helios {

// Name and value, as the server spells them.
using ParameterList = std::vector<std::pair<std::string, std::string>>;

// A reported parameter that a client can set, so that it is followed. Names compare
// case-insensitively, as in PostgreSQL.
[[nodiscard]] bool is_followed_parameter(std::string_view name) noexcept;
// A startup parameter that every server reports under this name, so that it may be set after the
// login instead of in it.
[[nodiscard]] bool is_settable_later(std::string_view name) noexcept;
[[nodiscard]] bool equal_names(std::string_view a, std::string_view b) noexcept;
// A parameter on which the meaning of a literal may depend: the server reads it when it parses the
// text of a statement, and never again.
[[nodiscard]] bool decides_literals(std::string_view name) noexcept;
// Some of the reported parameters that are followed: bits, by their places in the list of these.
using ReportedNames = uint16_t;
// The bit of this one; 0 when it is not followed.
[[nodiscard]] ReportedNames reported_bit(std::string_view name) noexcept;
// The value of a parameter in a list; nullptr when it is not there.
[[nodiscard]] const std::string* find_parameter(const ParameterList& list,
                                                std::string_view name) noexcept;

// What of a session's parameters matters when a statement is parsed, as a cryptographic hash: the
// way literals are read, and where names are looked up. Sessions with the same have the same
// statement when they parse the same text; others may not.
using ParseContext = Sha256Digest;

class ParameterStore;
struct UnusedSetTag;

// A statement of PREPARE, under the name that the client has given it.
struct SqlStatement {
  std::string name;
  std::string text;  // The whole command, in the client's encoding.
  // In which it was parsed. One that is parsed again is another one then.
  ParseContext context{};

  friend bool operator==(const SqlStatement&, const SqlStatement&) = default;
};
using SqlStatements = std::vector<SqlStatement>;

class ParameterSet : public ListNode<UnusedSetTag> {
 public:
  // Those that the server reports, changed or not.
  [[nodiscard]] const ParameterList& list() const noexcept { return list_; }
  // Others, that the session has set; the rest have the values with which a session begins. `role`
  // is among them. Values are in the encoding of the database.
  [[nodiscard]] const ParameterList& settings() const noexcept { return settings_; }
  // Sorted by name.
  [[nodiscard]] const SqlStatements& statements() const noexcept { return statements_; }
  [[nodiscard]] const ParseContext& parse_context() const noexcept { return parse_context_; }

 private:
  friend class ParameterStore;
  friend class ParameterSetRef;
  ParameterList list_;      // Sorted by name.
  ParameterList settings_;  // Likewise.
  SqlStatements statements_;
  ParseContext parse_context_{};
  std::string key_;
  uint32_t references_ = 0;
  ParameterStore* store_ = nullptr;
};

// A counted reference to a set of this core. Null is the state of somebody who has no parameters
// yet.
class ParameterSetRef {
 public:
  ParameterSetRef() = default;
  explicit ParameterSetRef(ParameterSet* set) noexcept : set_(set) { take(); }
  ParameterSetRef(const ParameterSetRef& other) noexcept : ParameterSetRef(other.set_) {}
  ParameterSetRef(ParameterSetRef&& other) noexcept : set_(std::exchange(other.set_, nullptr)) {}
  ParameterSetRef& operator=(ParameterSetRef other) noexcept {
    std::swap(set_, other.set_);
    return *this;
  }
  ~ParameterSetRef() { drop(); }

  [[nodiscard]] bool is_null() const noexcept { return set_ == nullptr; }
  [[nodiscard]] const ParameterSet& operator*() const noexcept { return *set_; }
  [[nodiscard]] const ParameterSet* operator->() const noexcept { return set_; }
  friend bool operator==(const ParameterSetRef& a, const ParameterSetRef& b) noexcept {
    return a.set_ == b.set_;
  }

 private:
  void take() noexcept;
  void drop() noexcept;
  ParameterSet* set_ = nullptr;
};

// Reported parameters that both have, with other values. session_authorization is never among them:
// it is set, and reset, in a way of its own.
[[nodiscard]] ReportedNames changed_names(const ParameterSet& from,
                                          const ParameterSet& to) noexcept;

// The sets of one core.
class ParameterStore {
 public:
  ParameterStore() = default;
  ParameterStore(const ParameterStore&) = delete;
  ParameterStore& operator=(const ParameterStore&) = delete;
  ~ParameterStore();  // Requires: no set is referenced.

  // The set with these parameters: reported ones, of which those that are not followed are left
  // out, and those that the session has set. `statements`: sorted.
  [[nodiscard]] ParameterSetRef intern(const ParameterList& list,
                                       const ParameterList& settings = {},
                                       const SqlStatements& statements = {});
  // The set that differs from `base` in this one value. `base` itself when the parameter is not
  // followed or the value is the same. Note: allocates only when the store has no such set.
  [[nodiscard]] ParameterSetRef with(const ParameterSetRef& base, std::string_view name,
                                     std::string_view value);
  // The set that differs from `base` in what the session has set. Note: allocates as above.
  // Requires: `settings` is sorted.
  [[nodiscard]] ParameterSetRef with_settings(const ParameterSetRef& base,
                                              const ParameterList& settings);
  // The set that differs from `base` in what was prepared. Note: allocates as above. Requires:
  // `statements` is sorted.
  [[nodiscard]] ParameterSetRef with_statements(const ParameterSetRef& base,
                                                const SqlStatements& statements);
  // The same set, with all statements parsed in its own context: what a session comes to when they
  // are prepared anew.
  [[nodiscard]] ParameterSetRef in_own_context(const ParameterSetRef& base);
  // The statement that turns a session with the parameters `from` into one with `to`; empty when
  // there is nothing to do. Reported parameters that one of them lacks are left alone: another
  // version of the server may not know them. `login_user`: who the session belongs to when it
  // begins. Valid until the next call.
  [[nodiscard]] std::string_view set_statement(const ParameterSet& from, const ParameterSet& to,
                                               std::string_view login_user);

  // The statement that sets these of `to`, whatever their values are now; empty when there is
  // nothing to do. Valid until the next call.
  [[nodiscard]] std::string_view set_again_statement(const ParameterSet& to, ReportedNames names);

  // Sets, used or not.
  [[nodiscard]] size_t size() const noexcept { return sets_.size(); }

  // Sets without a user that are kept.
  static constexpr size_t unused_max = 256;

 private:
  friend class ParameterSetRef;
  void on_used(ParameterSet& set) noexcept;
  void on_unused(ParameterSet& set) noexcept;
  void forget(ParameterSet& set) noexcept;
  void write_key(const ParameterList& base, std::string_view name, std::string_view value);
  void add_reported(const ParameterSet& from, const ParameterSet& to);
  void add_settings(const ParameterSet& from, const ParameterSet& to);
  [[nodiscard]] ParameterSetRef intern_sorted(const ParameterList& list,
                                              const ParameterList& settings,
                                              const SqlStatements& statements);
  [[nodiscard]] ParameterSetRef find_key() noexcept;
  [[nodiscard]] ParameterSetRef add(ParameterList list, ParameterList settings,
                                    SqlStatements statements);

  std::unordered_map<std::string_view, std::unique_ptr<ParameterSet>> sets_;
  IntrusiveList<ParameterSet, UnusedSetTag> unused_;  // Front: unused for longest.
  // Kept for their memory only.
  std::string key_;
  std::string statement_;
};

// What a new session of a server is like.
struct Welcome {
  ParameterList reported;  // As at login; empty while nothing is known.
  ParameterList settings;  // What connect_query has set.
  [[nodiscard]] bool empty() const noexcept { return reported.empty(); }
  friend bool operator==(const Welcome&, const Welcome&) = default;
};

// Appends a name in quotes.
void append_quoted_name(std::string& out, std::string_view name);
// Appends an SQL literal that means the same whatever standard_conforming_strings is.
void append_literal(std::string& out, std::string_view value);

// True when a server takes this value of this parameter as it is, so that its own spelling of it is
// known without asking.
[[nodiscard]] bool is_canonical_value(std::string_view name, std::string_view value) noexcept;

}  // namespace helios
