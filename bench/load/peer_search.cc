#include "load/peer_search.h"

#include <filesystem>
#include <utility>

#include "load/compare_process.h"

namespace helios::bench {
namespace {

struct Search {
  std::string name;
  std::vector<std::string> version_arguments;
};

Search search_for(const Peer& peer) {
  switch (peer.kind) {
    case PeerKind::heliosproxy:
      return {"heliosproxy", {"--version"}};
    case PeerKind::pgbouncer:
      return {"pgbouncer", {"--version"}};
    case PeerKind::pgpool2:
      return {"pgpool", {"--version"}};
    case PeerKind::haproxy:
      return {"haproxy", {"-v"}};
    case PeerKind::custom:
      return {peer.custom.command.front(), {}};
    case PeerKind::direct:
      break;
  }
  return {};
}

// Beside us or, as in a build directory, above us, before anything installed.
std::string find_heliosproxy() {
  const std::string directory = own_directory();
  for (const std::string& candidate : {directory + "/heliosproxy", directory + "/../heliosproxy"}) {
    const std::string path = find_program(candidate);
    if (!path.empty()) return std::filesystem::path(path).lexically_normal();
  }
  return find_program("heliosproxy");
}

std::string version_of(std::vector<std::string> command) {
  command.front() = find_program(command.front());
  if (command.front().empty()) return "unknown";
  ProcessOptions options;
  options.command = std::move(command);
  const Result<std::string> output = run_program(options, seconds(5));
  return output.ok() ? first_line(output.value()) : "unknown";
}

}  // namespace

std::string find_peer(Peer& peer, const std::string& program) {
  if (peer.kind == PeerKind::direct) return {};
  const Search search = search_for(peer);
  const bool is_ours = peer.kind == PeerKind::heliosproxy;
  if (!program.empty())
    peer.program = find_program(program);
  else
    peer.program = is_ours ? find_heliosproxy() : find_program(search.name);
  if (peer.program.empty())
    return program.empty() ? search.name + " is not installed" : program + " is no program";
  // Peers are started in directories of their own.
  peer.program = std::filesystem::absolute(peer.program);
  std::vector<std::string> command = peer.custom.version_command;
  if (peer.kind != PeerKind::custom) {
    command = {peer.program};
    command.insert(command.end(), search.version_arguments.begin(), search.version_arguments.end());
  }
  peer.version = command.empty() ? "version unknown" : version_of(command);
  return {};
}

std::string own_directory() {
  std::error_code ignored;
  return std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
}

std::string first_line(std::string_view text) {
  for (std::string& line : split_list(text, '\n')) {
    if (line.find_first_not_of(" \t\r") != std::string::npos) return std::move(line);
  }
  return "unknown";
}

}  // namespace helios::bench
