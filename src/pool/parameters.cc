#include "helios/pool/parameters.h"

#include <strings.h>

#include <algorithm>

#include "helios/base/assert.h"
#include "helios/base/hex.h"

namespace helios {
namespace {

// What PostgreSQL reports (GUC_REPORT) and a client may set. search_path is reported from
// PostgreSQL 18 on, default_transaction_read_only from 14 on.
constexpr std::string_view followed[] = {
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "IntervalStyle",
    "scram_iterations",
    "search_path",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
};

// Reported by every supported version and legal in a startup packet.
constexpr std::string_view settable_later[] = {
    "application_name",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "standard_conforming_strings",
    "TimeZone",
};

// Input functions and the lexer look at these. What a literal means is fixed when the text is
// parsed: a date stays what DateStyle made of it then.
constexpr std::string_view literal_parameters[] = {
    "array_nulls",
    "backslash_quote",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "lc_monetary",
    "standard_conforming_strings",
    "TimeZone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmloption",
};

// Where names are looked up, and what for. A server looks again when these change, but refuses a
// statement whose columns are other ones by that.
constexpr std::string_view name_parameters[] = {"role", "search_path", "session_authorization"};

template <size_t count>
bool contains(const std::string_view (&names)[count], std::string_view name) noexcept {
  for (std::string_view candidate : names)
    if (equal_names(candidate, name)) return true;
  return false;
}

void append_to_key(std::string& key, std::string_view name, std::string_view value) {
  key += name;
  key += '\0';
  key += value;
  key += '\0';
}

// What is not reported: settings and statements.
void append_rest_to_key(std::string& key, const ParameterList& settings,
                        const SqlStatements& statements) {
  if (!settings.empty()) key += '\0';  // No name is empty.
  for (const auto& [name, value] : settings) append_to_key(key, name, value);
  if (!statements.empty()) key += std::string(2, '\0');
  for (const SqlStatement& statement : statements) {
    append_to_key(key, statement.name, statement.text);
    key += as_text(statement.context);
  }
}

// The value of one that is followed, reported or not.
const std::string* find_value(const ParameterSet& set, std::string_view name) noexcept {
  const std::string* value = find_parameter(set.list(), name);
  return value != nullptr ? value : find_parameter(set.settings(), name);
}

ParseContext parse_context_of(const ParameterSet& set) {
  std::string text;
  const auto add = [&](std::string_view name) {
    if (const std::string* value = find_value(set, name)) append_to_key(text, name, *value);
  };
  for (const std::string_view name : literal_parameters) add(name);
  for (const std::string_view name : name_parameters) add(name);
  return sha256(as_bytes(text));
}

// Who the session acts as decides what it may set.
bool is_identity(std::string_view name) noexcept {
  return equal_names(name, "session_authorization") || equal_names(name, "role");
}

void append_separator(std::string& out) {
  if (!out.empty()) out += ';';
}

void append_set(std::string& out, std::string_view name, std::string_view value) {
  append_separator(out);
  out += "SET ";
  out += name;
  out += '=';
  append_literal(out, value);
}

// The value as the server gave it, a list with its own quotes: SET would take that for one name.
// Nothing is selected: the value may have letters that the session's encoding lacks.
void append_set_config(std::string& out, std::string_view name, std::string_view value) {
  append_separator(out);
  out += "SELECT FROM pg_catalog.set_config(";
  append_literal(out, name);
  out += ',';
  const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  if (std::all_of(value.begin(), value.end(), is_ascii)) {
    append_literal(out, value);
  } else {
    // Nothing here may depend on client_encoding.
    out += "pg_catalog.convert_from(pg_catalog.decode('";
    append_hex(out, value);
    out += "','hex'),pg_catalog.getdatabaseencoding())";
  }
  out += ",false)";
}

void append_reported(std::string& out, std::string_view name, std::string_view value) {
  if (equal_names(name, "search_path")) return append_set_config(out, name, value);
  append_set(out, name, value);
}

// In quotes a name may have any letters; these names are compared without case.
void append_reset(std::string& out, std::string_view name) {
  append_separator(out);
  out += "RESET ";
  append_quoted_name(out, name);
}

}  // namespace

void append_quoted_name(std::string& out, std::string_view name) {
  out += '"';
  for (const char c : name) {
    if (c == '"') out += c;
    out += c;
  }
  out += '"';
}

// A literal that means the same whatever standard_conforming_strings is. The escapes are ASCII in
// every client encoding that a server accepts for its literals.
void append_literal(std::string& out, std::string_view value) {
  const bool has_backslash = value.find('\\') != std::string_view::npos;
  out += has_backslash ? "E'" : "'";
  for (char c : value) {
    if (c == '\'' || c == '\\') out += c;
    out += c;
  }
  out += '\'';
}

bool equal_names(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

bool is_followed_parameter(std::string_view name) noexcept {
  return contains(followed, name);
}

ReportedNames reported_bit(std::string_view name) noexcept {
  static_assert(std::size(followed) <= 16);
  for (size_t i = 0; i < std::size(followed); ++i)
    if (equal_names(followed[i], name)) return static_cast<ReportedNames>(1u << i);
  return 0;
}

bool decides_literals(std::string_view name) noexcept {
  return contains(literal_parameters, name);
}

bool is_settable_later(std::string_view name) noexcept {
  return contains(settable_later, name);
}

[[gnu::hot]] const std::string* find_parameter(const ParameterList& list,
                                               std::string_view name) noexcept {
  for (const auto& [candidate, value] : list)
    if (equal_names(candidate, name)) return &value;
  return nullptr;
}

[[gnu::hot]] void ParameterSetRef::take() noexcept {
  if (set_ != nullptr && set_->references_++ == 0) set_->store_->on_used(*set_);
}

[[gnu::hot]] void ParameterSetRef::drop() noexcept {
  if (set_ == nullptr) return;
  ASSERT(set_->references_ > 0);
  if (--set_->references_ == 0) set_->store_->on_unused(*set_);
  set_ = nullptr;
}

ReportedNames changed_names(const ParameterSet& from, const ParameterSet& to) noexcept {
  ReportedNames names = 0;
  for (const auto& [name, value] : to.list()) {
    const std::string* old = find_parameter(from.list(), name);
    if (old != nullptr && *old != value && !is_identity(name)) names |= reported_bit(name);
  }
  return names;
}

ParameterStore::~ParameterStore() {
  while (ParameterSet* set = unused_.pop_front()) forget(*set);
  ASSERT(sets_.empty());
}

ParameterSetRef ParameterStore::intern(const ParameterList& list, const ParameterList& settings,
                                       const SqlStatements& statements) {
  ParameterList sorted;
  for (const auto& parameter : list)
    if (is_followed_parameter(parameter.first)) sorted.push_back(parameter);
  std::sort(sorted.begin(), sorted.end());
  ParameterList sorted_settings = settings;
  std::sort(sorted_settings.begin(), sorted_settings.end());
  return intern_sorted(sorted, sorted_settings, statements);
}

ParameterSetRef ParameterStore::intern_sorted(const ParameterList& list,
                                              const ParameterList& settings,
                                              const SqlStatements& statements) {
  key_.clear();
  for (const auto& [name, value] : list) append_to_key(key_, name, value);
  append_rest_to_key(key_, settings, statements);
  if (ParameterSetRef known = find_key(); !known.is_null()) return known;
  return add(list, settings, statements);
}

// The set with key_; null when there is none.
ParameterSetRef ParameterStore::find_key() noexcept {
  const auto found = sets_.find(key_);
  return found == sets_.end() ? ParameterSetRef() : ParameterSetRef(found->second.get());
}

// Requires: all are sorted, and key_ is theirs.
ParameterSetRef ParameterStore::add(ParameterList list, ParameterList settings,
                                    SqlStatements statements) {
  auto set = std::make_unique<ParameterSet>();
  set->list_ = std::move(list);
  set->settings_ = std::move(settings);
  set->statements_ = std::move(statements);
  set->parse_context_ = parse_context_of(*set);
  set->key_ = key_;
  set->store_ = this;
  ParameterSet* made = set.get();
  sets_.emplace(made->key_, std::move(set));
  return ParameterSetRef(made);
}

ParameterSetRef ParameterStore::with(const ParameterSetRef& base, std::string_view name,
                                     std::string_view value) {
  if (!is_followed_parameter(name)) return base;
  static const ParameterSet nothing;
  const ParameterSet& old = base.is_null() ? nothing : *base;
  const ParameterList& list = old.list();
  const std::string* current = find_parameter(list, name);
  if (current != nullptr && *current == value) return base;
  write_key(list, name, value);
  append_rest_to_key(key_, old.settings(), old.statements());
  if (ParameterSetRef known = find_key(); !known.is_null()) return known;

  ParameterList changed = list;
  if (current == nullptr) changed.emplace_back(name, value);
  for (auto& [candidate, old_value] : changed)
    if (equal_names(candidate, name)) old_value = value;
  return intern(changed, old.settings(), old.statements());
}

ParameterSetRef ParameterStore::with_settings(const ParameterSetRef& base,
                                              const ParameterList& settings) {
  ASSERT(!base.is_null());
  if (base->settings() == settings) return base;
  return intern_sorted(base->list(), settings, base->statements());
}

ParameterSetRef ParameterStore::with_statements(const ParameterSetRef& base,
                                                const SqlStatements& statements) {
  ASSERT(!base.is_null());
  if (base->statements() == statements) return base;
  return intern_sorted(base->list(), base->settings(), statements);
}

ParameterSetRef ParameterStore::in_own_context(const ParameterSetRef& base) {
  const auto is_own = [&](const SqlStatement& statement) {
    return statement.context == base->parse_context();
  };
  if (std::all_of(base->statements().begin(), base->statements().end(), is_own)) return base;
  SqlStatements statements = base->statements();
  for (SqlStatement& statement : statements) statement.context = base->parse_context();
  return with_statements(base, statements);
}

// The key of the set that differs from `base` (sorted) in this one value. Names keep their
// spelling, so that the order stays as it is.
void ParameterStore::write_key(const ParameterList& base, std::string_view name,
                               std::string_view value) {
  key_.clear();
  bool is_written = find_parameter(base, name) != nullptr;
  for (const auto& [candidate, old_value] : base) {
    if (!is_written && name < candidate) {
      append_to_key(key_, name, value);
      is_written = true;
    }
    append_to_key(key_, candidate, equal_names(candidate, name) ? value : old_value);
  }
  if (!is_written) append_to_key(key_, name, value);
}

void ParameterStore::on_used(ParameterSet& set) noexcept {
  if (set.is_linked()) unused_.remove(set);
}

void ParameterStore::on_unused(ParameterSet& set) noexcept {
  // Texts may take much memory.
  if (!set.statements_.empty()) return forget(set);
  unused_.push_back(set);
  if (unused_.size() > unused_max) forget(*unused_.pop_front());
}

void ParameterStore::forget(ParameterSet& set) noexcept {
  const size_t erased = sets_.erase(set.key_);
  ASSERT(erased == 1);
}

// client_encoding comes last: the other literals are read in the encoding that `from` has.
void ParameterStore::add_reported(const ParameterSet& from, const ParameterSet& to) {
  for (const bool is_encoding : {false, true}) {
    for (const auto& [name, value] : to.list()) {
      if (is_identity(name) || equal_names(name, "client_encoding") != is_encoding) continue;
      const std::string* current = find_value(from, name);
      if (current == nullptr || *current == value) continue;
      append_reported(statement_, name, value);
    }
  }
}

void ParameterStore::add_settings(const ParameterSet& from, const ParameterSet& to) {
  for (const auto& [name, value] : from.settings())
    if (!is_identity(name) && find_value(to, name) == nullptr) append_reset(statement_, name);
  for (const auto& [name, value] : to.settings()) {
    const std::string* current = find_value(from, name);
    const bool is_same = current != nullptr && *current == value;
    if (!is_identity(name) && !is_same) append_set_config(statement_, name, value);
  }
}

std::string_view ParameterStore::set_statement(const ParameterSet& from, const ParameterSet& to,
                                               std::string_view login_user) {
  statement_.clear();
  add_settings(from, to);
  add_reported(from, to);
  const std::string* old_user = find_parameter(from.list(), "session_authorization");
  const std::string* user = find_parameter(to.list(), "session_authorization");
  const std::string* old_role = find_parameter(from.settings(), "role");
  const std::string* role = find_parameter(to.settings(), "role");
  const bool is_other_user = old_user != nullptr && user != nullptr && *old_user != *user;
  const bool is_other_role =
      (old_role == nullptr) != (role == nullptr) || (role != nullptr && *old_role != *role);
  // The others are set by who may do so, as when the client set them: itself, before it took the
  // role.
  const bool steps_back =
      is_other_user || (old_role != nullptr && (is_other_role || !statement_.empty()));
  if (steps_back) {
    const std::string own = std::exchange(statement_, {});
    if (is_other_user) statement_ += "RESET SESSION AUTHORIZATION;";
    statement_ += "RESET ROLE";
    if (!own.empty()) statement_ += ";" + own;
  }
  // It takes away the role.
  if (is_other_user && *user != login_user)
    append_set_config(statement_, "session_authorization", *user);
  if (role != nullptr && (steps_back || is_other_role))
    append_set_config(statement_, "role", *role);
  return statement_;
}

std::string_view ParameterStore::set_again_statement(const ParameterSet& to, ReportedNames names) {
  statement_.clear();
  for (const auto& [name, value] : to.list())
    if ((reported_bit(name) & names) != 0) append_reported(statement_, name, value);
  return statement_;
}

bool is_canonical_value(std::string_view name, std::string_view value) noexcept {
  // PostgreSQL takes any printable ASCII here, cut at NAMEDATALEN - 1 = 63 bytes.
  if (!equal_names(name, "application_name") || value.size() > 63) return false;
  return std::all_of(value.begin(), value.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

}  // namespace helios
