#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>

#include "load/command_line.h"
#include "load/commands.h"
#include "load/compare_process.h"
#include "load/compare_run.h"
#include "load/peer_file.h"
#include "load/report_compare.h"

namespace helios::bench {
namespace {

constexpr const char* default_peers = "pgbouncer,heliosproxy,haproxy,pgpool2,direct";
constexpr uint32_t quick_rounds = 3;
constexpr Nanoseconds quick_settle_time = milliseconds(500);
constexpr Nanoseconds quick_memory_wait = milliseconds(500);

struct CompareArguments {
  CompareOptions options;
  std::string peers;  // Empty: the default ones.
  std::vector<std::string> peer_files;
  std::string rows;  // Empty: main, or quick.
  std::string server = "auto";
  std::string output = "bench-report";
  uint32_t rounds = 0;  // 0: 9, or 3.
  Nanoseconds duration = 0;
  bool is_quick = false;
  bool lists_rows = false;
};

std::string epilogue() {
  return "peers: heliosproxy, pgbouncer, pgpool2, haproxy (TCP mode), direct (no pooler); "
         "variants:\n"
         "  heliosproxy:cores=2, pgbouncer:pkt_buf=65536, :unix for unix sockets to the server,\n"
         "  and :unix-clients for unix sockets from the clients (heliosproxy, pgbouncer, haproxy)\n"
         "\n"
         "rows:\n" +
         list_of_rows() +
         "\n"
         "a peer's file (--peer):\n"
         "  [peer]\n"
         "  name = \"other\"\n"
         "  command = [\"/usr/bin/other\", \"--config\", \"{config}\"]\n"
         "  version_command = [\"/usr/bin/other\", \"--version\"]   # optional, as all below\n"
         "  config = \"\"\"\n"
         "  listen 127.0.0.1:{port}\n"
         "  server {server_host}:{server_port}\n"
         "  pool {pool_size}\n"
         "  \"\"\"\n"
         "  user = \"nobody\"         # who it runs as when this runs as root\n"
         "  clients_max = 256       # rows with more clients are left out\n"
         "  unix_sockets = true     # {server_host} may be the directory of a unix socket\n"
         "  Also: {dir} {clients} {user} {database}. ${NAME} is an environment variable.\n"
         "\n"
         "examples:\n"
         "  helios-bench compare --quick\n"
         "  helios-bench compare --rows simple-16,simple-64 --peers pgbouncer,heliosproxy\n"
         "  helios-bench compare --pgbouncer /opt/pgbouncer/bin/pgbouncer --output report\n"
         "\n"
         "exit codes: 0 the report is written; 1 it could not be made, or was interrupted; 2 wrong "
         "usage";
}

void add_options(CommandLine& line, CompareArguments& arguments) {
  CompareOptions& options = arguments.options;
  line.custom("peers", "LIST", std::string("what is compared [") + default_peers + "]",
              [&](std::string_view text) -> std::string {
                arguments.peers = text;
                return text.empty() ? "at least one peer is needed" : "";
              });
  line.texts("peer", "FILE", "one more peer, described by a TOML file (below); may be repeated",
             arguments.peer_files);
  line.custom("base", "PEER", "the peer that ratios are to [pgbouncer]",
              [&options](std::string_view text) -> std::string {
                options.base = text;
                options.base_was_chosen = true;
                return {};
              });
  line.text("rows", "LIST", "what is run, by the names below; main: all; quick: a few [main]",
            arguments.rows);
  line.flag("list-rows", "print the rows and stop", arguments.lists_rows);
  line.flag("quick", "few rows, 3 rounds of half a second: a first look within 3 minutes",
            arguments.is_quick);
  line.custom("rounds", "N", "each measures every peer once; 1 to 1000 [9; with --quick 3]",
              [&](std::string_view text) -> std::string {
                uint64_t number = 0;
                for (const char digit : text)
                  number = digit >= '0' && digit <= '9' && number < 10'000
                               ? number * 10 + static_cast<uint64_t>(digit - '0')
                               : 10'000;
                if (number < 1 || number > 1000)
                  return "\"" + std::string(text) + "\" is no whole number from 1 to 1000";
                arguments.rounds = static_cast<uint32_t>(number);
                return {};
              });
  line.duration("duration", "the counted time of each measurement; 0: 1 s, with --quick 500 ms", 0,
                seconds(3600), arguments.duration);
  line.duration("warm-up", "before it", 0, seconds(600), options.warm_up);
  line.duration("settle-time",
                "the longest wait for a quiet machine before each round (--quick: at most 500 ms)",
                0, seconds(600), options.settle_time);
  line.custom("place", "PLACE",
              "one: all on one CPU with SCHED_BATCH; two: the pooler on a CPU of its own; free: "
              "nothing pinned [one]",
              [&options](std::string_view text) { return read_place(text, options.place); });
  line.text("server", "WHAT",
            "behind the poolers: auto (canned, and PostgreSQL for the rows that need it), canned, "
            "postgres (a private cluster), or host:port or unix:/dir:port of your own, where "
            "nothing is created",
            arguments.server);
  line.text("user", "NAME", "who logs in", options.login.user);
  line.text("password", "TEXT", "of that user, at a server of your own", options.login.password);
  line.text("database", "NAME", "where", options.login.database);
  line.number("scale", "N",
              "of the pgbench tables: those of a private cluster are made so, those of a server of "
              "your own must be",
              1, 100'000, options.scale);
  line.number("pool-size", "N", "server connections of each pooler", 1, 10'000, options.pool_size);
  line.text("heliosproxy", "PATH", "the program; beside or above this one, or in PATH, otherwise",
            options.heliosproxy);
  line.text("pgbouncer", "PATH", "the program; the one in PATH otherwise", options.pgbouncer);
  line.text("output", "DIR", "where the report goes", arguments.output);
  line.epilogue(epilogue());
}

Result<bool> read_peers(CompareArguments& arguments) {
  CompareOptions& options = arguments.options;
  options.peers_were_chosen = !arguments.peers.empty();
  const std::string names = options.peers_were_chosen ? arguments.peers : default_peers;
  for (const std::string& name : split_list(names, ',')) {
    Result<Peer> peer = parse_peer(name);
    if (!peer.ok()) return Error{"--peers: " + peer.error()};
    options.peers.push_back(std::move(peer).value());
  }
  for (const std::string& path : arguments.peer_files) {
    Result<Peer> peer = read_peer_file(path);
    if (!peer.ok()) return Error{peer.error()};
    options.peers.push_back(std::move(peer).value());
  }
  for (size_t i = 0; i < options.peers.size(); ++i)
    for (size_t j = i + 1; j < options.peers.size(); ++j)
      if (options.peers[i].name == options.peers[j].name)
        return Error{"peer \"" + options.peers[i].name + "\" is there twice"};
  return true;
}

// Why a path that is given says nothing about this comparison; empty when it does.
std::string program_problem(const CompareOptions& options) {
  const auto is_unused = [&](const std::string& path, PeerKind kind) {
    return !path.empty() && std::none_of(options.peers.begin(), options.peers.end(),
                                         [&](const Peer& peer) { return peer.kind == kind; });
  };
  const std::string problem = " has no effect: it is none of the peers (--peers)";
  if (is_unused(options.heliosproxy, PeerKind::heliosproxy)) return "--heliosproxy" + problem;
  if (is_unused(options.pgbouncer, PeerKind::pgbouncer)) return "--pgbouncer" + problem;
  return {};
}

// What the command line says, as the run needs it.
Result<bool> complete(CompareArguments& arguments) {
  CompareOptions& options = arguments.options;
  if (Result<bool> read = read_peers(arguments); !read.ok()) return read;
  if (const std::string problem = program_problem(options); !problem.empty()) return Error{problem};
  const std::string rows = !arguments.rows.empty() ? arguments.rows
                           : arguments.is_quick    ? "quick"
                                                   : "main";
  Result<std::vector<Row>> chosen = choose_rows(split_list(rows, ','));
  if (!chosen.ok()) return Error{"--rows: " + chosen.error()};
  options.rows = std::move(chosen).value();
  if (arguments.is_quick) {
    options.rounds = quick_rounds;
    options.duration = milliseconds(500);
    options.memory_wait = quick_memory_wait;
    options.settle_time = std::min(options.settle_time, quick_settle_time);
  }
  if (arguments.rounds > 0) options.rounds = arguments.rounds;
  if (arguments.duration > 0) options.duration = arguments.duration;
  if (arguments.server == "canned") {
    options.server = ServerChoice::canned;
  } else if (arguments.server == "postgres") {
    options.server = ServerChoice::postgres;
  } else if (arguments.server != "auto") {
    options.server = ServerChoice::existing;
    options.server_address = arguments.server;
    const Result<BenchServer> server = BenchServer::existing(arguments.server);
    if (!server.ok()) return Error{"--server: " + server.error()};
  }
  return true;
}

int fail(const std::string& text, int code) {
  std::fprintf(stderr, "helios-bench compare: %s\n", text.c_str());
  return code;
}

}  // namespace

int compare_command(int argc, char** argv) {
  CompareArguments arguments;
  CommandLine line("compare", "Measures poolers side by side and writes a report.");
  add_options(line, arguments);
  switch (line.parse(argc, argv)) {
    case CommandLine::Outcome::help:
      return exit_good;
    case CommandLine::Outcome::wrong:
      return exit_usage;
    case CommandLine::Outcome::run:
      break;
  }
  if (arguments.lists_rows) {
    std::fputs(list_of_rows().c_str(), stdout);
    return exit_good;
  }
  if (Result<bool> completed = complete(arguments); !completed.ok())
    return fail(completed.error(), exit_usage);
  watch_interrupts();
  Result<Comparison> comparison = CompareRun(arguments.options).run();
  if (!comparison.ok()) return fail(comparison.error(), exit_failed);
  const Result<bool> written = write_report(comparison.value(), arguments.output);
  if (!written.ok()) return fail(written.error(), exit_failed);
  std::printf("report: %s/%s\n", arguments.output.c_str(), report_file);
  return comparison.value().was_interrupted ? exit_failed : exit_good;
}

}  // namespace helios::bench
