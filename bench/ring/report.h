// Measurements as tables: medians with their range, and ratios taken round by round.
#pragma once

#include <string>
#include <vector>

#include "bench/ring/run.h"
#include "bench/ring/switches.h"

namespace helios::bench {

// One variant and its base at one number of connections: a pair of runs for each round.
struct Comparison {
  const Variant* variant;
  const Base* base;
  uint32_t connections;
  std::vector<RunResult> base_runs;
  std::vector<RunResult> own_runs;
};

// MSG_RING and eventfd: nanoseconds per round trip, a pair for each round.
struct WakeComparison {
  std::string place;
  std::vector<double> event_fd;
  std::vector<double> msg_ring;
};

struct Report {
  std::string command;  // With which it can be repeated.
  std::string method;   // Sentences about how it was measured.
  std::string load_before;
  std::vector<std::string> notes;  // What was left out, and why.
  std::vector<Comparison> comparisons;
  std::vector<WakeComparison> wakes;
};

enum class Style : uint8_t { plain, markdown };

// The whole section, headings and facts of the machine included.
[[nodiscard]] std::string print_report(const Report& report, Style style);
// "1 round", "5 rounds".
[[nodiscard]] std::string counted(uint64_t count, const char* thing);
// One comparison in a line, for whoever watches.
[[nodiscard]] std::string summary_of(const Comparison& comparison);

}  // namespace helios::bench
