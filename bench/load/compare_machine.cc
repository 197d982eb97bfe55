#include "load/compare_machine.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>
#include <sstream>

#include "load/compare_process.h"
#include "load/report_text.h"

namespace helios::bench {
namespace {

constexpr double nanoseconds_per_second = 1e9;
constexpr int looks_count = 10;
constexpr Nanoseconds looks_pause = milliseconds(25);

std::string contents_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

bool is_virtual_machine(std::string_view cpu_text) {
  return (" " + cpu_info(cpu_text, "flags") + " ").find(" hypervisor ") != std::string::npos;
}

std::string memory_text() {
  const auto pages = static_cast<double>(sysconf(_SC_PHYS_PAGES));
  const double gibibytes = pages * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 30);
  return decimal(gibibytes, 1) + " GiB";
}

std::string date_text() {
  const std::time_t now = std::time(nullptr);
  std::tm parts = {};
  gmtime_r(&now, &parts);
  std::array<char, 64> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M UTC", &parts);
  return text.data();
}

std::string distribution() {
  std::istringstream lines(contents_of("/etc/os-release"));
  const std::string key = "PRETTY_NAME=";
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(key)) continue;
    std::string name = line.substr(key.size());
    std::erase(name, '"');
    return name;
  }
  return "unknown";
}

}  // namespace

CpuTicks parse_cpu_ticks(std::string_view proc_stat) {
  CpuTicks ticks;
  std::istringstream lines{std::string(proc_stat)};
  for (std::string line; std::getline(lines, line) && line.starts_with("cpu");) {
    if (!line.starts_with("cpu ")) {
      ++ticks.cpus;
      continue;
    }
    // user nice system idle iowait irq softirq steal.
    std::istringstream words(line.substr(4));
    std::array<uint64_t, 8> values{};
    for (uint64_t& value : values) words >> value;
    ticks.idle = values[3] + values[4];
    ticks.steal = values[7];
  }
  return ticks;
}

CpuMoment read_cpu_moment() {
  CpuMoment moment;
  moment.ticks = parse_cpu_ticks(contents_of("/proc/stat"));
  moment.at = MonotonicClock().now();
  return moment;
}

ForeignLoad foreign_load(const CpuMoment& before, const CpuMoment& after, uint64_t own) {
  const double span = static_cast<double>(after.at - before.at) / nanoseconds_per_second;
  if (span <= 0 || after.ticks.cpus == 0) return {};
  const auto ticks_per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto passed = [&](uint64_t from, uint64_t to) {
    return to < from ? 0.0 : static_cast<double>(to - from) / ticks_per_second;
  };
  const double steal = passed(before.ticks.steal, after.ticks.steal);
  const double idle = passed(before.ticks.idle, after.ticks.idle);
  const double total = span * after.ticks.cpus;
  // From the idle time and not from the busy ticks: the kernel measures the former exactly, and the
  // latter by looking who runs at each tick.
  const double used = total - idle - steal - static_cast<double>(own) / nanoseconds_per_second;
  return {std::max(0.0, used / span), steal / span};
}

IdleLook look_at_idle_machine() {
  IdleLook look;
  const CpuMoment before = read_cpu_moment();
  for (int i = 0; i < looks_count; ++i) {
    if (!pause_for(looks_pause)) return look;
    // One of them is we.
    const uint32_t runnable = runnable_threads(contents_of("/proc/loadavg"));
    look.runnable += static_cast<double>(std::max(runnable, 1U) - 1) / looks_count;
  }
  look.foreign = foreign_load(before, read_cpu_moment(), 0);
  return look;
}

bool is_quiet(const IdleLook& look) noexcept {
  return look.foreign.cpus < 0.10 && look.foreign.steal <= 0.02 && look.runnable < 0.5;
}

double load_average() {
  return std::strtod(contents_of("/proc/loadavg").c_str(), nullptr);
}

uint32_t runnable_threads(std::string_view proc_loadavg) noexcept {
  // "0.00 0.01 0.05 1/123 4567"
  const size_t slash = proc_loadavg.find('/');
  if (slash == std::string_view::npos) return 0;
  const size_t space = proc_loadavg.rfind(' ', slash);
  uint32_t number = 0;
  for (size_t i = space + 1; i < slash; ++i)
    number = number * 10 + static_cast<uint32_t>(proc_loadavg[i] - '0');
  return number;
}

std::string cpu_info(std::string_view text, std::string_view key) {
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string name = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    if (name == key) return line.substr(std::min(colon + 2, line.size()));
  }
  return {};
}

std::string git_commit(const std::string& directory) {
  const std::string git = find_program("git");
  if (git.empty()) return {};
  // A checkout of another user is read all the same: nothing in it is executed.
  const std::vector<std::string> start = {git, "-c", "safe.directory=*", "-C", directory};
  const auto run = [&](std::vector<std::string> words) {
    words.insert(words.begin(), start.begin(), start.end());
    ProcessOptions options;
    options.command = std::move(words);
    const Result<std::string> output = run_program(options, seconds(5));
    return output.ok() ? output.value() : std::string();
  };
  std::string commit = run({"rev-parse", "--short=12", "HEAD"});
  if (commit.empty()) return {};
  while (commit.ends_with('\n')) commit.pop_back();
  return commit + (run({"status", "--porcelain", "-uno"}).empty() ? "" : " (changed)");
}

Facts machine_facts() {
  const std::string cpu = contents_of("/proc/cpuinfo");
  utsname system = {};
  uname(&system);
  const std::string model = cpu_info(cpu, "model name");
  return {{"date", date_text()},
          {"CPU", model.empty() ? system.machine : model},
          {"CPUs online", std::to_string(sysconf(_SC_NPROCESSORS_ONLN))},
          {"memory", memory_text()},
          {"kernel", std::string(system.sysname) + " " + system.release},
          {"distribution", distribution()},
          {"virtual machine (CPU flag hypervisor)", is_virtual_machine(cpu) ? "yes" : "no"},
          {"load average at the start", decimal(load_average(), 2)}};
}

}  // namespace helios::bench
