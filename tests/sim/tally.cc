#include "tests/sim/tally.h"

#include <algorithm>
#include <cstdio>

namespace helios::sim {
namespace {

struct Count {
  const char* what;
  uint64_t Tally::*count;
};

constexpr Count counts[] = {
    {"turns", &Tally::turns},
    {"answers", &Tally::replies},
    {"waits", &Tally::waits},
    {"wait time-outs", &Tally::wait_timeouts},
    {"cancelled waits", &Tally::waits_cancelled},
    {"full queues", &Tally::waits_refused},
    {"notices", &Tally::notices},
    {"reserves in use", &Tally::reserve_uses},
    {"connects", &Tally::connects},
    {"failed connects", &Tally::connect_failures},
    {"SCRAM logins at nodes", &Tally::scram_logins},
    {"connect_query", &Tally::connect_queries},
    {"backends that move", &Tally::moves},
    {"sessions that move", &Tally::session_moves},
    {"cancel requests", &Tally::cancels},
    {"sessions and statements that follow", &Tally::own_answers},
    {"pins", &Tally::pins},
    {"refused pins", &Tally::kept_off},
    {"hubs", &Tally::hubs},
    {"notifications", &Tally::heard},
    // Configurations.
    {"reloads of cores", &Tally::reloads},
    {"generations of pools", &Tally::generations},
    {"resized limits", &Tally::resizes},
    {"limits that shrink below what is there", &Tally::shrinks},
    {"clients of removed databases and users", &Tally::removals},
    {"databases and users with all their clients", &Tally::refusals},
    // Faults.
    {"short sends", &Tally::short_sends},
    {"sends that wait for room", &Tally::blocked_sends},
    {"short receives", &Tally::short_receives},
    {"starved receives", &Tally::starved_receives},
    {"delayed receives", &Tally::delayed_receives},
    {"multishot receives that end early", &Tally::ended_multishots},
    {"interrupts", &Tally::interrupts},
    {"resets of clients", &Tally::accepted_resets},
    {"resets of backends", &Tally::connected_resets},
    {"refused connects", &Tally::refused_connects},
    {"late connects", &Tally::late_connects},
    {"lost connects", &Tally::lost_connects},
    {"node restarts", &Tally::restarts},
    {"hang-ups of nodes", &Tally::hangups},
    {"farewells of nodes", &Tally::farewells},
    {"deaf server sessions", &Tally::deaf_times},
    {"late logins at nodes", &Tally::held_logins},
    {"logins at nodes that hang", &Tally::hung_logins},
    {"refused logins at nodes", &Tally::refused_logins},
    {"answers in pieces", &Tally::pieces},
    {"requests in pieces", &Tally::client_pieces},
    {"clients that die", &Tally::client_deaths},
    {"late turns", &Tally::late_turns},
    {"early drains of cores", &Tally::early_drains},
    {"early stops of cores", &Tally::early_stops},
    // What came of them.
    {"answers that were lost with a backend", &Tally::losses},
    {"transactions that were lost with a backend", &Tally::lost_blocks},
};

}  // namespace

void Tally::add(const Tally& other) {
  for (const Count& one : counts) this->*one.count += other.*one.count;
  excess_hops = std::max(excess_hops, other.excess_hops);
}

std::string Tally::describe() const {
  std::string text;
  for (const Count& one : counts) text += std::to_string(this->*one.count) + " " + one.what + "\n";
  char last[64];
  snprintf(last, sizeof(last), "overtaken by the bound and %.1f hops", excess_hops);
  return text + last;
}

std::string Tally::describe_missing() const {
  std::string text;
  for (const Count& one : counts)
    if (this->*one.count == 0)
      text += std::string("FAILED: these seeds show nothing of ") + one.what + "\n";
  return text;
}

}  // namespace helios::sim
