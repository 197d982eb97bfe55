#include "server/arguments.h"

#include <algorithm>
#include <array>
#include <utility>

#include "helios/config/nearest.h"

namespace helios {
namespace {

constexpr std::array<std::string_view, 5> option_names = {"--config", "--check-config", "--version",
                                                          "--help", "--io-features-off"};

// Walks the command line once.
class ArgumentParser {
 public:
  explicit ArgumentParser(std::vector<std::string_view> words) : words_(std::move(words)) {}

  [[nodiscard]] Result<Arguments> parse() {
    while (next_ < words_.size() && error_.empty()) parse_option(words_[next_++]);
    if (error_.empty()) check_whole();
    if (!error_.empty()) return Error{error_ + " (heliosproxy --help shows the options)"};
    return std::move(arguments_);
  }

 private:
  void parse_option(std::string_view word);
  // The value behind "=", or else the next word.
  [[nodiscard]] std::string_view take_value(std::string_view option, std::string_view what);
  void set_action(Action action);
  void set_config(std::string_view path);
  void set_features_off(std::string_view names);
  void check_whole();

  std::vector<std::string_view> words_;
  size_t next_ = 0;
  // Of the option at hand: "--option=value".
  std::string_view attached_;
  bool has_attached_ = false;
  Arguments arguments_;
  std::string error_;
};

void ArgumentParser::parse_option(std::string_view word) {
  if (!word.starts_with("--")) {
    error_ =
        "\"" + std::string(word) + "\" is no option; a configuration is given with --config FILE";
    return;
  }
  const size_t equals = word.find('=');
  has_attached_ = equals != std::string_view::npos;
  attached_ = has_attached_ ? word.substr(equals + 1) : std::string_view();
  const std::string_view option = word.substr(0, equals);
  if (option == "--config") return set_config(take_value(option, "FILE"));
  if (option == "--io-features-off") return set_features_off(take_value(option, "NAME[,NAME]"));

  if (std::find(option_names.begin(), option_names.end(), option) == option_names.end()) {
    error_ = "unknown option " + std::string(option) + suggestion(option, option_names);
  } else if (has_attached_) {
    error_ = std::string(option) + " takes no value";
  } else if (option == "--check-config") {
    set_action(Action::check_config);
  } else {
    set_action(option == "--version" ? Action::show_version : Action::show_help);
  }
}

std::string_view ArgumentParser::take_value(std::string_view option, std::string_view what) {
  std::string_view value = attached_;
  const bool is_next = !has_attached_ && next_ < words_.size() && !words_[next_].starts_with("--");
  if (is_next) value = words_[next_++];
  if (value.empty())
    error_ =
        std::string(option) + " needs a value: " + std::string(option) + " " + std::string(what);
  return value;
}

void ArgumentParser::set_action(Action action) {
  // Help and version answer whatever else is asked; the first of them wins.
  const bool is_shown =
      arguments_.action == Action::show_version || arguments_.action == Action::show_help;
  if (!is_shown) arguments_.action = action;
}

void ArgumentParser::set_config(std::string_view path) {
  if (!error_.empty()) return;
  if (!arguments_.config_path.empty()) {
    error_ = "--config is given twice: the configuration is one file";
    return;
  }
  arguments_.config_path = path;
}

void ArgumentParser::set_features_off(std::string_view names) {
  while (error_.empty()) {
    const size_t comma = std::min(names.find(','), names.size());
    const std::string_view name = names.substr(0, comma);
    if (name.empty()) {
      error_ = "--io-features-off needs names with one comma between them";
      return;
    }
    arguments_.io_features_off.emplace_back(name);
    if (comma == names.size()) return;
    names.remove_prefix(comma + 1);
  }
}

void ArgumentParser::check_whole() {
  const bool needs_config =
      arguments_.action == Action::run || arguments_.action == Action::check_config;
  if (needs_config && arguments_.config_path.empty())
    error_ = "no configuration: --config FILE is needed";
}

}  // namespace

Result<Arguments> parse_arguments(int argc, const char* const* argv) {
  std::vector<std::string_view> words;
  for (int i = 1; i < argc; ++i) words.emplace_back(argv[i]);
  return ArgumentParser(std::move(words)).parse();
}

std::string_view help_text() noexcept {
  return "heliosproxy: a PostgreSQL connection pooler, one io_uring on each core\n"
         "\n"
         "usage: heliosproxy --config FILE [--check-config]\n"
         "       heliosproxy --version | --help\n"
         "\n"
         "  --config FILE      the configuration, a TOML file; conf/heliosproxy.toml explains "
         "every\n"
         "                     key\n"
         "  --check-config     say everything that is wrong with the configuration and stop\n"
         "  --version          print the version and stop\n"
         "  --help             print this text and stop\n"
         "\n"
         "for tests:\n"
         "  --io-features-off NAME[,NAME]\n"
         "                     treat these io_uring features as missing from the kernel\n"
         "\n"
         "signals: SIGTERM and SIGINT refuse new clients, let running transactions finish, then\n"
         "stop; a second one stops at once. SIGHUP reads the configuration again. SIGUSR1 writes\n"
         "a table of statistics to the log.\n"
         "\n"
         "exit codes: 0 done, 1 failure at run time, 2 wrong usage or configuration\n";
}

}  // namespace helios
