#include "bench/ring/machine.h"

#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>

#include "helios/base/clock.h"
#include "helios/runtime/cpu_set.h"

namespace helios::bench {
namespace {

// The rest of the first line that begins with `name`, behind its colon; empty when there is none.
std::string cpuinfo(const std::string& name) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind(name, 0) == 0 && line.find(": ") != std::string::npos)
      return line.substr(line.find(": ") + 2);
  return "";
}

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  (void)std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M UTC", &parts);
  return text;
}

std::string system_call_cost() {
  constexpr int count = 100'000;
  MonotonicClock clock;
  const Nanoseconds before = clock.now();
  for (int i = 0; i < count; ++i) (void)syscall(SYS_getppid);
  return std::to_string((clock.now() - before) / count) + " ns";
}

}  // namespace

std::vector<std::string> machine_facts() {
  utsname names{};
  (void)uname(&names);
  std::string cpu = cpuinfo("model name");
  if (cpu.empty()) cpu = names.machine;
  if (cpuinfo("flags").find(" hypervisor") != std::string::npos) cpu += ", a virtual machine";
  return {
      "Date: " + today(),
      std::string("Kernel: ") + names.sysname + " " + names.release,
      "CPU: " + cpu + "; " + std::to_string(usable_cpus().size()) + " usable",
      "A system call (getppid): " + system_call_cost(),
      "TCP congestion control: " + first_line("/proc/sys/net/ipv4/tcp_congestion_control"),
      std::string("Compiler: ") + __VERSION__ + "; liburing " LIBURING_VERSION,
  };
}

std::string load_average() {
  double values[3] = {0, 0, 0};
  if (getloadavg(values, 3) != 3) return "not known";
  char text[64];
  (void)std::snprintf(text, sizeof(text), "%.2f, %.2f, %.2f", values[0], values[1], values[2]);
  return text;
}

}  // namespace helios::bench
