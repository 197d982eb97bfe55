// The state of a scripted session that ends with it: what a real server's session would keep of
// SET, temporary tables and the like. Knows the statements that the pooler sends of its own, and
// the plainest of those that clients send.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace helios::test {

// The statements of a simple query that the pooler has made of several; one text otherwise.
[[nodiscard]] std::vector<std::string> statements_of(std::string_view text);

class ScriptedState {
 public:
  // The replies to one statement, without ReadyForQuery; nothing: it is none of those known here.
  [[nodiscard]] std::optional<std::string> run(std::string_view text);
  void begin() { at_begin_ = settings; }
  void roll_back() { settings = at_begin_; }
  // "ALL", or one name, with quotes or without.
  void reset(std::string name);

  // Parameters that are not reported, by name, and the role.
  std::map<std::string, std::string> settings;
  // "temporary", "cursor", "lock", "listening".
  std::set<std::string> held;
  // The next questions are refused.
  int refusals_left = 0;

 private:
  [[nodiscard]] std::string tell(std::string_view question) const;
  [[nodiscard]] std::string set_config(std::string_view arguments);
  std::map<std::string, std::string> at_begin_;
};

}  // namespace helios::test
