#include "helios/runtime/cpu_set.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string>

namespace helios {
namespace {

constexpr const char* cgroup_root = "/sys/fs/cgroup";
constexpr int cpus_max = 8192;  // What any Linux kernel can be built for.

std::vector<int> cpus_of_affinity() {
  std::vector<int> cpus;
  cpu_set_t* set = CPU_ALLOC(cpus_max);
  if (set == nullptr) return cpus;
  const size_t set_size = CPU_ALLOC_SIZE(cpus_max);
  CPU_ZERO_S(set_size, set);
  if (sched_getaffinity(0, set_size, set) == 0) {
    for (int cpu = 0; cpu < cpus_max; ++cpu)
      if (CPU_ISSET_S(static_cast<size_t>(cpu), set_size, set)) cpus.push_back(cpu);
  }
  CPU_FREE(set);
  return cpus;
}

// The first 4 KiB, which is more than the files read here have. Empty when it cannot be read.
std::string read_small_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  char buffer[4096];
  const ssize_t size = read(fd, buffer, sizeof(buffer));
  close(fd);
  return size > 0 ? std::string(buffer, static_cast<size_t>(size)) : std::string();
}

// The smallest bound of the process's cgroup and those above it; 0 when none has one.
uint32_t cpus_of_cgroups() {
  const std::string text = read_small_file("/proc/self/cgroup");
  std::string path(path_of_cgroup(text));
  uint32_t bound = 0;
  while (!path.empty()) {
    const uint32_t cpus = cpus_of_cpu_max(read_small_file(cgroup_root + path + "/cpu.max"));
    if (cpus != 0 && (bound == 0 || cpus < bound)) bound = cpus;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
  // In a container the root of the mount is the container's own group.
  const uint32_t of_root = cpus_of_cpu_max(read_small_file(std::string(cgroup_root) + "/cpu.max"));
  return of_root != 0 && (bound == 0 || of_root < bound) ? of_root : bound;
}

// Reads a number at the front of `text` and removes it. False when there is none.
bool take_number(std::string_view& text, uint64_t& number) noexcept {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return true;
}

}  // namespace

std::vector<int> usable_cpus() {
  std::vector<int> cpus = cpus_of_affinity();
  if (cpus.empty()) cpus.push_back(0);
  const uint32_t bound = cpus_of_cgroups();
  if (bound != 0 && bound < cpus.size()) cpus.resize(bound);
  return cpus;
}

uint32_t cpus_of_cpu_max(std::string_view text) noexcept {
  uint64_t quota = 0;
  uint64_t period = 0;
  if (!take_number(text, quota)) return 0;
  if (text.empty() || text.front() != ' ') return 0;
  text.remove_prefix(1);
  if (!take_number(text, period) || period == 0) return 0;
  const uint64_t cpus = quota / period + (quota % period != 0 ? 1 : 0);
  return static_cast<uint32_t>(std::clamp<uint64_t>(cpus, 1, cpus_max));
}

std::string_view path_of_cgroup(std::string_view text) noexcept {
  constexpr std::string_view mark = "0::";
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    if (line.substr(0, mark.size()) == mark) return line.substr(mark.size());
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  }
  return {};
}

bool pin_current_thread(int cpu) noexcept {
  if (cpu < 0 || cpu >= cpus_max) return false;
  cpu_set_t* set = CPU_ALLOC(cpus_max);
  if (set == nullptr) return false;
  const size_t set_size = CPU_ALLOC_SIZE(cpus_max);
  CPU_ZERO_S(set_size, set);
  CPU_SET_S(static_cast<size_t>(cpu), set_size, set);
  const bool is_pinned = sched_setaffinity(0, set_size, set) == 0;
  CPU_FREE(set);
  return is_pinned;
}

}  // namespace helios
