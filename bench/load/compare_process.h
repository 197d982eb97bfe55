// Processes that the comparison starts, and their end.
//
// Each runs in a process group of its own, so that Ctrl-C reaches the comparison alone, which then
// stops them in order; the kernel ends them when the comparison is killed. As root, programs run as
// an unprivileged user. Main thread only.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "helios/base/clock.h"
#include "helios/base/result.h"

namespace helios::bench {

struct Account {
  uid_t user = 0;
  gid_t group = 0;
  std::string name;
};

// Who programs run as: nobody else unless we are root; then `wanted`, or, when that is empty,
// postgres or nobody, whichever there is first.
[[nodiscard]] Result<std::optional<Account>> account_for(const std::string& wanted);

struct ProcessOptions {
  std::vector<std::string> command;  // The first is a path.
  std::string directory;             // Where it runs.
  std::string log_path;              // Its output and errors; empty: nowhere.
  std::optional<Account> account;
  std::vector<int> cpus;  // Empty: as we.
  bool batch_policy = false;
};

// A child process; stopped when destroyed.
class ChildProcess {
 public:
  ChildProcess() = default;
  ChildProcess(ChildProcess&& other) noexcept
      : pid_(std::exchange(other.pid_, 0)), exit_status_(other.exit_status_) {}
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess() { stop(); }

  // Starts a program. An error when it cannot be executed.
  [[nodiscard]] static Result<ChildProcess> start(const ProcessOptions& options);
  // Runs a function in a forked copy of this process; what it returns is the exit status.
  [[nodiscard]] static Result<ChildProcess> fork_off(const std::function<int()>& body);

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  // Reaps it when it has ended.
  [[nodiscard]] bool is_running() noexcept;
  // Waits for its end, at most so long. True when it has ended. Note: gives up when the user has
  // interrupted.
  bool wait_until_ended(Nanoseconds patience) noexcept;
  // The exit status, 128 + the signal; of a process that has ended.
  [[nodiscard]] int exit_status() const noexcept { return exit_status_; }
  // Each signal in turn, with that much patience, then SIGKILL for its whole group.
  void stop(std::span<const int> signals, Nanoseconds patience) noexcept;
  void stop() noexcept;

 private:
  pid_t pid_ = 0;  // 0: none, or reaped.
  int exit_status_ = 0;
};

// Runs a program to its end and returns what it wrote; an error when it fails or takes longer.
[[nodiscard]] Result<std::string> run_program(const ProcessOptions& options, Nanoseconds patience);

// Looks a program up as a shell does, and in the directories of servers. Empty when there is none.
[[nodiscard]] std::string find_program(const std::string& name);

// The last lines of a text file, for messages.
[[nodiscard]] std::string tail_of(const std::string& path);

// SIGINT, SIGTERM and SIGHUP set a flag from now on; orphans of our children become ours.
void watch_interrupts() noexcept;
[[nodiscard]] bool is_interrupted() noexcept;
// False when the user interrupted meanwhile.
bool pause_for(Nanoseconds time) noexcept;
// Ends what is left of our children's children.
void end_orphans() noexcept;

}  // namespace helios::bench
