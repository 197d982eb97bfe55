#include "helios/pool/connect_gate.h"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <optional>
#include <thread>

namespace helios {
namespace {

TEST_CASE("a gate without a cap lets everybody in, and counts") {
  ConnectGate gate(0, 2);
  for (int i = 0; i < 1000; ++i) REQUIRE(gate.try_enter(0, 1));
  CHECK(gate.taken() == 1000);
  for (int i = 0; i < 1000; ++i) CHECK_FALSE(gate.leave());
  CHECK(gate.taken() == 0);
}

TEST_CASE("a place that is left goes to the core that has waited longest") {
  ConnectGate gate(1, 3);
  CHECK(gate.try_enter(0, 1));
  CHECK_FALSE(gate.try_enter(1, 20));
  CHECK_FALSE(gate.try_enter(2, 10));
  CHECK_FALSE(gate.try_enter(0, 30));
  for (const CoreId core : {CoreId{2}, CoreId{1}, CoreId{0}}) {
    CHECK(gate.leave() == core);
    CHECK(gate.taken() == 1);
    CHECK_FALSE(gate.try_enter(3 - 1, 40));  // The place is not free for the next one to come.
    gate.withdraw(2);
  }
  CHECK_FALSE(gate.leave());
  CHECK(gate.taken() == 0);
}

TEST_CASE("a core that has withdrawn, or was let in, is handed nothing") {
  ConnectGate gate(1, 2);
  CHECK(gate.try_enter(0, 1));
  CHECK_FALSE(gate.try_enter(1, 2));
  gate.withdraw(1);
  CHECK_FALSE(gate.leave());
  CHECK(gate.try_enter(1, 3));
  CHECK_FALSE(gate.leave());
  CHECK(gate.taken() == 0);
}

// Each thread waits, when it was refused, until a place is handed to it. One that is lost leaves it
// waiting for ever.
TEST_CASE("two threads never exceed a gate, and none is forgotten") {
  constexpr uint32_t max = 1;
  constexpr int rounds = 20'000;
  ConnectGate gate(max, 2);
  std::array<std::atomic<uint32_t>, 2> handed{};
  std::atomic<uint32_t> holders{0};
  std::atomic<bool> is_exceeded{false};
  std::atomic<uint32_t> finished{0};
  const auto leave = [&] {
    if (const auto next = gate.leave()) handed[*next].fetch_add(1);
  };
  // What was handed to it although it had got in by itself meanwhile.
  const auto pass_on = [&](CoreId core) {
    for (uint32_t count = handed[core].exchange(0); count > 0; --count) leave();
  };
  const auto work = [&](CoreId core) {
    for (int i = 0; i < rounds; ++i) {
      if (!gate.try_enter(core, i)) {
        while (handed[core].load() == 0) std::this_thread::yield();
        handed[core].fetch_sub(1);
      }
      if (holders.fetch_add(1) >= max) is_exceeded = true;
      holders.fetch_sub(1);
      leave();
      pass_on(core);
    }
    finished.fetch_add(1);
    while (finished.load() < 2) pass_on(core);
  };
  std::thread other(work, CoreId{1});
  work(0);
  other.join();
  for (int i = 0; i < 2; ++i) pass_on(static_cast<CoreId>(i % 2));
  CHECK_FALSE(is_exceeded.load());
  CHECK(gate.taken() == 0);
}

TEST_CASE("a cap that becomes smaller lets nobody in before enough have left") {
  ConnectGate gate(3, 2);
  for (int i = 0; i < 3; ++i) REQUIRE(gate.try_enter(0, 1));
  CHECK_FALSE(gate.try_enter(1, 5));
  gate.set_max(1);
  CHECK_FALSE(gate.leave().has_value());
  CHECK_FALSE(gate.leave().has_value());
  CHECK(gate.taken() == 1);
  CHECK(gate.leave() == CoreId{1});
  CHECK(gate.taken() == 1);
  gate.set_max(2);
  CHECK(gate.try_enter(0, 9));
}

}  // namespace
}  // namespace helios
