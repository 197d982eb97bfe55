// micro-bench: what the parts of the proxy cost alone. See --help for Google Benchmark's options.
#include <benchmark/benchmark.h>

#include "bench/micro/instructions.h"
#include "bench/micro/meter.h"
#include "helios/wire/crypto.h"

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  const helios::bench::InstructionCounter counter;
  benchmark::AddCustomContext("instructions", counter.is_open() ? "counted" : counter.refusal());
  benchmark::AddCustomContext("cryptography", helios::is_slow_cryptography()
                                                  ? "the distribution's wolfSSL, without assembly"
                                                  : "wolfSSL with assembly");
  if (benchmark::RunSpecifiedBenchmarks() == 0) return 2;
  benchmark::Shutdown();
  return helios::bench::failures_count() == 0 ? 0 : 1;
}
