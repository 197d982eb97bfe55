// Texts of queries: what it costs to know whether one may change the session.
#include <benchmark/benchmark.h>

#include <string>

#include "bench/micro/meter.h"
#include "helios/session/sql_effects.h"

namespace helios::bench {
namespace {

// On the path of every query.
void look_repeatedly(benchmark::State& state, const std::string& text) {
  bool is_harmless = true;
  {
    Meter meter(state, 1, Allocations::forbidden);
    for (auto _ : state) {
      std::string_view view = text;
      benchmark::DoNotOptimize(view);
      is_harmless = is_harmless && is_plainly_harmless(view);
    }
  }
  if (!is_harmless) fail(state, "a harmless text was suspected");
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
}

void sql_quick_look_short(benchmark::State& state) {
  look_repeatedly(state, "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;");
}
BENCHMARK(sql_quick_look_short);

void sql_quick_look_calls(benchmark::State& state) {
  look_repeatedly(state,
                  "SELECT count(*) FROM users WHERE lower(name) = 'x' AND id IN (1, 2) AND "
                  "(age > 3 OR created_at < now())");
}
BENCHMARK(sql_quick_look_calls);

void sql_quick_look_long(benchmark::State& state) {
  look_repeatedly(state, "INSERT INTO t VALUES ('" + std::string(64 * 1024, 'x') + "')");
}
BENCHMARK(sql_quick_look_long);

// What the quick look suspects is read word by word.
void sql_effects(benchmark::State& state) {
  const std::string text =
      "BEGIN; SET LOCAL app.tenant = '42'; SELECT * FROM t WHERE x = 'y'; COMMIT";
  bool is_harmless = true;
  {
    Meter meter(state, 1, Allocations::forbidden);
    for (auto _ : state) is_harmless = is_harmless && effects_of(text).bits == 0;
  }
  if (!is_harmless) fail(state, "a harmless text was suspected");
}
BENCHMARK(sql_effects);

}  // namespace
}  // namespace helios::bench
