// What each query passes in the pool: the ledger of what a server owes, and getting a backend.
#include <benchmark/benchmark.h>

#include <string_view>

#include "bench/micro/meter.h"
#include "helios/pool/ledger.h"
#include "helios/pool/slice.h"

namespace helios::bench {
namespace {

// Messages of a client and the replies to them; an op is one such round.
void ledger_rounds(benchmark::State& state, std::string_view requests, std::string_view replies) {
  Ledger ledger;
  bool is_good = true;
  {
    Meter meter(state, 1, Allocations::forbidden);
    for (auto _ : state) {
      for (const char tag : requests) {
        ledger.on_sent(static_cast<uint8_t>(tag), LedgerAction::forward);
        is_good &= ledger.take_due_fake() == 0;
      }
      for (const char tag : replies) {
        is_good &= ledger.on_reply(static_cast<uint8_t>(tag)).verdict == ReplyVerdict::forward;
        is_good &= ledger.take_due_fake() == 0;
      }
    }
  }
  if (!is_good || !ledger.empty()) fail(state, "the ledger is wrong");
}

// Query; a row and its end.
void ledger_simple(benchmark::State& state) {
  ledger_rounds(state, "Q", "TDCZ");
}
BENCHMARK(ledger_simple);

// Parse, Bind, Describe, Execute, Sync, each answered.
void ledger_extended(benchmark::State& state) {
  ledger_rounds(state, "PBDES", "12TDCZ");
}
BENCHMARK(ledger_extended);

struct FakeBackend final : PooledBackend {};

// A core that is alone and connects at once: it does nothing by itself.
class FakeCore final : public SlicePort, public Postbox {
 public:
  FakeCore() {
    auto* spec = new PoolSpec;
    spec->limits.max_connections = backends_count;
    spec_ = PoolSpecRef(spec);
  }
  [[nodiscard]] const PoolSpecRef& spec() const noexcept { return spec_; }

  [[nodiscard]] CoreId core() const noexcept override { return 0; }
  [[nodiscard]] CoreId cores_count() const noexcept override { return 1; }
  void send(CoreId, const Message&) noexcept override {}
  bool connect(Slice&) noexcept override { return true; }
  void hand_over(Slice&, PooledBackend&, Waiter&) noexcept override {}
  void move(Slice&, PooledBackend&, CoreId) noexcept override {}
  void close(Slice&, PooledBackend&) noexcept override {}
  void on_reserve_freed(Slice&) noexcept override {}
  void activate(Slice&) noexcept override {}

  static constexpr uint32_t backends_count = 20;

 private:
  PoolSpecRef spec_;
};

// A backend for each transaction and back again. The bar: under 100 ns, no atomic
// read-modify-write and no allocation (which fails the benchmark).
void pool_acquire_release(benchmark::State& state) {
  FakeCore core;
  Slice slice(core.spec(), core, core);
  FakeBackend backends[FakeCore::backends_count];
  for (FakeBackend& backend : backends) {
    slice.warm_up(0);
    slice.on_connected(backend, 0);
  }
  bool is_good = true;
  {
    Meter meter(state, 1, Allocations::forbidden);
    Nanoseconds now = 0;
    for (auto _ : state) {
      PooledBackend* backend = slice.try_acquire();
      is_good &= backend != nullptr;
      slice.release(*backend, ++now);
    }
  }
  if (!is_good || slice.idle_count() != FakeCore::backends_count) fail(state, "a backend is gone");
  for (FakeBackend& backend : backends) {
    slice.take_idle(backend);
    slice.on_gone();
  }
}
BENCHMARK(pool_acquire_release);

}  // namespace
}  // namespace helios::bench
