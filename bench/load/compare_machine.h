// What the machine is, and what else it did while something was measured.
//
// Reads /proc; plain values. The clock of /proc/stat ticks every 10 ms, so windows below a few
// tenths of a second say little.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "helios/base/clock.h"

namespace helios::bench {

// Of all CPUs since boot, in ticks.
struct CpuTicks {
  uint64_t idle = 0;  // And waiting for disks.
  uint64_t steal = 0;
  uint32_t cpus = 0;
};
[[nodiscard]] CpuTicks parse_cpu_ticks(std::string_view proc_stat);

struct CpuMoment {
  CpuTicks ticks;
  Nanoseconds at = 0;
};
[[nodiscard]] CpuMoment read_cpu_moment();

// What was used between two moments besides `own` (nanoseconds of CPU time of our own processes).
struct ForeignLoad {
  double cpus = 0;  // CPU time of others and of the kernel's own threads, per time.
  // CPU time that the hypervisor gave to other machines, per time. Of all CPUs together, but not
  // divided by their number: where we use one CPU only, all of it may have been taken from that
  // one.
  double steal = 0;
};
[[nodiscard]] ForeignLoad foreign_load(const CpuMoment& before, const CpuMoment& after,
                                       uint64_t own);

// A short look at a machine on which our processes do nothing.
struct IdleLook {
  ForeignLoad foreign;
  double runnable = 0;  // Threads of others that wanted to run, on average.
};
// Takes 250 ms.
[[nodiscard]] IdleLook look_at_idle_machine();
// Whether a measurement may begin: less than 10 % of a CPU used, less than half a thread runnable.
[[nodiscard]] bool is_quiet(const IdleLook& look) noexcept;

// Of /proc/loadavg: the average of the last minute, and the threads that want to run now.
[[nodiscard]] double load_average();
[[nodiscard]] uint32_t runnable_threads(std::string_view proc_loadavg) noexcept;

// Name and value, for the report.
using Facts = std::vector<std::pair<std::string, std::string>>;
[[nodiscard]] Facts machine_facts();
// The first value of a key ("model name") in the text of /proc/cpuinfo; empty when there is none.
[[nodiscard]] std::string cpu_info(std::string_view text, std::string_view key);
// The commit of the git checkout that `directory` is in, with " (changed)"; empty outside of one.
[[nodiscard]] std::string git_commit(const std::string& directory);

}  // namespace helios::bench
