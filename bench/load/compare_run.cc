#include "load/compare_run.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "helios/config/nearest.h"
#include "helios/runtime/cpu_set.h"
#include "helios/wire/key_derivation.h"
#include "helios/wire/scram.h"
#include "load/peer_search.h"
#include "load/report_text.h"

namespace helios::bench {
namespace {

// What a measurement takes besides its load, and a row besides its measurements, in seconds.
constexpr double measurement_extra = 0.45;
constexpr double peer_start = 0.4;
constexpr double memory_extra = 2.6;
constexpr double cluster_start = 20.0;
// Connections that are 1:1 cost a real server a process each.
constexpr uint32_t real_server_clients_max = 256;
constexpr const char* scram_password = "compare-password";

double as_seconds(Nanoseconds time) {
  return static_cast<double>(time) / 1e9;
}

bool is_one_to_one(PeerKind kind) {
  return kind == PeerKind::direct || kind == PeerKind::haproxy || kind == PeerKind::pgpool2;
}

// The form in which poolers keep a password. Nothing here is secret: the salt may be a constant.
std::string make_verifier(std::string_view password) {
  constexpr std::string_view salt = "helios-bench-salt";
  const Sha256Digest salted =
      pbkdf2(as_bytes(password), as_bytes(salt.substr(0, scram_salt_size)), scram_rounds_default);
  return print_scram_verifier(
      verifier_from(salted, as_bytes(salt.substr(0, scram_salt_size)), scram_rounds_default));
}

}  // namespace

std::vector<size_t> order_of_round(uint32_t round, size_t peers_count) {
  std::vector<size_t> order(peers_count);
  for (size_t i = 0; i < peers_count; ++i) order[i] = round % 2 == 0 ? i : peers_count - 1 - i;
  return order;
}

double estimated_seconds(const CompareOptions& options) {
  const double load =
      as_seconds(options.warm_up) + as_seconds(options.duration) + measurement_extra;
  // It waits with few clients, and with all.
  const double memory = 2 * as_seconds(options.memory_wait) + memory_extra;
  double total = 0;
  bool has_cluster = false;
  for (const Row& row : options.rows) {
    const auto peers =
        std::count_if(options.peers.begin(), options.peers.end(),
                      [&](const Peer& peer) { return obstacle_of(peer, row).empty(); });
    const auto count = static_cast<double>(peers) + static_cast<double>(row.more_peers.size());
    const double each = row.kind == RowKind::memory ? memory : load;
    total += count * (each * options.rounds + peer_start);
    has_cluster = has_cluster ||
                  (row.server == RowServer::postgres && options.server == ServerChoice::automatic);
  }
  has_cluster = has_cluster || options.server == ServerChoice::postgres;
  return total + (has_cluster ? cluster_start : 0);
}

CompareRun::~CompareRun() {
  // Servers first: they write into the directory.
  canned_ = {};
  postgres_ = {};
  end_orphans();
  std::error_code ignored;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

Result<Comparison> CompareRun::run() {
  began_ = MonotonicClock().now();
  if (Result<bool> prepared = prepare(); !prepared.ok()) return Error{prepared.error()};
  estimate_ = estimated_seconds(options_);
  std::printf("%zu rows, %u rounds, %zu peers: about %s minutes\n", options_.rows.size(),
              options_.rounds, options_.peers.size(), minutes_text(estimate_).c_str());
  for (const Row& row : options_.rows) {
    if (is_interrupted()) break;
    run_row(row);
  }
  comparison_.was_interrupted = is_interrupted();
  return std::move(comparison_);
}

Result<bool> CompareRun::prepare() {
  const Result<Placement> placement = make_placement(options_.place, usable_cpus());
  if (!placement.ok()) return Error{placement.error()};
  placement_ = placement.value();
  const Result<std::optional<Account>> account = account_for("");
  if (!account.ok()) return Error{account.error()};
  account_ = account.value();
  if (Result<bool> found = find_peers(); !found.ok()) return found;
  if (const std::string problem = find_base(); !problem.empty()) return Error{problem};
  uint32_t pooler_cores_max = 1;
  for (const Peer& peer : options_.peers) pooler_cores_max = std::max(pooler_cores_max, peer.cores);
  give_load_cores(placement_, pooler_cores_max);
  std::error_code failure;
  std::string pattern =
      (std::filesystem::temp_directory_path(failure) / "helios-compare-XXXXXX").string();
  if (failure || mkdtemp(pattern.data()) == nullptr)
    return Error{"no temporary directory: " + std::string(std::strerror(errno))};
  directory_ = pattern;
  // The poolers run as another user when we are root.
  std::filesystem::permissions(directory_, std::filesystem::perms(0755), failure);
  if (options_.server == ServerChoice::existing) {
    Result<BenchServer> server = BenchServer::existing(options_.server_address);
    if (!server.ok()) return Error{server.error()};
    existing_ = std::move(server).value();
    comparison_.has_own_server = false;
  }
  scram_verifier_ = make_verifier(scram_password);
  comparison_.rounds = options_.rounds;
  comparison_.memory_wait = options_.memory_wait;
  add_facts();
  return true;
}

std::string CompareRun::chosen_program(PeerKind kind) const {
  if (kind == PeerKind::heliosproxy) return options_.heliosproxy;
  return kind == PeerKind::pgbouncer ? options_.pgbouncer : "";
}

Result<bool> CompareRun::find_peers() {
  std::vector<Peer> found;
  for (Peer& peer : options_.peers) {
    const std::string program = chosen_program(peer.kind);
    const std::string problem = find_peer(peer, program);
    // Ours, a file's and one whose path is given are never just left out.
    const bool is_wanted = options_.peers_were_chosen || !program.empty() ||
                           peer.kind == PeerKind::custom || peer.kind == PeerKind::heliosproxy;
    if (!problem.empty() && is_wanted) return Error{"peer " + peer.name + ": " + problem};
    if (problem.empty())
      found.push_back(std::move(peer));
    else
      comparison_.remarks.push_back(peer.name + ": not installed (" + problem + ")");
  }
  options_.peers = std::move(found);
  for (const Peer& peer : options_.peers) comparison_.peers.push_back(peer.name);
  if (Result<bool> checked = check_cores(); !checked.ok()) return checked;
  return find_variants();
}

Result<bool> CompareRun::check_cores() const {
  const size_t cpus = options_.place == Place::free ? usable_cpus().size() : 1;
  for (const Peer& peer : options_.peers) {
    if (peer.cores > cpus)
      return Error{"peer " + peer.name + ": " + std::to_string(cpus) +
                   " CPU is what a pooler gets with this placement: use --place free on a machine "
                   "with more CPUs"};
  }
  return true;
}

Result<bool> CompareRun::find_variants() {
  std::vector<std::string>& names = comparison_.peers;
  for (const Row& row : options_.rows) {
    for (const std::string& name : row.more_peers) {
      Result<Peer> variant = parse_peer(name);
      if (!variant.ok()) return Error{variant.error()};
      const auto varied =
          std::find_if(options_.peers.begin(), options_.peers.end(),
                       [&](const Peer& peer) { return peer.kind == variant.value().kind; });
      if (varied == options_.peers.end()) continue;
      variant.value().program = varied->program;
      variant.value().version = varied->version;
      variants_[name] = variant.value();
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  // Last, because the charts of the poolers do without it and colours should stay the same.
  std::stable_partition(names.begin(), names.end(),
                        [](const std::string& name) { return !name.starts_with("direct"); });
  return true;
}

std::string CompareRun::find_base() {
  const std::vector<std::string>& names = comparison_.peers;
  if (std::find(names.begin(), names.end(), options_.base) != names.end()) {
    comparison_.base = options_.base;
    return {};
  }
  if (options_.base_was_chosen) {
    const std::vector<std::string_view> known(names.begin(), names.end());
    return "--base " + options_.base + " is none of the peers" + suggestion(options_.base, known);
  }
  for (const Peer& peer : options_.peers) {
    if (peer.kind == PeerKind::direct || !comparison_.base.empty()) continue;
    comparison_.base = peer.name;
    comparison_.remarks.push_back("ratios are to " + peer.name + ", because " + options_.base +
                                  " is not among the peers");
  }
  return {};
}

void CompareRun::add_facts() {
  Facts& facts = comparison_.facts;
  facts = machine_facts();
  facts.emplace_back("placement", placement_text(placement_));
  if (placement_.load_cores > 1)
    facts.emplace_back("threads of the load and of the canned server",
                       std::to_string(placement_.load_cores) +
                           " each, as many as the cores of the largest pooler (of the load no more "
                           "than the row has clients)");
  facts.emplace_back("pool size", std::to_string(options_.pool_size));
  facts.emplace_back("rounds", std::to_string(options_.rounds) + ", each " +
                                   decimal(as_seconds(options_.duration), 2) + " s after " +
                                   decimal(as_seconds(options_.warm_up), 2) + " s of warm-up");
  facts.emplace_back("user of the poolers", account_ ? account_->name : "the one who ran this");
  for (const Peer& peer : options_.peers) {
    if (peer.kind != PeerKind::direct)
      facts.emplace_back("version of " + peer.name, peer.version + " (" + peer.program + ")");
  }
  facts.emplace_back("helios-bench", HELIOS_VERSION);
  if (const std::string commit = git_commit(own_directory()); !commit.empty())
    facts.emplace_back("commit of the source", commit);
}

void CompareRun::run_row(const Row& row) {
  RowResult result;
  result.row = row;
  if (const std::string problem = server_problem(row); !problem.empty()) {
    comparison_.remarks.push_back("row " + row.name + " is left out: " + problem);
    std::printf("%s: left out: %s\n", row.name.c_str(), problem.c_str());
    rounds_done_ += options_.rounds;
    return;
  }
  std::printf("%s: %s\n", row.name.c_str(), row.title.c_str());
  std::vector<Entrant> entrants = start_entrants(row, result);
  for (uint32_t round = 0; round < options_.rounds && !is_interrupted(); ++round) {
    settle();
    run_round(row, round, entrants, result);
    ++rounds_done_;
    if (!is_interrupted()) show_round(result, round + 1);
  }
  comparison_.rows.push_back(std::move(result));
}

std::vector<const Peer*> CompareRun::peers_of(const Row& row) const {
  std::vector<const Peer*> peers;
  for (const Peer& peer : options_.peers) peers.push_back(&peer);
  for (const std::string& name : row.more_peers) {
    const auto found = variants_.find(name);
    const bool is_there = std::any_of(peers.begin(), peers.end(),
                                      [&](const Peer* peer) { return peer->name == name; });
    if (found != variants_.end() && !is_there) peers.push_back(&found->second);
  }
  return peers;
}

BenchServer& CompareRun::server_of(const Row& row) {
  if (options_.server == ServerChoice::existing) return existing_;
  if (options_.server == ServerChoice::postgres) return postgres_;
  return row.server == RowServer::postgres ? postgres_ : canned_;
}

// Starts the server when it is needed first. Says why the row cannot be run.
std::string CompareRun::server_problem(const Row& row) {
  if (options_.server == ServerChoice::canned && row.server == RowServer::postgres)
    return "it needs a real PostgreSQL";
  if (options_.server == ServerChoice::existing && row.scram && !options_.login.password.empty())
    return "it needs a server that trusts the pooler";
  BenchServer& server = server_of(row);
  if (!server.is_there()) {
    std::printf("starting the %s server\n", &server == &canned_ ? "canned" : "PostgreSQL");
    std::fflush(stdout);
    Result<BenchServer> started = &server == &canned_
                                      ? BenchServer::start_canned(server_settings())
                                      : BenchServer::start_postgres(server_settings());
    if (!started.ok()) return started.error();
    server = std::move(started).value();
    comparison_.facts.emplace_back("server", server.description());
  }
  if (!server.place(row.unix_sockets))
    return std::string("the server is not known by ") + (row.unix_sockets ? "a unix" : "a TCP") +
           " address";
  return {};
}

std::string CompareRun::obstacle(const Peer& peer, const Row& row) {
  if (std::string problem = obstacle_of(peer, row); !problem.empty()) return problem;
  const BenchServer& server = server_of(row);
  if (server.is_real() && is_one_to_one(peer.kind) && row.clients > real_server_clients_max)
    return "a server process for each client; not run above " +
           std::to_string(real_server_clients_max) + " against a real server";
  if (peer.unix_sockets && !server.place(true)) return "the unix socket of the server is not known";
  return {};
}

PeerPlace CompareRun::place_for(const Peer& peer, const Row& row) {
  PeerPlace place;
  place.directory = directory_ + "/peer-" + std::to_string(++started_count_);
  place.port = free_port();
  place.server = *server_of(row).place(row.unix_sockets || peer.unix_sockets);
  place.login = measure_options(row).login;
  place.scram = row.scram;
  place.scram_verifier = scram_verifier_;
  place.pool_size = options_.pool_size;
  place.clients = row.clients;
  return place;
}

std::vector<CompareRun::Entrant> CompareRun::start_entrants(const Row& row, RowResult& result) {
  std::vector<Entrant> entrants;
  for (const Peer* peer : peers_of(row)) {
    result.peers.push_back({peer->name, obstacle(*peer, row), {}});
    if (!result.peers.back().skipped.empty() || is_interrupted()) continue;
    Entrant entrant{peer, {}, result.peers.size() - 1};
    // Memory is measured of a pooler that was just started: see measure().
    if (row.kind == RowKind::load) {
      Result<RunningPeer> running = start_peer(*peer, place_for(*peer, row), placement_);
      if (!running.ok()) {
        result.peers.back().skipped = running.error();
        std::printf("  %s\n", running.error().c_str());
        continue;
      }
      entrant.running = std::move(running).value();
    }
    entrants.push_back(std::move(entrant));
  }
  return entrants;
}

void CompareRun::run_round(const Row& row, uint32_t round, std::vector<Entrant>& entrants,
                           RowResult& result) {
  uint32_t position = 0;
  for (const size_t index : order_of_round(round, entrants.size())) {
    Entrant& entrant = entrants[index];
    Measurement measurement = measure(row, entrant, entrants);
    if (is_interrupted()) return;
    measurement.round = round + 1;
    measurement.position = ++position;
    result.peers[entrant.result].rounds.push_back(std::move(measurement));
  }
}

Measurement CompareRun::measure(const Row& row, Entrant& entrant,
                                const std::vector<Entrant>& entrants) {
  if (row.kind == RowKind::memory) {
    Result<RunningPeer> running =
        start_peer(*entrant.peer, place_for(*entrant.peer, row), placement_);
    if (running.ok()) return measure_memory(row, running.value(), measure_options(row));
    Measurement failed;
    failed.error = running.error();
    return failed;
  }
  std::vector<pid_t> others;
  for (const Entrant& other : entrants) {
    if (&other != &entrant && other.running.has_pooler())
      others.push_back(other.running.process.pid());
  }
  return measure_load(row, entrant.running, others, measure_options(row));
}

void CompareRun::settle() const {
  MonotonicClock clock;
  const Nanoseconds deadline = clock.now() + options_.settle_time;
  while (clock.now() < deadline && !is_interrupted()) {
    if (is_quiet(look_at_idle_machine())) return;
  }
}

void CompareRun::show_round(const RowResult& result, uint32_t round) const {
  const double spent = as_seconds(MonotonicClock().now() - began_);
  const double total_rounds =
      static_cast<double>(options_.rows.size()) * static_cast<double>(options_.rounds);
  // From the estimate at first, from what was seen later.
  const double share = static_cast<double>(rounds_done_) / total_rounds;
  const double left =
      std::max(0.0, (1 - share) * (estimate_ + (spent / share - estimate_) * share));
  std::string line;
  for (const PeerResult& peer : result.peers) {
    if (peer.rounds.empty()) continue;
    const Measurement& last = peer.rounds.back();
    const bool is_memory = result.row.kind == RowKind::memory;
    const std::optional<double> figure = is_memory ? pss_per_client(last) : cpu_us(last);
    const std::string text = !last.error.empty() ? "failed"
                             : !figure           ? "-"
                             : is_memory         ? size_text(*figure) + " per client"
                                                 : rounded(*figure) + " us";
    line += (line.empty() ? "" : ", ") + peer.peer + " " + text +
            (flaws_of(last, result.row).empty() ? "" : "*");
  }
  std::printf("  round %u of %u, %s left: %s\n", round, options_.rounds, minutes_text(left).c_str(),
              line.c_str());
  std::fflush(stdout);
}

MeasureOptions CompareRun::measure_options(const Row& row) const {
  MeasureOptions options;
  options.login = options_.login;
  if (row.scram) options.login.password = scram_password;
  options.placement = placement_;
  options.warm_up = options_.warm_up;
  options.duration = options_.duration;
  options.memory_wait = options_.memory_wait;
  options.scale = options_.scale;
  options.has_own_server = comparison_.has_own_server;
  return options;
}

ServerSettings CompareRun::server_settings() const {
  return {directory_, account_, placement_, options_.scale};
}

}  // namespace helios::bench
