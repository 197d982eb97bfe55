#include <cstdio>
#include <string>

#include "helios/base/log.h"
#include "helios/config/loader.h"
#include "helios/runtime/signals.h"
#include "server/arguments.h"
#include "server/server.h"

namespace helios {
namespace {

int exit_code(ExitCode code) {
  return static_cast<int>(code);
}

int run(const Config& config, const Arguments& arguments) {
  block_signals();
  start_log(config.proxy.log_level);
  const Result<bool> result = run_server(config, arguments.io_features_off, [&arguments] {
    return load_config_file(arguments.config_path);
  });
  stop_log();
  if (result.ok()) return exit_code(ExitCode::done);
  std::fprintf(stderr, "heliosproxy: %s\n", result.error().c_str());
  return exit_code(ExitCode::run_time_failure);
}

int main_with(int argc, char** argv) {
  const Result<Arguments> arguments = parse_arguments(argc, argv);
  if (!arguments.ok()) {
    std::fprintf(stderr, "heliosproxy: %s\n", arguments.error().c_str());
    return exit_code(ExitCode::usage);
  }
  if (arguments.value().action == Action::show_help) {
    std::fputs(std::string(help_text()).c_str(), stdout);
    return exit_code(ExitCode::done);
  }
  if (arguments.value().action == Action::show_version) {
    std::puts("heliosproxy " HELIOS_VERSION);
    return exit_code(ExitCode::done);
  }
  const LoadResult loaded = load_config_file(arguments.value().config_path);
  for (const std::string& warning : loaded.warnings)
    std::fprintf(stderr, "warning: %s\n", warning.c_str());
  for (const std::string& error : loaded.errors) std::fprintf(stderr, "error: %s\n", error.c_str());
  if (!loaded.config) return exit_code(ExitCode::usage);
  if (arguments.value().action == Action::check_config) {
    std::printf("%s: the configuration is valid\n", arguments.value().config_path.c_str());
    return exit_code(ExitCode::done);
  }
  return run(*loaded.config, arguments.value());
}

}  // namespace
}  // namespace helios

int main(int argc, char** argv) {
  return helios::main_with(argc, argv);
}
