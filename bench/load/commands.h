// The sub-commands of helios-bench. Each takes its words (argv[0] is its own name) and returns the
// exit code of the process.
#pragma once

namespace helios::bench {

enum ExitCode : int {
  exit_good = 0,
  exit_failed = 1,  // Failed transactions, wrong answers, or it could not run.
  exit_usage = 2,
};

int load_command(int argc, char** argv);
int idle_command(int argc, char** argv);

}  // namespace helios::bench
