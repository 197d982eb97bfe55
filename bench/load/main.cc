#include <array>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "helios/config/nearest.h"
#include "load/commands.h"

namespace helios::bench {
namespace {

struct Command {
  const char* name;
  int (*run)(int argc, char** argv);
  const char* summary;
};

constexpr std::array commands = {
    Command{"load", load_command, "clients that run transactions, and what came out"},
    Command{"idle", idle_command, "what many idle clients cost in memory"},
};

void print_help() {
  std::puts(
      "helios-bench: load tests for HeliosProxy, and for any other PostgreSQL server or pooler\n\n"
      "usage: helios-bench COMMAND [options]\n");
  for (const Command& command : commands) std::printf("  %-10s%s\n", command.name, command.summary);
  std::puts(
      "\nhelios-bench COMMAND --help shows the options of a command.\n\n"
      "exit codes: 0 good; 1 failed transactions, wrong answers, or it could not run; 2 wrong "
      "usage");
}

int main_with(int argc, char** argv) {
  const std::string_view word = argc > 1 ? argv[1] : "";
  if (word == "--help" || word == "-h") {
    print_help();
    return exit_good;
  }
  if (word == "--version") {
    std::puts("helios-bench " HELIOS_VERSION);
    return exit_good;
  }
  std::vector<std::string_view> names;
  for (const Command& command : commands) {
    if (word == command.name) return command.run(argc - 1, argv + 1);
    names.emplace_back(command.name);
  }
  const std::string problem =
      word.empty() ? "a command is needed"
                   : "unknown command \"" + std::string(word) + "\"" + suggestion(word, names);
  std::fprintf(stderr, "helios-bench: %s (helios-bench --help shows the commands)\n",
               problem.c_str());
  return exit_usage;
}

}  // namespace
}  // namespace helios::bench

int main(int argc, char** argv) {
  return helios::bench::main_with(argc, argv);
}
