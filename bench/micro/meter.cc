#include "bench/micro/meter.h"

#include "bench/micro/allocations.h"
#include "bench/micro/instructions.h"

namespace helios::bench {
namespace {

uint32_t failures = 0;

const InstructionCounter& instruction_counter() {
  static thread_local InstructionCounter counter;
  return counter;
}

uint64_t instructions_count() {
  const InstructionCounter& counter = instruction_counter();
  return counter.is_open() ? counter.count() : 0;
}

}  // namespace

Meter::Meter(benchmark::State& state, uint64_t operations_per_iteration,
             Allocations allocations) noexcept
    : state_(state),
      operations_per_iteration_(operations_per_iteration),
      allocations_(allocations),
      allocations_before_(allocations_count()),
      instructions_before_(instructions_count()) {}

Meter::~Meter() {
  const uint64_t instructions = instructions_count() - instructions_before_;
  const uint64_t allocations = allocations_count() - allocations_before_;
  const double operations =
      static_cast<double>(state_.iterations()) * static_cast<double>(operations_per_iteration_);
  using benchmark::Counter;
  state_.counters["op"] = Counter(operations, Counter::kIsRate);
  state_.counters["allocs/op"] = Counter(static_cast<double>(allocations) / operations);
  if (instruction_counter().is_open())
    state_.counters["instr/op"] = Counter(static_cast<double>(instructions) / operations);
  if (allocations_ == Allocations::forbidden && allocations > 0)
    fail(state_, "it allocates, and must not");
}

void fail(benchmark::State& state, const char* why) {
  ++failures;
  state.SkipWithError(why);
}

uint32_t failures_count() noexcept {
  return failures;
}

}  // namespace helios::bench
