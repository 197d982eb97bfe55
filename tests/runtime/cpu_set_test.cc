#include "helios/runtime/cpu_set.h"

#include <doctest/doctest.h>
#include <sched.h>

#include <algorithm>
#include <thread>

namespace helios {

TEST_CASE("a quota of time counts as so many CPUs, rounded up") {
  CHECK(cpus_of_cpu_max("200000 100000\n") == 2);
  CHECK(cpus_of_cpu_max("200001 100000\n") == 3);
  CHECK(cpus_of_cpu_max("50000 100000\n") == 1);
  CHECK(cpus_of_cpu_max("0 100000\n") == 1);
}

TEST_CASE("no quota, or one that cannot be read, is no bound") {
  CHECK(cpus_of_cpu_max("max 100000\n") == 0);
  CHECK(cpus_of_cpu_max("") == 0);
  CHECK(cpus_of_cpu_max("100000") == 0);
  CHECK(cpus_of_cpu_max("100000 0\n") == 0);
  CHECK(cpus_of_cpu_max("100000 x\n") == 0);
  CHECK(cpus_of_cpu_max("99999999999999999999 1\n") == 0);
}

TEST_CASE("the cgroup is the one of version 2") {
  CHECK(path_of_cgroup("0::/\n") == "/");
  CHECK(path_of_cgroup("12:cpu:/old\n0::/system.slice/x.service\n") == "/system.slice/x.service");
  CHECK(path_of_cgroup("12:cpu:/old\n").empty());
  CHECK(path_of_cgroup("").empty());
}

TEST_CASE("the usable CPUs are those of the affinity mask, in order, and at least one") {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  REQUIRE(sched_getaffinity(0, sizeof(mask), &mask) == 0);
  const std::vector<int> cpus = usable_cpus();
  REQUIRE_FALSE(cpus.empty());
  CHECK(std::is_sorted(cpus.begin(), cpus.end()));
  CHECK(cpus.size() <= static_cast<size_t>(CPU_COUNT(&mask)));
  for (const int cpu : cpus) CHECK(CPU_ISSET(static_cast<size_t>(cpu), &mask));
}

TEST_CASE("a pinned thread runs on its CPU and sees no other as usable") {
  const int cpu = usable_cpus().back();
  bool is_pinned = false;
  int cpu_seen = -1;
  std::vector<int> cpus_seen;
  std::thread([&] {
    is_pinned = pin_current_thread(cpu);
    cpu_seen = sched_getcpu();
    cpus_seen = usable_cpus();
  }).join();
  CHECK(is_pinned);
  CHECK(cpu_seen == cpu);
  CHECK(cpus_seen == std::vector<int>{cpu});
}

TEST_CASE("a CPU that does not exist is refused") {
  CHECK_FALSE(pin_current_thread(-1));
  CHECK_FALSE(pin_current_thread(8191));
  CHECK_FALSE(pin_current_thread(1'000'000));
}

}  // namespace helios
