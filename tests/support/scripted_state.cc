#include "tests/support/scripted_state.h"

#include <algorithm>

#include "tests/support/session_bench.h"

namespace helios::test {
namespace {

constexpr std::string_view question_begin = "SELECT 's',name,";
constexpr std::string_view statements_begin = "SELECT 'p',";
constexpr std::string_view set_config_begin = "SELECT FROM pg_catalog.set_config(";

std::string int32(size_t value) {
  std::string bytes(4, '\0');
  for (size_t i = 0; i < 4; ++i) bytes[i] = static_cast<char>(value >> (24 - 8 * i));
  return bytes;
}

std::string hex(std::string_view bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    text += digits[static_cast<unsigned char>(c) >> 4];
    text += digits[static_cast<unsigned char>(c) & 15];
  }
  return text;
}

std::string row(char kind, std::string_view name, std::string_view value) {
  std::string body("\0\3", 2);
  const std::string columns[] = {std::string(1, kind), std::string(name), hex(value)};
  for (const std::string& column : columns) body += int32(column.size()) + column;
  return frame('D', body);
}

// 'text' with its quotes doubled, taken off the front.
std::string take_literal(std::string_view& text) {
  std::string value;
  size_t i = 1;
  for (; i < text.size(); ++i) {
    if (text[i] == '\'' && (i + 1 == text.size() || text[i + 1] != '\'')) break;
    if (text[i] == '\'') ++i;
    value += text[i];
  }
  text.remove_prefix(std::min(i + 2, text.size()));  // A comma follows.
  return value;
}

}  // namespace

std::vector<std::string> statements_of(std::string_view text) {
  bool is_own = false;
  for (const std::string_view begin :
       {std::string_view("SET "), std::string_view("RESET "), set_config_begin,
        std::string_view("LISTEN \""), std::string_view("UNLISTEN \""),
        std::string_view("DEALLOCATE ")})
    is_own = is_own || text.starts_with(begin);
  std::vector<std::string> statements(1);
  bool is_quoted = false;
  for (const char c : text) {
    if (c == '\'') is_quoted = !is_quoted;
    if (c == ';' && is_own && !is_quoted) {
      statements.emplace_back();
    } else {
      statements.back() += c;
    }
  }
  return statements;
}

std::optional<std::string> ScriptedState::run(std::string_view text) {
  if (text.starts_with(question_begin) || text.starts_with(statements_begin)) {
    if (refusals_left == 0) return tell(text);
    --refusals_left;
    return error_reply("ERROR", "57014", "canceling statement due to statement timeout");
  }
  if (text.starts_with(set_config_begin)) return set_config(text.substr(set_config_begin.size()));
  if (text.starts_with("SET LOCAL ")) return complete("SET");
  if (text.starts_with("SET ROLE ")) {
    settings["role"] = text.substr(9);
    return complete("SET");
  }
  struct Holding {
    std::string_view begin, name;
  };
  constexpr Holding begins[] = {{"CREATE TEMP ", "temporary"},
                                {"DECLARE ", "cursor"},
                                {"SELECT pg_advisory_lock(", "lock"},
                                {"SELECT pg_create_physical_replication_slot(", "slot"}};
  constexpr Holding ends[] = {{"DROP ", "temporary"},
                              {"DISCARD TEMP", "temporary"},
                              {"CLOSE ", "cursor"},
                              {"SELECT pg_drop_replication_slot(", "slot"},
                              {"SELECT pg_advisory_unlock", "lock"},
                              {"SELECT pg_catalog.pg_advisory_unlock_all()", "lock"}};
  const std::string tag(text.substr(0, text.find(' ')));
  for (const auto& [begin, name] : begins) {
    if (!text.starts_with(begin)) continue;
    held.emplace(name);
    return complete(tag);
  }
  for (const auto& [begin, name] : ends) {
    if (!text.starts_with(begin)) continue;
    held.erase(std::string(name));
    return complete(tag);
  }
  if (auto answer = notify(text)) return answer;
  if (text.starts_with("DISCARD SEQ") || text.starts_with("LOAD ")) return complete(tag);
  return std::nullopt;
}

// LISTEN name, UNLISTEN name or *, NOTIFY name[,'payload'].
std::optional<std::string> ScriptedState::notify(std::string_view text) {
  const std::string command(text.substr(0, text.find(' ')));
  if (command != "LISTEN" && command != "UNLISTEN" && command != "NOTIFY") return std::nullopt;
  text.remove_prefix(command.size() + 1);
  const size_t comma = std::min(text.find(','), text.size());
  std::string name(text.substr(0, comma));
  std::erase(name, '"');
  if (command == "LISTEN") {
    channels.insert(name);
  } else if (command == "NOTIFY") {
    std::string_view payload = text.substr(std::min(comma + 1, text.size()));
    notified.emplace_back(name, payload.empty() ? std::string() : take_literal(payload));
  } else if (name == "*") {
    channels.clear();
  } else {
    channels.erase(name);
  }
  return complete(command);
}

std::string ScriptedState::tell(std::string_view question) const {
  std::string answer;
  if (question.starts_with(question_begin))
    for (const auto& [name, value] : reported) answer += row('s', name, value);
  for (const auto& [name, value] : settings) {
    const bool is_custom = name.find('.') != std::string::npos;
    const std::string asked = "SELECT 'c','" + name + "',";
    if (question.starts_with(statements_begin)) break;
    if (name != "role" && (!is_custom || question.find(asked) != std::string_view::npos))
      answer += row(is_custom ? 'c' : 's', name, value);
  }
  for (const std::string& name : held)
    if (question.find("'h','" + name) != std::string_view::npos) answer += row('h', name, {});
  if (question.find("SELECT 'p'") != std::string_view::npos)
    for (const auto& [name, text] : prepared) answer += row('p', hex(name), text);
  if (question.find("pg_listening_channels()") != std::string_view::npos)
    for (const std::string& channel : channels) answer += row('l', channel, {});
  if (question.find("SELECT 'r'") == std::string_view::npos) return answer + complete("SELECT 1");
  const auto role = settings.find("role");
  answer += row('r', "role", role == settings.end() ? "none" : role->second);
  return answer + complete("SELECT 1") + row('b', "role", "none") + complete("SELECT 1");
}

std::string ScriptedState::set_config(std::string_view arguments) {
  const std::string name = take_literal(arguments);
  settings[name] = take_literal(arguments);
  return echo(settings[name]);
}

std::string ScriptedState::describe(const std::map<std::string, std::string>& settings,
                                    const std::set<std::string>& held) {
  std::string text;
  for (const auto& [name, value] : settings)
    if (!value.empty() && value != "none") text += " " + name + "=" + value;
  for (const std::string& name : held) text += " " + name;
  return text;
}

void ScriptedState::reset(std::string name) {
  std::erase(name, '"');
  if (name == "ALL") {
    std::erase_if(settings, [](const auto& setting) { return setting.first != "role"; });
    reported.clear();
  } else if (name == "SESSION AUTHORIZATION" || name == "ROLE") {
    settings.erase("role");
  } else {
    settings.erase(name);
    reported.erase(name);
  }
}

}  // namespace helios::test
