#include "load/compare_measure.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "helios/base/assert.h"
#include "load/process_usage.h"

namespace helios::bench {
namespace {

constexpr Nanoseconds listen_patience = seconds(10);
constexpr Nanoseconds connect_timeout = seconds(20);
constexpr Nanoseconds answer_timeout = seconds(10);

bool accepts(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  const bool is_open = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  close(fd);
  return is_open;
}

Result<bool> wait_until_accepting(RunningPeer& peer, uint16_t port) {
  MonotonicClock clock;
  const Nanoseconds deadline = clock.now() + listen_patience;
  while (!accepts(port)) {
    const bool is_running = peer.process.is_running();
    if (!is_running || clock.now() > deadline)
      return Error{peer.name + (is_running ? " does not listen" : " ended at once") + ": " +
                   tail_of(peer.log_path)};
    if (!pause_for(milliseconds(20))) return Error{"interrupted"};
  }
  // A pooler that finds a mistake only after listening, or another program on that port.
  if (!pause_for(milliseconds(100))) return Error{"interrupted"};
  if (!peer.process.is_running()) return Error{peer.name + " ended: " + tail_of(peer.log_path)};
  return true;
}

// How the child answers: a byte, then the summary or the text of an error.
constexpr char answer_summary = 's';
constexpr char answer_error = 'e';

int load_child(const LoadOptions& options, int pipe_fd) {
  const Result<LoadSummary> summary = run_load(options);
  std::string answer(1, summary.ok() ? answer_summary : answer_error);
  if (summary.ok())
    answer.append(reinterpret_cast<const char*>(&summary.value()), sizeof(LoadSummary));
  else
    answer += summary.error();
  return write(pipe_fd, answer.data(), answer.size()) == static_cast<ssize_t>(answer.size()) ? 0
                                                                                             : 1;
}

// Until the pipe is closed. Waits in the kernel: our own wake-ups would be measured too.
Result<std::string> read_answer(int fd, Nanoseconds patience) {
  MonotonicClock clock;
  const Nanoseconds deadline = clock.now() + patience;
  std::string answer;
  std::array<char, 8192> chunk{};
  for (;;) {
    if (is_interrupted()) return Error{"interrupted"};
    if (clock.now() > deadline) return Error{"the load did not end in time"};
    pollfd poller = {fd, POLLIN, 0};
    if (poll(&poller, 1, 500) <= 0) continue;
    const ssize_t size = read(fd, chunk.data(), chunk.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return answer;
    answer.append(chunk.data(), static_cast<size_t>(size));
  }
}

Result<LoadSummary> run_load_apart(const LoadOptions& options) {
  std::array<int, 2> pipe_fds{};
  if (pipe2(pipe_fds.data(), O_CLOEXEC) != 0)
    return Error{std::string("no pipe: ") + std::strerror(errno)};
  Result<ChildProcess> child = ChildProcess::fork_off([&] {
    close(pipe_fds[0]);
    return load_child(options, pipe_fds[1]);
  });
  close(pipe_fds[1]);
  const Nanoseconds patience =
      options.connect_timeout + options.warm_up + options.duration + 2 * options.answer_timeout;
  const Result<std::string> answer =
      child.ok() ? read_answer(pipe_fds[0], patience) : Error{child.error()};
  close(pipe_fds[0]);
  if (!answer.ok()) return Error{answer.error()};
  // Reaped here, so that its CPU time counts as ours.
  if (child.value().wait_until_ended(seconds(5)) && answer.value().empty())
    return Error{"the load ended with status " + std::to_string(child.value().exit_status())};
  const std::string& text = answer.value();
  if (text.size() != 1 + sizeof(LoadSummary) || text.front() != answer_summary)
    return Error{text.substr(text.empty() ? 0 : 1)};
  LoadSummary summary;
  std::memcpy(&summary, text.data() + 1, sizeof(summary));
  return summary;
}

LoadOptions load_options(const Row& row, const RunningPeer& peer, const MeasureOptions& options) {
  LoadOptions load;
  load.targets = {peer.target};
  load.user = options.login.user;
  load.password = options.login.password;
  load.database = options.login.database;
  load.clients = row.clients;
  load.warm_up = options.warm_up;
  load.duration = options.duration;
  load.mode = row.mode;
  load.scripts = {{row.script, 1}};
  load.scale = options.scale;
  load.connect_timeout = connect_timeout;
  load.answer_timeout = answer_timeout;
  load.cores = std::min(options.placement.load_cores, row.clients);
  load.cpus = options.placement.load_cpus;
  load.batch_policy = options.placement.batch_policy;
  if (peer.has_pooler()) load.watched = {peer.process.pid()};
  load.shows_progress = false;
  // One query each, and then silence.
  if (row.kind == RowKind::memory) load.think_time = seconds(3600);
  return load;
}

std::string first_failure(const LoadSummary& summary) {
  if (summary.errors_count == 0) return {};
  const ErrorCount& error = summary.errors.front();
  return std::string(": ") + error.sqlstate.data() + " " + error.example.data();
}

uint64_t cpu_between(const ProcessSample& before, const ProcessSample& after) {
  return usage_between(before, after).cpu;
}

}  // namespace

Result<RunningPeer> start_peer(const Peer& peer, const PeerPlace& place,
                               const Placement& placement) {
  RunningPeer running;
  running.name = peer.name;
  if (peer.kind == PeerKind::direct) {
    running.target = target_of(place.server);
    return running;
  }
  const Result<std::optional<Account>> account = account_for(peer.custom.user);
  if (!account.ok()) return Error{account.error()};
  if (Result<bool> made = make_directory(place.directory, account.value()); !made.ok())
    return Error{made.error()};
  const PeerSetup setup = make_setup(peer, place);
  for (const PeerFile& file : setup.files) {
    const std::string path = place.directory + "/" + file.name;
    if (Result<bool> done = write_private_file(path, file.text, account.value()); !done.ok())
      return Error{done.error()};
  }
  ProcessOptions options;
  options.command = setup.command;
  options.directory = place.directory;
  options.log_path = place.directory + "/log";
  options.account = account.value();
  options.cpus = placement.pooler_cpus;
  options.batch_policy = placement.batch_policy;
  running.log_path = options.log_path;
  running.target = target_of({peer.unix_clients ? place.directory : "127.0.0.1", place.port});
  Result<ChildProcess> process = ChildProcess::start(options);
  if (!process.ok()) return Error{process.error()};
  running.process = std::move(process).value();
  if (Result<bool> ready = wait_until_accepting(running, place.port); !ready.ok())
    return Error{ready.error()};
  return running;
}

Measurement measure_load(const Row& row, RunningPeer& peer, const std::vector<pid_t>& others,
                         const MeasureOptions& options) {
  Measurement measurement;
  measurement.has_pooler = peer.has_pooler();
  measurement.has_own_server = options.has_own_server;
  if (measurement.has_pooler && !peer.process.is_running()) {
    measurement.has_pooler = false;
    measurement.error = "the pooler has ended: " + tail_of(peer.log_path);
    return measurement;
  }
  measurement.idle = look_at_idle_machine();
  measurement.load_average = load_average();
  const std::array<pid_t, 1> own = {getpid()};
  const ProcessSample others_before = sample_processes(others, WithChildren::yes, WithMemory::no);
  const ProcessSample own_before = sample_processes(own, WithChildren::yes, WithMemory::no);
  const CpuMoment before = read_cpu_moment();
  const Result<LoadSummary> summary = run_load_apart(load_options(row, peer, options));
  const CpuMoment after = read_cpu_moment();
  const ProcessSample own_after = sample_processes(own, WithChildren::yes, WithMemory::no);
  const ProcessSample others_after = sample_processes(others, WithChildren::yes, WithMemory::no);
  measurement.foreign = foreign_load(before, after, cpu_between(own_before, own_after));
  measurement.idle_peers_cpus = static_cast<double>(cpu_between(others_before, others_after)) /
                                static_cast<double>(after.at - before.at);
  if (summary.ok())
    measurement.load = summary.value();
  else
    measurement.error = summary.error();
  if (summary.ok() && summary.value().transactions == 0 && row.kind == RowKind::load)
    measurement.error = "no transaction was finished" + first_failure(summary.value());
  return measurement;
}

Measurement measure_memory(const Row& row, RunningPeer& peer, const MeasureOptions& options) {
  MeasureOptions settled = options;
  settled.warm_up = options.memory_wait;
  settled.duration = milliseconds(200);
  // Server connections, buffers and the first pages of everything come with these few.
  Row few = row;
  few.clients = memory_base_clients;
  ASSERT(row.clients > few.clients);
  const Measurement base = measure_load(few, peer, {}, settled);
  if (!base.error.empty()) return base;
  Measurement measurement = measure_load(row, peer, {}, settled);
  if (!measurement.error.empty()) return measurement;
  measurement.base_flaws = flaws_of(base, few);
  const auto per_client = [&](uint64_t before, uint64_t after) {
    return (static_cast<double>(after) - static_cast<double>(before)) / (row.clients - few.clients);
  };
  measurement.rss_per_client = per_client(base.load.watched.rss, measurement.load.watched.rss);
  measurement.pss_per_client = per_client(base.load.watched.pss, measurement.load.watched.pss);
  return measurement;
}

}  // namespace helios::bench
