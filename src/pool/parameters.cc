#include "helios/pool/parameters.h"

#include <strings.h>

#include <algorithm>

#include "helios/base/assert.h"

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

template <size_t count>
bool contains(const std::string_view (&names)[count], std::string_view name) noexcept {
  for (std::string_view candidate : names)
    if (equal_names(candidate, name)) return true;
  return false;
}

std::string key_of(const ParameterList& sorted) {
  std::string key;
  for (const auto& [name, value] : sorted) {
    key += name;
    key += '\0';
    key += value;
    key += '\0';
  }
  return key;
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

void append_set(std::string& out, std::string_view name, std::string_view value) {
  if (equal_names(name, "search_path")) {
    // Reported as a list with its own quotes; SET would take the whole value for one name.
    out += "SELECT pg_catalog.set_config('search_path',";
    append_literal(out, value);
    out += ",false)";
  } else {
    out += "SET ";
    out += name;
    out += '=';
    append_literal(out, value);
  }
}

}  // namespace

bool equal_names(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

bool is_followed_parameter(std::string_view name) noexcept {
  return contains(followed, name);
}

bool is_settable_later(std::string_view name) noexcept {
  return contains(settable_later, name);
}

const std::string* find_parameter(const ParameterList& list, std::string_view name) noexcept {
  for (const auto& [candidate, value] : list)
    if (equal_names(candidate, name)) return &value;
  return nullptr;
}

void ParameterSetRef::drop() noexcept {
  if (set_ == nullptr) return;
  ASSERT(set_->references_ > 0);
  if (--set_->references_ == 0) set_->store_->forget(set_);
  set_ = nullptr;
}

ParameterStore::~ParameterStore() {
  ASSERT(sets_.empty());
}

ParameterSetRef ParameterStore::intern(const ParameterList& list) {
  ParameterList sorted;
  for (const auto& parameter : list)
    if (is_followed_parameter(parameter.first)) sorted.push_back(parameter);
  std::sort(sorted.begin(), sorted.end());
  std::string key = key_of(sorted);
  auto found = sets_.find(key);
  if (found != sets_.end()) return ParameterSetRef(found->second.get());
  auto set = std::make_unique<ParameterSet>();
  set->list_ = std::move(sorted);
  set->key_ = std::move(key);
  set->store_ = this;
  ParameterSet* made = set.get();
  sets_.emplace(made->key_, std::move(set));
  return ParameterSetRef(made);
}

ParameterSetRef ParameterStore::with(const ParameterSetRef& base, std::string_view name,
                                     std::string_view value) {
  if (!is_followed_parameter(name)) return base;
  ParameterList list;
  if (!base.is_null()) list = base->list();
  bool found = false;
  for (auto& [candidate, old_value] : list) {
    if (!equal_names(candidate, name)) continue;
    if (old_value == value) return base;
    old_value = value;
    found = true;
  }
  if (!found) list.emplace_back(name, value);
  return intern(list);
}

void ParameterStore::forget(ParameterSet* set) noexcept {
  const size_t erased = sets_.erase(set->key_);
  ASSERT(erased == 1);
}

std::string set_statement(const ParameterSet& from, const ParameterSet& to) {
  std::string statement;
  // client_encoding last: the other literals are read in the encoding that `from` has.
  std::string encoding;
  for (const auto& [name, value] : to.list()) {
    const std::string* current = find_parameter(from.list(), name);
    if (current == nullptr || *current == value) continue;
    std::string& out = equal_names(name, "client_encoding") ? encoding : statement;
    if (!out.empty()) out += ';';
    append_set(out, name, value);
  }
  if (!statement.empty() && !encoding.empty()) statement += ';';
  return statement + encoding;
}

bool is_canonical_value(std::string_view name, std::string_view value) noexcept {
  // PostgreSQL takes any printable ASCII here, cut at NAMEDATALEN - 1 = 63 bytes.
  if (!equal_names(name, "application_name") || value.size() > 63) return false;
  return std::all_of(value.begin(), value.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

}  // namespace helios
