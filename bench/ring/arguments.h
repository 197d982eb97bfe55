// The command line of ring-bench.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/ring/report.h"
#include "bench/ring/sockets.h"
#include "bench/ring/switches.h"
#include "helios/base/clock.h"

namespace helios::bench {

struct Arguments {
  std::vector<uint32_t> connections{1, 16, 64, 256, 1000};
  uint32_t rounds = 5;
  Nanoseconds span = milliseconds(500);
  Nanoseconds warm_up = milliseconds(100);
  uint32_t message_size = 64;
  Family family = Family::tcp;
  Place place = Place::one;
  bool batch_policy = true;
  std::vector<int> cpus;          // One or two; the first is the relay's.
  std::vector<std::string> only;  // Names of variants or numbers of experiments; empty: all.
  Style style = Style::plain;
  std::string command;  // To repeat it.
};

enum class Outcome : uint8_t { run, done, wrong };

// Reads argv. `done`: help or the list was printed. `wrong`: an error was printed.
[[nodiscard]] Outcome parse_arguments(int argc, char** argv, Arguments& arguments);
// Whether --only admits this name or the experiment with this number.
[[nodiscard]] bool is_wanted(const Arguments& arguments, const std::string& name, int row);

// How experiment 9 is called on the command line.
constexpr const char* wake_name = "wake";

}  // namespace helios::bench
