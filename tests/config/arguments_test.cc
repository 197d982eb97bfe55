#include "server/arguments.h"

#include <doctest/doctest.h>

namespace helios {
namespace {

Result<Arguments> parse(std::vector<const char*> words) {
  words.insert(words.begin(), "heliosproxy");
  return parse_arguments(static_cast<int>(words.size()), words.data());
}

std::string error_of(std::vector<const char*> words) {
  const Result<Arguments> result = parse(std::move(words));
  return result.ok() ? "no error" : result.error();
}

constexpr const char* hint = " (heliosproxy --help shows the options)";

TEST_CASE("a configuration is run, or only checked") {
  Result<Arguments> result = parse({"--config", "a.toml"});
  REQUIRE(result.ok());
  CHECK(result.value().action == Action::run);
  CHECK(result.value().config_path == "a.toml");
  CHECK(result.value().io_features_off.empty());
  result = parse({"--check-config", "--config=b=c.toml"});
  REQUIRE(result.ok());
  CHECK(result.value().action == Action::check_config);
  CHECK(result.value().config_path == "b=c.toml");
}

TEST_CASE("version and help need no configuration, and the first of them wins") {
  CHECK(parse({"--version"}).value().action == Action::show_version);
  CHECK(parse({"--help"}).value().action == Action::show_help);
  CHECK(parse({"--help", "--version"}).value().action == Action::show_help);
  CHECK(parse({"--check-config", "--version"}).value().action == Action::show_version);
  CHECK(parse({"--version", "--check-config"}).value().action == Action::show_version);
}

TEST_CASE("features to do without are given by name, in one list or several") {
  const Result<Arguments> result = parse(
      {"--config", "a", "--io-features-off", "msg_ring,bundles", "--io-features-off=no_iowait"});
  REQUIRE(result.ok());
  CHECK(result.value().io_features_off ==
        std::vector<std::string>{"msg_ring", "bundles", "no_iowait"});
  for (const char* names : {",", "a,", ",a", "a,,b"}) {
    CAPTURE(names);
    CHECK(error_of({"--config", "a", "--io-features-off", names}) ==
          std::string("--io-features-off needs names with one comma between them") + hint);
  }
}

TEST_CASE("a missing configuration is an error that names the option") {
  const std::string expected = std::string("no configuration: --config FILE is needed") + hint;
  CHECK(error_of({}) == expected);
  CHECK(error_of({"--check-config"}) == expected);
  CHECK(error_of({"--io-features-off", "a"}) == expected);
}

TEST_CASE("an option without its value is an error") {
  const std::string expected = std::string("--config needs a value: --config FILE") + hint;
  CHECK(error_of({"--config"}) == expected);
  CHECK(error_of({"--config="}) == expected);
  CHECK(error_of({"--config", ""}) == expected);
  CHECK(error_of({"--config", "--check-config"}) == expected);
  CHECK(error_of({"--config", "a", "--io-features-off"}) ==
        std::string("--io-features-off needs a value: --io-features-off NAME[,NAME]") + hint);
}

TEST_CASE("an option with a value that it does not take is an error") {
  CHECK(error_of({"--version=1"}) == std::string("--version takes no value") + hint);
  CHECK(error_of({"--check-config="}) == std::string("--check-config takes no value") + hint);
}

TEST_CASE("an unknown option is an error with the nearest known one") {
  CHECK(error_of({"--confg", "a"}) ==
        std::string("unknown option --confg; did you mean \"--config\"?") + hint);
  CHECK(error_of({"--chek-config"}) ==
        std::string("unknown option --chek-config; did you mean \"--check-config\"?") + hint);
  CHECK(error_of({"--daemonize=yes"}) ==
        std::string("unknown option --daemonize; known: --config, --check-config, --version, "
                    "--help, --io-features-off") +
            hint);
}

TEST_CASE("a word that is no option is an error that tells how a configuration is given") {
  for (const char* word : {"a.toml", "-h", "-", ""}) {
    CAPTURE(word);
    CHECK(error_of({word}).find("is no option; a configuration is given with --config FILE") !=
          std::string::npos);
  }
}

TEST_CASE("two configurations are an error") {
  CHECK(error_of({"--config", "a", "--config", "b"}) ==
        std::string("--config is given twice: the configuration is one file") + hint);
}

TEST_CASE("the help names every option, signal and exit code and ends its last line") {
  const std::string_view help = help_text();
  for (const char* word :
       {"--config FILE", "--check-config", "--version", "--help", "--io-features-off", "for tests",
        "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "0 done", "1 failure", "2 wrong usage"}) {
    CAPTURE(word);
    CHECK(help.find(word) != std::string_view::npos);
  }
  CHECK(help.ends_with('\n'));
  CHECK(static_cast<int>(ExitCode::done) == 0);
  CHECK(static_cast<int>(ExitCode::run_time_failure) == 1);
  CHECK(static_cast<int>(ExitCode::usage) == 2);
}

}  // namespace
}  // namespace helios
