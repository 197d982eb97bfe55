// Brings the statistics of all cores together: asks each core by a message, and each answers with
// a copy.
//
// One object per core, used by its thread only; any core may ask, and several may at the same time.
#pragma once

#include <memory>
#include <vector>

#include "helios/pool/pools.h"
#include "helios/pool/statistics.h"
#include "helios/runtime/mailbox.h"

namespace helios {

class StatisticsCollector {
 public:
  using Done = void (*)(void* context, const Statistics& statistics) noexcept;

  // Both outlive the collector.
  StatisticsCollector(Pools& pools, Postbox& postbox) noexcept : pools_(pools), postbox_(postbox) {}

  // `done` is called once, on this core, with what all cores have answered: within this call when
  // there is one core. Never, if the process ends before.
  void collect(Done done, void* context) noexcept;

  // True when the message was one of the collector's.
  bool on_message(const Message& message) noexcept;

 private:
  struct Job {
    Done done;
    void* context;
    Statistics sum;
    uint32_t answers_due;
  };

  void answer(const Message& question) noexcept;
  void on_answer(const Message& message) noexcept;
  void finish_if_complete(size_t index) noexcept;

  Pools& pools_;
  Postbox& postbox_;
  std::vector<std::unique_ptr<Job>> jobs_;  // Not answered by all yet.
};

}  // namespace helios
