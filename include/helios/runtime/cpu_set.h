// Which CPUs the process may use, and pinning a thread to one of them.
//
// Read at start by the main thread. The bound of a cgroup (version 2, `cpu.max`) limits how much
// time we get, not on which CPUs: more cores than that would only be throttled, each at the worst
// moment, so it limits their number.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace helios {

// The CPUs of the process's affinity mask, in ascending order, and of these the first so many as
// the cgroup's time is worth, rounded up. Never empty.
[[nodiscard]] std::vector<int> usable_cpus();

// The number of CPUs that the text of a cgroup's `cpu.max` is worth, rounded up and at least 1; 0
// when it sets no limit or cannot be understood. "150000 100000" is 2, "max 100000" is 0.
[[nodiscard]] uint32_t cpus_of_cpu_max(std::string_view text) noexcept;

// The path of the process's cgroup (version 2) in the text of /proc/self/cgroup: "/a/b" of the line
// "0::/a/b". Empty when there is none.
[[nodiscard]] std::string_view path_of_cgroup(std::string_view text) noexcept;

// Lets the calling thread run on this CPU only. False when the kernel refuses: the mask may have
// changed.
[[nodiscard]] bool pin_current_thread(int cpu) noexcept;

}  // namespace helios
