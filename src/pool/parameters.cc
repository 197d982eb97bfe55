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

void append_to_key(std::string& key, std::string_view name, std::string_view value) {
  key += name;
  key += '\0';
  key += value;
  key += '\0';
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

void ParameterSetRef::take() noexcept {
  if (set_ != nullptr && set_->references_++ == 0) set_->store_->on_used(*set_);
}

void ParameterSetRef::drop() noexcept {
  if (set_ == nullptr) return;
  ASSERT(set_->references_ > 0);
  if (--set_->references_ == 0) set_->store_->on_unused(*set_);
  set_ = nullptr;
}

ParameterStore::~ParameterStore() {
  while (!unused_.empty()) forget_oldest();
  ASSERT(sets_.empty());
}

ParameterSetRef ParameterStore::intern(const ParameterList& list) {
  ParameterList sorted;
  for (const auto& parameter : list)
    if (is_followed_parameter(parameter.first)) sorted.push_back(parameter);
  std::sort(sorted.begin(), sorted.end());
  std::string key;
  for (const auto& [name, value] : sorted) append_to_key(key, name, value);
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
  static const ParameterList nothing;
  const ParameterList& list = base.is_null() ? nothing : base->list();
  const std::string* current = find_parameter(list, name);
  if (current != nullptr && *current == value) return base;
  write_key(list, name, value);
  if (auto found = sets_.find(key_); found != sets_.end())
    return ParameterSetRef(found->second.get());

  ParameterList changed = list;
  if (current == nullptr) changed.emplace_back(name, value);
  for (auto& [candidate, old_value] : changed)
    if (equal_names(candidate, name)) old_value = value;
  return intern(changed);
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
  unused_.push_back(set);
  if (unused_.size() > unused_max) forget_oldest();
}

void ParameterStore::forget_oldest() noexcept {
  const size_t erased = sets_.erase(unused_.pop_front()->key_);
  ASSERT(erased == 1);
}

// client_encoding comes last: the other literals are read in the encoding that `from` has.
std::string_view ParameterStore::set_statement(const ParameterSet& from, const ParameterSet& to) {
  statement_.clear();
  for (const bool is_encoding : {false, true}) {
    for (const auto& [name, value] : to.list()) {
      if (equal_names(name, "client_encoding") != is_encoding) continue;
      const std::string* current = find_parameter(from.list(), name);
      if (current == nullptr || *current == value) continue;
      if (!statement_.empty()) statement_ += ';';
      append_set(statement_, name, value);
    }
  }
  return statement_;
}

bool is_canonical_value(std::string_view name, std::string_view value) noexcept {
  // PostgreSQL takes any printable ASCII here, cut at NAMEDATALEN - 1 = 63 bytes.
  if (!equal_names(name, "application_name") || value.size() > 63) return false;
  return std::all_of(value.begin(), value.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

}  // namespace helios
