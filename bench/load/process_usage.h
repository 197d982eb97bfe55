// CPU time, context switches and memory of processes, as the kernel counts them.
//
// Two samples and their difference. CPU time comes from the processes' CPU clocks, in nanoseconds;
// how it divides into user and system time comes from /proc/PID/stat, whose ticks are scaled to it.
// A child that began between the samples counts from its birth; one that ended counts with what its
// parent has waited for (in ticks of 10 ms), so servers that fork for each client are seen as well.
// Context switches of threads that ended in between are lost. Plain functions and values; they read
// /proc and may take milliseconds: not for a core's thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "load/load.h"

namespace helios::bench {

struct ProcessSample {
  struct Process {
    uint64_t cpu = 0;  // Nanoseconds.
    // Ticks; of the children that ended and were waited for in the last two.
    uint64_t user_ticks = 0;
    uint64_t system_ticks = 0;
    uint64_t children_user_ticks = 0;
    uint64_t children_system_ticks = 0;
    uint64_t start_ticks = 0;  // Since boot: a number that is used again is another process.
    bool has_ended = false;    // Nobody has waited for it yet.
  };
  struct Switches {
    uint64_t voluntary = 0;
    uint64_t involuntary = 0;
  };
  std::unordered_map<pid_t, Process> processes;
  std::unordered_map<pid_t, Switches> threads;  // Of all the processes.
  uint64_t rss = 0;                             // Bytes; 0 unless asked for.
  uint64_t pss = 0;
  bool has_pss = true;  // Of each process it could be read: another user's are not ours to read.
  bool is_complete = true;  // Every process that was asked for is there, and lives.
};

enum class WithChildren : uint8_t { no, yes };
enum class WithMemory : uint8_t { no, yes };

// Children are those of any depth. To find them, and to read what is not a clock, takes its time:
// `at_clocks` is called at the moment that the sample is of, right behind the clocks.
[[nodiscard]] ProcessSample sample_processes(
    std::span<const pid_t> roots, WithChildren children, WithMemory memory,
    const std::function<void()>& at_clocks = [] {});

// What was used between two samples of the same processes. Memory is that of `after`.
[[nodiscard]] ProcessUsage usage_between(const ProcessSample& before, const ProcessSample& after);

// Why the process cannot be watched: empty when it can.
[[nodiscard]] std::string watch_problem(pid_t pid);

}  // namespace helios::bench
