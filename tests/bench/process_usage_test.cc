#include "load/process_usage.h"

#include <doctest/doctest.h>

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>

#include "helios/base/clock.h"

namespace helios::bench {
namespace {

// Uses so much CPU time in this thread.
void burn(Nanoseconds time) {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  const Nanoseconds until = seconds(now.tv_sec) + now.tv_nsec + time;
  do {
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  } while (seconds(now.tv_sec) + now.tv_nsec < until);
}

bool is_at_least(uint64_t cpu, Nanoseconds time) {
  return cpu >= static_cast<uint64_t>(time);
}

// A child that lives until the test ends it.
class Child {
 public:
  Child() : pid_(fork()) {
    if (pid_ != 0) return;
    for (;;) pause();
  }
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

ProcessSample sample_self(WithChildren children = WithChildren::no) {
  const std::array<pid_t, 1> self{getpid()};
  return sample_processes(self, children, WithMemory::yes);
}

}  // namespace

TEST_CASE("CPU time that a process uses is counted, in nanoseconds") {
  const ProcessSample before = sample_self();
  burn(milliseconds(5));
  const ProcessUsage usage = usage_between(before, sample_self());
  CHECK(usage.is_complete);
  CHECK(is_at_least(usage.cpu, milliseconds(5)));
  CHECK(usage.cpu_user + usage.cpu_system == usage.cpu);
}

TEST_CASE("what was used outside the two samples is not counted") {
  burn(milliseconds(50));
  const ProcessSample before = sample_self();
  const ProcessUsage usage = usage_between(before, sample_self());
  CHECK_FALSE(is_at_least(usage.cpu, milliseconds(50)));
}

TEST_CASE("resident memory is that of the second sample") {
  const ProcessSample before = sample_self();
  const ProcessUsage usage = usage_between(before, sample_self());
  CHECK(usage.rss > 100'000);
  CHECK(usage.pss > 0);
  CHECK(usage.pss <= usage.rss);
}

TEST_CASE("a switch that a process asks for is voluntary") {
  const ProcessSample before = sample_self();
  for (int i = 0; i < 10; ++i) usleep(100);
  CHECK(usage_between(before, sample_self()).voluntary_switches >= 10);
}

TEST_CASE("a child that began and ended in between counts when it was waited for") {
  const ProcessSample before = sample_self(WithChildren::yes);
  const pid_t child = fork();
  if (child == 0) {
    burn(milliseconds(60));
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  const ProcessUsage usage = usage_between(before, sample_self(WithChildren::yes));
  // Ended children are counted in ticks of 10 ms.
  CHECK(is_at_least(usage.cpu, milliseconds(50)));
}

TEST_CASE("of a child that ended, what it had used before is not counted again") {
  int ready[2];
  REQUIRE(pipe(ready) == 0);
  const pid_t child = fork();
  if (child == 0) {
    burn(milliseconds(200));
    char letter = 'x';
    _exit(write(ready[1], &letter, 1) == 1 && pause() == 0 ? 0 : 1);
  }
  char letter = 0;
  REQUIRE(read(ready[0], &letter, 1) == 1);
  close(ready[0]);
  close(ready[1]);
  const ProcessSample before = sample_self(WithChildren::yes);
  CHECK(before.processes.contains(child));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  const ProcessUsage usage = usage_between(before, sample_self(WithChildren::yes));
  CHECK_FALSE(is_at_least(usage.cpu, milliseconds(150)));
}

TEST_CASE("children are found, and left out when not asked for") {
  const Child child;
  CHECK(sample_self(WithChildren::yes).processes.contains(child.pid()));
  CHECK_FALSE(sample_self(WithChildren::no).processes.contains(child.pid()));
}

TEST_CASE("a process that has gone makes the usage incomplete") {
  const pid_t gone = fork();
  if (gone == 0) _exit(0);
  waitpid(gone, nullptr, 0);
  const std::array<pid_t, 2> both{getpid(), gone};
  const ProcessSample sample = sample_processes(both, WithChildren::no, WithMemory::no);
  CHECK_FALSE(sample.is_complete);
  CHECK_FALSE(usage_between(sample, sample).is_complete);
  CHECK(sample.rss == 0);
  CHECK_FALSE(watch_problem(gone).empty());
  CHECK(watch_problem(getpid()).empty());
}

TEST_CASE("a process that has ended is gone, though nobody has waited for it") {
  const pid_t ended = fork();
  if (ended == 0) _exit(0);
  siginfo_t info{};
  REQUIRE(waitid(P_PID, static_cast<id_t>(ended), &info, WEXITED | WNOWAIT) == 0);
  const std::array<pid_t, 1> roots{ended};
  CHECK_FALSE(sample_processes(roots, WithChildren::no, WithMemory::yes).is_complete);
  waitpid(ended, nullptr, 0);
}

TEST_CASE("the PSS of a process that is not ours to read is unknown, not 0") {
  CHECK(sample_self().has_pss);
  const Child target;
  const pid_t reader = fork();
  if (reader == 0) {
    // As somebody else. Without the right to become that, there is nothing to test.
    constexpr uid_t nobody = 65534;
    if (setresuid(nobody, nobody, nobody) != 0) _exit(2);
    const std::array<pid_t, 1> roots{target.pid()};
    const ProcessSample sample = sample_processes(roots, WithChildren::no, WithMemory::yes);
    _exit(sample.rss > 0 && !sample.has_pss && sample.is_complete ? 0 : 1);
  }
  int status = 0;
  waitpid(reader, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) != 1);
}

TEST_CASE("the moment of the sample is told once, when the clocks are read") {
  const std::array<pid_t, 1> self{getpid()};
  int count = 0;
  const ProcessSample sample =
      sample_processes(self, WithChildren::no, WithMemory::no, [&] { ++count; });
  CHECK(count == 1);
  CHECK(sample.processes.size() == 1);
}

}  // namespace helios::bench
