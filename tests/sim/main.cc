// Runs seeds of the simulator: many, or one with its trace.
//
// The seed that runs is written out even when an assertion of the pooler ends the process.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "tests/sim/simulation.h"

namespace helios::sim {
namespace {

constexpr const char* usage =
    R"(usage: tools/sim [--seeds N] [--first S]
       tools/sim --seed N [--quiet]
       tools/sim --check-replay [--seeds N] [--first S]
       tools/sim ... [--fail-at ACT | --abort-at ACT]

Runs the whole pooler in simulated time, between simulated clients and nodes, on simulated cores in
one thread. A seed decides everything: cores, pools, limits, the order of events, what breaks.

  --seeds N        run N seeds (default 300)
  --first S        the first of them (default 1)
  --seed N         run this one, and print its settings, every event and the pooler's log
  --quiet          with --seed: no events, only how it ended and the hash of its trace
  --check-replay   run each seed twice: the traces must be the same
  --fail-at ACT    pretend that a check fails behind this act (1, 2, ...) of each run, to see what a
                   failure looks like
  --abort-at ACT   the same with an assertion, which ends the process
  --help           this text

The last line is "N passed, N failed". A seed that fails prints itself, its settings and what went
wrong. Exit status: 0 all passed, 1 something failed, 2 wrong usage.
)";

struct Arguments {
  uint64_t seeds_count = 300;
  uint64_t first = 1;
  std::optional<uint64_t> seed;
  bool is_quiet = false;
  bool checks_replay = false;
  Pretence pretence;
};

[[noreturn]] void refuse(const char* problem, const char* what) {
  fprintf(stderr, "sim: %s: %s\n\n%s", problem, what, usage);
  exit(2);
}

uint64_t read_number(const char* option, const char* text) {
  if (text == nullptr) refuse("needs a number", option);
  char* end = nullptr;
  const uint64_t number = strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0') refuse("is no number", text);
  return number;
}

// False: it is no option that has a number.
bool take_number(Arguments& arguments, const std::string& option, const char* text) {
  const auto take = [&](auto& number) {
    number = read_number(option.c_str(), text);
    return true;
  };
  if (option == "--seeds") return take(arguments.seeds_count);
  if (option == "--first") return take(arguments.first);
  if (option == "--seed") return take(arguments.seed);
  if (option == "--fail-at") return take(arguments.pretence.fail_at);
  if (option == "--abort-at") return take(arguments.pretence.abort_at);
  return false;
}

Arguments read_arguments(char** words) {
  Arguments arguments;
  for (++words; *words != nullptr; ++words) {
    const std::string word = *words;
    if (word == "--help" || word == "-h") {
      fputs(usage, stdout);
      exit(0);
    } else if (word == "--quiet") {
      arguments.is_quiet = true;
    } else if (word == "--check-replay") {
      arguments.checks_replay = true;
    } else if (!take_number(arguments, word, words[1])) {
      refuse("unknown argument", word.c_str());
    } else {
      ++words;
    }
  }
  return arguments;
}

std::string replay_command(uint64_t seed, const Pretence& pretence) {
  std::string command = "tools/sim --seed " + std::to_string(seed);
  if (pretence.fail_at > 0) command += " --fail-at " + std::to_string(pretence.fail_at);
  if (pretence.abort_at > 0) command += " --abort-at " + std::to_string(pretence.abort_at);
  return command;
}

// --- The seed that runs, for the last words of the process ---

char last_words[16384];

void on_abort(int) {
  static_cast<void>(!write(STDERR_FILENO, last_words, strlen(last_words)));
  signal(SIGABRT, SIG_DFL);
  raise(SIGABRT);
}

void name_running(const std::string& settings, const std::string& replay) {
  snprintf(last_words, sizeof(last_words), "FAILED, the process ends here: %s\n  replay: %s\n",
           settings.c_str(), replay.c_str());
}

// The bench of the sessions' tests, on which the simulator stands, speaks through doctest.
void on_doctest_failure(const doctest::AssertData& data) {
  if (!data.m_failed) return;
  fprintf(stderr, "%s:%d: %s\n", data.m_file, data.m_line, data.m_expr);
  abort();
}

struct Outcome {
  bool passed = false;
  uint64_t trace_hash = 0;
  Tally tally;
};

Outcome run_seed(uint64_t seed, const Pretence& pretence, bool prints) {
  const std::string settings = Settings(seed).describe();
  const std::string replay = replay_command(seed, pretence);
  name_running(settings, replay);
  if (prints) printf("%s\n", settings.c_str());
  setvbuf(stdout, nullptr, prints ? _IOLBF : _IOFBF, BUFSIZ);
  auto simulation = std::make_unique<Simulation>(seed, prints, pretence);
  const std::string& error = simulation->run();
  Outcome outcome;
  outcome.tally = simulation->tally();
  outcome.trace_hash = simulation->trace_hash();
  outcome.passed = error.empty();
  if (outcome.passed) return outcome;
  printf("FAILED: %s\n  what: %s\n  trace: %016" PRIx64 "\n  replay: %s\n", settings.c_str(),
         error.c_str(), outcome.trace_hash, replay.c_str());
  fflush(stdout);
  // Its cores are in no state to be destroyed.
  static_cast<void>(simulation.release());
  return outcome;
}

int run_one(uint64_t seed, const Pretence& pretence, bool prints) {
  const Outcome outcome = run_seed(seed, pretence, prints);
  printf("seed %" PRIu64 ": %s, trace %016" PRIx64 "\n", seed, outcome.passed ? "passed" : "failed",
         outcome.trace_hash);
  return outcome.passed ? 0 : 1;
}

// --- Many ---

void show_progress(uint64_t done, uint64_t all, uint64_t failed) {
  if (isatty(STDERR_FILENO) == 0) return;
  fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " seeds, %" PRIu64 " failed ", done, all, failed);
  if (done == all) fputs("\n", stderr);
}

bool replays(uint64_t seed, const Pretence& pretence, const Outcome& first) {
  if (run_seed(seed, pretence, false).trace_hash == first.trace_hash) return true;
  printf("FAILED: seed %" PRIu64 " went another way the second time\n", seed);
  return false;
}

int run_many(const Arguments& arguments) {
  const auto begin = std::chrono::steady_clock::now();
  Tally total;
  uint64_t failed = 0;
  for (uint64_t i = 0; i < arguments.seeds_count; ++i) {
    const uint64_t seed = arguments.first + i;
    const Outcome outcome = run_seed(seed, arguments.pretence, false);
    const bool is_good =
        outcome.passed && (!arguments.checks_replay || replays(seed, arguments.pretence, outcome));
    failed += is_good ? 0 : 1;
    total.add(outcome.tally);
    show_progress(i + 1, arguments.seeds_count, failed);
  }
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
  printf("%s; %.1f s\n", total.describe().c_str(), spent.count());
  // Few of them cannot do everything.
  const std::string missing =
      arguments.seeds_count >= 300 ? total.describe_missing() : std::string();
  if (!missing.empty()) ++failed;
  fputs(missing.c_str(), stdout);
  printf("%" PRIu64 " passed, %" PRIu64 " failed\n",
         arguments.seeds_count - std::min(failed, arguments.seeds_count), failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace helios::sim

int main(int, char** words) {
  using namespace helios::sim;
  const Arguments arguments = read_arguments(words);
  doctest::Context context;
  context.setAsDefaultForAssertsOutOfTestCases();
  context.setAssertHandler(&on_doctest_failure);
  signal(SIGABRT, on_abort);
  if (arguments.seed) return run_one(*arguments.seed, arguments.pretence, !arguments.is_quiet);
  return run_many(arguments);
}
