// One measurement: a pooler that runs, a load in a process of its own, and what the machine did
// besides.
//
// Main thread only.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "helios/base/result.h"
#include "load/compare_peer.h"
#include "load/compare_placement.h"
#include "load/compare_process.h"
#include "load/compare_results.h"
#include "load/compare_server.h"

namespace helios::bench {

// A pooler that listens, or no pooler and the server itself.
struct RunningPeer {
  std::string name;
  std::string target;  // Where clients connect.
  ChildProcess process;
  std::string log_path;
  [[nodiscard]] bool has_pooler() const noexcept { return process.pid() != 0; }
};

// Writes its files into place.directory, starts it and waits until it accepts.
[[nodiscard]] Result<RunningPeer> start_peer(const Peer& peer, const PeerPlace& place,
                                             const Placement& placement);

struct MeasureOptions {
  Login login;
  Placement placement;
  Nanoseconds warm_up = 0;
  Nanoseconds duration = 0;
  Nanoseconds memory_wait = memory_wait_usual;  // So long clients are idle before memory is read.
  uint32_t scale = 10;                          // Of pgbench's tables.
  bool has_own_server = true;
};

// Runs the row's load against `peer`. `others`: the poolers that must be idle meanwhile.
[[nodiscard]] Measurement measure_load(const Row& row, RunningPeer& peer,
                                       const std::vector<pid_t>& others,
                                       const MeasureOptions& options);
// What each of the row's idle clients costs. Requires: the pooler was just started.
[[nodiscard]] Measurement measure_memory(const Row& row, RunningPeer& peer,
                                         const MeasureOptions& options);

}  // namespace helios::bench
