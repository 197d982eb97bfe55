// What getting a backend that is idle and giving it back executes: each instruction is looked at
// before it runs. (That neither allocates is seen by query_path_test.cc and bench/micro.)
#include <doctest/doctest.h>

#include <cstdint>

#include "helios/pool/slice.h"

// A sanitizer brings instructions of its own.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HELIOS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HELIOS_SANITIZED 1
#endif
#endif

#if defined(__x86_64__) && !defined(HELIOS_SANITIZED)

#include <signal.h>
#include <ucontext.h>
#include <x86intrin.h>

#include <atomic>

namespace helios {
namespace {

// An atomic read-modify-write: a LOCK prefix, or XCHG with memory, which needs none.
bool is_locked(const uint8_t* at) noexcept {
  const auto is_prefix = [](uint8_t byte) {
    return byte == 0x66 || byte == 0x67 || byte == 0xf2 || byte == 0xf3 || byte == 0x2e ||
           byte == 0x36 || byte == 0x3e || byte == 0x26 || byte == 0x64 || byte == 0x65;
  };
  while (is_prefix(*at)) ++at;
  if (*at == 0xf0) return true;
  if ((*at & 0xf0) == 0x40) ++at;  // REX.
  const bool is_exchange = *at == 0x86 || *at == 0x87;
  return is_exchange && (at[1] & 0xc0) != 0xc0;
}

struct Steps {
  uint64_t all = 0;
  uint64_t locked = 0;
};
Steps steps;

void on_step(int, siginfo_t*, void* context) noexcept {
  const auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  ++steps.all;
  if (is_locked(reinterpret_cast<const uint8_t*>(registers[REG_RIP]))) ++steps.locked;
}

// With the trap flag set the CPU raises SIGTRAP behind each instruction.
template <typename Run>
Steps steps_of(Run run) noexcept {
  constexpr unsigned long long trap_flag = 0x100;
  struct sigaction action = {};
  struct sigaction before;
  action.sa_sigaction = &on_step;
  action.sa_flags = SA_SIGINFO;
  REQUIRE(sigaction(SIGTRAP, &action, &before) == 0);
  steps = {};
  __writeeflags(__readeflags() | trap_flag);
  asm volatile("nop");  // The first trap comes behind it.
  run();
  __writeeflags(__readeflags() & ~trap_flag);
  REQUIRE(sigaction(SIGTRAP, &before, nullptr) == 0);
  return steps;
}

struct IdleBackend final : PooledBackend {};

// One of several cores; connects at once.
class QuietCore final : public SlicePort, public Postbox {
 public:
  explicit QuietCore(CoreId cores_count) : cores_count_(cores_count) {}
  [[nodiscard]] CoreId core() const noexcept override { return 0; }
  [[nodiscard]] CoreId cores_count() const noexcept override { return cores_count_; }
  void send(CoreId, const Message&) noexcept override {}
  bool connect(Slice&) noexcept override { return true; }
  void withdraw(Slice&) noexcept override {}
  bool screen(Slice&, PooledBackend&) noexcept override { return true; }
  void hand_over(Slice&, PooledBackend&, Waiter&) noexcept override {}
  void move(Slice&, PooledBackend&, CoreId) noexcept override {}
  void close(Slice&, PooledBackend&) noexcept override {}
  void on_reserve_freed(Slice&) noexcept override {}
  void activate(Slice&) noexcept override {}

 private:
  CoreId cores_count_;
};

TEST_CASE("the steps count: an atomic increment and an exchange are seen, a load and a store not") {
  std::atomic<uint64_t> count{0};
  CHECK(steps_of([&] { count.fetch_add(1); }).locked == 1);
  CHECK(steps_of([&] { (void)count.exchange(5); }).locked == 1);
  const Steps plain = steps_of([&] {
    const uint64_t seen = count.load(std::memory_order_acquire);
    count.store(seen + 1, std::memory_order_release);
  });
  CHECK(plain.locked == 0);
  CHECK(plain.all > 2);
}

TEST_CASE("getting an idle backend and giving it back is no atomic read-modify-write") {
  for (const CoreId cores_count : {CoreId{1}, CoreId{4}}) {
    CAPTURE(cores_count);
    auto* made = new PoolSpec;
    made->limits.max_connections = 4u * cores_count;
    const PoolSpecRef spec(made);
    QuietCore core(cores_count);
    Slice slice(spec, core, core);
    IdleBackend backends[2];
    for (IdleBackend& backend : backends) {
      REQUIRE(slice.warm_up(0));
      slice.on_connected(backend, 0);
    }
    bool is_good = true;
    const Steps seen = steps_of([&] {
      for (Nanoseconds now = 1; now <= 10; ++now) {
        PooledBackend* backend = slice.try_acquire();
        is_good &= backend != nullptr;
        slice.release(*backend, now);
      }
    });
    CHECK(is_good);
    CHECK(seen.all > 100);
    CHECK(seen.locked == 0);
    for (IdleBackend& backend : backends) {
      slice.take_idle(backend);
      slice.on_gone();
    }
  }
}

}  // namespace
}  // namespace helios

#endif
