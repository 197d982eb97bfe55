// What one core counts, and how cores' counts become a summary.
//
// Belongs to one core while it runs; read by the main thread when that has ended, except for
// CoreReport, which it reads at any time.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "helios/base/clock.h"
#include "helios/base/histogram.h"
#include "helios/runtime/spsc_ring.h"
#include "load/load.h"

namespace helios::bench {

// Errors by their code, each with its first message. Few codes, so a plain list.
class ErrorCounts {
 public:
  void add(std::string_view code, std::string_view message, uint64_t count = 1);
  void merge(const ErrorCounts& other);
  // The most frequent ones first, as many as fit.
  void write_to(LoadSummary& summary) const;

 private:
  std::vector<ErrorCount> entries_;
};

struct CoreStatistics {
  Histogram latency;
  Histogram connect;
  ErrorCounts errors;
  uint64_t transactions = 0;
  uint64_t failed = 0;
  uint64_t wrong = 0;
  uint64_t bytes_received = 0;
  uint64_t unserved = 0;
  std::vector<uint64_t> transactions_of_clients;
  std::vector<Histogram> script_latency;  // Of each script; none when there is one script only.
};

// What a core tells while it runs. Each word has one writer, the core, and is read for display or
// to wait for a number; nothing else is published by it: relaxed everywhere.
struct alignas(cache_padding) CoreReport {
  std::atomic<uint32_t> connected{0};     // Clients that are logged in now.
  std::atomic<uint64_t> finished{0};      // Transactions, good or not, since the start.
  std::atomic<uint64_t> transactions{0};  // Good ones in the counted time.
  std::atomic<uint64_t> failed{0};
  std::atomic<uint64_t> wrong{0};
  std::atomic<uint64_t> latency_sum{0};  // Of `transactions`.
  std::atomic<Nanoseconds> last_finish{0};

  // By the one writer: no locked instruction is needed.
  template <typename T>
  static void add(std::atomic<T>& word, T amount) noexcept {
    word.store(word.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
};

// Of an even number the mean of the two in the middle, rounded down. Requires: not empty.
[[nodiscard]] uint64_t median_of(std::span<const uint64_t> sorted);

[[nodiscard]] ScriptSummary summary_of(std::string_view script, const Histogram& latency);
[[nodiscard]] LatencySummary summary_of(const Histogram& histogram);

}  // namespace helios::bench
