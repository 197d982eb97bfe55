// helios-bench backend: reads its command line and runs the canned server.
#include <algorithm>
#include <charconv>
#include <cinttypes>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "helios/runtime/cpu_set.h"
#include "load/backend.h"
#include "load/command_line.h"
#include "load/commands.h"

namespace helios::bench {
namespace {

constexpr const char* summary =
    "A server that answers like PostgreSQL, with canned rows: to measure what is before it.";
constexpr const char* examples =
    "Examples:\n"
    "  helios-bench backend --listen 127.0.0.1:7432 --cpu 1\n"
    "  helios-bench backend --listen 127.0.0.1:0 --delay 2ms --rows 100 --row-size 1000\n"
    "\n"
    "SELECT <number> answers the number, SELECT big about 1 MB, SELECT pg_sleep(x) after x "
    "seconds,\n"
    "SELECT 1/0 an error. Every user may log in, without a password.";

// "1" or "0,2": the CPUs of the cores in turn. What is wrong with it, or an empty text.
std::string read_cpus(std::string_view text, std::vector<int>& cpus) {
  const std::vector<int> usable = usable_cpus();
  const char* at = text.data();
  const char* end = at + text.size();
  while (true) {
    int cpu = -1;
    const auto [stop, error] = std::from_chars(at, end, cpu);
    if (error != std::errc() || (stop != end && *stop != ','))
      return "\"" + std::string(text) + "\" is not a list of CPUs; write it as 1 or 0,2";
    if (std::find(usable.begin(), usable.end(), cpu) == usable.end())
      return "CPU " + std::to_string(cpu) +
             " is none that this process may use (see taskset -p $$)";
    cpus.push_back(cpu);
    if (stop == end) return {};
    at = stop + 1;
  }
}

void print_ready(const std::vector<std::string>& addresses, void*) {
  for (const std::string& address : addresses) printf("listening on %s\n", address.c_str());
  fflush(stdout);
}

void print_end(const BackendTotals& totals) {
  printf("done: %" PRIu64 " connections, %" PRIu64 " queries\n", totals.connections,
         totals.queries);
  fflush(stdout);
}

}  // namespace

int backend_command(int argc, char** argv) {
  BackendOptions options;
  bool is_quiet = false;
  CommandLine line("backend", summary);
  line.texts("listen", "ADDRESS",
             "Where to listen: host:port (port 0: any free one) or unix:/dir:port.",
             options.listen);
  line.number("cores", "N", "Threads, each with a ring of its own.", 1, 256, options.cores);
  line.number("connections", "N",
              "Clients that may be logged in at the same time; 0: as many as the limit of open "
              "descriptors allows, at most 20,000.",
              0, 1'000'000, options.connections_max);
  line.duration("delay", "A pause before each answer, in whole milliseconds.", 0, seconds(3600),
                options.delay);
  line.number("piece", "BYTES", "Send answers in pieces of so many bytes; 0: whole.", 0, 1U << 20U,
              options.piece_size);
  line.number("rows", "N", "Rows of a result that is not a number; 0: one small row.", 0,
              1'000'000'000, options.rows);
  line.number("row-size", "BYTES", "Bytes of each such row; 0: a small one.", 0,
              backend_row_size_max, options.row_size);
  line.custom("cpu", "LIST", "The CPUs of the cores in turn, as 1 or 0,2.",
              [&](std::string_view text) { return read_cpus(text, options.cpus); });
  line.flag("batch", "Run under SCHED_BATCH, as a load beside a measured program should.",
            options.batch_policy);
  line.flag("quiet", "Print nothing but errors.", is_quiet);
  line.epilogue(examples);
  switch (line.parse(argc, argv)) {
    case CommandLine::Outcome::help:
      return exit_good;
    case CommandLine::Outcome::wrong:
      return exit_usage;
    case CommandLine::Outcome::run:
      break;
  }
  BackendTotals totals;
  options.totals = &totals;
  if (!is_quiet) options.on_ready = print_ready;
  const Result<bool> result = run_backend(options);
  if (!result.ok()) {
    fprintf(stderr, "helios-bench backend: %s\n", result.error().c_str());
    return exit_failed;
  }
  if (!is_quiet) print_end(totals);
  return exit_good;
}

}  // namespace helios::bench
