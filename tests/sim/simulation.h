// The whole pooler in one thread: real sessions, pools and backends on simulated cores, between
// simulated clients and nodes, in simulated time. Everything follows from the seed.
//
// Whose time has come acts next: a core does a turn, a node answers, a client does what it likes,
// something breaks. After each act the invariants are checked (checker.h); clients check what they
// receive (client.h). The first failure ends the run.
//
// A run: the day (clients come, work and go), closing time (those who are there finish), rest
// (every backend goes idle), drain (nothing is left).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/sim/checker.h"
#include "tests/sim/client.h"
#include "tests/sim/node.h"
#include "tests/sim/settings.h"
#include "tests/sim/tally.h"
#include "tests/support/session_bench.h"

namespace helios::sim {

// Something that goes wrong on purpose behind the act of this number, to see what that looks like.
// 0: nothing does.
struct Pretence {
  uint64_t fail_at = 0;   // A check fails.
  uint64_t abort_at = 0;  // An assertion.
};

class Simulation final : public ClientHost {
 public:
  // `prints`: every event goes to stdout, and the pooler's log to stderr.
  Simulation(uint64_t seed, bool prints, const Pretence& pretence = {});

  // Runs to the end. Returns what went wrong first; empty when nothing did. Note: when something
  // did, the cores are in no state to be destroyed; the simulation must be leaked.
  [[nodiscard]] const std::string& run();

  // Of every event with its time: the same for the same seed.
  [[nodiscard]] uint64_t trace_hash() const { return trace_hash_; }
  [[nodiscard]] Tally tally();

 private:
  // --- ClientHost ---
  [[nodiscard]] const Settings& settings() const override { return settings_; }
  [[nodiscard]] SimNetwork& network() override { return bench_.network; }
  [[nodiscard]] SimRandom& random() override { return random_; }
  [[nodiscard]] Nanoseconds now() override { return bench_.clock.now(); }
  [[nodiscard]] int connect() override;
  void send_cancel(const std::string& key) override;
  [[nodiscard]] bool is_closing_time() override { return is_closing_time_; }
  [[nodiscard]] bool is_calm() override { return !settings_.has_faults && !settings_.drains_early; }
  [[nodiscard]] std::vector<const Configuration*> configurations_since(Nanoseconds time) override;
  [[nodiscard]] const std::vector<Notified>& notified(size_t database,
                                                      const std::string& channel) override {
    return notified_[{database, channel}];
  }
  void fail(std::string text) override;
  void note(const char* what, uint64_t a, uint64_t b, uint64_t c) override;

  // A configuration on its way to a core.
  struct Reload {
    Nanoseconds at;
    const test::BenchDirectory* directory;
  };
  // A core's place in the schedule.
  struct CoreSchedule {
    Nanoseconds next_turn = 0;     // Not before.
    bool sleeps = false;           // Until something wakes it.
    Nanoseconds drain_at = never;  // When it gets to know that the process ends...
    Nanoseconds stop_at = never;   // ...and that it ends at once.
    std::deque<Reload> reloads;    // Configurations that it is to take over, in order.
    uint64_t epoch = 0;            // Of the one that it has.
    bool is_stalled = false;       // Its next turn comes late.
    std::vector<int> arrivals;     // Clients that have connected and are not accepted yet.
  };
  // A cancel request on its way.
  struct Asker {
    int fd;
    Nanoseconds since;
  };

  [[nodiscard]] static test::BenchOptions options_of(const Settings& settings);
  void adapt(PoolSpec& spec, const Configuration& configuration) const;
  void make_limits();

  // Lets whose turn it is act, until `is_over` holds. Fails when that takes longer than `patience`.
  template <typename IsOver>
  void run_until(const char* what, Nanoseconds patience, IsOver is_over);
  void step();
  void act();
  void run_turn(CoreId id);
  [[nodiscard]] Nanoseconds next_turn(CoreId id);
  void begin_fault();
  void change_configuration();
  void take_over(CoreId id);
  [[nodiscard]] bool is_changed_over() const;
  void note_epochs();
  [[nodiscard]] Nanoseconds gone_since(size_t pool) const;
  void check_told();
  void check_heard();
  void check_patience();
  void look_after_askers();

  void run_day();
  void close_the_day();
  void come_to_rest();
  void drain();
  void check_nothing_is_left();
  void schedule_drain();

  const Settings settings_;
  SimRandom random_;
  const bool prints_;
  const Pretence pretence_;
  std::string error_;
  uint64_t trace_hash_ = 0xcbf29ce484222325ULL;
  uint64_t steps_count_ = 0;
  bool is_closing_time_ = false;
  SharedLimits shared_;
  test::SessionBench bench_;
  std::vector<std::unique_ptr<SimNode>> nodes_;
  std::vector<CoreSchedule> schedules_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::vector<Asker> askers_;
  std::map<std::pair<size_t, std::string>, std::vector<Notified>> notified_;
  std::unique_ptr<Checker> checker_;
  Nanoseconds next_fault_ = never;
  Nanoseconds next_change_ = never;
  uint64_t epoch_ = 0;  // Of the newest configuration.
  // Of each epoch up to the newest: since when no core has its configuration; `never` while one
  // has, or is to have it next.
  std::vector<Nanoseconds> left_at_ = {never};
  CoreId only_core_ = 0;
  Tally tally_;
};

}  // namespace helios::sim
