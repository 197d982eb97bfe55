// What runs did: to see that they do what they are for. A fault counts where it took effect, not
// where it was drawn.
#pragma once

#include <cstdint>
#include <string>

#include "tests/support/fake_io.h"

namespace helios::sim {

// What befell nodes and their connections.
struct NodeEffects {
  uint64_t restarts = 0;  // That ended a connection.
  uint64_t hangups = 0;
  uint64_t farewells = 0;    // Without those of restarts.
  uint64_t deaf_times = 0;   // In which something came and was not read.
  uint64_t held_logins = 0;  // That were answered late,
  uint64_t hung_logins = 0;  // and those that were given up before.
  uint64_t refused_logins = 0;
  uint64_t pieces = 0;  // Of answers, with a pause behind.
};

struct Tally : SimEffects, NodeEffects {
  uint64_t turns = 0;
  uint64_t replies = 0;
  uint64_t waits = 0;
  uint64_t wait_timeouts = 0;
  uint64_t connects = 0;
  uint64_t connect_failures = 0;
  uint64_t moves = 0;
  uint64_t waits_cancelled = 0;
  uint64_t waits_refused = 0;
  uint64_t notices = 0;
  uint64_t reserve_uses = 0;
  uint64_t scram_logins = 0;
  uint64_t connect_queries = 0;
  uint64_t cancels = 0;
  uint64_t session_moves = 0;
  uint64_t late_turns = 0;     // Of cores that stalled while there was something to do.
  uint64_t early_drains = 0;   // Of a core, in the middle of the work...
  uint64_t early_stops = 0;    // ...at once.
  uint64_t client_deaths = 0;  // In the middle of something.
  uint64_t client_pieces = 0;  // Of what a client sends, with a pause behind.
  uint64_t reloads = 0;        // Of a core.
  uint64_t generations = 0;    // That followed another one.
  uint64_t resizes = 0;        // Of a limit,
  uint64_t shrinks = 0;        // and those to less than there was at that time.
  uint64_t removals = 0;       // Clients whose database or user was removed...
  uint64_t refusals = 0;       // ...or had too many.
  uint64_t own_answers = 0;    // That told of the client's own session or statement.
  uint64_t pins = 0;
  uint64_t kept_off = 0;     // What would have pinned and was refused.
  uint64_t heard = 0;        // Notifications that clients were told of.
  uint64_t hubs = 0;         // Connections that listen for clients.
  uint64_t losses = 0;       // Answers that were lost with a backend,
  uint64_t lost_blocks = 0;  // and transactions.
  double excess_hops = 0;    // The largest of a run.

  void add(const Tally& other);
  [[nodiscard]] std::string describe() const;
  // What there was nothing of, a line for each. Runs that happen to do nothing would show nothing.
  [[nodiscard]] std::string describe_missing() const;
};

}  // namespace helios::sim
