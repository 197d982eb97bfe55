#include "load/compare_machine.h"

#include <doctest/doctest.h>
#include <unistd.h>

namespace helios::bench {
namespace {

constexpr const char* proc_stat =
    "cpu  100 10 50 800 40 3 7 5 20 0\ncpu0 50 5 25 400 20 1 3 2 10 0\ncpu1 50 5 25 400 20 2 4 3 "
    "10 0\nintr 12345\nctxt 1\n";

CpuMoment moment_at(Nanoseconds at, uint64_t idle, uint64_t steal) {
  CpuMoment moment;
  moment.ticks = {idle, steal, 2};
  moment.at = at;
  return moment;
}

TEST_CASE("the ticks of /proc/stat are those of all CPUs together") {
  const CpuTicks ticks = parse_cpu_ticks(proc_stat);
  CHECK(ticks.idle == 840);
  CHECK(ticks.steal == 5);
  CHECK(ticks.cpus == 2);
  CHECK(parse_cpu_ticks("").cpus == 0);
}

TEST_CASE("what others used is neither idle nor stolen nor ours") {
  const auto tick = static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  // Two CPUs for two seconds: of four, one was idle, a half stolen, and one and a half ours.
  const CpuMoment before = moment_at(0, 0, 0);
  const CpuMoment after = moment_at(seconds(2), tick, tick / 2);
  const ForeignLoad load = foreign_load(before, after, 1'500'000'000);
  CHECK(load.cpus == doctest::Approx(0.5));
  CHECK(load.steal == doctest::Approx(0.25));
  CHECK(foreign_load(before, after, 9'000'000'000).cpus == 0);
  CHECK(foreign_load(before, before, 0).cpus == 0);
}

TEST_CASE("what the hypervisor took is not divided by the number of CPUs") {
  const auto tick = static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  CpuMoment before = moment_at(0, 0, 0);
  CpuMoment after = moment_at(seconds(1), 63 * tick, tick / 10);
  before.ticks.cpus = after.ticks.cpus = 64;
  CHECK(foreign_load(before, after, 900'000'000).steal == doctest::Approx(0.1));
}

TEST_CASE("the runnable threads are the number before the slash") {
  CHECK(runnable_threads("0.50 0.40 0.30 12/345 6789\n") == 12);
  CHECK(runnable_threads("") == 0);
}

TEST_CASE("a machine is quiet when little runs, nothing is stolen and nobody waits") {
  IdleLook look;
  CHECK(is_quiet(look));
  look.foreign.cpus = 0.2;
  CHECK_FALSE(is_quiet(look));
  look = {};
  look.foreign.steal = 0.03;
  CHECK_FALSE(is_quiet(look));
  look = {};
  look.runnable = 1;
  CHECK_FALSE(is_quiet(look));
}

TEST_CASE("a key of /proc/cpuinfo is found by its whole name") {
  const char* text = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: Some CPU : fast\n";
  CHECK(cpu_info(text, "model name") == "Some CPU : fast");
  CHECK(cpu_info(text, "model") == "17");
  CHECK(cpu_info(text, "name").empty());
}

TEST_CASE("the facts name the machine") {
  const Facts facts = machine_facts();
  CHECK(facts.size() >= 8);
  for (const auto& fact : facts) CHECK_MESSAGE(!fact.second.empty(), fact.first);
}

}  // namespace
}  // namespace helios::bench
