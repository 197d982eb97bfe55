#include "load/process_usage.h"

#include <dirent.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "load/text_file.h"

namespace helios::bench {
namespace {

// Empty when the process has gone, or is not ours to read.
std::string read_text(const std::string& path) {
  Result<std::string> text = read_text_file(path);
  return text.ok() ? std::move(text.value()) : std::string();
}

std::string proc_path(pid_t pid, std::string_view name) {
  return "/proc/" + std::to_string(pid) + "/" + std::string(name);
}

// The entries of a directory that are numbers.
std::vector<pid_t> numbers_in(const std::string& path) {
  std::vector<pid_t> numbers;
  DIR* directory = opendir(path.c_str());
  if (directory == nullptr) return numbers;
  while (const dirent* entry = readdir(directory)) {
    const std::string_view name = entry->d_name;
    pid_t number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error == std::errc() && end == name.data() + name.size()) numbers.push_back(number);
  }
  closedir(directory);
  return numbers;
}

struct Stat {
  pid_t parent = 0;
  ProcessSample::Process process;  // Without `cpu`.
};

// /proc/PID/stat. The second field is the name in parentheses, and may hold anything.
std::optional<Stat> read_stat(pid_t pid) {
  const std::string text = read_text(proc_path(pid, "stat"));
  const size_t name_end = text.rfind(") ");
  if (name_end == std::string::npos || name_end + 2 == text.size()) return std::nullopt;
  const bool has_ended = text[name_end + 2] == 'Z' || text[name_end + 2] == 'X';
  constexpr size_t fields_max = 20;  // From the state on: field 3 of proc(5) is 0 here.
  std::array<uint64_t, fields_max> fields{};
  const char* at = text.data() + name_end + 2;
  const char* end = text.data() + text.size();
  for (size_t i = 0; i < fields_max && at < end; ++i) {
    const char* field_end = std::find(at, end, ' ');
    std::from_chars(at, field_end, fields[i]);  // What is no number stays 0.
    at = field_end == end ? end : field_end + 1;
  }
  Stat stat;
  stat.parent = static_cast<pid_t>(fields[1]);
  stat.process = {0, fields[11], fields[12], fields[13], fields[14], fields[19], has_ended};
  return stat;
}

std::optional<uint64_t> cpu_time_of(pid_t pid) {
  clockid_t clock{};
  timespec time{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0)
    return std::nullopt;
  return static_cast<uint64_t>(seconds(time.tv_sec) + time.tv_nsec);
}

// The processes and, if wanted, all that descend from them.
std::vector<pid_t> family_of(std::span<const pid_t> roots, WithChildren children) {
  std::vector<pid_t> family(roots.begin(), roots.end());
  if (children == WithChildren::no) return family;
  std::unordered_multimap<pid_t, pid_t> children_of;
  for (const pid_t pid : numbers_in("/proc")) {
    const std::optional<Stat> stat = read_stat(pid);
    if (stat) children_of.emplace(stat->parent, pid);
  }
  // The list grows while it is walked: children of children.
  for (size_t i = 0; i < family.size(); ++i) {
    const auto [first, last] = children_of.equal_range(family[i]);
    for (auto child = first; child != last; ++child) {
      if (std::find(family.begin(), family.end(), child->second) == family.end())
        family.push_back(child->second);
    }
  }
  return family;
}

// The number behind `name` at the beginning of a line; 0 when there is none.
uint64_t number_of(std::string_view text, std::string_view name) {
  size_t at = text.find(name);
  while (at != std::string_view::npos && at > 0 && text[at - 1] != '\n')
    at = text.find(name, at + 1);
  if (at == std::string_view::npos) return 0;
  at = text.find_first_of("0123456789", at + name.size());
  if (at == std::string_view::npos) return 0;
  uint64_t number = 0;
  std::from_chars(text.data() + at, text.data() + text.size(), number);
  return number;
}

void add_threads(pid_t pid, ProcessSample& sample) {
  const std::string tasks = proc_path(pid, "task");
  for (const pid_t thread : numbers_in(tasks)) {
    const std::string status = read_text(tasks + "/" + std::to_string(thread) + "/status");
    sample.threads[thread] = {number_of(status, "voluntary_ctxt_switches:"),
                              number_of(status, "nonvoluntary_ctxt_switches:")};
  }
}

void add_memory(pid_t pid, ProcessSample& sample) {
  const std::string rollup = read_text(proc_path(pid, "smaps_rollup"));
  if (!rollup.empty()) {
    sample.rss += number_of(rollup, "Rss:") * 1024;
    sample.pss += number_of(rollup, "Pss:") * 1024;
    return;
  }
  // Of another user's process only the resident pages can be read. One that has ended has none.
  const uint64_t rss = number_of(read_text(proc_path(pid, "status")), "VmRSS:") * 1024;
  sample.rss += rss;
  if (rss > 0) sample.has_pss = false;
}

uint64_t difference(uint64_t after, uint64_t before) {
  return after > before ? after - before : 0;
}

}  // namespace

ProcessSample sample_processes(std::span<const pid_t> roots, WithChildren children,
                               WithMemory memory, const std::function<void()>& at_clocks) {
  ProcessSample sample;
  const std::vector<pid_t> family = family_of(roots, children);
  for (const pid_t pid : family) {
    const std::optional<uint64_t> cpu = cpu_time_of(pid);
    if (cpu) sample.processes[pid].cpu = *cpu;
  }
  at_clocks();
  for (const pid_t pid : family) {
    const auto known = sample.processes.find(pid);
    if (known == sample.processes.end()) continue;
    const std::optional<Stat> stat = read_stat(pid);
    if (!stat) {
      sample.processes.erase(known);
      continue;
    }
    const uint64_t cpu = known->second.cpu;
    known->second = stat->process;
    known->second.cpu = cpu;
    add_threads(pid, sample);
    if (memory == WithMemory::yes) add_memory(pid, sample);
  }
  for (const pid_t pid : roots) {
    const auto known = sample.processes.find(pid);
    if (known == sample.processes.end() || known->second.has_ended) sample.is_complete = false;
  }
  return sample;
}

ProcessUsage usage_between(const ProcessSample& before, const ProcessSample& after) {
  ProcessUsage usage;
  const auto tick = static_cast<uint64_t>(seconds(1) / sysconf(_SC_CLK_TCK));
  uint64_t user_ticks = 0;
  uint64_t system_ticks = 0;
  uint64_t cpu_reaped = 0;  // Of processes that ended and were waited for, in their whole lives.
  uint64_t cpu_before = 0;  // What these had used when `before` was taken.
  for (const auto& [pid, now] : after.processes) {
    const auto known = before.processes.find(pid);
    const bool is_same =
        known != before.processes.end() && known->second.start_ticks == now.start_ticks;
    const ProcessSample::Process then = is_same ? known->second : ProcessSample::Process();
    const uint64_t reaped_user = difference(now.children_user_ticks, then.children_user_ticks);
    const uint64_t reaped_system =
        difference(now.children_system_ticks, then.children_system_ticks);
    usage.cpu += difference(now.cpu, then.cpu);
    cpu_reaped += (reaped_user + reaped_system) * tick;
    user_ticks += difference(now.user_ticks, then.user_ticks) + reaped_user;
    system_ticks += difference(now.system_ticks, then.system_ticks) + reaped_system;
  }
  for (const auto& [pid, then] : before.processes) {
    const auto known = after.processes.find(pid);
    if (known == after.processes.end() || known->second.start_ticks != then.start_ticks)
      cpu_before += then.cpu;
  }
  usage.cpu += difference(cpu_reaped, cpu_before);

  const double ticks = static_cast<double>(user_ticks + system_ticks);
  const double system_share = ticks > 0 ? static_cast<double>(system_ticks) / ticks : 0;
  usage.cpu_system = static_cast<uint64_t>(static_cast<double>(usage.cpu) * system_share);
  usage.cpu_user = usage.cpu - usage.cpu_system;

  for (const auto& [thread, now] : after.threads) {
    const auto known = before.threads.find(thread);
    const ProcessSample::Switches then =
        known != before.threads.end() ? known->second : ProcessSample::Switches();
    usage.voluntary_switches += difference(now.voluntary, then.voluntary);
    usage.involuntary_switches += difference(now.involuntary, then.involuntary);
  }
  usage.rss = after.rss;
  usage.pss = after.pss;
  usage.has_pss = after.has_pss;
  usage.is_complete = before.is_complete && after.is_complete;
  return usage;
}

std::string watch_problem(pid_t pid) {
  if (kill(pid, 0) == 0 || errno == EPERM) return {};
  return "process " + std::to_string(pid) + " cannot be watched: " + std::strerror(errno);
}

}  // namespace helios::bench
