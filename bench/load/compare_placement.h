// Which CPUs the pooler, the load and the server run on, and under which scheduler policy.
//
// `one`: all on one CPU. What is measured is CPU time, and a wake-up across CPUs costs more than a
// query does, on a virtual machine above all: across CPUs one measures the hypervisor. With
// SCHED_BATCH a process that is woken does not preempt the one that woke it; without it, a pooler
// that sends once per message is switched out after every send, which is an artefact of sharing.
// `two`: the pooler alone on a CPU, load and server on another. `free`: as the kernel likes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "helios/base/result.h"

namespace helios::bench {

enum class Place : uint8_t { one, two, free };

struct Placement {
  Place place = Place::one;
  std::vector<int> pooler_cpus;  // Empty: any.
  std::vector<int> load_cpus;    // Of the load and the server.
  bool batch_policy = false;
  // Threads of the load, and of the canned server. More than one only where nothing is pinned.
  uint32_t load_cores = 1;
};

// Empty when `text` names a place; else what is wrong with it.
[[nodiscard]] std::string read_place(std::string_view text, Place& place);
// `cpus`: those that may be used. An error when there are too few.
[[nodiscard]] Result<Placement> make_placement(Place place, const std::vector<int>& cpus);
// Where nothing is pinned, load and canned server get as many threads as the pooler that has most:
// a single one would be what limits the pooler.
void give_load_cores(Placement& placement, uint32_t pooler_cores_max);
// A sentence for the report.
[[nodiscard]] std::string placement_text(const Placement& placement);

}  // namespace helios::bench
