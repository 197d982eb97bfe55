#include "load/compare_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "load/backend.h"

namespace helios::bench {
namespace {

constexpr uint16_t unix_port = 5432;  // Part of a file's name only.
constexpr Nanoseconds start_patience = seconds(60);
constexpr Nanoseconds patience_per_scale = seconds(2);  // 100,000 rows each.
constexpr const char* cluster_settings =
    "max_connections = 700\nshared_buffers = '256MB'\nfsync = off\nsynchronous_commit = off\n"
    "full_page_writes = off\nautovacuum = off\nwal_level = minimal\nmax_wal_senders = 0\n"
    "max_wal_size = '2GB'\njit = off\nmax_parallel_workers_per_gather = 0\n"
    "log_min_messages = fatal\nlogging_collector = off\n";

void tell_addresses(const std::vector<std::string>& addresses, void* context) {
  std::string text;
  for (const std::string& address : addresses) text += address + "\n";
  const int fd = *static_cast<int*>(context);
  // A short write to a fresh pipe is whole.
  if (write(fd, text.data(), text.size()) < 0) _exit(1);
  close(fd);
}

int serve_canned(const ServerSettings& settings, const std::string& directory, int pipe_fd) {
  BackendOptions options;
  options.listen = {"127.0.0.1:0", "unix:" + directory + ":" + std::to_string(unix_port)};
  options.cores = settings.placement.load_cores;
  options.cpus = settings.placement.load_cpus;
  options.batch_policy = settings.placement.batch_policy;
  options.on_ready = tell_addresses;
  options.on_ready_context = &pipe_fd;
  const Result<bool> served = run_backend(options);
  if (served.ok()) return 0;
  const std::string text = "error: " + served.error() + "\n";
  return write(pipe_fd, text.data(), text.size()) < 0 ? 2 : 1;
}

// Everything until the other side closes.
std::string read_all(int fd, Nanoseconds patience) {
  MonotonicClock clock;
  const Nanoseconds deadline = clock.now() + patience;
  std::string text;
  std::array<char, 4096> chunk{};
  while (clock.now() < deadline && !is_interrupted()) {
    pollfd poller = {fd, POLLIN, 0};
    if (poll(&poller, 1, 100) <= 0) continue;
    const ssize_t size = read(fd, chunk.data(), chunk.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    text.append(chunk.data(), static_cast<size_t>(size));
  }
  return text;
}

bool read_port(std::string_view text, uint16_t& port) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port > 0;
}

Result<ServerPlace> parse_place(std::string_view address) {
  constexpr std::string_view prefix = "unix:";
  const std::string shown(address);
  const bool is_unix = address.starts_with(prefix);
  if (is_unix) address.remove_prefix(prefix.size());
  const size_t colon = address.rfind(':');
  ServerPlace place;
  if (colon == std::string_view::npos || colon == 0 ||
      !read_port(address.substr(colon + 1), place.port))
    return Error{"\"" + shown + "\" is no server: canned, postgres, auto, host:port or " +
                 "unix:/directory:port is needed"};
  place.host = address.substr(0, colon);
  if (place.host.starts_with('[') && place.host.ends_with(']'))
    place.host = place.host.substr(1, place.host.size() - 2);
  if (is_unix != place.is_unix())
    return Error{"\"" + shown + "\" is no server: the directory of a unix socket is written " +
                 "unix:/directory:port"};
  return place;
}

// A cluster that is being made.
class ClusterMaker {
 public:
  ClusterMaker(const ServerSettings& settings, std::string binaries)
      : settings_(settings),
        binaries_(std::move(binaries)),
        home_(settings.directory + "/postgresql"),
        port_(free_port()) {}

  Result<ChildProcess> make() {
    if (Result<bool> made = make_directory(home_, settings_.account); !made.ok())
      return Error{made.error()};
    if (Result<std::string> done =
            run("initdb", {"-D", home_ + "/data", "-U", "postgres", "-A", "trust", "-E", "UTF8",
                           "--locale=C", "--no-sync"});
        !done.ok())
      return Error{done.error()};
    std::ofstream(home_ + "/data/postgresql.conf", std::ios::app)
        << "\nlisten_addresses = '127.0.0.1'\nport = " << port_ << "\nunix_socket_directories = '"
        << home_ << "'\n"
        << cluster_settings;
    Result<ChildProcess> server = ChildProcess::start(options("postgres", {"-D", home_ + "/data"}));
    if (!server.ok()) return server;
    if (Result<bool> ready = wait_ready(server.value()); !ready.ok()) return Error{ready.error()};
    if (Result<std::string> done = fill_tables(); !done.ok()) return Error{done.error()};
    return server;
  }

  [[nodiscard]] uint16_t port() const noexcept { return port_; }
  [[nodiscard]] const std::string& home() const noexcept { return home_; }
  [[nodiscard]] std::string version() {
    Result<std::string> output = run("postgres", {"--version"});
    if (!output.ok()) return "PostgreSQL";
    return output.value().substr(0, output.value().find('\n'));
  }

 private:
  [[nodiscard]] ProcessOptions options(const std::string& program,
                                       std::vector<std::string> arguments) const {
    ProcessOptions options;
    options.command = {binaries_ + "/" + program};
    options.command.insert(options.command.end(), arguments.begin(), arguments.end());
    options.directory = home_;
    options.log_path = home_ + "/log";
    options.account = settings_.account;
    options.cpus = settings_.placement.load_cpus;
    options.batch_policy = settings_.placement.batch_policy;
    return options;
  }

  Result<std::string> run(const std::string& program, std::vector<std::string> arguments) {
    return run_program(options(program, std::move(arguments)), start_patience);
  }

  Result<std::string> fill_tables() {
    const Nanoseconds patience = start_patience + settings_.scale * patience_per_scale;
    return run_program(
        options("pgbench", {"-i", "-q", "-s", std::to_string(settings_.scale), "-h", home_, "-p",
                            std::to_string(port_), "-U", "postgres", "postgres"}),
        patience);
  }

  Result<bool> wait_ready(ChildProcess& server) {
    MonotonicClock clock;
    const Nanoseconds deadline = clock.now() + start_patience;
    while (!run("pg_isready", {"-q", "-h", home_, "-p", std::to_string(port_)}).ok()) {
      if (!server.is_running() || clock.now() > deadline)
        return Error{"PostgreSQL does not start:\n" + tail_of(home_ + "/log")};
      if (!pause_for(milliseconds(100))) return Error{"interrupted"};
    }
    return true;
  }

  const ServerSettings& settings_;
  std::string binaries_;
  std::string home_;
  uint16_t port_;
};

}  // namespace

Result<BenchServer> BenchServer::start_canned(const ServerSettings& settings) {
  const std::string directory = settings.directory + "/canned";
  // It runs as we do; only its socket is for everybody.
  if (Result<bool> made = make_directory(directory, std::nullopt); !made.ok())
    return Error{made.error()};
  std::array<int, 2> pipe_fds{};
  if (pipe2(pipe_fds.data(), O_CLOEXEC) != 0)
    return Error{std::string("no pipe: ") + std::strerror(errno)};
  Result<ChildProcess> process = ChildProcess::fork_off([&] {
    close(pipe_fds[0]);
    return serve_canned(settings, directory, pipe_fds[1]);
  });
  close(pipe_fds[1]);
  const std::string answer = read_all(pipe_fds[0], seconds(10));
  close(pipe_fds[0]);
  if (!process.ok()) return Error{process.error()};
  const std::string problem = "the canned server does not start: ";
  const std::vector<std::string> lines = split_list(answer, '\n');
  if (lines.size() != 2) return Error{problem + answer};
  const Result<ServerPlace> tcp = parse_place(lines.front());
  if (!tcp.ok()) return Error{problem + tcp.error()};
  BenchServer server;
  server.tcp_ = tcp.value();
  server.unix_ = ServerPlace{directory, unix_port};
  server.description_ = "canned (helios-bench backend)";
  server.is_real_ = false;
  server.process_ = std::move(process).value();
  return server;
}

Result<BenchServer> BenchServer::start_postgres(const ServerSettings& settings) {
  const std::string binaries = postgres_binaries();
  if (binaries.empty())
    return Error{"PostgreSQL is not installed (initdb, postgres and pgbench are needed)"};
  ClusterMaker maker(settings, binaries);
  Result<ChildProcess> process = maker.make();
  if (!process.ok()) return Error{process.error()};
  BenchServer server;
  server.tcp_ = ServerPlace{"127.0.0.1", maker.port()};
  server.unix_ = ServerPlace{maker.home(), maker.port()};
  server.description_ = maker.version() + ", a private cluster, pgbench tables of scale " +
                        std::to_string(settings.scale);
  server.process_ = std::move(process).value();
  return server;
}

Result<BenchServer> BenchServer::existing(const std::string& address) {
  const Result<ServerPlace> place = parse_place(address);
  if (!place.ok()) return Error{place.error()};
  BenchServer server;
  (place.value().is_unix() ? server.unix_ : server.tcp_) = place.value();
  server.description_ = address;
  return server;
}

std::optional<ServerPlace> BenchServer::place(bool unix_sockets) const {
  return unix_sockets ? unix_ : tcp_;
}

std::string target_of(const ServerPlace& place) {
  const std::string port = ":" + std::to_string(place.port);
  if (place.is_unix()) return "unix:" + place.host + port;
  if (place.host.find(':') != std::string::npos) return "[" + place.host + "]" + port;
  return place.host + port;
}

std::string postgres_binaries() {
  std::vector<std::string> candidates;
  if (const std::string config = find_program("pg_config"); !config.empty()) {
    ProcessOptions options;
    options.command = {config, "--bindir"};
    const Result<std::string> output = run_program(options, seconds(5));
    if (output.ok()) candidates.push_back(output.value().substr(0, output.value().find('\n')));
  }
  std::vector<std::pair<int, std::string>> versions;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/usr/lib/postgresql", ignored))
    versions.emplace_back(std::atoi(entry.path().filename().c_str()), entry.path() / "bin");
  std::sort(versions.rbegin(), versions.rend());
  for (const auto& [version, path] : versions) candidates.push_back(path);
  for (const std::string& path : candidates) {
    const std::array<const char*, 4> programs = {"/initdb", "/postgres", "/pgbench", "/pg_isready"};
    if (std::all_of(programs.begin(), programs.end(), [&](const char* program) {
          return access((path + program).c_str(), X_OK) == 0;
        }))
      return path;
  }
  return {};
}

uint16_t free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  const bool is_bound = bind(fd, generic, size) == 0 && getsockname(fd, generic, &size) == 0;
  close(fd);
  return is_bound ? ntohs(address.sin_port) : 0;
}

Result<bool> make_directory(const std::string& path, const std::optional<Account>& account) {
  if (mkdir(path.c_str(), 0755) != 0 || chmod(path.c_str(), 0755) != 0 ||
      (account && chown(path.c_str(), account->user, account->group) != 0))
    return Error{path + " cannot be made: " + std::strerror(errno)};
  return true;
}

Result<bool> write_private_file(const std::string& path, const std::string& text,
                                const std::optional<Account>& account) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  const bool is_written = fd >= 0 && (!account || fchown(fd, account->user, account->group) == 0) &&
                          write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int failure = errno;
  if (fd >= 0) close(fd);
  if (!is_written) return Error{path + " cannot be written: " + std::strerror(failure)};
  return true;
}

}  // namespace helios::bench
