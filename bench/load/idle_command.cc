#include <cinttypes>
#include <cstdio>
#include <string>

#include "load/command_line.h"
#include "load/commands.h"
#include "load/idle.h"
#include "load/load_flags.h"
#include "load/report.h"

namespace helios::bench {
namespace {

constexpr const char* json_keys =
    "The watched process should be fresh: memory that earlier clients left behind is used again,\n"
    "and then these seem to cost less.\n"
    "\n"
    "keys of --json (times are nanoseconds, sizes bytes):\n"
    "  clients               connected at the same time\n"
    "  answered              [first, second]: right answers when connected, and after the rest\n"
    "  before, connected,    {rss, pss, tcp_buffers}: of the processes of --watch and of all TCP\n"
    "  after                 sockets of the machine: without clients, with all, when they have "
    "left\n"
    "                        (these and the next two with --watch only)\n"
    "  rss_per_client,       of the difference between before and connected\n"
    "  pss_per_client        (no pss when it cannot be read: processes of another user)\n"
    "  connect               {count, min, mean, p50, p90, p95, p99, p99.9, p99.99, max}\n"
    "  errors                [{sqlstate, count, example}]\n"
    "\n"
    "examples:\n"
    "  helios-bench idle --target 127.0.0.1:6432 --clients 10000 --watch $(pidof heliosproxy)\n"
    "\n"
    "exit codes: 0 good; 1 a client did not get its answers, or it could not run; 2 wrong usage";

double per_client(uint64_t connected, uint64_t before, uint32_t clients) {
  return clients == 0 ? 0
                      : (static_cast<double>(connected) - static_cast<double>(before)) / clients;
}

void write_memory(JsonWriter& json, const char* key, const Memory& memory) {
  json.begin_object(key);
  json.number("rss", memory.rss);
  if (memory.has_pss) json.number("pss", memory.pss);
  json.number("tcp_buffers", memory.tcp);
  json.end();
}

std::string json_of(const IdleOptions& options, const IdleSummary& summary) {
  const uint32_t clients = summary.load.clients_connected;
  JsonWriter json;
  json.number("clients", clients);
  json.begin_list("answered");
  json.item(summary.answered_first);
  json.item(summary.answered_second);
  json.end();
  if (!options.load.watched.empty()) {
    write_memory(json, "before", summary.before);
    write_memory(json, "connected", summary.connected);
    write_memory(json, "after", summary.after);
    json.real("rss_per_client", per_client(summary.connected.rss, summary.before.rss, clients));
    if (summary.connected.has_pss && summary.before.has_pss)
      json.real("pss_per_client", per_client(summary.connected.pss, summary.before.pss, clients));
  }
  write_latency(json, "connect", summary.load.connect);
  write_errors(json, summary.load);
  return json.finish();
}

void print_memory(const char* name, const Memory& memory) {
  std::printf("%-14s RSS %s, %s\n", name, show_bytes(memory.rss).c_str(),
              show_pss(memory.pss, memory.has_pss).c_str());
}

void print_table(const IdleOptions& options, const IdleSummary& summary) {
  const uint32_t clients = summary.load.clients_connected;
  std::printf("%-14s %u connected at the same time; connect p50 %.3f ms, max %.3f ms\n", "clients",
              clients, static_cast<double>(summary.load.connect.p50) / 1e6,
              static_cast<double>(summary.load.connect.max) / 1e6);
  if (!options.load.watched.empty()) {
    print_memory("before", summary.before);
    print_memory("connected", summary.connected);
    print_memory("after", summary.after);
    std::printf("%-14s RSS %.0f bytes", "per client",
                per_client(summary.connected.rss, summary.before.rss, clients));
    if (summary.connected.has_pss && summary.before.has_pss)
      std::printf(", PSS %.0f bytes",
                  per_client(summary.connected.pss, summary.before.pss, clients));
    std::puts("");
  }
  const double tcp =
      static_cast<double>(summary.connected.tcp) - static_cast<double>(summary.before.tcp);
  std::printf("%-14s %+.1f KiB in buffers of the machine's TCP sockets (not in RSS; both ends)\n",
              "kernel", tcp / 1024);
  std::printf("%-14s %" PRIu64 " of %u when connected, %" PRIu64 " of %u after the rest\n",
              "answered", summary.answered_first, clients, summary.answered_second, clients);
  std::fputs(error_lines(summary.load).c_str(), stdout);
}

}  // namespace

int idle_command(int argc, char** argv) {
  IdleOptions options;
  options.load.clients = 1000;
  bool is_json = false;
  bool is_quiet = false;
  CommandLine line("idle",
                   "Connects clients that then do nothing, and tells what they cost in memory.\n"
                   "Each asks for a number when it is connected and once more at the end.");
  add_connection_flags(line, options.load);
  line.duration("settle", "pause before each measurement", 0, seconds(3600), options.settle);
  line.flag("json", "one JSON object on stdout instead of the table", is_json);
  line.flag("quiet", "no progress on stderr", is_quiet);
  line.epilogue(json_keys);
  switch (line.parse(argc, argv)) {
    case CommandLine::Outcome::help:
      return exit_good;
    case CommandLine::Outcome::wrong:
      return exit_usage;
    case CommandLine::Outcome::run:
      break;
  }
  options.load.shows_progress = !is_quiet;
  if (const std::string problem = load_problem(options.load); !problem.empty()) {
    std::fprintf(stderr, "helios-bench idle: %s\n", problem.c_str());
    return exit_usage;
  }
  const Result<IdleSummary> result = run_idle(options);
  if (!result.ok()) {
    std::fprintf(stderr, "helios-bench idle: %s\n", result.error().c_str());
    return exit_failed;
  }
  const IdleSummary& summary = result.value();
  if (is_json) {
    std::puts(json_of(options, summary).c_str());
  } else {
    print_table(options, summary);
  }
  const bool all_answered = summary.answered_first == options.load.clients &&
                            summary.answered_second == options.load.clients;
  return all_answered && summary.load.errors_count == 0 ? exit_good : exit_failed;
}

}  // namespace helios::bench
