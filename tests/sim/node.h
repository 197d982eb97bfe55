// A simulated node: a scripted server that takes its time, and what befalls it.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "helios/pool/pool_spec.h"
#include "tests/sim/settings.h"
#include "tests/sim/tally.h"
#include "tests/support/session_bench.h"

namespace helios::sim {

class SimNode {
 public:
  // What a session may be silent for when something befalls it, or its answers be under way.
  static constexpr Nanoseconds slow_max = milliseconds(300);

  // Of every user.
  static constexpr const char* password = "secret";

  SimNode(test::SessionBench& bench, SimRandom& random, const Settings& settings, size_t number,
          NodeEffects& effects);

  // What all cores share of it.
  Node node;
  test::ScriptedServer server;

  // When act() is to be called.
  [[nodiscard]] Nanoseconds next_time() const;
  // Answers, and recovers when it is time.
  void act();
  // Something befalls it. Returns what, for the trace.
  const char* begin_fault();
  // All is well from now on.
  void recover();
  // Sessions that it has ended with an error of its own.
  [[nodiscard]] uint64_t farewells_count() const { return farewells_count_; }

 private:
  enum class Trouble : uint8_t { none, down, silent, holding, refusing };
  const char* begin_session_fault();
  const char* begin_trouble();
  void say_farewell(test::ServerSession& session);
  void restart();
  void end_trouble();
  void make_slow(test::ServerSession& session);
  void end_slowness(Nanoseconds now);
  void end_slowness_of(test::ServerSession& session);
  void count_held_logins();
  [[nodiscard]] test::ServerSession* any_session();

  test::SessionBench& bench_;
  SimRandom& random_;
  NodeEffects& effects_;
  uint16_t port_;
  test::ServerPace pace_;
  Trouble trouble_ = Trouble::none;
  Nanoseconds well_at_ = never;
  uint64_t farewells_count_ = 0;
  std::vector<std::pair<uint32_t, Nanoseconds>> slow_;  // Process ids, and until when.
};

}  // namespace helios::sim
