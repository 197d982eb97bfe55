// What the main thread tells the cores of a load while they run, and what they all share.
//
// The words are written by the main thread, which then wakes the cores; a core that reads one late
// acts late, and nothing else is published by them: relaxed everywhere.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "helios/base/clock.h"
#include "helios/pool/backend_login.h"
#include "load/load.h"
#include "load/script.h"
#include "load/targets.h"

namespace helios::bench {

struct LoadControl {
  // So many transactions may each client have begun since the start.
  std::atomic<uint64_t> quota{0};
  std::atomic<Nanoseconds> count_from{never};
  std::atomic<Nanoseconds> count_until{never};
  // No client begins anything; each leaves when it has finished.
  std::atomic<bool> is_stopping{false};
  // Whoever still waits for an answer has failed.
  std::atomic<bool> is_giving_up{false};

  [[nodiscard]] bool is_counted(Nanoseconds now) const noexcept {
    return now >= count_from.load(std::memory_order_relaxed) &&
           now < count_until.load(std::memory_order_relaxed);
  }
};

// The first reason why the run cannot go on, and the last one why a client is not connected.
class LoadProblems {
 public:
  void set_fatal(const std::string& text) {
    const std::lock_guard lock(mutex_);
    if (fatal_.empty()) fatal_ = text;
  }
  void set_connect(const std::string& text) {
    const std::lock_guard lock(mutex_);
    connect_ = text;
  }
  [[nodiscard]] std::string fatal() {
    const std::lock_guard lock(mutex_);
    return fatal_;
  }
  [[nodiscard]] std::string connect() {
    const std::lock_guard lock(mutex_);
    return connect_;
  }

 private:
  std::mutex mutex_;  // Taken when something fails only.
  std::string fatal_;
  std::string connect_;
};

// Immutable while cores run, except for what says otherwise.
struct LoadShared {
  const LoadOptions& options;
  const ScriptSet& scripts;
  std::vector<Target> targets;
  std::vector<BackendLoginOptions> logins;
  uint32_t clients_per_address = 0;
  Nanoseconds think_time = 0;
  LoadControl control;    // See there.
  LoadProblems problems;  // Any thread.

  // Clients are dealt over the targets in turn, and those of each target over the logins: dealt
  // over both by the same number, a login would find some targets only.
  [[nodiscard]] const Target& target_of(uint32_t client) const noexcept {
    return targets[client % targets.size()];
  }
  [[nodiscard]] uint32_t number_at_target(uint32_t client) const noexcept {
    return client / static_cast<uint32_t>(targets.size());
  }
  [[nodiscard]] const BackendLoginOptions& login_of(uint32_t client) const noexcept {
    return logins[number_at_target(client) % logins.size()];
  }
};

}  // namespace helios::bench
