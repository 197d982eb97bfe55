// The state of a scripted session that ends with it: what a real server's session would keep of
// SET, temporary tables and the like. Knows the statements that the pooler sends of its own, and
// the plainest of those that clients send.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace helios::test {

// The statements of a simple query that the pooler has made of several; one text otherwise.
[[nodiscard]] std::vector<std::string> statements_of(std::string_view text);

class ScriptedState {
 public:
  // The replies to one statement, without ReadyForQuery; nothing: it is none of those known here.
  [[nodiscard]] std::optional<std::string> run(std::string_view text);
  void begin() {
    at_begin_ = settings;
    channels_at_begin_ = channels;
  }
  void roll_back() {
    settings = at_begin_;
    channels = channels_at_begin_;
    notified.clear();
  }
  // "ALL", or one name, with quotes or without.
  void reset(std::string name);
  // What a session with these settings, and these things held, is answered to STATE.
  [[nodiscard]] static std::string describe(const std::map<std::string, std::string>& settings,
                                            const std::set<std::string>& held);

  // Parameters that are not reported, by name, and the role.
  std::map<std::string, std::string> settings;
  // Those that are reported, as far as the session has set them.
  std::map<std::string, std::string> reported;
  // What PREPARE has made: the whole command, by name.
  std::map<std::string, std::string> prepared;
  // "temporary", "cursor", "lock".
  std::set<std::string> held;
  // What it listens to.
  std::set<std::string> channels;
  // Channel and payload of what this transaction notifies.
  std::vector<std::pair<std::string, std::string>> notified;
  // The next questions are refused.
  int refusals_left = 0;

 private:
  [[nodiscard]] std::string tell(std::string_view question) const;
  [[nodiscard]] std::string set_config(std::string_view arguments);
  [[nodiscard]] std::optional<std::string> notify(std::string_view text);
  std::map<std::string, std::string> at_begin_;
  std::set<std::string> channels_at_begin_;
};

}  // namespace helios::test
