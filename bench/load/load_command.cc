#include <array>
#include <cstdio>
#include <string>
#include <utility>

#include "helios/config/nearest.h"
#include "load/command_line.h"
#include "load/commands.h"
#include "load/load.h"
#include "load/load_flags.h"
#include "load/report.h"
#include "load/script.h"

namespace helios::bench {
namespace {

struct LoadArguments {
  LoadOptions options;
  bool is_json = false;
  bool is_quiet = false;
  bool lists_scripts = false;
  bool has_no_checks = false;
};

std::string read_mode(std::string_view text, QueryMode& mode) {
  constexpr std::array<std::string_view, 3> names = {"simple", "extended", "prepared"};
  for (size_t i = 0; i < names.size(); ++i) {
    if (text != names[i]) continue;
    mode = static_cast<QueryMode>(i);
    return {};
  }
  return "\"" + std::string(text) + "\" is no mode" + suggestion(text, names);
}

std::string epilogue() {
  return "built-in scripts (those on pgbench's tables need pgbench -i before):\n" +
         list_of_scripts() +
         "\n"
         "A script of your own is a file of SQL statements, each ended by ';', as for pgbench:\n"
         "  \\set aid random(1, 100000 * :scale)\n"
         "  SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"
         "\\set knows whole numbers, + - * / %, random(low, high), unique() and :variables (:scale "
         "and\n"
         ":client_id are there). Its answers are not checked.\n"
         "\n" +
         json_keys_help +
         "\n"
         "\n"
         "examples:\n"
         "  helios-bench load --target 127.0.0.1:6432 --clients 50\n"
         "  helios-bench load --script tpcb --scale 10 --mode prepared --duration 1min\n"
         "  helios-bench load --rate 5000 --clients 200 --script lookup=9 --script insert=1\n"
         "  helios-bench load --clients 15000 --script think --connect-timeout 60s\n"
         "\n"
         "exit codes: 0 good; 1 failed transactions, wrong answers, or it could not run; 2 wrong "
         "usage";
}

void add_load_flags(CommandLine& line, LoadArguments& arguments) {
  LoadOptions& options = arguments.options;
  line.custom("script", "NAME[=WEIGHT]",
              "a built-in script or a file; repeated: chosen by weight for each transaction "
              "[select-1]",
              [&options, is_first = true](std::string_view text) mutable {
                if (std::exchange(is_first, false)) options.scripts.clear();
                return read_script_choice(text, options.scripts);
              });
  line.flag("list-scripts", "print the built-in scripts and stop", arguments.lists_scripts);
  line.number("scale", "N", "of pgbench's tables (pgbench -s)", 1, 100'000, options.scale);
  line.custom("mode", "MODE",
              "how statements are sent: simple (Query), extended (Parse, Bind, Describe, Execute "
              "each time) or prepared (Parse once on each connection) [simple]",
              [&options](std::string_view text) { return read_mode(text, options.mode); });
  line.number("pipeline", "N", "transactions that a client has under way at the same time", 1, 1000,
              options.pipeline);
  line.real("rate", "N",
            "transactions per second over all clients, at random moments (open loop); a latency "
            "counts from the moment when the transaction was due, also if it had to wait for a "
            "free client; 0: each client begins when its last one has ended (closed loop)",
            0, 1e7, options.rate);
  line.duration("think-time", "mean pause of a client between two transactions", 0, seconds(3600),
                options.think_time);
  line.flag("reconnect", "a connection for each transaction; the latency includes it",
            options.reconnect);
  line.duration("warm-up", "time before the count begins, when every client is connected", 0,
                seconds(3600), options.warm_up);
  line.duration("duration", "the counted time", milliseconds(10), seconds(7 * 24 * 3600),
                options.duration);
  line.number("transactions", "N",
              "for each client, without warm-up and whatever time it takes; 0: by --duration", 0,
              1'000'000'000'000, options.transactions);
  line.flag("no-checks", "do not compare answers with what was asked", arguments.has_no_checks);
  line.number("seed", "N", "of the random numbers", 0, UINT32_MAX, options.seed);
  line.flag("json", "one JSON object on stdout instead of the table", arguments.is_json);
  line.flag("quiet", "no progress on stderr", arguments.is_quiet);
}

int report(const LoadArguments& arguments, const LoadSummary& summary) {
  const std::string text = arguments.is_json ? json_of(arguments.options, summary) + "\n"
                                             : table_of(arguments.options, summary);
  std::fputs(text.c_str(), stdout);
  const bool is_good = summary.failed == 0 && summary.wrong == 0 && summary.transactions > 0;
  return is_good ? exit_good : exit_failed;
}

}  // namespace

int load_command(int argc, char** argv) {
  LoadArguments arguments;
  CommandLine line("load",
                   "Runs clients against a pooler or server, checks their answers, and tells\n"
                   "throughput, latency and errors.");
  add_connection_flags(line, arguments.options);
  add_load_flags(line, arguments);
  line.epilogue(epilogue());
  switch (line.parse(argc, argv)) {
    case CommandLine::Outcome::help:
      return exit_good;
    case CommandLine::Outcome::wrong:
      return exit_usage;
    case CommandLine::Outcome::run:
      break;
  }
  if (arguments.lists_scripts) {
    std::fputs(list_of_scripts().c_str(), stdout);
    return exit_good;
  }
  LoadOptions& options = arguments.options;
  options.checks = !arguments.has_no_checks;
  options.shows_progress = !arguments.is_quiet;
  if (const std::string problem = load_problem(options); !problem.empty()) {
    std::fprintf(stderr, "helios-bench load: %s\n", problem.c_str());
    return exit_usage;
  }
  const Result<LoadSummary> summary = run_load(options);
  if (!summary.ok()) {
    std::fprintf(stderr, "helios-bench load: %s\n", summary.error().c_str());
    return exit_failed;
  }
  return report(arguments, summary.value());
}

}  // namespace helios::bench
