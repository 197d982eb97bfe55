// The command line of heliosproxy.
//
// Pure: nothing is printed and nothing is opened here; main does what the result says. A mistake is
// a sentence for stderr, and the process ends with ExitCode::usage.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "helios/base/result.h"

namespace helios {

enum class ExitCode : int {
  done = 0,
  run_time_failure = 1,
  usage = 2,  // Wrong arguments or a wrong configuration.
};

enum class Action : uint8_t {
  run,
  check_config,  // Load the configuration, tell what is wrong with it, end.
  show_version,
  show_help,
};

struct Arguments {
  Action action = Action::run;
  std::string config_path;  // Set for run and check_config.
  // Names of ring features to treat as missing (tests only). Not checked here: the runtime knows
  // them.
  std::vector<std::string> io_features_off;
};

// Requires: `argv` has `argc` strings, the first of which is the program's name.
[[nodiscard]] Result<Arguments> parse_arguments(int argc, const char* const* argv);

// What --help prints, with a final newline.
[[nodiscard]] std::string_view help_text() noexcept;

}  // namespace helios
