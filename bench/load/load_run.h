// The cores of a load and their life: connect, run, stop. Used by run_load and by `idle`.
//
// Main thread only. SIGINT and SIGTERM are blocked while a run lives; `wait` notices them.
#pragma once

#include <csignal>
#include <functional>
#include <memory>
#include <vector>

#include "helios/base/clock.h"
#include "helios/base/result.h"
#include "helios/runtime/core.h"
#include "load/control.h"
#include "load/load.h"
#include "load/statistics.h"

namespace helios::bench {

// Sums over the cores, at one moment.
struct LoadProgress {
  uint32_t connected = 0;
  uint64_t finished = 0;
  uint64_t transactions = 0;
  uint64_t failed = 0;
  uint64_t wrong = 0;
  uint64_t latency_sum = 0;
};

enum class WaitEnd : uint8_t { reached, timed_out, interrupted, failed };

class LoadRun {
 public:
  // Starts the cores, which begin to connect. Requires: both outlive the run.
  [[nodiscard]] static Result<std::unique_ptr<LoadRun>> start(const LoadOptions& options,
                                                              const ScriptSet& scripts);
  LoadRun(const LoadRun&) = delete;
  LoadRun& operator=(const LoadRun&) = delete;
  ~LoadRun();  // Stops at once what was not stopped.

  // Until every client is logged in. `on_tick` is called now and then.
  [[nodiscard]] Result<bool> wait_connected(const std::function<void()>& on_tick);
  // From now on each client may have begun so many transactions since the start.
  void set_quota(uint64_t quota) noexcept;
  void count_from(Nanoseconds from) noexcept;
  void count_until(Nanoseconds until) noexcept;
  // Until the deadline, until `is_reached`, a signal or a fatal problem. Looks each `interval`.
  [[nodiscard]] WaitEnd wait(Nanoseconds deadline, Nanoseconds interval,
                             const std::function<bool()>& is_reached);
  [[nodiscard]] LoadProgress progress() const noexcept;
  // When the last transaction so far ended.
  [[nodiscard]] Nanoseconds last_finish() const noexcept;
  // What cannot go on; empty when all is well.
  [[nodiscard]] std::string fatal_problem() { return shared_.problems.fatal(); }

  // Lets clients finish what is under way for at most `patience` or until a signal, disconnects
  // them and ends the cores. `on_tick` is called now and then.
  void stop(
      Nanoseconds patience, const std::function<void()>& on_tick = [] {});
  // Everything that was counted, except for the times and the processes. Requires: stopped.
  [[nodiscard]] LoadSummary summary() const;

 private:
  LoadRun(const LoadOptions& options, const ScriptSet& scripts);
  [[nodiscard]] Result<bool> set_up();
  [[nodiscard]] Result<bool> start_cores();
  [[nodiscard]] std::string connect_failure();
  void summarise_scripts(LoadSummary& summary) const;
  void wake() noexcept;

  LoadShared shared_;
  MonotonicClock clock_;
  sigset_t old_signals_{};
  std::unique_ptr<MailboxSystem> mailboxes_;
  std::unique_ptr<WakeTable> wakes_;
  std::unique_ptr<CoreReport[]> reports_;
  std::vector<CoreStatistics> statistics_;
  std::vector<std::unique_ptr<Core>> cores_;
};

}  // namespace helios::bench
