#include "helios/config/environment.h"

#include <algorithm>
#include <cstdlib>

namespace helios {
namespace {

constexpr std::string_view name_letters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";

bool is_variable_name(std::string_view name) noexcept {
  if (name.empty() || (name[0] >= '0' && name[0] <= '9')) return false;
  return name.find_first_not_of(name_letters) == std::string_view::npos;
}

// The value of what stands between "${" and "}".
Result<std::string> value_of(std::string_view inner, const EnvironmentLookup& lookup) {
  const size_t default_at = inner.find(":-");
  const std::string name(inner.substr(0, default_at));
  if (!is_variable_name(name)) {
    return Error{"\"${" + std::string(inner) + "}\" names no environment variable: write ${NAME}" +
                 " or ${NAME:-default}, and $$ for a dollar"};
  }
  std::optional<std::string> value = lookup(name);
  if (default_at != std::string_view::npos && value.value_or("").empty())
    return std::string(inner.substr(default_at + 2));
  if (!value.has_value()) {
    return Error{"the environment variable " + name + " is not set, and there is no default (${" +
                 name + ":-default})"};
  }
  return *std::move(value);
}

}  // namespace

std::optional<std::string> process_environment(std::string_view name) {
  const char* value = std::getenv(std::string(name).c_str());
  if (value == nullptr) return std::nullopt;
  return std::string(value);
}

Result<Expanded> expand_environment(std::string_view text, const EnvironmentLookup& lookup) {
  Expanded result;
  size_t at = 0;
  while (at < text.size()) {
    const size_t dollar = std::min(text.find('$', at), text.size());
    result.text.append(text.substr(at, dollar - at));
    if (dollar == text.size()) break;
    const char next = dollar + 1 < text.size() ? text[dollar + 1] : '\0';
    if (next != '{') {
      result.text.push_back('$');
      at = dollar + (next == '$' ? 2 : 1);
      continue;
    }
    const size_t end = text.find('}', dollar);
    if (end == std::string_view::npos)
      return Error{"\"${\" without its \"}\"; write $$ for a dollar"};
    Result<std::string> value = value_of(text.substr(dollar + 2, end - dollar - 2), lookup);
    if (!value.ok()) return Error{value.error()};
    result.text.append(value.value());
    result.has_variable = true;
    result.is_one_variable = dollar == 0 && end + 1 == text.size();
    at = end + 1;
  }
  return result;
}

}  // namespace helios
