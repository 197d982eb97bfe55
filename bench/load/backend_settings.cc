#include "load/backend_settings.h"

#include <algorithm>

namespace helios::bench {
namespace {

struct Definition {
  std::string_view name;
  std::string_view value;
};

constexpr std::array<Definition, BackendSettings::settable_count> settable{{
    {"client_encoding", "UTF8"},
    {"application_name", ""},
    {"default_transaction_read_only", "off"},
    {"DateStyle", "ISO, MDY"},
    {"IntervalStyle", "postgres"},
    {"TimeZone", "Etc/UTC"},
    {"standard_conforming_strings", "on"},
}};

constexpr Definition fixed[] = {
    {"server_version", "15.14"}, {"server_encoding", "UTF8"}, {"in_hot_standby", "off"},
    {"is_superuser", "on"},      {"integer_datetimes", "on"},
};

constexpr std::string_view user_name = "session_authorization";

// settable_count when it is none of them.
size_t index_of(std::string_view name) noexcept {
  const auto* found = std::find_if(settable.begin(), settable.end(), [&](const Definition& each) {
    return is_same_setting(each.name, name);
  });
  return static_cast<size_t>(found - settable.begin());
}

// A literal's doubled quotes are single ones.
std::string without_doubled_quotes(std::string_view value) {
  std::string result(value);
  size_t at = 0;
  while ((at = result.find("''", at)) != std::string::npos) result.erase(at++, 1);
  return result;
}

}  // namespace

void BackendSettings::log_in(const StartupMessage& startup) {
  user_ = startup.user;
  for (size_t i = 0; i < settable_count; ++i) {
    const std::string* given = startup.find_setting(settable[i].name);
    at_login_[i] = given != nullptr ? std::string_view(*given) : settable[i].value;
  }
  current_ = reported_ = at_login_;
}

void BackendSettings::change(size_t index, std::string_view value, bool in_block) {
  if (current_[index] == value) return;
  if (in_block && before_block_ == nullptr) before_block_ = std::make_unique<Values>(current_);
  current_[index] = value;
  changed_ |= 1U << index;
}

void BackendSettings::set(std::string_view name, std::string_view value, bool in_block) {
  const size_t index = index_of(name);
  if (index < settable_count) change(index, without_doubled_quotes(value), in_block);
}

void BackendSettings::reset(std::string_view name, bool in_block) {
  const size_t index = index_of(name);
  if (index < settable_count) change(index, at_login_[index], in_block);
}

void BackendSettings::reset_all(bool in_block) {
  for (size_t i = 0; i < settable_count; ++i) change(i, at_login_[i], in_block);
}

void BackendSettings::undo_changes() {
  if (before_block_ == nullptr) return;
  for (size_t i = 0; i < settable_count; ++i) change(i, (*before_block_)[i], false);
  before_block_.reset();
}

std::optional<std::string_view> BackendSettings::find(std::string_view name) const noexcept {
  if (is_same_setting(name, user_name)) return user_;
  const size_t index = index_of(name);
  if (index < settable_count) return current_[index];
  for (const Definition& each : fixed)
    if (is_same_setting(each.name, name)) return each.value;
  return std::nullopt;
}

void BackendSettings::write_all(MessageWriter& writer) const {
  for (const Definition& each : fixed) write_parameter_status(writer, each.name, each.value);
  write_parameter_status(writer, user_name, user_);
  for (size_t i = 0; i < settable_count; ++i)
    write_parameter_status(writer, settable[i].name, current_[i]);
}

void BackendSettings::write_changes(MessageWriter& writer) {
  for (size_t i = 0; i < settable_count; ++i) {
    const bool may_differ = (changed_ >> i & 1U) != 0;
    if (!may_differ || current_[i] == reported_[i]) continue;
    write_parameter_status(writer, settable[i].name, current_[i]);
    reported_[i] = current_[i];
  }
  changed_ = 0;
}

}  // namespace helios::bench
